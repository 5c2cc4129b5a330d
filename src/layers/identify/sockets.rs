//! Requests that ask to become a WebSocket: calls like any other, whose reply is an upgrade.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::uri::Uri;
use http::{Response, StatusCode, request};
use hyper::upgrade::OnUpgrade;
use percent_encoding::percent_decode_str;
use tower::Service;
use tracing::Instrument;

use super::calls::ask;
use super::deepgram::Deepgram;
use super::gate_headers::GateHeaders;
use super::identified::noted;
use super::options::CallerOptions;
use super::pass::{Payer, is_authorized, vouch};
use super::path::CanonicalPath;
use super::refusal::{Refusal, hand_over, write_id};
use super::reply::ReplyBody;
use super::route::{Route, Socket};
use super::settings::Settings;
use super::universal_socket;
use super::{model, span};
use crate::Error;
use crate::call::{Ask, Call, Credentials, Deadline, Endpoint, Head, Options};
use crate::catalogue::Task;
use crate::endpoint::ErrorForm;
use crate::headers::strip_hop_by_hop;
use crate::layers::Reply;
use crate::openai::Face;
use crate::receipt::{ReadBy, Receipt};
use crate::socket::{Audio, Handshake, Held, Meter, Opening, Tunnel, pairs, take_protocol_token};
use crate::trace::TraceContext;

/// As any call is answered; of an upgrade both sides go on by themselves.
pub(super) async fn answer<S>(
    settings: &Arc<Settings>,
    inner: &mut S,
    head: &mut request::Parts,
    uri: &Uri,
    path: &CanonicalPath<'_>,
) -> Response<ReplyBody>
where
    S: Service<Call, Response = Reply, Error = Error> + Clone + Send + 'static,
    S::Future: Send,
{
    let offered = take_protocol_token(&mut head.headers);
    if let Route::Universal(universal) = Route::of(path.decoded())
        && universal.is_known(settings)
    {
        return universal_socket::answer(settings, inner, head, offered, &universal);
    }
    let refusal = Refusal { form: ErrorForm::Cloudflare, budget_status: None };
    let readers = match head.extensions.remove::<ReadBy>() {
        None => settings.readers.clone(),
        Some(ReadBy(own)) => settings.readers.iter().cloned().chain([own]).collect(),
    };
    let receipt = Receipt::open(readers, settings.catalogue.nameless(Task::Unknown));
    receipt.note(|facts| {
        facts.endpoint = Some(Endpoint::Socket);
        facts.trace = settings.traces.map(|share| TraceContext::of(&head.headers, facts.id.to_bytes(), share));
    });
    let (handshake, call) = match identify(settings, head, uri, path, offered, &receipt).await {
        Ok(identified) => identified,
        Err(error) => return hand_over(Err(error), receipt, refusal, &settings.payloads),
    };
    let (span, asked) = (span::open(&call), call.clone());
    let reply = ask(inner, call).instrument(span.clone()).await;
    let opened = match reply {
        Ok(reply) if reply.status() == StatusCode::SWITCHING_PROTOCOLS => open(reply, handshake, &asked),
        other => Opened::Refused(other),
    };
    drop(asked);
    let (mut reply, tunnel) = match opened {
        Opened::Open(reply, tunnel) => (reply, tunnel),
        Opened::Refused(reply) => return hand_over(reply, receipt, refusal, &settings.payloads),
    };
    let status = reply.status();
    let id = receipt.note(|facts| {
        facts.status = Some(status);
        facts.first_byte = Some(facts.opened_at.elapsed());
        facts.id
    });
    write_id(reply.headers_mut(), id);
    tokio::spawn(tunnel.run().instrument(span));
    reply.map(ReplyBody::unmetered)
}

/// What came of a call for a socket.
enum Opened {
    /// The vendor has accepted it: the client's answer, and both ends.
    Open(Reply, Tunnel),
    /// What the client is told instead.
    Refused(Result<Reply, Error>),
}

fn open(mut reply: Reply, handshake: Handshake, call: &Call) -> Opened {
    let vendor = reply.extensions_mut().remove::<OnUpgrade>();
    let meter = reply.extensions_mut().remove::<Arc<Meter>>().or_else(|| Meter::of(call).map(Arc::new));
    let held = reply.extensions_mut().remove::<Held>();
    let key = call.head.headers.get(header::SEC_WEBSOCKET_KEY);
    let (Some(vendor), Some(meter)) = (vendor, meter) else {
        let why = "its connection cannot be upgraded: let the HTTP client speak HTTP/1.1 and keep the upgrade".into();
        return Opened::Refused(Err(Error::Unreachable { host: "upstream".into(), why, was_sent: false }));
    };
    if let Err(error) = handshake.answer(&mut reply, key) {
        return Opened::Refused(Err(error));
    }
    Opened::Open(reply, Tunnel { client: handshake.client, vendor, meter, connected: handshake.connected, held })
}

