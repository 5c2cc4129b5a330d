//! A store that is a Valkey or a Redis, at the other end of a connection.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, RedisError, Script, ServerErrorKind};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::packed;
use super::route::{LinkError, Route};
use super::store::{Answer, Answering, Away, Exchange, Store};
use crate::layers::budget::Grant;
use crate::layers::rate_limit::Heard;
use crate::neurons::Neurons;

/// The store at a URL. Clones share its connection, which lives on the runtime that first asks.
#[derive(Clone)]
pub struct Link(Arc<Inner>);

struct Inner {
    route: Route,
    script: Script,
    /// What all keys begin with. The braces keep them on one node of a cluster.
    prefix: String,
    within: Duration,
    place: &'static Place,
    connection: Mutex<Option<Connected>>,
}

/// What is said of a store that cannot be used.
pub(super) struct Place {
    /// The setting that names it.
    pub(super) setting: &'static str,
    /// What its ACL must allow.
    pub(super) rights: &'static str,
}

#[derive(Clone)]
struct Connected {
    connection: MultiplexedConnection,
    /// Which run of the server it is to; or why that is not known.
    run: Result<Arc<str>, Away>,
    number: u64,
}

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Server {
    /// Its name and version, such as `valkey 8.1.0`.
    pub version: String,
    /// Its run, which a restart changes; empty where it does not say.
    pub run: String,
    /// What it does when its memory is full, such as `noeviction`; empty where it does not say.
    pub eviction: String,
    /// The most memory that it may use, in bytes; 0 where nothing bounds it.
    pub max_memory: u64,
    /// It writes each change to disk.
    pub is_append_only: bool,
    /// How long the question took.
    pub took: Duration,
}

type Replied = (String, Vec<Vec<i64>>, Vec<Vec<i64>>, u64);

const LIMITS: Place = Place {
    setting: "[replicas] store",
    rights: "EVALSHA, SCRIPT, GET, SET, TIME and INFO, and for what gates tell each other XADD, XRANGE, HSET, HGETALL, HSCAN and HDEL",
};
const SCRIPT: &str = include_str!("step.lua");

// === impl Link ===

impl Link {
    /// To a URL such as `redis://:password@host:6379/0`, `rediss://` or `valkey://`, any node of a cluster, or
    /// `redis+sentinel://host:26379,other:26379/mymaster/0`. `fleet` is what gates have in common that share:
    /// others may use the same store. No answer is waited for longer than `within`.
    pub fn new(url: &str, fleet: &str, within: Duration) -> Result<Self, LinkError> {
        Self::of(&LIMITS, url, fleet, within)
    }

    pub(super) fn of(place: &'static Place, url: &str, fleet: &str, within: Duration) -> Result<Self, LinkError> {
        // The second caller finds it installed.
        let _ = rustls::crypto::ring::default_provider().install_default();
        Ok(Self(Arc::new(Inner {
            route: Route::new(url)?,
            script: packed::script(SCRIPT),
            prefix: format!("tollgate:{{{fleet}}}:"),
            within,
            place,
            connection: Mutex::new(None),
        })))
    }

    /// Asks the server who it is.
    pub async fn server(&self) -> Result<Server, Away> {
        let mut connected = self.0.connected().await?;
        let began = tokio::time::Instant::now();
        let info: String = self.0.ask(redis::cmd("INFO").query_async(&mut connected.connection)).await?;
        let took = began.elapsed();
        let field = |name: &str| {
            info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim()
        };
        let version = match field("valkey_version") {
            "" => format!("redis {}", field("redis_version")),
            version => format!("valkey {version}"),
        };
        Ok(Server {
            version,
            run: field("run_id").into(),
            eviction: field("maxmemory_policy").into(),
            max_memory: field("maxmemory").parse().unwrap_or(0),
            is_append_only: field("aof_enabled") == "1",
            took,
        })
    }

    /// Asks the server who it is, and has it do an empty step, for which all rights are needed that a gate needs.
    pub async fn try_out(&self) -> Result<Server, Away> {
        let server = self.server().await?;
        let nobody = Exchange {
            id: "check".into(),
            who: "check".into(),
            keep_ms: 0,
            fleet: "".into(),
            since_ms: 0,
            is_leaving: true,
            words: Vec::new(),
            registers: Vec::new(),
        };
        self.0.exchange(&nobody, 0, "").await?;
        Ok(server)
    }

    /// What a record is called at the store.
    pub(super) fn named(&self, what: &str) -> String {
        format!("{}{what}", self.0.prefix)
    }

    /// A connection of the caller's own.
    pub(super) async fn open(&self) -> Result<MultiplexedConnection, Away> {
        self.0.open().await
    }

    pub(super) fn describe(&self, error: &RedisError) -> String {
        self.0.describe(error)
    }

    pub(super) async fn connection(&self) -> Result<MultiplexedConnection, Away> {
        Ok(self.0.connected().await?.connection)
    }

    pub(super) async fn ask<T>(&self, asking: impl Future<Output = Result<T, RedisError>>) -> Result<T, Away> {
        self.0.ask(asking).await
    }

    /// The same step with a clock and a run of the caller's, for tests.
    #[cfg(test)]
    pub(super) async fn exchange_at(&self, exchange: &Exchange, now: u64, run: &str) -> Result<Answer, Away> {
        self.0.exchange(exchange, now, run).await
    }
}

impl Store for Link {
    fn exchange(&self, exchange: Exchange) -> Answering {
        let inner = self.0.clone();
        Box::pin(async move { inner.exchange(&exchange, 0, "").await })
    }
}

