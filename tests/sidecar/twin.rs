//! A server between a client and the gate that asks the vendor the same, and compares what both say byte by byte.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, HeaderName, header};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::support::{Gate, client};

/// One before a gate on a free port of loopback, on a thread of its own.
pub struct Twin {
    pub url: String,
    asked: Arc<Asked>,
}

struct Asked {
    gate: String,
    vendor: String,
    client: reqwest::Client,
    /// Of each call its path, and how the replies differ if they do.
    seen: Mutex<Vec<(String, Option<String>)>>,
}

impl Twin {
    pub fn before(gate: &Gate) -> Self {
        let (gate, vendor) = (gate.url(""), gate.vendor.base_url());
        let asked = Arc::new(Asked { gate, vendor, client: client(), seen: Mutex::default() });
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address: SocketAddr = listener.local_addr().unwrap();
        let router = axum::Router::new().fallback(both).with_state(asked.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), router).await.unwrap();
            });
        });
        Self { url: format!("http://{address}"), asked }
    }

    /// The paths that were asked for; fails where one reply was not the vendor's.
    pub fn compared(&self) -> Vec<String> {
        let seen = self.asked.seen.lock().unwrap();
        let differ: Vec<_> = seen.iter().filter_map(|(path, how)| Some(format!("{path}: {}", how.as_ref()?))).collect();
        assert!(differ.is_empty(), "not the vendor's bytes: {}", differ.join("\n"));
        seen.iter().map(|(path, _)| path.clone()).collect()
    }
}

async fn both(State(asked): State<Arc<Asked>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let path = head.uri.path_and_query().unwrap().to_string();
    let ask = async |base: &str, path: &str, body: &[u8], more: HashMap<String, String>| {
        let mut headers = head.headers.clone();
        for (name, value) in more {
            headers.insert(HeaderName::try_from(name).unwrap(), value.parse().unwrap());
        }
        for own in [header::HOST, header::CONTENT_LENGTH, header::CONNECTION, header::TRANSFER_ENCODING] {
            headers.remove(own);
        }
        let sent = asked.client.request(head.method.clone(), format!("{base}{path}")).headers(headers);
        let reply = sent.body(body.to_vec()).send().await.unwrap();
        let (status, headers) = (reply.status(), reply.headers().clone());
        (status, headers, reply.bytes().await.unwrap())
    };
    // The stand-in has no universal endpoint: it is asked the first of the steps by itself.
    let mut is_step = false;
    let vendors = match serde_json::from_slice::<Vec<Step<'_>>>(&body) {
        Ok(mut steps) => {
            is_step = true;
            let Step { provider, endpoint, headers, query } = steps.swap_remove(0);
            ask(&asked.vendor, &format!("{path}/{provider}/{endpoint}"), query.get().as_bytes(), headers).await
        }
        Err(_) => ask(&asked.vendor, &path, &body, HashMap::new()).await,
    };
    let (status, headers, body) = ask(&asked.gate, &path, &body, HashMap::new()).await;
    let how = difference(&vendors, &(status, headers.clone(), body.clone()), is_step);
    asked.seen.lock().unwrap().push((path, how));
    let mut reply = Response::new(Body::from(body));
    *reply.status_mut() = status;
    *reply.headers_mut() = headers;
    reply.headers_mut().remove(header::TRANSFER_ENCODING);
    reply
}

/// One of the list that a client of the AI Gateway's sends.
#[derive(Deserialize)]
struct Step<'a> {
    provider: String,
    endpoint: String,
    headers: HashMap<String, String>,
    #[serde(borrow)]
    query: &'a RawValue,
}

/// How the gate's reply differs from the vendor's, but for headers that the gate adds. What comes out of the cache may be made of
/// parts of several answers, and has the same vectors.
fn difference(
    vendors: &(http::StatusCode, HeaderMap, Bytes),
    gates: &(http::StatusCode, HeaderMap, Bytes),
    is_step: bool,
) -> Option<String> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let is_kept = gates.1.get("cf-aig-cache-status").is_some_and(|status| status == "HIT");
    let vectors = |bytes: &Bytes| Some(serde_json::from_slice::<Value>(bytes).ok()?.pointer("/result/data")?.clone());
    // A step by itself is another request, and the stand-in names its answer by sixteen other digits.
    let nameless = |bytes: &Bytes| {
        let text = text(bytes);
        let words = text.split(|end: char| !end.is_ascii_alphanumeric()).filter(|word| word.len() != 16);
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    let is_stream = gates.1.get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
    let is_same = vendors.2 == gates.2
        || is_step && is_stream
        || is_step && nameless(&vendors.2) == nameless(&gates.2)
        || is_kept && vectors(&gates.2).is_some_and(|kept| Some(kept) == vectors(&vendors.2));
    if vendors.0 != gates.0 || !is_same {
        return Some(format!("{} {}\nfor {} {}", gates.0, text(&gates.2), vendors.0, text(&vendors.2)));
    }
    let own = [header::DATE, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION];
    let is_told = |(name, value)| gates.1.get_all(name).iter().any(|told| told == value);
    let lost = vendors
        .1
        .iter()
        .filter(|_| !is_kept && !is_step)
        .find(|(name, value)| !own.contains(name) && !is_told((*name, *value)));
    lost.map(|(name, value)| format!("{name}: {value:?} is missing"))
}
