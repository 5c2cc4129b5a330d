//! What a tracing subscriber is told of a call.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use http::{Request, Response, header};
use http_body_util::BodyExt;
use tollgate::body::Body;
use tollgate::gateway::Gateway;
use tower::{ServiceExt, service_fn};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Keeps the fields of every span, and which spans are closed.
#[derive(Clone, Default)]
struct Kept(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    fields: BTreeMap<String, String>,
    open: usize,
    closed: usize,
}

impl Visit for State {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.fields.insert(field.name().into(), format!("{value:?}").trim_matches('"').into());
    }
}

impl Subscriber for Kept {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_span() && metadata.target() == "tollgate::call"
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut state = self.0.lock().unwrap();
        span.record(&mut *state);
        state.open += 1;
        Id::from_u64(1)
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut *self.0.lock().unwrap());
    }
    fn clone_span(&self, id: &Id) -> Id {
        self.0.lock().unwrap().open += 1;
        id.clone()
    }
    fn try_close(&self, _: Id) -> bool {
        let mut state = self.0.lock().unwrap();
        state.closed += 1;
        state.open == state.closed
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn event(&self, _: &Event<'_>) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

const REPLY: &str = r#"{"result":{"response":"Rayleigh.","usage":{"prompt_tokens":20,"completion_tokens":4,"total_tokens":24}},"success":true}"#;

#[tokio::test(flavor = "current_thread")]
async fn a_call_is_a_span_with_the_names_of_the_genai_conventions_and_no_secret() {
    let kept = Kept::default();
    let _guard = tracing::subscriber::set_default(kept.clone());
    let vendor = service_fn(|_: Request<Body>| async {
        let reply =
            Response::builder().header(header::CONTENT_TYPE, "application/json").header("cf-ai-req-id", "req-1");
        Ok::<_, tollgate::Error>(reply.body(Body::from(REPLY)).unwrap())
    });
    let gate = Gateway::builder().account("acc").token("s3cret").build_around(vendor).unwrap();
    let body = r#"{"prompt": "private words", "max_tokens": 9, "temperature": 0}"#;
    let request = Request::post("/run/@cf/meta/llama-3.2-1b-instruct").body(Body::from(body)).unwrap();
    let reply = gate.oneshot(request).await.unwrap();
    assert_eq!(reply.status(), 200);
    reply.into_body().collect().await.unwrap();
    let state = kept.0.lock().unwrap();
    for (name, value) in [
        ("otel.name", "chat @cf/meta/llama-3.2-1b-instruct"),
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "cloudflare.workers_ai"),
        ("gen_ai.request.model", "@cf/meta/llama-3.2-1b-instruct"),
        ("gen_ai.request.max_tokens", "9"),
        ("gen_ai.request.temperature", "0.0"),
        ("gen_ai.response.model", "@cf/meta/llama-3.2-1b-instruct"),
        ("gen_ai.response.id", "req-1"),
        ("gen_ai.usage.input_tokens", "20"),
        ("gen_ai.usage.output_tokens", "4"),
        ("http.response.status_code", "200"),
        ("tollgate.attempts", "1"),
        ("tollgate.cost_source", "computed"),
    ] {
        assert_eq!(state.fields.get(name).map(String::as_str), Some(value), "{name}: {:?}", state.fields);
    }
    assert!(!state.fields.contains_key("error.type"), "{:?}", state.fields);
    let all = format!("{:?}", state.fields);
    assert!(!all.contains("private") && !all.contains("s3cret"), "{all}");
    assert_eq!(state.open, state.closed, "the span was not closed with the receipt");
}
