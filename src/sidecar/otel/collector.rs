//! Where telemetry goes: `[otel]`, and the `OTEL_…` variables that every program of OpenTelemetry's knows.

use std::time::Duration;

use http::Uri;
use http::header::{HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;

use crate::sidecar::config::{ConfigError, Otel, Variables};

/// Where telemetry goes, with all that the variables say.
#[cfg_attr(not(feature = "otel"), allow(dead_code))]
#[derive(Clone, Debug, Default)]
pub(crate) struct Collector {
    pub(crate) traces: Option<Destination>,
    pub(crate) metrics: Option<Destination>,
    pub(crate) logs: Option<Destination>,
    /// Which part of the calls without a trace is traced.
    pub(crate) sample: f64,
    pub(crate) metrics_every: Duration,
    /// What tells this gate from others.
    pub(crate) resource: Vec<(String, String)>,
}

/// Where one signal goes.
#[cfg_attr(not(feature = "otel"), allow(dead_code))]
#[derive(Clone)]
pub(crate) struct Destination {
    pub(crate) url: Uri,
    /// Never shown: they often are secrets.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) timeout: Duration,
    pub(crate) gzip: bool,
}

/// A signal, as its variables name it and as its path does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Traces,
    Metrics,
    Logs,
}

/// Reads variables, and names the one that is wrong.
struct Reader<'a>(&'a Variables);

const TIMEOUT: Duration = Duration::from_secs(10);

// === impl Otel ===

