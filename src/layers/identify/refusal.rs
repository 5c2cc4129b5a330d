//! How a call that was refused, or answered, is told to its client.

use http::header::{HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use super::outcome::outcome;
use super::reply::ReplyBody;
use crate::Error;
use crate::endpoint::ErrorForm;
use crate::headers::{CF_AIG_LOG_ID, write_budget};
use crate::layers::Reply;
use crate::payload::{Copying, Payloads};
use crate::receipt::{CallId, Outcome, Receipt};

/// How a refusal is told.
#[derive(Clone, Copy)]
pub(super) struct Refusal {
    pub(super) form: ErrorForm,
    /// The status of one for money, where that is not the error's own.
    pub(super) budget_status: Option<StatusCode>,
}

/// Words of refusal that are said in more than one place.
pub(super) const NO_MODEL: &str = "give its name, such as @cf/meta/llama-3.2-1b-instruct, as \"model\" in the body";

fn keep_response(payloads: &Payloads, headers: &HeaderMap, receipt: &Receipt) -> Option<Copying> {
    let is_kept = receipt.read(|facts| facts.payload.is_some());
    is_kept.then(|| payloads.copying(headers))
}

/// Writes how the call ended on its receipt, and sends the reply off with that.
pub(super) fn hand_over(
    reply: Result<Reply, Error>,
    receipt: Receipt,
    refusal: Refusal,
    payloads: &Payloads,
) -> Response<ReplyBody> {
    let (mut reply, outcome) = match reply {
        Ok(reply) => {
            let outcome = outcome(&reply, &receipt);
            (reply, outcome)
        }
        Err(error) => {
            receipt.note(|facts| facts.refused = Some(error.code()));
            let (mut reply, outcome) = (error.response(refusal.form), error.outcome());
            if let (Some(status), Outcome::BudgetExceeded) = (refusal.budget_status, outcome) {
                *reply.status_mut() = status;
            }
            reply.extensions_mut().insert(error);
            (reply, outcome)
        }
    };
    let status = reply.status();
    let (id, budget) = receipt.note(|facts| {
        facts.status = Some(status);
        facts.first_byte = Some(facts.opened_at.elapsed());
        (facts.id, facts.budget)
    });
    write_id(reply.headers_mut(), id);
    if let Some(budget) = budget {
        write_budget(reply.headers_mut(), budget);
    }
    let copying = keep_response(payloads, reply.headers(), &receipt);
    reply.map(|body| ReplyBody::new(body, receipt, outcome, copying))
}

pub(super) fn write_id(headers: &mut HeaderMap, id: CallId) {
    if let Ok(id) = HeaderValue::from_bytes(&id.digits()) {
        headers.insert(CF_AIG_LOG_ID, id);
    }
}

pub(super) fn refuse(error: Error, form: ErrorForm) -> Response<ReplyBody> {
    let mut reply = error.response(form).map(ReplyBody::unmetered);
    reply.extensions_mut().insert(error);
    reply
}

pub(super) fn unknown_path(path: &str) -> Error {
    let shown: String = path.chars().take(100).collect();
    Error::NotFound(format!(
        "there is no route {shown:?}; calls go to /v1/chat/completions, /v1/embeddings, /v1/responses, /v1/messages, \
         /run/{{model}}, or to Cloudflare's own paths under /client/v4/accounts/{{account}}/ai/"
    ))
}
