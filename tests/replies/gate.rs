//! The gate around a vendor that sends one reply.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use parking_lot::Mutex;
use tollgate::body::{Body, BoxError};
use tollgate::call::{Call, Endpoint};
use tollgate::catalogue::Catalogue;
use tollgate::layers::{cache, identify, meter};
use tollgate::receipt::{Facts, Reader};
use tower::{ServiceBuilder, ServiceExt, service_fn};

use super::generate::Reply;
use super::reckon::{Told, told};

pub struct Answer {
    pub told: Told,
    pub facts: Facts,
}

#[derive(Default)]
struct Sealed(Mutex<Vec<Facts>>);

impl Reader for Sealed {
    fn sealed(&self, receipt: &Facts) {
        self.0.lock().push(receipt.clone());
    }
}

pub const MODEL: &str = "@cf/meta/llama-3.2-1b-instruct";

static CATALOGUE: LazyLock<Arc<Catalogue>> = LazyLock::new(Arc::default);

fn body(sent: Bytes, resets: bool, piece: usize) -> Body {
    let pieces: Vec<Bytes> = sent.chunks(piece).map(Bytes::copy_from_slice).collect();
    let frames = pieces.into_iter().map(|bytes| Ok(Frame::data(bytes)));
    let end = resets.then(|| Err(BoxError::from("the connection was reset")));
    Body::stream(StreamBody::new(futures_util::stream::iter(frames.chain(end))))
}

/// Sends a reply through the gate in pieces of this size, perhaps with a reset at its end, and asks again for the same.
pub fn answer(reply: &Reply, sent: &[u8], resets: bool, piece: usize) -> Answer {
    let sealed = Arc::new(Sealed::default());
    let replies = Arc::new(Mutex::new(vec![(Bytes::copy_from_slice(sent), reply.content_type)]));
    let vendor = service_fn(move |_: Call| {
        let next = replies.lock().pop();
        async move {
            Ok::<_, tollgate::Error>(match next {
                Some((bytes, kind)) => {
                    Response::builder().header(header::CONTENT_TYPE, kind).body(body(bytes, resets, piece)).unwrap()
                }
                None => Response::builder().status(500).body(Body::empty()).unwrap(),
            })
        }
    });
    let mut door = identify::Settings::default();
    (door.catalogue, door.account, door.has_token) = (CATALOGUE.clone(), Some("023e".into()), true);
    door.readers = Arc::new([sealed.clone() as Arc<dyn Reader>]);
    let mut kept = cache::Settings::default();
    (kept.sampled, kept.max_bytes) = (true, 1 << 20);
    let rest = service_fn(|_: Request<Body>| async { Ok::<_, tollgate::Error>(Response::new(Body::empty())) });
    let gate = ServiceBuilder::new()
        .layer(identify::IdentifyLayer::new(door, rest))
        .layer(cache::CacheLayer::new(kept))
        .layer(meter::MeterLayer::default())
        .service(vendor);
    let path = match reply.endpoint {
        Endpoint::ChatCompletions => "/v1/chat/completions",
        Endpoint::Responses => "/v1/responses",
        _ => "/run",
    };
    let ask = || {
        let body = serde_json::json!({"model": MODEL, "prompt": "x", "messages": [], "stream": reply.is_stream});
        Request::post(path).body(Body::from(body.to_string())).unwrap()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let is_kept = runtime.block_on(async {
        let first = gate.clone().oneshot(ask()).await.unwrap();
        let _ = first.into_body().collect().await;
        let second = gate.oneshot(ask()).await.unwrap();
        second.headers().get("cf-aig-cache-status").is_some_and(|status| status == "HIT")
    });
    let facts = sealed.0.lock()[0].clone();
    Answer { told: told(&facts, is_kept), facts }
}
