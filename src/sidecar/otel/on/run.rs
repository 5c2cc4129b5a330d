//! The thread that makes telemetry of receipts, metrics and log lines, and sends it.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{ResourceMetrics, ScopeMetrics};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::calls::{CallSummary, Calls, QUEUE};
use super::counts::{Counts, Delivery};
use super::genai::GenAi;
use super::lines::LogLines;
use super::send::Sender;
use super::{figures, spans};
use crate::readers::metrics::{Metrics, MetricsError};
use crate::receipt::Reader;
use crate::sidecar::config::ConfigError;
use crate::sidecar::otel::collector::{Collector, Signal};
use crate::upstream::Road;

/// What goes to the collector, and the thread that sends it.
pub(in crate::sidecar) struct Telemetry {
    calls: Arc<Calls>,
    counts: Arc<Counts>,
    lines: Arc<OnceLock<LogLines>>,
    /// Until it is started.
    work: Option<Work>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

struct Work {
    collector: Collector,
    queue: mpsc::Receiver<CallSummary>,
    traces: Option<Sender>,
    metrics: Option<Sender>,
    logs: Option<Sender>,
}

/// Calls whose spans wait to be sent.
#[derive(Default)]
struct Waiting(Mutex<VecDeque<CallSummary>>);

/// How often the thread takes what has come.
pub(super) const EVERY: Duration = Duration::from_millis(250);
/// How often it sends what there is.
const SEND_EVERY: Duration = Duration::from_secs(1);
/// Calls or lines in one message.
const BATCH: usize = 512;
/// What is there when the gate ends has so long to be sent.
const LAST_WORDS: Duration = Duration::from_secs(2);

impl Telemetry {
    /// Opens nothing yet.
    pub(in crate::sidecar) fn new(mut collector: Collector, road: &Road) -> Result<Self, ConfigError> {
        let counts = Arc::new(Counts::default());
        let sender = |signal, destination| {
            let new = |destination| Sender::new(signal, destination, road, counts.clone());
            Option::map(destination, new).transpose()
        };
        let traces = sender(Signal::Traces, collector.traces.take())?;
        let metrics = sender(Signal::Metrics, collector.metrics.take())?;
        let logs = sender(Signal::Logs, collector.logs.take())?;
        let (sender, queue) = mpsc::channel(QUEUE);
        Ok(Self {
            calls: Arc::new(Calls { queue: sender, counts: counts.clone() }),
            counts,
            lines: Arc::default(),
            work: Some(Work { collector, queue, traces, metrics, logs }),
            stop: CancellationToken::new(),
            thread: None,
        })
    }

    pub(in crate::sidecar) fn reader(&self) -> Arc<dyn Reader> {
        self.calls.clone()
    }

    pub(in crate::sidecar) fn watch(&self, metrics: &Metrics) -> Result<(), MetricsError> {
        let counts = self.counts.clone();
        metrics.watch_telemetry(move || counts.all())
    }

    /// Has the lines of the log sent. Only the first one counts.
    pub(in crate::sidecar) fn send_log(&self, lines: LogLines) {
        let _ = self.lines.set(lines);
    }

    /// Starts the thread; `host` tells where calls go.
    pub(in crate::sidecar) fn start(
        &mut self,
        metrics: Arc<Metrics>,
        host: impl Fn() -> String + Send + 'static,
    ) -> std::io::Result<()> {
        let Some(work) = self.work.take() else { return Ok(()) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, lines, counts) = (self.stop.clone(), self.lines.clone(), self.counts.clone());
        let run = move || {
            runtime.block_on(async {
                let all = work.run(metrics, host, &lines, &counts, &stop);
                let late = async {
                    stop.cancelled().await;
                    tokio::time::sleep(LAST_WORDS).await;
                };
                tokio::select! {
                    () = all => {}
                    () = late => tracing::warn!("the collector was not told all: the gate ends"),
                }
            });
        };
        self.thread = Some(std::thread::Builder::new().name("telemetry".into()).spawn(run)?);
        Ok(())
    }

    /// Ends it; what is there has two seconds to be sent.
    pub(in crate::sidecar) fn close(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread's has been logged where it happened.
            let _ = thread.join();
        }
    }
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Telemetry").field(&self.counts).finish()
    }
}

// === impl Work ===

impl Work {
    async fn run(
        self,
        registry: Arc<Metrics>,
        host: impl Fn() -> String,
        lines: &OnceLock<LogLines>,
        counts: &Counts,
        stop: &CancellationToken,
    ) {
        let Self { collector, queue, traces, metrics, logs } = self;
        let (waiting, genai) = (Waiting::default(), Mutex::new(GenAi::default()));
        let sums = metrics.is_some().then_some(&genai);
        let keeps = traces.is_some().then_some(&waiting);
        let resource = &collector.resource[..];
        tokio::join!(
            take_calls(queue, keeps, sums, counts, stop),
            async {
                if let Some(sender) = traces {
                    send_traces(sender, &waiting, resource, host, stop).await;
                }
            },
            async {
                if let Some(sender) = metrics {
                    send_metrics(sender, &registry, &genai, &collector, stop).await;
                }
            },
            async {
                if let Some(sender) = logs {
                    send_logs(sender, lines, resource, counts, stop).await;
                }
            },
        );
    }
}