impl Otel {
    /// Where telemetry goes; `None` where nobody asks for it. Opens nothing.
    pub(crate) fn collector(&self, variables: &Variables) -> Result<Option<Collector>, ConfigError> {
        let read = Reader(variables);
        if read.get("OTEL_SDK_DISABLED").is_some_and(|is| is.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let mut collector = Collector {
            sample: self.sample(&read)?,
            metrics_every: self.metrics_every.max(Duration::from_secs(1)),
            resource: self.resource(&read)?,
            ..Collector::default()
        };
        if self.metrics_every == Self::default().metrics_every
            && let Some(every) = read.milliseconds("OTEL_METRIC_EXPORT_INTERVAL")?
        {
            collector.metrics_every = every.max(Duration::from_secs(1));
        }
        let wanted = [(Signal::Traces, self.traces), (Signal::Metrics, self.metrics), (Signal::Logs, self.logs)];
        for (signal, _) in wanted.into_iter().filter(|(_, is_wanted)| *is_wanted) {
            let destination = self.destination(signal, &read)?;
            match signal {
                Signal::Traces => collector.traces = destination,
                Signal::Metrics => collector.metrics = destination,
                Signal::Logs => collector.logs = destination,
            }
        }
        let is_any = collector.traces.is_some() || collector.metrics.is_some() || collector.logs.is_some();
        if is_any && cfg!(not(feature = "otel")) {
            let what =
                "this program was built without telemetry: take one with the feature `otel`, or leave the endpoint out";
            return Err(ConfigError { place: "[otel] endpoint".into(), what: what.into() });
        }
        Ok(is_any.then_some(collector))
    }

    /// Some of it goes by TLS.
    pub(crate) fn is_tls(&self, variables: &Variables) -> bool {
        let collector = self.collector(variables).ok().flatten().unwrap_or_default();
        let all = [collector.traces, collector.metrics, collector.logs];
        all.iter().flatten().any(|destination| destination.url.scheme_str() == Some("https"))
    }

    fn destination(&self, signal: Signal, read: &Reader<'_>) -> Result<Option<Destination>, ConfigError> {
        let name = signal.variable();
        if read.get(&format!("OTEL_{name}_EXPORTER")).is_some_and(|exporter| exporter == "none") {
            return Ok(None);
        }
        let own = format!("OTEL_EXPORTER_OTLP_{name}_ENDPOINT");
        let (place, url) = match (&self.endpoint, read.get(&own)) {
            (Some(endpoint), _) if endpoint.is_empty() => return Ok(None),
            (Some(endpoint), _) => ("[otel] endpoint".to_owned(), below(endpoint, signal)),
            (None, Some(url)) => (own, url.to_owned()),
            (None, None) => match read.get("OTEL_EXPORTER_OTLP_ENDPOINT") {
                Some(endpoint) => ("OTEL_EXPORTER_OTLP_ENDPOINT".to_owned(), below(endpoint, signal)),
                None => return Ok(None),
            },
        };
        let url = url.parse::<Uri>().ok().filter(|url| {
            matches!(url.scheme_str(), Some("http" | "https"))
                && url.authority().is_some_and(|it| !it.host().is_empty() && !it.as_str().contains('@'))
        });
        let Some(url) = url else {
            let what = "this is no URL of a collector: write it like http://127.0.0.1:4318".to_owned();
            return Err(ConfigError { place, what });
        };
        if self.endpoint.is_none() {
            let (place, protocol) = read.either(name, "PROTOCOL");
            if let Some(protocol) = protocol.filter(|protocol| *protocol != "http/protobuf") {
                let what = format!(
                    "the gate sends http/protobuf and not {protocol}: set it to http/protobuf, and the endpoint to the \
                     collector's port for HTTP, which is 4318 by default"
                );
                return Err(ConfigError { place, what });
            }
        }
        let (place, headers) = read.either(name, "HEADERS");
        let headers = pairs(headers.unwrap_or_default(), &place)?;
        let headers = headers.into_iter().map(|(name, value)| {
            let mut value = HeaderValue::try_from(value).ok()?;
            value.set_sensitive(true);
            Some((HeaderName::try_from(name).ok()?, value))
        });
        let wrong = || ConfigError { place, what: "it has a name or a value that no HTTP header can have".into() };
        let headers = headers.collect::<Option<_>>().ok_or_else(wrong)?;
        let (place, _) = read.either(name, "TIMEOUT");
        let timeout = read.milliseconds(&place)?.unwrap_or(TIMEOUT);
        let gzip = match read.either(name, "COMPRESSION") {
            (_, None | Some("none")) => false,
            (_, Some("gzip")) => true,
            (place, Some(_)) => return Err(ConfigError { place, what: "write gzip or none".into() }),
        };
        Ok(Some(Destination { url, headers, timeout, gzip }))
    }

    fn sample(&self, read: &Reader<'_>) -> Result<f64, ConfigError> {
        if self.sample != Self::default().sample {
            return Ok(self.sample);
        }
        let Some(sampler) = read.get("OTEL_TRACES_SAMPLER") else { return Ok(self.sample) };
        let argument = "OTEL_TRACES_SAMPLER_ARG";
        match sampler.trim_start_matches("parentbased_") {
            "always_on" => Ok(1.0),
            "always_off" => Ok(0.0),
            "traceidratio" => {
                let share = read.get(argument).map_or(Ok(1.0), str::parse).ok();
                let wrong = || ConfigError { place: argument.into(), what: "write a part from 0.0 to 1.0".into() };
                share.filter(|share| (0.0..=1.0).contains(share)).ok_or_else(wrong)
            }
            _ => Err(ConfigError {
                place: "OTEL_TRACES_SAMPLER".into(),
                what: "write parentbased_always_on, parentbased_always_off or parentbased_traceidratio".into(),
            }),
        }
    }

    fn resource(&self, read: &Reader<'_>) -> Result<Vec<(String, String)>, ConfigError> {
        let place = "OTEL_RESOURCE_ATTRIBUTES";
        let mut attributes = pairs(read.get(place).unwrap_or_default(), place)?;
        let named = self.service_name.as_deref().or_else(|| read.get("OTEL_SERVICE_NAME"));
        if let Some(name) = named {
            attributes.retain(|(key, _)| key != "service.name");
            attributes.push(("service.name".into(), name.into()));
        }
        for (key, value) in [
            ("service.name", "tollgate".to_owned()),
            ("service.version", env!("CARGO_PKG_VERSION").to_owned()),
            ("service.instance.id", format!("{:032x}", fastrand::u128(..))),
        ] {
            if !attributes.iter().any(|(known, _)| known == key) {
                attributes.push((key.into(), value));
            }
        }
        Ok(attributes)
    }
}

fn below(endpoint: &str, signal: Signal) -> String {
    format!("{}/v1/{}", endpoint.trim_end_matches('/'), signal.label())
}

/// `key=value,key=value`, percent-encoded, as W3C's Baggage has it.
fn pairs(text: &str, place: &str) -> Result<Vec<(String, String)>, ConfigError> {
    let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
    let read = |item: &str| {
        let (key, value) = item.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        (!key.trim().is_empty()).then(|| (key.trim().to_owned(), value.into_owned()))
    };
    let wrong = || ConfigError { place: place.into(), what: "write it like name=value,other=value".into() };
    items.map(read).collect::<Option<_>>().ok_or_else(wrong)
}

impl<'a> Reader<'a> {
    fn get(&self, name: &str) -> Option<&'a str> {
        let found = self.0.iter().find(|(variable, value)| variable == name && !value.trim().is_empty());
        found.map(|(_, value)| value.trim())
    }

