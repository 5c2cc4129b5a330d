//! One signal's way to the collector.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use http::{StatusCode, header};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tokio_util::sync::CancellationToken;

use super::counts::{Counts, Delivery};
use crate::sidecar::config::ConfigError;
use crate::sidecar::otel::collector::{Destination, Signal};
use crate::upstream::{Road, causes};

/// Sends one signal.
pub(super) struct Sender {
    signal: Signal,
    destination: Destination,
    client: reqwest::Client,
    counts: Arc<Counts>,
    /// The last one arrived: only a change is told.
    is_well: bool,
}

/// Why it did not arrive, and whether it may another time.
struct Trouble {
    why: String,
    again: Option<Duration>,
}

/// The pauses between attempts, in seconds. Nothing waits for them but what is sent.
const PAUSES: [u64; 4] = [1, 2, 4, 8];
/// The longest pause that a collector can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// So much is read of what a collector answers.
const LONGEST_REPLY: usize = 64 << 10;

impl Sender {
    pub(super) fn new(
        signal: Signal,
        destination: Destination,
        road: &Road,
        counts: Arc<Counts>,
    ) -> Result<Self, ConfigError> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(road.tls())
            .timeout(destination.timeout)
            .redirect(reqwest::redirect::Policy::none())
            .pool_max_idle_per_host(1)
            .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| ConfigError { place: "[otel]".into(), what: causes(&error) })?;
        Ok(Self { signal, destination, client, counts, is_well: true })
    }

    /// Sends so many things; what cannot be delivered is lost and counted. When it is told to stop, it makes no more pauses.
    pub(super) async fn send(&mut self, message: &impl Message, count: usize, stop: &CancellationToken) {
        let body = self.written(message);
        let mut pauses = PAUSES.iter();
        let sent = loop {
            let trouble = match self.attempt(body.clone()).await {
                Ok(refused) => break Ok(refused),
                Err(trouble) => trouble,
            };
            let Some((pause, usual)) = trouble.again.zip(pauses.next()) else { break Err(trouble.why) };
            self.note_trouble(&trouble.why);
            let pause = pause.max(Duration::from_secs(*usual).mul_f64(0.8 + 0.4 * fastrand::f64()));
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                break Err(trouble.why);
            }
        };
        match sent {
            Ok(0) => {
                self.counts.note(self.signal, Delivery::Sent, count);
                if !self.is_well {
                    self.is_well = true;
                    tracing::info!(signal = self.signal.label(), "the collector takes telemetry again");
                }
            }
            Ok(refused) => {
                self.counts.note(self.signal, Delivery::Sent, count.saturating_sub(refused));
                self.counts.note(self.signal, Delivery::Failed, refused.min(count));
                self.note_trouble("it refuses a part of what it is sent");
            }
            Err(why) => {
                self.counts.note(self.signal, Delivery::Failed, count);
                self.note_trouble(&why);
            }
        }
    }

    fn note_trouble(&mut self, why: &str) {
        if self.is_well {
            self.is_well = false;
            let collector = self.destination.url.authority().map(ToString::to_string);
            tracing::warn!(
                signal = self.signal.label(),
                collector,
                why,
                "the collector does not take telemetry: what finds no room is lost"
            );
        }
    }

    fn written(&self, message: &impl Message) -> bytes::Bytes {
        let plain = message.encode_to_vec();
        if !self.destination.gzip {
            return plain.into();
        }
        let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
        // Nothing can fail in memory.
        let _ = encoder.write_all(&plain);
        encoder.finish().unwrap_or_default().into()
    }

    /// How many of the things it refused.
    async fn attempt(&self, body: bytes::Bytes) -> Result<usize, Trouble> {
        let mut request =
            self.client.post(self.destination.url.to_string()).header(header::CONTENT_TYPE, "application/x-protobuf");
        if self.destination.gzip {
            request = request.header(header::CONTENT_ENCODING, "gzip");
        }
        for (name, value) in &self.destination.headers {
            request = request.header(name, value);
        }
        let unheard =
            |error: reqwest::Error| Trouble { why: causes(&error.without_url()), again: Some(Duration::ZERO) };
        let mut reply = request.body(body).send().await.map_err(unheard)?;
        let status = reply.status();
        let again = matches!(
            status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        );
        if !status.is_success() {
            let told = reply.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            let pause = told.map_or(Duration::ZERO, Duration::from_secs).min(LONGEST_PAUSE);
            return Err(Trouble { why: format!("it says {status}"), again: again.then_some(pause) });
        }
        let mut told = Vec::new();
        while let Some(piece) = reply.chunk().await.map_err(unheard)? {
            told.extend_from_slice(&piece);
            if told.len() > LONGEST_REPLY {
                return Ok(0);
            }
        }
        // The three signals' replies have one form: what was refused is the first field of the first.
        let partial = ExportTraceServiceResponse::decode(&told[..]).ok().and_then(|told| told.partial_success);
        Ok(partial.map_or(0, |partial| usize::try_from(partial.rejected_spans).unwrap_or(0)))
    }
}
