//! A shelf that is a Valkey or a Redis.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, Value};

use super::shelf::{Look, MAX_MODELS, Put, Seen, Shelf, Stored};
use crate::replicas::link::Place;
use crate::replicas::{Away, Link, LinkError, Server};

/// The store at a URL, by a connection of its own, so that no answer stands in the way of a permit. Clones share it.
#[derive(Clone)]
pub struct CacheLink(Arc<Inner>);

struct Inner {
    link: Link,
    /// What all keys begin with. The braces keep them on one node of a cluster.
    prefix: String,
    connection: ArcSwapOption<MultiplexedConnection>,
}

const PLACE: Place = Place {
    setting: "[cache] store, or else in [replicas] store,",
    rights: "GETRANGE, PTTL, SET, HMGET, HSET, HSETNX, HLEN, DEL and INFO",
};
const EVERYTHING: &str = "all";

// === impl CacheLink ===

impl CacheLink {
    /// As [`Link::new`] has it. `within` bounds what is not on a call's way: connecting, putting and purging.
    pub fn new(url: &str, fleet: &str, within: Duration) -> Result<Self, LinkError> {
        let link = Link::of(&PLACE, url, fleet, within)?;
        let prefix = format!("tollgate:cache:{{{fleet}}}:");
        Ok(Self(Arc::new(Inner { link, prefix, connection: ArcSwapOption::empty() })))
    }

    /// Asks the server who it is, and does once what a gate does there, for which all rights are needed that it needs.
    pub async fn try_out(&self) -> Result<Server, Away> {
        let server = self.0.link.server().await?;
        let mut connection = self.0.link.connection().await?;
        let (value, marks) = (self.0.named("check"), self.0.named("check-marks"));
        let mut pipe = redis::pipe();
        pipe.set_options(&value, "x", redis::SetOptions::default().with_expiration(redis::SetExpiry::PX(1000)));
        pipe.getrange(&value, 0, 1).pttl(&value).hset_nx(&marks, "x", "x").hset(&marks, "x", "x").hlen(&marks);
        pipe.cmd("HMGET").arg(&marks).arg("x").arg("y").del(&marks);
        let _: Vec<Value> = self.0.link.ask(pipe.query_async(&mut connection)).await?;
        Ok(server)
    }

    fn with<T: Send + 'static, F>(
        &self,
        ask: impl FnOnce(MultiplexedConnection, Arc<Inner>) -> F,
    ) -> BoxFuture<'static, Result<T, Away>>
    where
        F: Future<Output = Result<T, Away>> + Send + 'static,
    {
        match self.0.connection.load_full() {
            Some(connection) => Box::pin(ask((*connection).clone(), self.0.clone())),
            None => Box::pin(std::future::ready(Err(Away("there is no connection".into())))),
        }
    }
}

impl Shelf for CacheLink {
    fn open(&self) -> BoxFuture<'static, Result<(), Away>> {
        let inner = self.0.clone();
        Box::pin(async move {
            // One that answered late or not at all goes with its answers.
            inner.connection.store(None);
            let mut connection = inner.link.open().await?;
            let _: Value = inner.link.ask(inner.marks_of("").query_async(&mut connection)).await?;
            inner.connection.store(Some(Arc::new(connection)));
            Ok(())
        })
    }

    fn look(&self, look: Look) -> BoxFuture<'static, Result<Seen, Away>> {
        self.with(|mut connection, inner| async move {
            let mut pipe = inner.marks_of(&look.model);
            for name in &look.names {
                let name = inner.named(name);
                pipe.getrange(&name, 0, isize::try_from(look.max_bytes).unwrap_or(isize::MAX)).pttl(&name);
            }
            // The call's own wait is shorter, and bounds it.
            let answer: Vec<Value> = inner.link.ask(pipe.query_async(&mut connection)).await?;
            Ok(seen(answer))
        })
    }

    fn put(&self, Put { name, value, ttl }: Put) -> BoxFuture<'static, Result<Stored, Away>> {
        self.with(|mut connection, inner| async move {
            let mut set = redis::cmd("SET");
            let milliseconds = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1);
            set.arg(inner.named(&name)).arg(value).arg("PX").arg(milliseconds);
            let mut refused = None;
            let asking = async {
                let answer: Result<Value, RedisError> = set.query_async(&mut connection).await;
                match answer {
                    Err(error) if is_refusal(&error) => refused = Some(error),
                    Err(error) => return Err(error),
                    Ok(_) => {}
                }
                Ok(())
            };
            inner.link.ask(asking).await?;
            Ok(match refused {
                None => Stored::Kept,
                Some(error) if error.code() == Some("OOM") => Stored::Full,
                Some(error) => Stored::Refused(inner.link.describe(&error)),
            })
        })
    }

    fn begin(&self, mark: Vec<u8>) -> BoxFuture<'static, Result<(), Away>> {
        self.with(|mut connection, inner| async move {
            let mut pipe = redis::pipe();
            pipe.hset_nx(inner.named("marks"), EVERYTHING, mark).ignore();
            inner.link.ask(pipe.query_async(&mut connection)).await
        })
    }

    fn purge(&self, model: Option<String>, mark: Vec<u8>) -> BoxFuture<'static, Result<(), Away>> {
        self.with(|mut connection, inner| async move {
            let marks = inner.named("marks");
            let known: usize = inner.link.ask(redis::cmd("HLEN").arg(&marks).query_async(&mut connection)).await?;
            let mut pipe = redis::pipe();
            match model.filter(|_| known <= MAX_MODELS) {
                Some(model) => pipe.hset(&marks, model, mark).ignore(),
                None => pipe.del(&marks).ignore().hset(&marks, EVERYTHING, mark).ignore(),
            };
            inner.link.ask(pipe.query_async(&mut connection)).await
        })
    }
}

impl Inner {
    fn named(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    fn marks_of(&self, model: &str) -> Pipeline {
        let mut pipe = redis::pipe();
        pipe.cmd("HMGET").arg(self.named("marks")).arg(EVERYTHING).arg(model);
        pipe
    }
}

/// The server said no, and will say so of other commands, or not: the connection is as good as it was.
fn is_refusal(error: &RedisError) -> bool {
    error.code().is_some() && !error.is_connection_dropped()
}

/// What a look was answered with: marks, and then a value and its time for each name. What is of another kind is nothing.
fn seen(answer: Vec<Value>) -> Seen {
    let bytes = |value: &Value| match value {
        Value::BulkString(bytes) => Some(bytes.clone()),
        _ => None,
    };
    let (mut all, mut model) = (None, None);
    if let Some(Value::Array(marks)) = answer.first() {
        (all, model) = (marks.first().and_then(bytes), marks.get(1).and_then(bytes));
    }
    let value = |pair: &[Value]| {
        let left = match pair.get(1) {
            Some(Value::Int(left)) => u64::try_from(*left).ok().map(Duration::from_millis),
            _ => None,
        };
        (pair.first().and_then(bytes).unwrap_or_default(), left)
    };
    Seen::new(all, model, answer.get(1..).unwrap_or_default().chunks(2).map(value).collect())
}

impl fmt::Debug for CacheLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.link)
    }
}
