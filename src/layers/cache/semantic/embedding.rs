//! The call that makes a vector of a message.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use serde_json::json;
use tower::{Service, ServiceExt};

use super::vector;
use crate::Error;
use crate::call::Call;
use crate::layers::{Reply, identify};

/// Some 8,000 dimensions with all their digits.
const MAX_REPLY_BYTES: usize = 256 * 1024;

/// What is sent.
pub(super) fn body(text: &str) -> Option<Bytes> {
    serde_json::to_vec(&json!({"text": [text]})).ok().map(Bytes::from)
}

/// Makes the call, and writes on its receipt how it ended. `None` where it brought no vector.
pub(super) async fn make<S>(inner: S, call: Call) -> Option<Arc<[f32]>>
where
    S: Service<Call, Response = Reply, Error = Error>,
{
    let receipt = call.receipt.clone();
    let reply = match inner.oneshot(call).await {
        Ok(reply) => reply,
        Err(error) => {
            receipt.note(|facts| (facts.outcome, facts.refused) = (error.outcome(), Some(error.code())));
            return None;
        }
    };
    let (outcome, status) = (identify::outcome(&reply, &receipt), reply.status());
    let body = Limited::new(reply.into_body(), MAX_REPLY_BYTES).collect().await.ok()?.to_bytes();
    receipt.note(|facts| {
        (facts.outcome, facts.status, facts.reply_bytes) = (outcome, Some(status), body.len() as u64);
    });
    vector::read(&body)
}
