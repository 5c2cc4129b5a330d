//! Makes the call: everything that can be wrong with a request is found here.

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::header::HeaderMap;
use http_body::Body as HttpBody;

use super::arrived::Arrived;
use super::gate_headers::GateHeaders;
use super::intake::read_body;
use super::make::{make_call, measured};
use super::options::CallerOptions;
use super::pass::{Payer, is_authorized};
use super::settings::Settings;
use super::{encoding, short};
use crate::Error;
use crate::body::BoxError;
use crate::call::{Call, Credentials, Deadline, Options};
use crate::endpoint::Endpoint;
use crate::openai::{self, Face};
use crate::payload::{Payload, Payloads};
use crate::receipt::Receipt;

/// The call that a request is, or what is wrong with it.
pub(super) async fn identify<B>(
    settings: &Settings,
    mut arrived: Arrived<'_>,
    gate_headers: Result<GateHeaders, Error>,
    body: B,
    receipt: &Receipt,
) -> Result<Call, Error>
where
    B: HttpBody,
    B::Error: Into<BoxError>,
{
    let client = settings.keys.admit(&mut arrived.headers, arrived.certified.as_ref())?;
    if let Some(client) = client {
        receipt.note(|facts| (facts.key, facts.labels) = (Some(client.name()), client.labels()));
        if let Some(turn) = client.take_turn(settings.turns.as_deref())? {
            turn.await?;
        }
    }
    if arrived.target.account.is_none() || arrived.target.endpoint == Endpoint::Messages && arrived.elsewhere.is_none()
    {
        short::take_api_key(&mut arrived.headers);
    }
    let headers = &arrived.headers;
    if arrived.method != Method::POST {
        return Err(Error::Method { asked: arrived.method, takes: "POST" });
    }
    let payer = Payer::of(settings, arrived.target.account)?;
    let has_token = settings.has_token && payer.credentials == Credentials::Gate;
    if !has_token && arrived.elsewhere.is_none() && !is_authorized(headers) {
        return Err(Error::Unauthorized(
            "no token: send `Authorization: Bearer <Workers AI API token>` (or X-Auth-Email with X-Auth-Key), or give the \
             gate its own ([upstream] api_token_env; Builder::token)"
                .into(),
        ));
    }
    let gate_headers = gate_headers?;
    let options = gate_headers
        .has_options
        .then(|| noted(CallerOptions::read(headers, settings.has_gateway, &settings.complaints), receipt));
    let body = match arrived.body.take() {
        Some(body) => body,
        None => read_body(settings, headers, body).await?,
    };
    keep_request(&settings.payloads, headers, &body, receipt);
    let content = encoding::decode(settings, &arrived.headers, &body)?;
    let (body, content, answer) = short::translated(settings, &mut arrived, body, content)?;
    let measured = measured(&arrived, body, content).await?;
    let mut call = make_call(settings, payer, arrived, measured, receipt)?;
    call.face = answer.map_or(call.face, Face::OpenAi);
    if let Face::OpenAi(answer) = call.face {
        openai::request::fits(answer, &call.model)?;
    }
    call.ceiling = gate_headers.ceiling;
    if let Some(options) = options.filter(|options| *options != Options::default()) {
        call.deadline = options.request_timeout.and_then(Deadline::after);
        call.options = Arc::new(options);
    }
    if let Some(client) = client {
        client.may_ask(&call.model.id)?;
        if let Some(model) = &call.named_beside {
            client.may_ask(&model.id)?;
        }
        (call.key, call.models) = (Some(client.name()), client.models());
    }
    if let Some(digests) = &settings.digests {
        let (digest, beginning) = (digests.whole(&call), digests.beginning(&call));
        receipt.note(|facts| (facts.digest, facts.beginning) = (Some(digest), beginning));
    }
    Ok(call)
}

/// What is known of a call before its body is here stands on its receipt also if that body is no good.
pub(super) fn noted(all: CallerOptions, receipt: &Receipt) -> Options {
    let CallerOptions { options, metadata, event_id, collect } = all;
    receipt.note(|facts| {
        facts.metadata = metadata.into();
        facts.event_id = event_id.map(Into::into);
        facts.collect = collect;
    });
    options
}

fn keep_request(payloads: &Payloads, headers: &HeaderMap, body: &Bytes, receipt: &Receipt) {
    if payloads.wants(receipt.read(|facts| facts.collect)) {
        let mut copying = payloads.copying(headers);
        copying.push(body);
        let payload = Payload { request: copying.finish(), ..Payload::default() };
        receipt.note(|facts| facts.payload = Some(Box::new(payload)));
    }
}
