//! Telemetry on real sockets: what a collector of OpenTelemetry's is sent, and what a bad one costs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use http::{HeaderMap, StatusCode};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{Exemplar, Metric, metric};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use serde_json::json;

use crate::support::{Gate, LLAMA, Process, TOKEN, client, config, start, vendor};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A receiver of OTLP over HTTP, and what it was sent.
#[derive(Clone, Default)]
struct Collector {
    headers: Arc<Mutex<Vec<HeaderMap>>>,
    spans: Arc<Mutex<Vec<Span>>>,
    /// The last of each name.
    metrics: Arc<Mutex<BTreeMap<String, Metric>>>,
    /// Of tokens. Each is sent once.
    exemplars: Arc<Mutex<Vec<Exemplar>>>,
    logs: Arc<Mutex<Vec<LogRecord>>>,
    resource: Arc<Mutex<Vec<KeyValue>>>,
    /// It refuses so many messages first.
    busy: Arc<Mutex<usize>>,
}

impl Collector {
    async fn start(&self) -> SocketAddr {
        let router = Router::new()
            .route("/v1/traces", post(Self::traces))
            .route("/v1/metrics", post(Self::metrics))
            .route("/v1/logs", post(Self::logs));
        serve(router.with_state(self.clone())).await
    }

    fn is_busy(&self, headers: HeaderMap) -> bool {
        self.headers.lock().unwrap().push(headers);
        let mut busy = self.busy.lock().unwrap();
        let is_busy = *busy > 0;
        *busy = busy.saturating_sub(1);
        is_busy
    }

    async fn traces(State(this): State<Self>, headers: HeaderMap, body: Bytes) -> StatusCode {
        if this.is_busy(headers) {
            return StatusCode::SERVICE_UNAVAILABLE;
        }
        for all in ExportTraceServiceRequest::decode(body).unwrap().resource_spans {
            *this.resource.lock().unwrap() = all.resource.unwrap().attributes;
            this.spans.lock().unwrap().extend(all.scope_spans.into_iter().flat_map(|scope| scope.spans));
        }
        StatusCode::OK
    }

    async fn metrics(State(this): State<Self>, body: Bytes) {
        for all in ExportMetricsServiceRequest::decode(body).unwrap().resource_metrics {
            let metrics: Vec<_> = all.scope_metrics.into_iter().flat_map(|scope| scope.metrics).collect();
            for metric in metrics.iter().filter(|metric| metric.name == "gen_ai.client.token.usage") {
                let Some(metric::Data::Histogram(tokens)) = &metric.data else { panic!("no histogram") };
                let exemplars = tokens.data_points.iter().flat_map(|point| point.exemplars.clone());
                this.exemplars.lock().unwrap().extend(exemplars);
            }
            this.metrics.lock().unwrap().extend(metrics.into_iter().map(|metric| (metric.name.clone(), metric)));
        }
    }

    async fn logs(State(this): State<Self>, body: Bytes) {
        for all in ExportLogsServiceRequest::decode(body).unwrap().resource_logs {
            this.logs.lock().unwrap().extend(all.scope_logs.into_iter().flat_map(|scope| scope.log_records));
        }
    }
}