async fn identify(
    settings: &Settings,
    head: &mut request::Parts,
    uri: &Uri,
    path: &CanonicalPath<'_>,
    offered: Option<HeaderValue>,
    receipt: &Receipt,
) -> Result<(Handshake, Call), Error> {
    let deepgram = Deepgram::of(path.decoded());
    if deepgram.is_some() {
        take_deepgram_token(&mut head.headers);
    }
    let client = settings.keys.admit(&mut head.headers, head.extensions.get())?;
    if let Some(client) = client {
        receipt.note(|facts| facts.key = Some(client.name()));
        if let Some(turn) = client.take_turn(settings.turns.as_deref())? {
            turn.await?;
        }
    }
    let route = match deepgram {
        Some(_) => Socket { account: None, model: None },
        None => Socket::of(path.decoded()).ok_or_else(|| no_socket(path.decoded()))?,
    };
    let payer = Payer::of(settings, route.account)?;
    let has_token = settings.has_token && payer.credentials == Credentials::Gate;
    vouch(&mut head.headers);
    if !has_token && !is_authorized(&head.headers) {
        return Err(Error::Unauthorized(
            "no token: send `Authorization: Bearer <Workers AI API token>`, `cf-aig-authorization: Bearer TOKEN`, or from a \
             browser the subprotocol `cf-aig-authorization.TOKEN`; or give the gate its own in [upstream] api_token_env"
                .into(),
        ));
    }
    GateHeaders::refuse_any(&head.headers)?;
    let options = noted(CallerOptions::read(&head.headers, settings.has_gateway, &settings.complaints), receipt);
    let options = Some(options).filter(|options| *options != Options::default());
    let handshake = Handshake::take(head, offered)?;
    let query = uri.query().unwrap_or("");
    let named = pairs(query).find(|(name, _)| *name == "model").map(|(_, value)| value);
    let named = named.map(|value| percent_decode_str(value).decode_utf8_lossy());
    let mut speaker = None;
    let asked = match (deepgram, route.model, &named) {
        (Some(deepgram), _, named) => {
            let found = deepgram.model(&settings.catalogue, named.as_deref());
            speaker = found.speaker;
            found.model.into_owned()
        }
        (None, Some(model), _) => model.to_owned(),
        (None, None, Some(named)) => named.clone().into_owned(),
        (None, None, None) => {
            return Err(Error::ModelMissing("give its name, such as @cf/deepgram/nova-3, in the path or as ?model="));
        }
    };
    let is_short = route.account.is_none();
    let meant = if is_short { settings.aliases.resolve(&settings.catalogue, &asked) } else { asked.as_str().into() };
    let model = settings.catalogue.find(model::canonical(&meant)?, Task::Unknown);
    drop(meant);
    let trace = receipt.identify(|facts| {
        facts.account = payer.account.clone();
        facts.asked = model.clone();
        facts.asked_as = (is_short && *asked != *model.id).then(|| asked.into());
        facts.model = model.clone();
        facts.trace
    });
    let (mut key, mut models) = (None, None);
    if let Some(client) = client {
        client.may_ask(&model.id)?;
        (key, models) = (Some(client.name()), client.models());
    }
    let dialect = model.socket.ok_or_else(|| no_dialect(&model.id))?;
    let query = forwarded(query, speaker);
    let opening = Opening { dialect, audio: Audio::of(dialect, &query), settings: settings.sockets };
    let mut headers = std::mem::take(&mut head.headers);
    strip_hop_by_hop(&mut headers);
    let head = Head {
        method: head.method.clone(),
        query: Some(query).filter(|query| !query.is_empty()),
        headers,
        peer: head.extensions.get().copied(),
    };
    let call = Call {
        account: payer.account,
        is_unlisted: payer.is_unlisted,
        credentials: payer.credentials,
        key,
        models,
        model,
        endpoint: Endpoint::Socket,
        face: Face::Vendor,
        stream: false,
        ask: Arc::new(Ask::default()),
        deadline: options.as_ref().and_then(|options| options.request_timeout).and_then(Deadline::after),
        options: options.map(Arc::new).unwrap_or_default(),
        head: Arc::new(head),
        body: Bytes::new(),
        decoded: None,
        model_in_body: None,
        socket: Some(Arc::new(opening)),
        named_beside: None,
        routed_to: None,
        receipt: receipt.clone(),
        allowance: None,
        ceiling: None,
        departure: None,
        assumed: None,
        elsewhere: None,
        trace,
    };
    Ok((handshake, call))
}

/// The query as it goes on: without the model's name, which has a place of its own.
fn forwarded(query: &str, speaker: Option<&str>) -> String {
    let kept = query.split('&').filter(|pair| !pair.is_empty() && pair.split('=').next() != Some("model"));
    let speaker = speaker.map(|speaker| format!("speaker={speaker}"));
    kept.map(str::to_owned).chain(speaker).collect::<Vec<_>>().join("&")
}

/// Deepgram's clients send `Authorization: Token KEY`.
fn take_deepgram_token(headers: &mut HeaderMap) {
    let sent = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes);
    let Some((scheme, token)) = sent.and_then(|sent| sent.split_at_checked(6)) else { return };
    if scheme.eq_ignore_ascii_case(b"token ")
        && let Ok(mut bearer) = HeaderValue::from_bytes(&[b"Bearer ", token].concat())
    {
        bearer.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, bearer);
    }
}

fn no_socket(path: &str) -> Error {
    let shown: String = path.chars().take(100).collect();
    Error::NotFound(format!(
        "there is no WebSocket at {shown:?}; sockets are at …/ai/run/{{model}}, /run/{{model}}, \
         /v1/{{account}}/{{gateway}}/workers-ai?model={{model}}, and for Deepgram's clients at /v1/listen, /v2/listen and /v1/speak"
    ))
}

fn no_dialect(model: &str) -> Error {
    let shown: String = model.chars().take(100).collect();
    Error::Malformed(format!(
        "{shown} has no WebSocket that is known here: ask it by POST, or tell what is said on it as `socket` in \
         [models.{shown:?}], which is \"listen\", \"turns\", \"speak\" or \"audio\""
    ))
}