impl Inner {
    async fn exchange(&self, exchange: &Exchange, now: u64, run: &str) -> Result<Answer, Away> {
        let mut connected = self.connected().await?;
        let mut call = self.script.key(format!("{}fleet", self.prefix));
        let server = connected.run.as_deref().unwrap_or_default();
        call.arg(packed::asked(exchange, server, (now, run)));
        for word in &exchange.words {
            call.key(format!("{}limit:{}", self.prefix, word.name)).arg(packed::word(word));
        }
        for told in &exchange.registers {
            let (_, register) = told;
            call.key(format!("{}budget:{}:{}", self.prefix, register.budget, register.bucket));
            call.arg(packed::register(told));
        }
        let number = connected.number;
        let replied: Result<Replied, Away> = match &connected.run {
            Ok(_) => self.ask(call.invoke_async(&mut connected.connection)).await,
            Err(away) => Err(away.clone()),
        };
        match replied {
            Ok((fleet, heard, grants, now_ms)) => Ok(Answer {
                fleet: fleet.into(),
                now_ms,
                heard: heard.iter().map(|told| hear(told)).collect(),
                grants: grants.iter().map(|told| grant(told)).collect(),
            }),
            Err(away) => {
                // A connection whose answers are late is of no use any more, and one to a server that cannot write neither.
                let mut connection = self.connection.lock().await;
                connection.take_if(|connected| connected.number == number);
                Err(away)
            }
        }
    }

    async fn open(&self) -> Result<MultiplexedConnection, Away> {
        let config =
            AsyncConnectionConfig::new().set_connection_timeout(Some(self.within * 4)).set_response_timeout(None);
        let client = self.route.client(self.within).await?;
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        timeout(self.within * 4, connecting)
            .await
            .map_err(|_| Away(format!("no connection within {:?}", self.within * 4)))?
            .map_err(|error| Away(self.describe(&error)))
    }

    async fn connected(&self) -> Result<Connected, Away> {
        let mut place = self.connection.lock().await;
        if let Some(connected) = &*place {
            return Ok(connected.clone());
        }
        let mut connection = self.open().await?;
        let number = fastrand::u64(..);
        let info = self.ask::<String>(redis::cmd("INFO").arg("server").query_async(&mut connection)).await;
        // A store that tells none is known by its records alone.
        let run =
            info.map(|info| info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap_or("").trim().into());
        Ok(place.insert(Connected { connection, run, number }).clone())
    }

    fn describe(&self, error: &RedisError) -> String {
        let has_tls = matches!(self.route.address(), redis::ConnectionAddr::TcpTls { .. });
        describe(error, has_tls, self.place)
    }

    async fn ask<T>(&self, asking: impl Future<Output = Result<T, RedisError>>) -> Result<T, Away> {
        match timeout(self.within, asking).await {
            Ok(answer) => answer.map_err(|error| {
                // Other keys are elsewhere, too, so nobody is to use this connection.
                if self.route.note(&error)
                    && let Ok(mut place) = self.connection.try_lock()
                {
                    *place = None;
                }
                Away(self.describe(&error))
            }),
            Err(_) => Err(Away(format!("no answer within {:?}", self.within))),
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({})", self.0.route.address())
    }
}

/// What went wrong, and what to do where that is known. Nothing of what was sent is in it.
fn describe(error: &RedisError, has_tls: bool, place: &Place) -> String {
    let Place { setting, rights } = place;
    let text = error.to_string();
    let is_ended = error.is_connection_dropped() || error.is_timeout();
    let mend = match error.kind() {
        redis::ErrorKind::AuthenticationFailed => &*format!("; is the password in {setting} right?"),
        redis::ErrorKind::Server(ServerErrorKind::ReadOnly) => "; it is a copy that takes no writes: name the primary",
        redis::ErrorKind::Server(ServerErrorKind::NoPerm) => &format!("; its ACL must allow {rights}"),
        redis::ErrorKind::Parse | redis::ErrorKind::UnexpectedReturnType => "; is it a Redis or a Valkey?",
        redis::ErrorKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask) => {
            "; its keys are at another node of the cluster, which is asked from now on"
        }
        _ if error.is_connection_refusal() => "; does a Redis or Valkey listen there?",
        _ if error.code() == Some("NOAUTH") => "; it asks for a password: redis://user:password@host:6379",
        _ if error.code() == Some("OOM") => "; its maxmemory is reached: give it more, or a store of its own",
        _ if error.code() == Some("MISCONF") => "; it cannot write to its disk",
        _ if text.contains("certificate") => {
            "; its certificate must be for this name, and by an authority that this machine trusts"
        }
        _ if text.contains("lookup") => "; is the host's name right?",
        _ if is_ended && has_tls => {
            "; does it speak TLS? rediss:// is for a store that does, redis:// for one that does not"
        }
        _ if is_ended => "; does it ask for TLS? then write rediss://",
        _ => "",
    };
    format!("{text}{mend}")
}

fn grant(told: &[i64]) -> Option<Grant> {
    let at = |n: usize| told.get(n).copied().and_then(|told| u64::try_from(told).ok()).unwrap_or_default();
    let [upto, spent, all] = [1, 2, 3].map(|n| Neurons::from_micro(at(n)));
    (at(0) == 0 && told.len() == 5).then(|| Grant::new(upto, spent, all, u32::try_from(at(4)).unwrap_or(u32::MAX)))
}

fn hear(told: &[i64]) -> Option<Heard> {
    let at = |n: usize| told.get(n).copied().and_then(|told| u64::try_from(told).ok()).unwrap_or_default();
    let small = |n: usize| u32::try_from(at(n)).unwrap_or(u32::MAX);
    (at(0) == 0 && told.len() == 10)
        .then(|| Heard::new(small(1), [at(2), at(3), at(4), at(6)], small(5), at(7) == 1, (small(8), small(9))))
}
