//! Trouble with the vendor's books, which is no trouble with its models.

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderValue, Response, StatusCode, header};
use http_body::Frame;
use http_body_util::StreamBody;
use serde_json::json;

use crate::body::Body;

/// What is wrong with the list of models and the analytics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BooksTrouble {
    /// 503 and a page of HTML.
    Down,
    /// No answer.
    Silent,
    /// The token may not.
    NotAllowed,
    /// 200, and bytes that say nothing.
    Garbage,
    /// 200, and a body without end.
    Endless,
    /// A list of models with ever more pages.
    EndlessPages,
}

impl BooksTrouble {
    /// Instead of an answer; `None` where there is one after all.
    pub(super) async fn reply(self, is_graphql: bool) -> Option<Response<Body>> {
        let html = "<html><body>upstream connect error</body></html>";
        match self {
            Self::Down => Some(reply(503, "text/html", html.into())),
            Self::Silent => std::future::pending().await,
            Self::NotAllowed if is_graphql => {
                let errors = json!([{"message": "not authorized for that account", "path": null}]);
                Some(json_reply(200, &json!({"data": null, "errors": errors})))
            }
            Self::NotAllowed => {
                let errors = json!([{"code": 10000, "message": "Authentication error"}]);
                Some(json_reply(403, &json!({"success": false, "errors": errors, "messages": [], "result": null})))
            }
            Self::Garbage => Some(reply(200, "application/json", "\u{fffd}{\"result\": [".into())),
            Self::Endless => {
                let piece = Bytes::from_static(&[b' '; 16 * 1024]);
                let pieces = stream::repeat_with(move || Ok::<_, std::io::Error>(Frame::data(piece.clone())));
                Some(reply(200, "application/json", Body::stream(StreamBody::new(pieces))))
            }
            Self::EndlessPages => None,
        }
    }
}

fn json_reply(status: u16, json: &serde_json::Value) -> Response<Body> {
    reply(status, "application/json", json.to_string().into())
}

fn reply(status: u16, kind: &'static str, body: Body) -> Response<Body> {
    let mut reply = Response::new(body);
    *reply.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    reply
}
