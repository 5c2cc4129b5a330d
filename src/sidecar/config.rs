//! What an operator sets: one TOML file, `TOLLGATE_…` variables over it, flags over those.
//!
//! Every key may be left out. A key that is not known is an error, and so is a value that cannot be; each is told with file,
//! line, column and the mend. Secrets are not in the file: the config names the variables that hold them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use super::aliases::AliasTable;
use super::books::CatalogueSettings;
use super::browsers::{Cors, Host};
use super::compat::Compat;
use super::guard::Secret;
use super::limits::{Limits, Retry};
use super::otel::Otel;
use super::replicas::Replicas;
use super::sockets::Sockets;
use super::spending::{Account, Records, Reservations};
use super::timeouts::Timeouts;
use super::tls::{self, Tls};
use super::webhooks::Webhook;
use crate::catalogue::Entry;
use crate::layers::budget::Rule;
use crate::layers::cache;
use crate::layers::identify::PassThrough;
use crate::layers::identify::keys::Key;
use crate::upstream::{self, Affinity, Proxies, Road, SessionBy, Target};

/// The whole config.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Config {
    /// Where clients connect.
    pub listen: SocketAddr,
    /// Where the live page, the log API, `/metrics`, `/healthz` and `/readyz` are: for operators alone.
    pub admin: SocketAddr,
    /// Who looks at the page, the log, the budgets or the cache there must know this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_token: Option<Secret>,
    /// Anybody who reaches the gate is meant to use it: needed where it listens beyond loopback with a token of its own and no
    /// `[[keys]]`, or has its admin port there without an `admin_token`.
    pub open: bool,
    /// The names that requests may have as their `Host`, besides loopback's own. Where it is empty and `listen` is no loopback
    /// address, clients may use any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_hosts: Vec<Host>,
    /// Threads that serve; 0 is one a core.
    pub workers: usize,
    /// The largest request body.
    pub max_body: ByteSize,
    /// What all large bodies (over 64 KiB) may take in memory together: requests, replies that are taken in, and answers on
    /// their way into the cache. An eighth of what the machine or its control group has, where it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_body_memory: Option<ByteSize>,
    /// Connections that are open at once. Where more come, those without a call make room. Held to what the limit of open
    /// files allows.
    pub max_connections: usize,
    /// Connections that one address may have open at once (in IPv6 one /64); 0 sets no bound.
    pub max_connections_per_address: usize,
    /// How long the gate waits for a client.
    pub timeouts: Timeouts,
    /// How long running calls may go on after SIGTERM.
    #[serde(with = "super::duration")]
    pub shutdown_timeout: Duration,
    /// The certificates of the clients' port.
    pub tls: Tls,
    /// The certificates of the admin port.
    pub admin_tls: Tls,
    /// Read the file again when it changes, besides SIGHUP, `tollgate reload` and `POST /reload` on the admin port.
    pub watch_config: bool,
    /// Web pages that may call.
    pub cors: Cors,
    /// What is logged, and how.
    pub log: Log,
    /// Where calls go.
    pub upstream: Upstream,
    /// How often models may be called, and how long a call may wait for its turn.
    pub limits: Limits,
    /// How WebSockets are held.
    pub sockets: Sockets,
    /// What is tried again, and how.
    pub retry: Retry,
    /// What OpenAI's clients get.
    pub compat: Compat,
    /// What repeats are answered from.
    pub cache: Cache,
    /// What the account pays for.
    pub account: Account,
    /// What all budgets have in common.
    pub reservations: Reservations,
    /// What is kept of each call.
    pub records: Records,
    /// Other gates before the same account.
    pub replicas: Replicas,
    /// Clients' own keys; without any, no key is asked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Key>,
    /// A file for keys that are made while the gate runs, by `tollgate keys` and `/keys` on the admin port; an empty one is none.
    /// `tollgate serve` keeps `tollgate.keys.db` where none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys_path: Option<PathBuf>,
    /// What may be spent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub budgets: Vec<Rule>,
    /// Who is told what has happened.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub webhooks: Vec<Webhook>,
    /// Where traces, metrics and the log go besides.
    pub otel: Otel,
    /// Where models and prices come from besides the built-in table.
    pub catalogue: CatalogueSettings,
    /// Models beyond or over the built-in table and the vendor's list, by name.
    pub models: BTreeMap<String, Entry>,
    /// Other names of models on the short routes; one `*` stands for any text, `default` for every unknown name and none.
    #[serde(skip_serializing_if = "AliasTable::is_empty")]
    pub aliases: AliasTable,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Log {
    /// `text` or `json`, on standard error.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` (a line a call) or `trace`, also by module: `info,tollgate::layers=debug`.
    #[serde(deserialize_with = "log_level")]
    pub level: String,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For machines: an object a line.
    Json,
}

