//! What gates put up at the store for each other: notices, in the order in which the store took them, and what is to be kept.
//!
//! Notices are a stream, of which the oldest go; what is to be kept is a hash with a place for each name. What stands in either, and
//! who may be believed, is the business of whoever reads it.

use std::sync::atomic::{AtomicU64, Ordering};

use redis::FromRedisValue;

use super::link::Link;
use super::store::{Away, FORGET_MS};

/// What a gate put up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notice {
    /// Where it stands in the stream: later ones have greater ids.
    pub id: String,
    /// Its text.
    pub body: String,
    /// What its writer signed it with; empty where it did not.
    pub signature: String,
}

/// Notices that were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Notices {
    /// Oldest first.
    pub notices: Vec<Notice>,
    /// The one that was read last stands there no more: the store has lost its memory, or so many came since that it is gone.
    pub has_gap: bool,
}

/// What a gate says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tags {
    /// The gate's name.
    pub gate: String,
    /// The digest of the config that it has in force.
    pub config: String,
    /// The digest of the keys that it keeps; `-` where it keeps or shares none.
    pub keys: String,
}

/// What became of notices, for metrics.
#[derive(Debug, Default)]
pub struct Noticed {
    taken: AtomicU64,
    refused: AtomicU64,
    other_configs: AtomicU64,
}

type Pair = (Vec<u8>, Vec<u8>);

/// Before all notices.
pub const FIRST: &str = "0-0";
/// So many are kept, and a few more.
const KEPT: usize = 4096;
/// Read at once.
const AT_ONCE: usize = 128;
/// Names whose place is looked at, and that are given one.
pub const MOST_PLACES: usize = 100_000;
/// Gates that are heard of.
const MOST_GATES: usize = 256;

impl Link {
    /// Puts a notice up.
    pub async fn put_up(&self, body: &str, signature: &str) -> Result<(), Away> {
        let mut command = redis::cmd("XADD");
        command.arg(self.named("notices")).arg("MAXLEN").arg("~").arg(KEPT).arg("*");
        command.arg("body").arg(body).arg("signature").arg(signature);
        self.tell::<String>(&command).await.map(drop)
    }

    /// The notices after the one with this id, oldest first; some hundred at most. [`FIRST`] is before all of them.
    pub async fn notices(&self, after: &str) -> Result<Notices, Away> {
        let mut command = redis::cmd("XRANGE");
        // The last one is read again, to see that it still stands there.
        command.arg(self.named("notices")).arg(after).arg("+").arg("COUNT").arg(AT_ONCE + 1);
        let read: Vec<(String, Vec<Vec<u8>>)> = self.tell(&command).await?;
        let notice = |(id, fields): (String, Vec<Vec<u8>>)| {
            let field = |name: &str| {
                let mut pairs = fields.chunks_exact(2);
                pairs.find(|pair| pair[0] == name.as_bytes()).map_or_else(String::new, |pair| text(&pair[1]))
            };
            Notice { body: field("body"), signature: field("signature"), id }
        };
        let mut notices: Vec<_> = read.into_iter().map(notice).collect();
        let stands = notices.first().is_some_and(|notice| notice.id == after);
        if stands {
            notices.remove(0);
        }
        Ok(Notices { notices, has_gap: !stands && after != FIRST })
    }

    /// Keeps a text under each of these names, in place of the one before.
    pub async fn keep(&self, texts: &[(String, String)]) -> Result<(), Away> {
        for some in texts.chunks(AT_ONCE) {
            let mut command = redis::cmd("HSET");
            command.arg(self.named("keys"));
            for (name, text) in some {
                command.arg(name).arg(text);
            }
            self.tell::<u64>(&command).await?;
        }
        Ok(())
    }

    /// All that is kept, by name; of [`MOST_PLACES`] names and a few more.
    pub async fn kept(&self) -> Result<Vec<(String, String)>, Away> {
        let (mut all, mut cursor) = (Vec::new(), 0_u64);
        loop {
            let mut command = redis::cmd("HSCAN");
            command.arg(self.named("keys")).arg(cursor).arg("COUNT").arg(AT_ONCE * 2);
            let (next, some): (u64, Vec<Pair>) = self.tell(&command).await?;
            all.extend(some.iter().map(|(name, kept)| (text(name), text(kept))));
            cursor = next;
            if cursor == 0 || all.len() >= MOST_PLACES {
                return Ok(all);
            }
        }
    }

    /// Says what a gate has, and hears what all have that said so, by name. Who has said nothing for [`FORGET_MS`] by the store's clock
    /// is forgotten.
    pub async fn tags(&self, own: Option<&Tags>) -> Result<Vec<Tags>, Away> {
        let key = self.named("configs");
        let (seconds, micros): (u64, u64) = self.tell(&redis::cmd("TIME")).await?;
        let now_ms = seconds * 1000 + micros / 1000;
        if let Some(Tags { gate, config, keys }) = own {
            let mut command = redis::cmd("HSET");
            command.arg(&key).arg(gate).arg(format!("{now_ms} {config} {keys}"));
            self.tell::<u64>(&command).await?;
        }
        let all: Vec<Pair> = self.tell(redis::cmd("HGETALL").arg(&key)).await?;
        let (mut tags, mut forgotten) = (Vec::new(), redis::cmd("HDEL"));
        forgotten.arg(&key);
        let mut is_any_forgotten = false;
        for (name, said) in all {
            let (gate, said) = (text(&name), text(&said));
            let mut parts = said.split(' ');
            let at = parts.next().and_then(|at| at.parse::<u64>().ok()).unwrap_or_default();
            let mut part = || parts.next().unwrap_or("-").to_owned();
            if at + FORGET_MS > now_ms && tags.len() < MOST_GATES {
                tags.push(Tags { gate, config: part(), keys: part() });
            } else {
                forgotten.arg(name);
                is_any_forgotten = true;
            }
        }
        if is_any_forgotten && own.is_some() {
            self.tell::<u64>(&forgotten).await?;
        }
        tags.sort_unstable_by(|a, b| a.gate.cmp(&b.gate));
        Ok(tags)
    }

    async fn tell<T: FromRedisValue>(&self, command: &redis::Cmd) -> Result<T, Away> {
        let mut connection = self.connection().await?;
        self.ask(command.query_async(&mut connection)).await
    }
}

/// What is no text was put up by none of ours, and is signed by nobody.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

// === impl Tags ===

impl Tags {
    /// Of a gate, by its name.
    pub fn new(gate: &str, config: &str, keys: &str) -> Self {
        Self { gate: gate.into(), config: config.into(), keys: keys.into() }
    }
}

// === impl Noticed ===

impl Noticed {
    /// One of another gate's was taken.
    pub fn take(&self) {
        self.taken.fetch_add(1, Ordering::Relaxed);
    }

    /// One was not signed by a gate of the fleet, or came twice.
    pub fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// So many gates have another config in force.
    pub fn compare(&self, others: u64) {
        self.other_configs.store(others, Ordering::Relaxed);
    }

    /// Notices that were taken.
    pub fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Notices that were refused.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Gates that have another config in force than this one.
    pub fn other_configs(&self) -> u64 {
        self.other_configs.load(Ordering::Relaxed)
    }
}