async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Until it is there.
async fn until<T>(mut look: impl FnMut() -> Option<T>) -> T {
    for _ in 0..6000 {
        if let Some(found) = look() {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it did not come in 30 s");
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let found = attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value?;
    Some(match found {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        Value::BoolValue(is) => is.to_string(),
        other => panic!("{key}: {other:?}"),
    })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A vendor that fails once, and what it was told of traces.
async fn vendor_that_fails_once() -> (String, Arc<Mutex<Vec<String>>>) {
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = told.clone();
    let answer = move |headers: HeaderMap| {
        let mut told = kept.lock().unwrap();
        told.push(headers.get("traceparent").map_or("none", |value| value.to_str().unwrap()).to_owned());
        let failure =
            (StatusCode::INTERNAL_SERVER_ERROR, r#"{"success": false, "errors": [{"code": 3043, "message": "m"}]}"#);
        let reply = r#"{"result": {"response": "Hi", "usage": {"prompt_tokens": 26, "completion_tokens": 18}}, "success": true}"#;
        let (status, body) = if told.len() == 1 { failure } else { (StatusCode::OK, reply) };
        async move { (status, [("content-type", "application/json"), ("cf-ai-req-id", "req-1")], body) }
    };
    let address = serve(Router::new().fallback(post(answer))).await;
    (format!("http://{address}"), told)
}

#[tokio::test]
async fn a_call_is_a_span_of_its_client_s_trace_and_so_is_each_attempt_which_upstream_is_told() {
    let collector = Collector::default();
    *collector.busy.lock().unwrap() = 1;
    let address = collector.start().await;
    let (vendor, told) = vendor_that_fails_once().await;
    let mut config = config(&vendor);
    config.retry.max_attempts = 2.try_into().unwrap();
    config.retry.delay = Duration::from_millis(1);
    config.otel.endpoint = Some(format!("http://{address}"));
    config.otel.metrics_every = Duration::from_secs(1);
    let (sidecar, _) = start(config);
    let reply = client()
        .post(format!("http://{}/run/{LLAMA}", sidecar.listen()))
        .bearer_auth(TOKEN)
        .header("traceparent", format!("00-{TRACE}-{PARENT}-01"))
        .json(&json!({"prompt": "words that nobody may see"}))
        .send()
        .await
        .unwrap();
    assert_eq!(reply.status(), 200);
    let id = reply.headers()["cf-aig-log-id"].to_str().unwrap().to_owned();
    reply.bytes().await.unwrap();

    let spans = until(|| Some(collector.spans.lock().unwrap().clone()).filter(|spans| spans.len() >= 3)).await;
    let call = spans.iter().find(|span| span.kind == i32::from(SpanKind::Server)).unwrap();
    assert_eq!((hex(&call.trace_id).as_str(), hex(&call.parent_span_id).as_str()), (TRACE, PARENT));
    assert_eq!(call.name, format!("chat {LLAMA}"));
    for (key, value) in [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.request.model", LLAMA),
        ("gen_ai.response.id", "req-1"),
        ("gen_ai.usage.input_tokens", "26"),
        ("gen_ai.usage.output_tokens", "18"),
        ("http.response.status_code", "200"),
        ("tollgate.neurons", "0.392418"),
        ("tollgate.attempts", "2"),
        ("tollgate.id", &id),
    ] {
        assert_eq!(text(&call.attributes, key).as_deref(), Some(value), "{key}: {call:?}");
    }
    let attempts: Vec<_> = spans.iter().filter(|span| span.kind == i32::from(SpanKind::Client)).collect();
    let names: Vec<_> = attempts.iter().map(|span| format!("00-{TRACE}-{}-01", hex(&span.span_id))).collect();
    assert_eq!(*told.lock().unwrap(), names);
    let statuses: Vec<_> =
        attempts.iter().map(|span| text(&span.attributes, "http.response.status_code").unwrap()).collect();
    assert_eq!(statuses, ["500", "200"]);
    for attempt in &attempts {
        assert_eq!(attempt.parent_span_id, call.span_id);
        assert!(attempt.start_time_unix_nano >= call.start_time_unix_nano);
        assert!(attempt.end_time_unix_nano <= call.end_time_unix_nano);
        assert!(vendor.ends_with(&text(&attempt.attributes, "server.address").unwrap()));
    }
    assert_eq!(text(&collector.resource.lock().unwrap(), "service.name").as_deref(), Some("tollgate"));
    let all = format!("{spans:?}");
    assert!(!all.contains("nobody may see") && !all.contains(TOKEN), "{all}");

    // Metrics: what /metrics has, the conventions' own, and a call for each bucket.
    let duration = until(|| collector.metrics.lock().unwrap().get("gen_ai.client.operation.duration").cloned());
    let Some(metric::Data::Histogram(histogram)) = duration.await.data else { panic!("no histogram") };
    let exemplar = until(|| collector.exemplars.lock().unwrap().first().cloned());
    assert_eq!(histogram.data_points[0].count, 1);
    let exemplar = exemplar.await;
    assert_eq!(text(&exemplar.filtered_attributes, "tollgate.id"), Some(id));
    assert_eq!(hex(&exemplar.trace_id), TRACE);
    let requests = collector.metrics.lock().unwrap()["tollgate_requests_total"].clone();
    let Some(metric::Data::Sum(requests)) = requests.data else { panic!("no sum") };
    assert!(requests.is_monotonic);
    let ok = requests.data_points.iter().find(|point| text(&point.attributes, "outcome").as_deref() == Some("ok"));
    assert_eq!(text(&ok.unwrap().attributes, "model").as_deref(), Some(LLAMA));
    drop(sidecar);
}

#[tokio::test]
async fn a_call_without_a_trace_begins_one_that_has_the_name_of_its_log_id() {
    let collector = Collector::default();
    let address = collector.start().await;
    let gate = Gate::with(vendor(), |config| config.otel.endpoint = Some(format!("http://{address}")));
    let reply = gate.run(LLAMA, &json!({"prompt": "hello"})).await;
    let id = reply.headers()["cf-aig-log-id"].to_str().unwrap().to_owned();
    reply.bytes().await.unwrap();
    // A client that says that its trace is not kept is taken at its word.
    let traceparent = format!("00-{TRACE}-{PARENT}-00");
    let request = gate.post(&format!("/run/{LLAMA}"), &json!({"prompt": "hello"})).header("traceparent", traceparent);
    request.send().await.unwrap().bytes().await.unwrap();
    gate.receipts.after(2).await;
    // What is there is sent when the gate ends.
    let Gate { sidecar, .. } = gate;
    tokio::task::spawn_blocking(move || sidecar.join()).await.unwrap().unwrap();
    let spans = collector.spans.lock().unwrap().clone();
    let traces: Vec<_> = spans.iter().map(|span| hex(&span.trace_id)).collect();
    assert_eq!(traces, [id.clone(), id]);
}

#[tokio::test]
async fn without_a_collector_a_client_s_trace_passes_as_it_came() {
    let (vendor, told) = vendor_that_fails_once().await;
    let (sidecar, _) = start(config(&vendor));
    let traceparent = format!("00-{TRACE}-{PARENT}-00");
    let request = client().post(format!("http://{}/run/{LLAMA}", sidecar.listen())).bearer_auth(TOKEN);
    request.header("traceparent", &traceparent).json(&json!({"prompt": "hello"})).send().await.unwrap();
    assert_eq!(*told.lock().unwrap(), [traceparent]);
}

#[tokio::test]
async fn a_collector_that_never_answers_costs_calls_nothing_and_what_is_lost_is_counted() {
    // It takes connections, and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let gate = Gate::with(vendor(), |config| config.otel.endpoint = Some(endpoint));
    for _ in 0..50 {
        let reply = gate.run(LLAMA, &json!({"prompt": "hello"})).await;
        assert_eq!(reply.status(), 200);
        reply.bytes().await.unwrap();
    }
    assert!(gate.metrics().await.contains("tollgate_otel_items_total{result=\"sent\",signal=\"traces\"} 0"));
    let receipts = gate.receipts.after(50).await;
    assert!(receipts.iter().all(|receipt| receipt.trace.is_some()));
    // It ends nevertheless, though the collector was given ten seconds for an answer.
    let Gate { sidecar, .. } = gate;
    let began = Instant::now();
    tokio::task::spawn_blocking(move || sidecar.join()).await.unwrap().unwrap();
    assert!(began.elapsed() < Duration::from_secs(9), "it ended after {:?}", began.elapsed());
}

#[tokio::test]
async fn the_usual_variables_are_enough_and_the_log_goes_the_same_way() {
    let collector = Collector::default();
    let address = collector.start().await;
    let vendor = vendor();
    let mut gate = Process::serve(
        &vendor.base_url(),
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{address}")),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=one%20two"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "none"),
            ("OTEL_SERVICE_NAME", "gate-of-a-test"),
            ("TOLLGATE_LOG_LEVEL", "tollgate=debug"),
        ],
    );
    let url = format!("{}/run/{LLAMA}", gate.listen);
    let reply = client().post(url).bearer_auth(TOKEN).json(&json!({"prompt": "hello"})).send().await.unwrap();
    let id = reply.headers()["cf-aig-log-id"].to_str().unwrap().to_owned();
    reply.bytes().await.unwrap();
    let of_call =
        |line: &LogRecord| line.body.as_ref().is_some_and(|body| body.value == Some(Value::StringValue("call".into())));
    let line = until(|| collector.logs.lock().unwrap().iter().find(|line| of_call(line)).cloned()).await;
    assert_eq!((hex(&line.trace_id), text(&line.attributes, "id")), (id.clone(), Some(id)));
    until(|| Some(()).filter(|()| !collector.spans.lock().unwrap().is_empty())).await;
    assert_eq!(text(&collector.resource.lock().unwrap(), "service.name").as_deref(), Some("gate-of-a-test"));
    assert!(collector.headers.lock().unwrap().iter().all(|headers| headers["x-tenant"] == "one two"));
    gate.terminate();
    assert!(gate.child.wait().unwrap().success());
}