/// `[upstream]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Upstream {
    /// The vendor's API, the AI Gateway's host, or a stand-in. By default the first, or the second where `gateway` is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_url: Option<BaseUrl>,
    /// The account of the short routes; `CLOUDFLARE_ACCOUNT_ID` where it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    /// Further accounts that clients may name in paths, with tokens of their own. Accounts that are not listed share one free
    /// allocation and one set of limits; where the gate has an account and a token of its own they are refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<String>,
    /// What leaves with the gate's own token besides calls to models, as method and path below the account. All else under an
    /// account needs a token of the client's own.
    pub pass_through: Vec<PassThrough>,
    /// The variable that holds the gate's own token. Where that is not set, the client's Authorization goes through.
    pub api_token_env: String,
    /// The name of an AI Gateway: every call leaves through it.
    pub gateway: String,
    /// The variable that holds the token of an authenticated AI Gateway.
    pub gateway_token_env: String,
    /// Authorities that are believed besides Mozilla's and the system's, in PEM: a company's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// What makes calls one session with the vendor's prefix cache, where they say nothing of it themselves: `off`; `auto`, what
    /// they begin with; `key`, their client's key; or `metadata.NAME`, an entry of their metadata.
    pub session_affinity: SessionBy,
    /// How long until a connection stands.
    #[serde(with = "super::duration")]
    pub connect_timeout: Duration,
    /// How long until a reply's head is here, and then until a stream's first event. The vendor gives up after 240 s, and by
    /// default we wait longer than that.
    #[serde(with = "super::duration")]
    pub first_byte_timeout: Duration,
    /// How long between two pieces of a reply.
    #[serde(with = "super::duration")]
    pub idle_timeout: Duration,
    /// How long until the end of a reply that is no stream of events, and a second more for each KiB of it.
    #[serde(with = "super::duration")]
    pub body_timeout: Duration,
}

/// A URL that calls can go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BaseUrl(String);

/// `[cache]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Cache {
    /// How long an answer is kept; `0s` keeps only what a request asks to keep.
    #[serde(with = "super::duration")]
    pub ttl: Duration,
    /// What all answers together may weigh in memory.
    pub max_bytes: ByteSize,
    /// The largest answer that is kept.
    pub max_entry: ByteSize,
    /// Keep and share also what another call would get another answer to: texts without a seed whose temperature is not 0,
    /// pictures without a seed.
    pub sampled: bool,
    /// A file that keeps the cache warm over a restart: written when the sidecar stops, and every five minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Other times for single models, by name.
    pub models: BTreeMap<String, ModelCache>,
}

/// `[cache.models."…"]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct ModelCache {
    /// How long this model's answers are kept.
    #[serde(with = "super::duration")]
    pub ttl: Duration,
}

/// Why a config cannot be, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
#[non_exhaustive]
pub struct ConfigError {
    /// `tollgate.toml:3:10`, or a variable's or flag's name.
    pub place: String,
    /// What is wrong with it, and the mend.
    pub what: String,
}

const TABLES: [&str; 17] = [
    "tls",
    "admin_tls",
    "cors",
    "log",
    "timeouts",
    "upstream",
    "limits",
    "sockets",
    "retry",
    "compat",
    "cache",
    "account",
    "reservations",
    "records",
    "replicas",
    "otel",
    "catalogue",
];
const PREFIX: &str = "TOLLGATE_";

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8787)),
            admin: SocketAddr::from(([127, 0, 0, 1], 9787)),
            admin_token: None,
            open: false,
            allowed_hosts: Vec::new(),
            workers: 0,
            max_body: ByteSize::mib(32),
            max_body_memory: None,
            max_connections: 10_000,
            max_connections_per_address: 0,
            timeouts: Timeouts::default(),
            shutdown_timeout: Duration::from_secs(30),
            tls: Tls::default(),
            admin_tls: Tls::default(),
            watch_config: false,
            cors: Cors::default(),
            log: Log::default(),
            upstream: Upstream::default(),
            limits: Limits::default(),
            sockets: Sockets::default(),
            retry: Retry::default(),
            compat: Compat::default(),
            cache: Cache::default(),
            account: Account::default(),
            reservations: Reservations::default(),
            records: Records::default(),
            replicas: Replicas::default(),
            keys: Vec::new(),
            keys_path: None,
            budgets: Vec::new(),
            webhooks: Vec::new(),
            otel: Otel::default(),
            catalogue: CatalogueSettings::default(),
            models: BTreeMap::new(),
            aliases: AliasTable::default(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".into() }
    }
}

