//! What the vendor did with a call of the past, to be done again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use serde_json::json;
use tower::Service;

use crate::Error;
use crate::body::Body;
use crate::call::Call;
use crate::layers::{Reply, ReplyFuture};
use crate::neurons::Neurons;
use crate::readers::records::{Past, Usual};
use crate::usage::Usage;

/// A call's vendor: it takes the time that it took, and says what it said.
#[derive(Clone)]
pub(super) struct Vendor(Arc<Script>);

struct Script {
    asked: AtomicU32,
    /// The attempts before the last one failed, each after so long.
    failures: u32,
    each: Duration,
    last: Duration,
    end: End,
    /// Where a model of a chain answered, the others failed.
    answering: Option<String>,
    /// The model whose cost is on the record.
    model: String,
    told: RecordedUsage,
}

/// How the last attempt ended.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum End {
    /// With an answer.
    Answer,
    /// With a status and the vendor's code.
    Error(StatusCode, Option<u32>),
    /// After its time.
    Timeout,
    /// Without a reply.
    Unreachable,
    /// Its client left before.
    Never,
}

/// What an answer tells of its use.
struct RecordedUsage {
    usage: Usage,
    /// The cost, as long as the same model has the same price.
    neurons: Option<Neurons>,
    is_priced_by_tokens: bool,
    bytes: usize,
}

/// Longer answers are kept as if they were so long.
const MOST_BYTES: usize = 200 << 10;
/// The vendor's code for what a retry mends.
const OUT_OF_CAPACITY: u32 = 3040;

impl Vendor {
    /// `reprices`: the price of its model is another one now; `is_moved`: another model is asked. Says also whether its answer
    /// is only assumed.
    pub(super) fn of(past: &Past, usual: Usual, reprices: bool, is_moved: bool) -> (Self, bool) {
        let ran = past.attempts > 0;
        // What was refused here, or answered by the cache, has no answer of its own.
        let is_assumed = !ran && past.outcome != "aborted";
        let end = if is_assumed { End::Answer } else { end(past) };
        let attempts = past.attempts.max(1);
        let upstream = Duration::from_micros(past.upstream_us);
        let each = upstream / attempts;
        let all = Duration::from_micros(past.duration_us.saturating_sub(past.waited_us));
        let last =
            if is_assumed { Duration::from_micros(usual.took_us) } else { all.saturating_sub(each * (attempts - 1)) };
        let tokens = Usage::tokens(past.input_tokens, past.cached_input_tokens, past.output_tokens);
        let (usage, neurons) = match is_assumed {
            false => (tokens, past.neurons),
            true if !past.saved.is_zero() => (Usage::default(), past.saved),
            true => {
                let Usual { input_tokens, cached_input_tokens, output_tokens, neurons, .. } = usual;
                (Usage::tokens(input_tokens, cached_input_tokens, output_tokens), neurons)
            }
        };
        let is_priced_by_tokens = usage != Usage::default();
        let script = Script {
            asked: AtomicU32::new(0),
            failures: attempts - 1,
            each,
            last,
            end,
            answering: (past.step > 0 && past.attempts > 1 && !is_moved).then(|| past.model.clone()),
            model: past.model.clone(),
            told: RecordedUsage {
                usage,
                neurons: (!reprices || !is_priced_by_tokens).then_some(neurons),
                is_priced_by_tokens,
                bytes: usize::try_from(past.reply_bytes).unwrap_or(MOST_BYTES).min(MOST_BYTES),
            },
        };
        (
            Self(Arc::new(script)),
            is_assumed && !matches!(past.cache.as_deref(), Some("HIT" | "COALESCED" | "SHARED" | "SEMANTIC_HIT")),
        )
    }
}

impl Vendor {
    /// Its answer has tokens, by which any model's price tells the cost.
    pub(super) fn is_priced_by_tokens(&self) -> bool {
        self.0.told.is_priced_by_tokens
    }
}

fn end(past: &Past) -> End {
    let status = past.status.and_then(|status| StatusCode::from_u16(status).ok());
    match (&*past.outcome, past.refused.as_deref(), status) {
        ("aborted", ..) => End::Never,
        ("timeout", Some(_), _) => End::Timeout,
        (_, Some("unreachable"), _) => End::Unreachable,
        ("ok" | "cache_hit", ..) => End::Answer,
        (_, _, Some(status)) if !status.is_success() => End::Error(status, past.vendor_code),
        // It began well, and failed on its way.
        _ => End::Answer,
    }
}

impl Service<Call> for Vendor {
    type Response = Reply;
    type Error = Error;
    type Future = ReplyFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> ReplyFuture {
        let script = self.0.clone();
        Box::pin(async move { script.attempt(&call).await })
    }
}

impl Script {
    async fn attempt(&self, call: &Call) -> Result<Reply, Error> {
        let is_anothers = self.answering.as_ref().is_some_and(|model| **model != *call.model.id);
        let nth = self.asked.fetch_add(1, Ordering::Relaxed);
        if is_anothers || nth < self.failures {
            tokio::time::sleep(self.each).await;
            return Ok(match self.end {
                End::Error(status, code) if !is_anothers => refused(status, code),
                _ => refused(StatusCode::TOO_MANY_REQUESTS, Some(OUT_OF_CAPACITY)),
            });
        }
        tokio::time::sleep(self.last).await;
        match self.end {
            End::Answer => Ok(self.answer(call)),
            End::Error(status, code) => Ok(refused(status, code)),
            End::Timeout => Err(Error::Timeout { after: self.last, setting: "the record", was_sent: true }),
            End::Unreachable => {
                let why = "it was not reached then".to_owned();
                Err(Error::Unreachable { host: "upstream".into(), why, was_sent: false })
            }
            End::Never => std::future::pending().await,
        }
    }

    fn answer(&self, call: &Call) -> Reply {
        let RecordedUsage { usage, neurons, is_priced_by_tokens, bytes } = &self.told;
        let mut told = json!({
            "prompt_tokens": usage.input_tokens, "completion_tokens": usage.output_tokens,
            "prompt_tokens_details": {"cached_tokens": usage.cached_input_tokens},
        });
        let is_the_same = self.model == *call.model.id || !is_priced_by_tokens;
        if let Some(neurons) = neurons.filter(|_| is_the_same) {
            told["neurons"] = json!(neurons.as_f64());
        }
        let mut body = json!({"result": {"response": "…", "usage": told}}).to_string().into_bytes();
        body.resize(body.len().max(*bytes), b' ');
        let mut reply = Response::new(Body::from(Bytes::from(body)));
        reply.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        reply
    }
}

/// The vendor's no.
fn refused(status: StatusCode, code: Option<u32>) -> Reply {
    let body = json!({"success": false, "errors": [{"code": code, "message": ""}]});
    let mut reply = Response::new(Body::from(Bytes::from(body.to_string())));
    *reply.status_mut() = status;
    reply
}
