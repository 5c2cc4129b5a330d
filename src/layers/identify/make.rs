//! The call that a request makes: its body measured, its model found.

use std::sync::Arc;

use bytes::Bytes;
use http::header;

use super::arrived::Arrived;
use super::encoding::Content;
use super::model;
use super::pass::Payer;
use super::read::{asks_for_queue, malformed, read, unread};
use super::reading::Reading;
use super::settings::Settings;
use super::short::{self, NamedModel};
use crate::Error;
use crate::call::{Ask, Call, Endpoint, Head};
use crate::catalogue::Task;
use crate::headers::strip_hop_by_hop;
use crate::openai::{self, Face};
use crate::receipt::Receipt;

/// A body of so many bytes is long to read.
const LONG_BYTES: usize = 512 * 1024;

/// A body, and what was read of it.
pub(super) struct Measured {
    body: Bytes,
    /// Without its content encoding, where it has one.
    decoded: Option<Bytes>,
    reading: Reading,
}

pub(super) async fn measured(arrived: &Arrived<'_>, body: Bytes, content: Content) -> Result<Measured, Error> {
    let endpoint = arrived.target.endpoint;
    let content_type = arrived.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let (decoded, reading) = match content {
        Content::Plain => (None, read_aside(&body, content_type, endpoint).await),
        Content::Decoded(plain) => {
            let reading = read_aside(&plain, content_type, endpoint).await;
            (Some(plain), reading)
        }
        Content::Broken(why) if arrived.target.model.is_none() => return Err(Error::Malformed(why)),
        Content::Broken(_) => (None, unread(&body)),
    };
    Ok(Measured { body, decoded, reading })
}

/// A body that takes milliseconds to read, as a long sound does, is read on a thread for such work: the calls beside it go on.
async fn read_aside(body: &Bytes, content_type: &str, endpoint: Endpoint) -> Reading {
    if body.len() < LONG_BYTES {
        return read(body, content_type, endpoint);
    }
    let (bytes, content_type) = (body.clone(), content_type.to_owned());
    let reading = tokio::task::spawn_blocking(move || read(&bytes, &content_type, endpoint)).await;
    reading.unwrap_or_else(|_| unread(body))
}

pub(super) fn make_call(
    settings: &Settings,
    payer: Payer,
    arrived: Arrived<'_>,
    measured: Measured,
    receipt: &Receipt,
) -> Result<Call, Error> {
    let is_openai = short::is_openai(settings, &arrived);
    let Arrived { target, elsewhere, own, asked, method, query, mut headers, peer, .. } = arrived;
    let Measured { body, decoded, reading } = measured;
    let Reading { mut ask, stream, model: named, broken, .. } = reading;
    let plain = decoded.as_ref().unwrap_or(&body);
    let is_named_by_path = own.is_some() || target.model.is_some() || elsewhere.is_some();
    if let Some(broken) = broken.filter(|_| !is_named_by_path) {
        return Err(malformed(&broken, plain));
    }
    let beside = named.as_ref().filter(|_| is_named_by_path && elsewhere.is_none()).map(|(name, _)| name.clone());
    let answer = if is_openai { openai::request::answer(target.endpoint, plain, stream)? } else { None };
    let face = answer.map_or(Face::Vendor, Face::OpenAi);
    let (endpoint, is_short) = (target.endpoint, target.account.is_none());
    let told = match &elsewhere {
        Some(elsewhere) => elsewhere.told(named),
        None => short::told(settings, &target, own, named, plain),
    };
    let NamedModel { name, place, with_name } = told?;
    let meant = if is_short { settings.aliases.resolve(&settings.catalogue, &name) } else { name.as_str().into() };
    let model = settings.catalogue.find(model::canonical(&meant)?, guess(endpoint, &ask));
    let named_beside = beside.and_then(|name| model::beside(&settings.catalogue, &model, &name));
    let is_renamed = *model.id != *name && elsewhere.is_none();
    drop(meant);
    let asked = asked.unwrap_or(name);
    ask.batch |= query.is_some_and(asks_for_queue);
    if let Some(id) = ask.poll_of.as_ref().filter(|_| !ask.batch) {
        ask.batch = settings.batches.knows(&payer.account, id);
    }
    let stream = stream && !ask.batch;
    let max_tokens = ask.max_tokens;
    let trace = receipt.identify(|facts| {
        facts.account = payer.account.clone();
        facts.asked = model.clone();
        facts.asked_as = (is_short && *asked != *model.id).then(|| asked.into());
        facts.model = model.clone();
        facts.stream = stream;
        facts.max_tokens = max_tokens;
        facts.trace
    });
    strip_hop_by_hop(&mut headers);
    let mut call = Call {
        account: payer.account,
        is_unlisted: payer.is_unlisted,
        credentials: payer.credentials,
        key: None,
        models: None,
        model,
        endpoint,
        face,
        stream,
        ask: Arc::new(ask),
        options: Arc::default(),
        head: Arc::new(Head { method, query: query.map(str::to_owned), headers, peer }),
        body,
        decoded,
        model_in_body: place,
        socket: None,
        named_beside,
        routed_to: None,
        receipt: receipt.clone(),
        assumed: None,
        allowance: None,
        ceiling: None,
        departure: None,
        elsewhere: elsewhere.map(Arc::new),
        trace,
        deadline: None,
    };
    if let Some(body) = with_name {
        call.replace_body(body);
    }
    if call.model_in_body.is_some() && is_renamed {
        // Upstream gets the name that is priced and counted here.
        call = call.with_model(call.model.clone());
    }
    call.routed_to = model::routed_to(&settings.catalogue, &call);
    Ok(call)
}

/// What a model in no table does, from what it was sent.
fn guess(endpoint: Endpoint, ask: &Ask) -> Task {
    match endpoint.guess() {
        Task::Unknown if ask.audio_ms > 0 && ask.input_images.is_empty() => Task::SpeechRecognition,
        guess => guess,
    }
}