/// A word that is no level would be taken for a module's name, of which everything is logged and of all others nothing.
fn log_level<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let level = String::deserialize(deserializer)?;
    let is_level = |word: &str| {
        let levels = ["off", "error", "warn", "info", "debug", "trace"];
        levels.iter().any(|level| level.eq_ignore_ascii_case(word.trim()))
    };
    let is_part = |part: &str| part.rsplit_once('=').map_or_else(|| is_level(part), |(_, level)| is_level(level));
    match level.split(',').all(is_part) {
        true => Ok(level),
        false => Err(serde::de::Error::custom(format!(
            "{level:?} is no level: error, warn, info, debug, trace or off, and after a comma others by module, such as \
             info,tollgate::layers=debug"
        ))),
    }
}

impl Default for Cache {
    fn default() -> Self {
        let cache = cache::Settings::default();
        Self {
            ttl: cache.ttl,
            max_bytes: ByteSize::b(cache.max_bytes),
            max_entry: ByteSize::b(cache.max_entry_bytes as u64),
            sampled: cache.sampled,
            path: None,
            models: BTreeMap::new(),
        }
    }
}

impl Cache {
    /// As the layer takes it.
    pub fn settings(&self) -> cache::Settings {
        cache::Settings {
            ttl: self.ttl,
            models: self.models.iter().map(|(model, own)| (model.as_str().into(), own.ttl)).collect(),
            max_bytes: self.max_bytes.as_u64(),
            max_entry_bytes: usize::try_from(self.max_entry.as_u64()).unwrap_or(usize::MAX),
            sampled: self.sampled,
        }
    }
}

impl Default for Upstream {
    fn default() -> Self {
        Self {
            base_url: None,
            account_id: None,
            accounts: Vec::new(),
            pass_through: PassThrough::usual(),
            api_token_env: "CLOUDFLARE_API_TOKEN".into(),
            gateway: String::new(),
            gateway_token_env: "CF_AIG_TOKEN".into(),
            ca: None,
            session_affinity: SessionBy::Off,
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: upstream::FIRST_BYTE_TIMEOUT,
            idle_timeout: upstream::IDLE_TIMEOUT,
            body_timeout: upstream::BODY_TIMEOUT,
        }
    }
}

/// Where settings come from besides the file.
pub type Variables = Vec<(String, String)>;

impl Config {
    /// From a file, if there is one, and the variables over it.
    pub fn load(file: Option<&Path>, variables: &Variables) -> Result<Self, ConfigError> {
        let text = match file {
            Some(path) => read(path)?,
            None => String::new(),
        };
        let name = file.map_or_else(String::new, |path| path.display().to_string());
        let mut config = Self::parse(&text, &name)?;
        let mut table: toml::Table = toml::from_str(&text).unwrap_or_default();
        for (variable, value) in variables {
            if let Some(path) = setting(variable) {
                config = override_with(&mut table, &path, value)
                    .map_err(|what| ConfigError { place: variable.clone(), what })?;
            }
        }
        Ok(config)
    }

