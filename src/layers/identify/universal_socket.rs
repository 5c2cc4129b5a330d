//! The AI Gateway's own WebSocket: many requests on one, told apart by their `eventId`.
//!
//! Each `universal.create` is a step of the [universal endpoint](super::universal) alone: a call like any other, with a receipt,
//! limits, budgets and the cache. Several run at once, and answers come in the order in which they are ready.
//!
//! # What it does not do
//! The vendor has not written down how it tells a refusal. Here it is a `universal.created` whose `response` is the error as the
//! route has it, with its status in `metadata`; what is no request at all gets a message of type `error`.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt, StreamExt};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Response, StatusCode, request};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tokio::sync::mpsc::{Sender, channel};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tower::Service;

use super::pass::vouch;
use super::refusal::refuse;
use super::reply::ReplyBody;
use super::route::Universal;
use super::settings::Settings;
use super::universal::{Asker, Step};
use crate::Error;
use crate::body::Body;
use crate::call::Call;
use crate::endpoint::ErrorForm;
use crate::headers::{CF_AIG_CACHE_STATUS, CF_AIG_LOG_ID};
use crate::layers::Reply;
use crate::pace::LONGEST;
use crate::socket::{Connected, Handshake};
use crate::sse::Events;

/// What every request on a socket has in common.
struct Host {
    settings: Arc<Settings>,
    account: String,
    gateway: String,
    headers: HeaderMap,
    asker: Asker,
}

/// One request, and its name.
#[derive(Deserialize)]
struct Create<'a> {
    #[serde(rename = "type")]
    kind: String,
    #[serde(borrow)]
    request: &'a RawValue,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Named {
    event_id: Value,
}

/// So many requests run at once on one socket; what comes then waits.
const MAX_AT_ONCE: usize = 64;
/// Messages on their way to the client, which a slow one holds up.
const TOLD_AT_ONCE: usize = 16;
const BUFFER_BYTES: usize = 8 * 1024;
/// For the close frame, and for the handshake's last bytes.
const FAREWELL: Duration = Duration::from_secs(5);

/// Opens it. A key is asked for at once, and again by each request.
pub(super) fn answer<S>(
    settings: &Arc<Settings>,
    inner: &S,
    head: &mut request::Parts,
    offered: Option<HeaderValue>,
    universal: &Universal<'_>,
) -> Response<ReplyBody>
where
    S: Service<Call, Response = Reply, Error = Error> + Clone + Send + 'static,
    S::Future: Send,
{
    match open(settings, head, offered) {
        Ok((reply, client, connected)) => {
            let host = Host {
                settings: settings.clone(),
                account: universal.account.to_owned(),
                gateway: universal.gateway.to_owned(),
                headers: std::mem::take(&mut head.headers),
                asker: (head.extensions.get().copied(), head.extensions.remove(), head.extensions.remove()),
            };
            tokio::spawn(host.serve(inner.clone(), client, connected));
            reply.map(ReplyBody::unmetered)
        }
        Err(error) => refuse(error, ErrorForm::Cloudflare),
    }
}

fn open(
    settings: &Settings,
    head: &mut request::Parts,
    offered: Option<HeaderValue>,
) -> Result<(Reply, OnUpgrade, Option<Connected>), Error> {
    settings.keys.admit(&mut head.headers.clone(), head.extensions.get())?;
    let handshake = Handshake::take(head, offered)?;
    let key = head.headers.remove(header::SEC_WEBSOCKET_KEY);
    for name in [header::SEC_WEBSOCKET_VERSION, header::SEC_WEBSOCKET_PROTOCOL] {
        head.headers.remove(name);
    }
    let mut reply = Response::new(Body::empty());
    *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let accepted = key.as_ref().and_then(|key| HeaderValue::from_str(&derive_accept_key(key.as_bytes())).ok());
    reply.headers_mut().extend(accepted.map(|accepted| (header::SEC_WEBSOCKET_ACCEPT, accepted)));
    handshake.answer(&mut reply, key.as_ref())?;
    Ok((reply, handshake.client, handshake.connected))
}

impl Host {
    async fn serve<S>(self, inner: S, client: OnUpgrade, connected: Option<Connected>)
    where
        S: Service<Call, Response = Reply, Error = Error> + Clone + Send + 'static,
        S::Future: Send,
    {
        let Ok(Ok(upgraded)) = timeout(FAREWELL, client).await else { return };
        let longest = usize::try_from(self.settings.max_body).unwrap_or(usize::MAX);
        let config = WebSocketConfig::default()
            .read_buffer_size(BUFFER_BYTES)
            .write_buffer_size(0)
            .max_message_size(Some(longest))
            .max_frame_size(Some(longest));
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        let (mut to, mut from) = socket.split();
        let (tell, mut told) = channel::<String>(TOLD_AT_ONCE);
        let mut asked = FuturesUnordered::new();
        let sockets = self.settings.sockets;
        let limit = |limit: Duration| if limit.is_zero() { LONGEST } else { limit.min(LONGEST) };
        let ends_at = Instant::now() + limit(sockets.max_duration);
        let mut idle_at = Instant::now() + limit(sockets.idle_timeout);
        let closing = async {
            match &connected {
                Some(Connected(connection)) => connection.closing().await,
                None => std::future::pending().await,
            }
        };
        let mut closing = std::pin::pin!(closing);
        let close = loop {
            tokio::select! {
                Some(text) = told.recv() => {
                    if to.send(Message::Text(text.into())).await.is_err() {
                        break None;
                    }
                }
                Some(()) = asked.next() => idle_at = Instant::now() + limit(sockets.idle_timeout),
                message = from.next(), if asked.len() < MAX_AT_ONCE => match message {
                    Some(Ok(Message::Text(text))) => asked.push(self.answer(inner.clone(), text.into(), tell.clone())),
                    Some(Ok(Message::Binary(bytes))) => asked.push(self.answer(inner.clone(), bytes, tell.clone())),
                    Some(Ok(Message::Close(_))) | None => break None,
                    Some(Ok(_)) => {}
                    Some(Err(tokio_tungstenite::tungstenite::Error::Capacity(_))) => break Some((1009, "a message over max_body")),
                    Some(Err(_)) => break Some((1002, "what is no frame")),
                },
                () = &mut closing => break Some((1001, "the gate is stopping")),
                () = sleep_until(ends_at) => break Some((1008, "open for [sockets] max_duration")),
                () = sleep_until(idle_at), if asked.is_empty() => break Some((1000, "nothing asked for [sockets] idle_timeout")),
            }
        };
        let frame = close.map(|(code, why): (u16, &str)| CloseFrame {
            code: code.into(),
            reason: format!("tollgate: {why}").into(),
        });
        let _ = timeout(FAREWELL, async {
            let _ = to.send(Message::Close(frame)).await;
            // Until the other side has answered.
            while let Some(Ok(_)) = from.next().await {}
        })
        .await;
    }

