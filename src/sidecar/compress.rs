//! Replies in gzip or zstd, for clients that ask for it (`[compat] compress`).
//!
//! Only text that is here as a whole is encoded: an encoder keeps back what comes until it has enough of it, and no stream is
//! to wait for that. What is too short to gain from it goes as it is.

use http::Response;
use http::header;
use http_body::Body;
use tower_http::compression::{CompressionLayer, Predicate};

/// See the [module](self).
#[derive(Clone, Copy, Debug)]
pub(super) struct IsWholeText;

/// Shorter ones fit into a packet as they are.
const LEAST_BYTES: u64 = 1024;

/// Encodes what the service below it replies.
pub(super) fn layer() -> CompressionLayer<IsWholeText> {
    CompressionLayer::new().compress_when(IsWholeText)
}

impl Predicate for IsWholeText {
    fn should_compress<B: Body>(&self, reply: &Response<B>) -> bool {
        let content_type =
            reply.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
        let is_text = crate::headers::is_json(content_type) || content_type.starts_with("text/");
        is_text
            && content_type != "text/event-stream"
            && reply.body().size_hint().exact().is_some_and(|bytes| bytes >= LEAST_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_text_that_is_whole_and_long_is_encoded() {
        let reply = |content_type: &str, body: crate::body::Body| {
            IsWholeText
                .should_compress(&Response::builder().header(header::CONTENT_TYPE, content_type).body(body).unwrap())
        };
        let long = || crate::body::Body::from("x".repeat(2000));
        assert!(reply("application/json", long()) && reply("text/plain; charset=utf-8", long()));
        assert!(
            !reply("application/json", "{}".into())
                && !reply("image/png", long())
                && !reply("text/event-stream", long())
        );
        let coming = crate::body::Body::stream(http_body_util::StreamBody::new(futures_util::stream::pending::<
            Result<http_body::Frame<bytes::Bytes>, std::io::Error>,
        >()));
        assert!(!reply("application/json", coming));
    }
}