    /// From the file's text; `name` is the file's, for errors.
    pub fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let (line, column) = position(text, error.span().map_or(0, |span| span.start));
            ConfigError { place: format!("{name}:{line}:{column}"), what: error.message().trim().replace('\n', "; ") }
        })
    }

    /// Where calls go, with the tokens that the named variables hold.
    pub fn target(&self, variables: &Variables) -> Result<Target, ConfigError> {
        let upstream = &self.upstream;
        let gateway = Some(upstream.gateway.clone()).filter(|name| !name.is_empty());
        let default = if gateway.is_some() { upstream::GATEWAY } else { upstream::API };
        let base_url = upstream.base_url.as_ref().map_or(default, |url| &url.0);
        let wrong = |place: &str| {
            let place = place.to_owned();
            move |error: upstream::TargetError| ConfigError { place, what: error.to_string() }
        };
        let mut target = Target::new(base_url).map_err(wrong("[upstream] base_url"))?;
        if let Some(token) = secret(variables, &upstream.api_token_env) {
            target = target.with_token(token).map_err(wrong(&upstream.api_token_env))?;
        }
        if let Some(token) = secret(variables, &upstream.gateway_token_env) {
            target = target.with_gateway_token(token).map_err(wrong(&upstream.gateway_token_env))?;
        }
        target.gateway = gateway;
        target.affinity = Affinity::new(upstream.session_affinity.clone());
        target.first_byte_timeout = upstream.first_byte_timeout;
        target.idle_timeout = upstream.idle_timeout;
        target.body_timeout = upstream.body_timeout;
        Ok(target)
    }

    /// Which way calls take: whose certificates are believed, and through which proxy.
    pub fn road(&self, variables: &Variables) -> Result<Road, ConfigError> {
        // Nobody is believed on the way to an upstream without TLS.
        let is_tls = self.upstream.base_url.as_ref().is_none_or(|url| url.0.starts_with("https:"));
        let is_tls = is_tls || !self.webhooks.is_empty() || self.otel.is_tls(variables);
        let mut authorities = if is_tls { upstream::system_authorities() } else { Vec::new() };
        if let Some(path) = &self.upstream.ca {
            let wrong = |what: String| ConfigError { place: "[upstream] ca".into(), what };
            authorities.extend(tls::authorities(path).map_err(wrong)?);
        }
        let variable = |name: &str| {
            let small = name.to_ascii_lowercase();
            secret(variables, name).or_else(|| secret(variables, &small)).unwrap_or_default().to_owned()
        };
        let mut proxies = Proxies::default();
        (proxies.https, proxies.all, proxies.no) =
            (variable("HTTPS_PROXY"), variable("ALL_PROXY"), variable("NO_PROXY"));
        Road::new(authorities, &proxies)
            .map_err(|error| ConfigError { place: "environment".into(), what: error.to_string() })
    }

    /// The gate's own token for the vendor.
    pub(crate) fn token<'a>(&self, variables: &'a Variables) -> Option<&'a str> {
        secret(variables, &self.upstream.api_token_env)
    }

    /// Where the vendor's books are: with the API, also where calls leave through an AI Gateway.
    pub(crate) fn books_url(&self) -> &str {
        let own = self.upstream.base_url.as_ref().map(|url| url.0.as_str());
        own.filter(|url| !url.starts_with(upstream::GATEWAY)).unwrap_or(upstream::API)
    }

    /// The account of the short routes.
    pub fn account<'a>(&'a self, variables: &'a Variables) -> Option<&'a str> {
        let ours = self.upstream.account_id.as_deref();
        ours.or_else(|| secret(variables, "CLOUDFLARE_ACCOUNT_ID")).filter(|id| !id.is_empty())
    }

    /// Where keys are kept that are made while the gate runs, if they are.
    pub fn keys_path(&self) -> Option<&Path> {
        self.keys_path.as_deref().filter(|path| !path.as_os_str().is_empty())
    }

    /// As it is in force, without secrets.
    pub fn show(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError {
        place: path.display().to_string(),
        what: format!("cannot be read: {error}; name an existing file with --config"),
    })
}

fn secret<'a>(variables: &'a Variables, name: &str) -> Option<&'a str> {
    let found = variables.iter().find(|(variable, _)| variable == name);
    found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
}

/// Line and column, from 1, of a byte.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    (line, column)
}

/// The setting that a variable stands for: `TOLLGATE_UPSTREAM_BASE_URL` is `upstream.base_url`.
fn setting(variable: &str) -> Option<Vec<String>> {
    let name = variable.strip_prefix(PREFIX)?;
    // Kubernetes sets these for a service that is called tollgate.
    if name == "PORT" || name.starts_with("PORT_") || name.starts_with("SERVICE_") || name == "CONFIG" {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let table = TABLES.into_iter().find_map(|table| {
        let key = name.strip_prefix(table)?.strip_prefix('_')?;
        Some(vec![table.to_owned(), key.to_owned()])
    });
    Some(table.unwrap_or_else(|| vec![name]))
}

/// Sets one value and reads the whole again. A value is a text where the setting takes one, else it is read as TOML.
fn override_with(table: &mut toml::Table, path: &[String], value: &str) -> Result<Config, String> {
    let text = toml::Value::String(value.to_owned());
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}")).ok().and_then(|mut t| t.remove("value"));
    let mut first_error = None;
    for candidate in std::iter::once(text).chain(parsed) {
        let mut changed = table.clone();
        insert(&mut changed, path, candidate)?;
        match Config::deserialize(changed.clone()) {
            Ok(config) => {
                *table = changed;
                return Ok(config);
            }
            Err(error) => {
                first_error = Some(error.message().trim().replace('\n', "; "));
            }
        }
    }
    Err(first_error.unwrap_or_default())
}

