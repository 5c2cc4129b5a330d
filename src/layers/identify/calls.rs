//! From a request that has arrived to its call, and to its answer.

use std::future::poll_fn;

use http::Response;
use http_body::Body as HttpBody;
use tower::Service;
use tracing::{Instrument, Span};

use super::arrived::Arrived;
use super::gate_headers::GateHeaders;
use super::identified::identify;
use super::refusal::{Refusal, hand_over};
use super::reply::ReplyBody;
use super::settings::Settings;
use super::{dry, keepalive, short, span};
use crate::Error;
use crate::body::BoxError;
use crate::call::Call;
use crate::endpoint::ErrorForm;
use crate::layers::Reply;
use crate::payload::Payloads;
use crate::receipt::{ReadBy, Receipt};
use crate::trace::TraceContext;

pub(super) async fn answer_call<S, B>(
    settings: &Settings,
    inner: &mut S,
    arrived: Arrived<'_>,
    body: B,
) -> Response<ReplyBody>
where
    S: Service<Call, Response = Reply, Error = Error> + Clone + Send + 'static,
    S::Future: Send,
    B: HttpBody,
    B::Error: Into<BoxError>,
{
    let endpoint = arrived.target.endpoint;
    let refusal = Refusal {
        form: if arrived.route.is_some() { ErrorForm::OpenAi } else { endpoint.error_form() },
        budget_status: short::is_openai(settings, &arrived).then_some(settings.openai.budget_status),
    };
    let gate_headers = match GateHeaders::read(&arrived.headers) {
        Ok(gate_headers) if gate_headers.is_dry || arrived.is_dry => {
            // Few requests are so.
            return Box::pin(dry::answer(settings, arrived, gate_headers, body, refusal)).await;
        }
        gate_headers => gate_headers,
    };
    let (is_step, readers) = (
        arrived.body.is_some(),
        match &arrived.reader {
            None => settings.readers.clone(),
            Some(ReadBy(own)) => settings.readers.iter().chain([own]).cloned().collect(),
        },
    );
    let receipt = Receipt::open(readers, settings.catalogue.nameless(endpoint.guess()));
    receipt.note(|facts| {
        facts.endpoint = Some(endpoint);
        facts.trace = settings.traces.map(|share| TraceContext::of(&arrived.headers, facts.id.to_bytes(), share));
    });
    let call = match identify(settings, arrived, gate_headers, body, &receipt).await {
        Ok(call) => call,
        Err(error) => return hand_over(Err(error), receipt, refusal, &settings.payloads),
    };
    let (span, keepalive) = (span::open(&call), settings.keepalive.filter(|_| call.stream && !is_step));
    let Some(every) = keepalive else {
        let reply = ask(inner, call).instrument(span).await;
        return hand_over(reply, receipt, refusal, &settings.payloads);
    };
    let id = receipt.read(|facts| facts.id);
    keepalive::answer(answering(inner.clone(), call, span, receipt, refusal, settings.payloads), every, endpoint, id)
        .await
}

/// The answer of a call whose stream may be kept alive before it has begun. It has a box of its own, or every call would have
/// room for it.
fn answering<S>(
    mut inner: S,
    call: Call,
    span: Span,
    receipt: Receipt,
    refusal: Refusal,
    payloads: Payloads,
) -> keepalive::Answering
where
    S: Service<Call, Response = Reply, Error = Error> + Send + 'static,
    S::Future: Send,
{
    Box::pin(async move { hand_over(ask(&mut inner, call).await, receipt, refusal, &payloads) }.instrument(span))
}

pub(super) async fn ask<S>(inner: &mut S, call: Call) -> Result<Reply, Error>
where
    S: Service<Call, Response = Reply, Error = Error>,
{
    poll_fn(|cx| inner.poll_ready(cx)).await?;
    let Some(deadline) = call.deadline else { return inner.call(call).await };
    let receipt = call.receipt.clone();
    match tokio::time::timeout_at(deadline.at, inner.call(call)).await {
        Ok(reply) => reply,
        Err(_) => {
            Err(receipt
                .read(|facts| deadline.passed(facts, facts.attempts.iter().any(|attempt| attempt.may_have_cost))))
        }
    }
}