    /// A signal's own, or else all signals'; and which of them it is.
    fn either(&self, signal: &str, what: &str) -> (String, Option<&'a str>) {
        let own = format!("OTEL_EXPORTER_OTLP_{signal}_{what}");
        match self.get(&own) {
            Some(value) => (own, Some(value)),
            None => {
                let all = format!("OTEL_EXPORTER_OTLP_{what}");
                let value = self.get(&all);
                (all, value)
            }
        }
    }

    fn milliseconds(&self, name: &str) -> Result<Option<Duration>, ConfigError> {
        let wrong = |_| ConfigError { place: name.into(), what: "write it in milliseconds, such as 10000".into() };
        let read = self.get(name).map(str::parse).transpose().map_err(wrong)?;
        Ok(read.filter(|ms| *ms > 0).map(Duration::from_millis))
    }
}

// === impl Signal ===

impl Signal {
    #[cfg(feature = "otel")]
    pub(super) const ALL: [Self; 3] = [Self::Traces, Self::Metrics, Self::Logs];

    /// Its metric label, and the end of its path.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Traces => "traces",
            Self::Metrics => "metrics",
            Self::Logs => "logs",
        }
    }

    fn variable(self) -> &'static str {
        match self {
            Self::Traces => "TRACES",
            Self::Metrics => "METRICS",
            Self::Logs => "LOGS",
        }
    }
}

// === impl Destination ===

impl std::fmt::Debug for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Destination({})", self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(otel: &Otel, variables: &[(&str, &str)]) -> Result<Option<Collector>, ConfigError> {
        otel.collector(&variables.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
    }

    #[test]
    fn nobody_asks_nothing_goes() {
        assert!(read(&Otel::default(), &[]).unwrap().is_none());
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        assert!(read(&Otel::default(), &[endpoint, ("OTEL_SDK_DISABLED", "true")]).unwrap().is_none());
        let off = Otel { endpoint: Some(String::new()), ..Otel::default() };
        assert!(read(&off, &[endpoint]).unwrap().is_none());
    }

    #[cfg(feature = "otel")]
    #[test]
    fn the_variables_say_what_the_config_does_not() {
        let variables = [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/base/"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://logs.example/in"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20s3cret, x=1"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "500"),
            ("OTEL_METRICS_EXPORTER", "none"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.25"),
            ("OTEL_SERVICE_NAME", "gate"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,deployment.environment.name=test"),
        ];
        let collector = read(&Otel::default(), &variables).unwrap().unwrap();
        let traces = collector.traces.unwrap();
        assert_eq!(
            (traces.url.to_string().as_str(), traces.timeout),
            ("http://c:4318/base/v1/traces", Duration::from_millis(500))
        );
        assert_eq!(traces.headers[0].1, "Bearer s3cret");
        assert!(!format!("{:?}{:?}", collector.logs, traces).contains("s3cret"));
        assert_eq!(collector.logs.unwrap().url.to_string(), "https://logs.example/in");
        assert!(collector.metrics.is_none());
        assert_eq!(collector.sample, 0.25);
        let names: Vec<_> = collector.resource.iter().filter(|(key, _)| key == "service.name").collect();
        assert_eq!(names, [&("service.name".to_owned(), "gate".to_owned())]);
        let own = Otel { endpoint: Some("http://own:1".into()), ..Otel::default() };
        let collector = read(&own, &variables).unwrap().unwrap();
        assert_eq!(collector.logs.unwrap().url.to_string(), "http://own:1/v1/logs");
    }

    #[test]
    fn what_cannot_be_is_named_by_its_variable() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317");
        for wrong in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "c:4318"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_TRACES_SAMPLER", "sometimes"),
        ] {
            assert_eq!(read(&Otel::default(), &[endpoint, wrong]).unwrap_err().place, wrong.0);
        }
    }
}