fn insert(table: &mut toml::Table, path: &[String], value: toml::Value) -> Result<(), String> {
    match path {
        [key] => {
            table.insert(key.clone(), value);
            Ok(())
        }
        [key, rest @ ..] => {
            let inner = table.entry(key.clone()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            let inner = inner.as_table_mut().ok_or_else(|| format!("`{key}` is no table in the config file"))?;
            insert(inner, rest, value)
        }
        [] => Ok(()),
    }
}

// === impl BaseUrl ===

impl TryFrom<String> for BaseUrl {
    type Error = upstream::TargetError;

    fn try_from(url: String) -> Result<Self, Self::Error> {
        Target::new(&url).map(|_| Self(url))
    }
}

impl From<BaseUrl> for String {
    fn from(url: BaseUrl) -> Self {
        url.0
    }
}

/// The file that is read where none is named.
pub fn default_file() -> Option<PathBuf> {
    Some(PathBuf::from("tollgate.toml")).filter(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Config::parse(text, "t.toml").unwrap_err().to_string()
    }

    #[test]
    fn errors_tell_file_line_column_and_what() {
        let unknown = error("listen = \"127.0.0.1:1\"\n[upstream]\nbase_ulr = \"https://x\"\n");
        assert!(unknown.starts_with("t.toml:3:1: unknown field `base_ulr`, expected"), "{unknown}");
        let duration = error("shutdown_timeout = \"5 bananas\"\n");
        assert!(duration.starts_with("t.toml:1:20: ") && duration.contains("unit"), "{duration}");
        let negative = error("[upstream]\n  idle_timeout = \"-3s\"\n");
        assert!(negative.starts_with("t.toml:2:18: "), "{negative}");
        let url = error("[upstream]\nbase_url = \"api.cloudflare.com\"\n");
        assert!(url.starts_with("t.toml:2:12: ") && url.contains("is not a base URL"), "{url}");
        let limit = error("[models.\"@cf/a/b\"]\nrequests_per_minute = 0\n");
        assert!(limit.starts_with("t.toml:2:23: "), "{limit}");
        let retired = error("[compat]\nopenai_streams = true\n");
        assert!(retired.starts_with("t.toml:2:18: ") && retired.contains("v1 = \"vendor\""), "{retired}");
        let status = error("[compat]\nbudget_status = 200\n");
        assert!(status.starts_with("t.toml:2:17: ") && status.contains("400 to 499"), "{status}");
        let alias = error("[aliases]\n\"a*b*\" = \"@cf/a/b\"\n");
        assert!(alias.contains("more than one `*`"), "{alias}");
        assert!(error("listen = \n").starts_with("t.toml:1:"), "{}", error("listen = \n"));
    }

    #[test]
    fn variables_override_the_file_and_are_named_when_wrong() {
        let variables = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let good = variables(&[
            ("TOLLGATE_WORKERS", "3"),
            ("TOLLGATE_UPSTREAM_BASE_URL", "http://127.0.0.1:9"),
            ("TOLLGATE_COMPAT_BUDGET_STATUS", "403"),
            ("TOLLGATE_SERVICE_HOST", "10.0.0.1"),
            ("TOLLGATE_PORT", "tcp://10.0.0.1:80"),
            ("PATH", "/bin"),
        ]);
        let config = Config::load(None, &good).unwrap();
        assert_eq!((config.workers, config.compat.settings().budget_status.as_u16()), (3, 403));
        assert_eq!(config.upstream.base_url, Some(BaseUrl("http://127.0.0.1:9".into())));
        for (name, value) in [("TOLLGATE_MAX_BODY", "lots"), ("TOLLGATE_WORKRES", "2"), ("TOLLGATE_LISTEN", "x")] {
            let error = Config::load(None, &variables(&[(name, value)])).unwrap_err();
            assert_eq!(error.place, name);
        }
    }

    #[test]
    fn what_is_shown_reads_back_the_same() {
        let config = Config::parse("[models.\"@cf/a/b\"]\nprices = { input_token = 100.5 }\n", "").unwrap();
        assert_eq!(Config::parse(&config.show().unwrap(), "").unwrap(), config);
    }
}