    /// Answers one request, message by message.
    async fn answer<S>(&self, mut inner: S, message: Bytes, tell: Sender<String>)
    where
        S: Service<Call, Response = Reply, Error = Error> + Clone + Send + 'static,
        S::Future: Send,
    {
        let create = serde_json::from_slice::<Create<'_>>(&message);
        let named = create.as_ref().ok().and_then(|create| serde_json::from_str::<Named>(create.request.get()).ok());
        let event_id = named.unwrap_or_default().event_id;
        let step = match &create {
            Ok(create) if create.kind == "universal.create" => serde_json::from_str::<Step<'_>>(create.request.get()),
            Ok(create) => {
                let shown: String = create.kind.chars().take(64).collect();
                return complain(&tell, &event_id, &format!("{shown:?} is not asked here, but universal.create")).await;
            }
            Err(why) => return complain(&tell, &event_id, &format!("no request can be read: {why}")).await,
        };
        let step = match step {
            Ok(step) => step,
            Err(why) => return complain(&tell, &event_id, &format!("no request can be read: {why}")).await,
        };
        let universal = Universal { account: &self.account, gateway: &self.gateway };
        let mut headers = step.headers(&self.headers);
        vouch(&mut headers);
        let reply = match universal.path(&step) {
            Err(error) => refuse(error, ErrorForm::Cloudflare),
            Ok(uri) => {
                let query = message.slice_ref(step.query.get().as_bytes());
                Box::pin(universal.ask(&self.settings, &mut inner, &uri, headers, query, self.asker.clone())).await
            }
        };
        hand_on(reply, &event_id, &tell).await;
    }
}

/// A reply as messages. Where the client is gone, nobody hears them, and the call ends with the socket.
async fn hand_on(reply: Response<ReplyBody>, event_id: &Value, tell: &Sender<String>) {
    let (head, mut body) = reply.into_parts();
    let text = |name: &header::HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    let content_type = text(&header::CONTENT_TYPE).unwrap_or("");
    let mut metadata = json!({
        "eventId": event_id, "step": "0", "contentType": content_type,
        "cacheStatus": text(&CF_AIG_CACHE_STATUS).unwrap_or("MISS"), "logId": text(&CF_AIG_LOG_ID),
    });
    if !head.status.is_success() {
        metadata["status"] = head.status.as_u16().into();
    }
    if head.status.is_success() && content_type.starts_with("text/event-stream") {
        let _ = tell.send(json!({"type": "universal.created", "metadata": metadata}).to_string()).await;
        let mut events = Events::default();
        let short = json!({"eventId": event_id});
        loop {
            let frame = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            let is_over = match &frame {
                Some(Ok(frame)) => {
                    frame.data_ref().into_iter().for_each(|data| events.push(data));
                    false
                }
                Some(Err(why)) => return complain(tell, event_id, &format!("the stream broke off: {why}")).await,
                None => true,
            };
            let rest = |events: &mut Events| events.rest().filter(|_| is_over);
            while let Some(event) = events.next().or_else(|| rest(&mut events)) {
                let Some(data) = event.data().filter(|data| **data != *b"[DONE]") else { continue };
                let chunk = json!({"type": "universal.stream", "metadata": short, "response": value(&data)});
                if tell.send(chunk.to_string()).await.is_err() {
                    return;
                }
            }
            if is_over {
                break;
            }
        }
        let _ = tell.send(json!({"type": "universal.done", "metadata": metadata}).to_string()).await;
        return;
    }
    let response = match body.collect().await {
        Ok(collected) => value(&collected.to_bytes()),
        Err(why) => return complain(tell, event_id, &format!("the reply broke off: {why}")).await,
    };
    let _ =
        tell.send(json!({"type": "universal.created", "metadata": metadata, "response": response}).to_string()).await;
}

/// JSON as it is, other text as a text, other bytes in base64.
fn value(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).unwrap_or_else(|_| match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => STANDARD.encode(bytes).into(),
    })
}

async fn complain(tell: &Sender<String>, event_id: &Value, why: &str) {
    let error = json!({"message": format!("tollgate: {why}"), "type": "invalid_request_error"});
    let message = json!({"type": "error", "metadata": {"eventId": event_id}, "error": error});
    let _ = tell.send(message.to_string()).await;
}