/// Takes calls out of the queue, whatever becomes of them, so that a collector that takes nothing keeps nobody's sums back.
async fn take_calls(
    mut queue: mpsc::Receiver<CallSummary>,
    waiting: Option<&Waiting>,
    sums: Option<&Mutex<GenAi>>,
    counts: &Counts,
    stop: &CancellationToken,
) {
    let mut is_last = false;
    loop {
        let mut dropped = 0;
        while let Ok(seen) = queue.try_recv() {
            if let Some(sums) = sums {
                sums.lock().add(&seen);
            }
            let is_kept = seen.trace.is_some_and(|trace| trace.is_sampled);
            dropped += usize::from(is_kept && waiting.is_some_and(|waiting| !waiting.put(seen)));
        }
        counts.note(Signal::Traces, Delivery::Dropped, dropped);
        if is_last {
            return;
        }
        is_last = stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none();
    }
}

async fn send_traces(
    mut sender: Sender,
    waiting: &Waiting,
    resource: &[(String, String)],
    host: impl Fn() -> String,
    stop: &CancellationToken,
) {
    loop {
        let is_last = stop.run_until_cancelled(tokio::time::sleep(SEND_EVERY)).await.is_none();
        if is_last {
            // What was sealed last comes first into the queue.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        loop {
            let calls = waiting.take(BATCH);
            if calls.is_empty() {
                break;
            }
            let host = host();
            let spans: Vec<_> = calls.iter().flat_map(|seen| spans::spans(seen, &host)).collect();
            let scope_spans = vec![ScopeSpans { scope: spans::scope(), spans, ..ScopeSpans::default() }];
            let all = ResourceSpans { resource: spans::resource(resource), scope_spans, ..ResourceSpans::default() };
            let message = ExportTraceServiceRequest { resource_spans: vec![all] };
            sender.send(&message, calls.len(), stop).await;
        }
        if is_last {
            return;
        }
    }
}

async fn send_metrics(
    mut sender: Sender,
    registry: &Metrics,
    genai: &Mutex<GenAi>,
    collector: &Collector,
    stop: &CancellationToken,
) {
    let since = SystemTime::now();
    loop {
        let is_last = stop.run_until_cancelled(tokio::time::sleep(collector.metrics_every)).await.is_none();
        if is_last {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let now = SystemTime::now();
        let mut metrics = figures::metrics(&registry.gather(), since, now);
        metrics.extend(genai.lock().metrics(since, now));
        let count = metrics.len();
        let scope_metrics = vec![ScopeMetrics { scope: spans::scope(), metrics, ..ScopeMetrics::default() }];
        let resource = spans::resource(&collector.resource);
        let all = ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() };
        sender.send(&ExportMetricsServiceRequest { resource_metrics: vec![all] }, count, stop).await;
        if is_last {
            return;
        }
    }
}

async fn send_logs(
    mut sender: Sender,
    lines: &OnceLock<LogLines>,
    resource: &[(String, String)],
    counts: &Counts,
    stop: &CancellationToken,
) {
    loop {
        let is_last = stop.run_until_cancelled(tokio::time::sleep(SEND_EVERY)).await.is_none();
        while let Some(lines) = lines.get() {
            counts.note(Signal::Logs, Delivery::Dropped, usize::try_from(lines.dropped()).unwrap_or(usize::MAX));
            let log_records = lines.take(BATCH);
            if log_records.is_empty() {
                break;
            }
            let count = log_records.len();
            let scope_logs = vec![ScopeLogs { scope: spans::scope(), log_records, ..ScopeLogs::default() }];
            let all = ResourceLogs { resource: spans::resource(resource), scope_logs, ..ResourceLogs::default() };
            sender.send(&ExportLogsServiceRequest { resource_logs: vec![all] }, count, stop).await;
        }
        if is_last {
            return;
        }
    }
}

// === impl Waiting ===

impl Waiting {
    /// False where there is no room.
    fn put(&self, seen: CallSummary) -> bool {
        let mut waiting = self.0.lock();
        let has_room = waiting.len() < QUEUE;
        if has_room {
            waiting.push_back(seen);
        }
        has_room
    }

    fn take(&self, most: usize) -> Vec<CallSummary> {
        let mut waiting = self.0.lock();
        let count = waiting.len().min(most);
        waiting.drain(..count).collect()
    }
}
