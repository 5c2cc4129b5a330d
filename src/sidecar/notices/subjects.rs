//! What notices are about.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::Value;

use super::{Board, Fact, Told, time};
use crate::catalogue::Catalogue;
use crate::layers::budget::Which;
use crate::layers::cache::CacheLayer;
use crate::layers::retry::allocation::Allocation;
use crate::neurons::Neurons;
use crate::receipt::Metadatum;
use crate::replicas::MOST_PLACES;
use crate::sidecar::key_rows::{self, Row};
use crate::sidecar::reload::Reloads;
use crate::sidecar::spending::Spending;

/// What notices are about: here is done what was done there.
pub(in crate::sidecar) struct Subjects {
    pub(in crate::sidecar) spending: Arc<Spending>,
    pub(in crate::sidecar) cache: CacheLayer,
    pub(in crate::sidecar) catalogue: Arc<Catalogue>,
    pub(in crate::sidecar) reloads: Arc<Reloads>,
    pub(in crate::sidecar) allocation: Box<dyn Fn() -> Arc<Allocation> + Send + Sync>,
}

/// How a notice came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// Soon after it was put up.
    Now,
    /// It stood there already when the gate began to read, or was put up while it could not.
    Late,
}

// === impl Subjects ===

impl Subjects {
    /// Does here what was done there. What a gate does not have, such as a budget of another config, is left. Waits for the disk.
    pub(super) fn take(&self, board: &Board, told: Told, came: Came) {
        let from = told.from.clone();
        let which = |budget: &str, bucket: &Option<Vec<Value>>, who: &str, reason: &str| {
            let mut which = Which::budget(budget);
            (which.who, which.reason) = (format!("{who} at {from}"), reason.to_owned());
            which.bucket = bucket.as_ref().map(|values| values.iter().cloned().filter_map(metadatum).collect());
            which
        };
        let budgets = self.spending.budgets.get();
        let done = match &told.fact {
            Fact::Raise { budget, bucket, to_micro, until_ms, who, reason } => {
                let mut raises = board.raises.lock();
                // One that ended while nobody looked raises nothing, and neither does one before the last.
                let is_over = until_ms.is_some_and(|until| time(until) <= SystemTime::now());
                if !raises.take(&told) || is_over {
                    return;
                }
                let (which, to) = (which(budget, bucket, who, reason), Neurons::from_micro(*to_micro));
                budgets.raise(&which, to, until_ms.map(time)).map(drop).map_err(|error| error.to_string())
            }
            Fact::Reset { budget, bucket, who, reason } if came == Came::Now => {
                let which = which(budget, bucket, who, reason);
                budgets.reset(&which).map(drop).map_err(|error| error.to_string())
            }
            Fact::Purge { model } => {
                self.cache.purge(model.as_deref());
                Ok(())
            }
            Fact::Key { row } => self.adopt(vec![Row::clone(row)]),
            Fact::Reset { .. } | Fact::Free { .. } | Fact::Price { .. } => Ok(()),
        };
        if let Err(why) = done {
            tracing::warn!(from = told.from, why, "what another gate told is not done here");
        }
    }

    fn adopt(&self, rows: Vec<Row>) -> Result<(), String> {
        let Some(store) = &self.spending.keys else { return Ok(()) };
        let (mut is_new, mut wrong) = (false, None);
        for row in rows {
            match store.adopt(row) {
                Ok(changes) => is_new |= changes,
                Err(error) => wrong = Some(error.to_string()),
            }
        }
        if is_new {
            self.reloads.renew().map_err(|error| format!("keys are not in force: {error}"))?;
        }
        wrong.map_or(Ok(()), Err)
    }

    /// Which keys are kept; `None` where none are.
    pub(super) fn key_rows(&self) -> Option<Vec<Row>> {
        self.spending.keys.as_ref()?.rows().ok()
    }

    /// Another value where anybody has changed the keys.
    pub(super) fn key_mark(&self) -> Option<(i64, i64)> {
        self.spending.keys.as_ref()?.mark().ok()
    }

    /// Joins what is kept at the store to what is kept here, and says what the store lacks. Waits for the disk.
    pub(super) fn join(&self, board: &Board, kept: Vec<(String, String)>) -> Vec<(String, String)> {
        let count = kept.len();
        let read = |(name, text): (String, String)| {
            let (signature, body) = text.split_once(' ')?;
            match board.read(body, signature)?.fact {
                Fact::Key { row } if row.name == name => Some((name, *row)),
                _ => None,
            }
        };
        let there: HashMap<String, Row> = kept.into_iter().filter_map(read).collect();
        if let Err(why) = self.adopt(there.values().cloned().collect()) {
            tracing::warn!(why, "not all keys of the other gates are taken");
        }
        let lacks = |row: &Row| there.get(&row.name) != Some(row);
        let mut lacking: Vec<_> = self.key_rows().unwrap_or_default().into_iter().filter(lacks).collect();
        let room = MOST_PLACES.saturating_sub(count);
        if lacking.len() > room {
            tracing::warn!(
                "the store has no room for more keys than {MOST_PLACES}: a gate that comes later lacks some"
            );
            lacking.truncate(room);
        }
        lacking.into_iter().filter_map(|row| board.kept(row)).collect()
    }
}

impl Board {
    /// A key as the store keeps it: its name, and the notice of it with its signature before it.
    fn kept(&self, row: Row) -> Option<(String, String)> {
        let name = row.name.clone();
        let fact = Fact::Key { row: Box::new(row) };
        let told = Told { from: self.from.clone(), run: self.run.clone(), at_ms: 0, fact };
        let body = serde_json::to_string(&told).ok()?;
        Some((name, format!("{} {body}", self.sign(&body))))
    }
}

/// The digest of these keys, as gates tell each other.
pub(super) fn digest(rows: &[Row]) -> String {
    key_rows::digest(rows)
}

fn metadatum(value: Value) -> Option<Metadatum> {
    match value {
        Value::String(text) => Some(Metadatum::String(text)),
        Value::Number(number) => Some(Metadatum::Number(number)),
        Value::Bool(is_so) => Some(Metadatum::Bool(is_so)),
        Value::Null => Some(Metadatum::Null),
        Value::Array(_) | Value::Object(_) => None,
    }
}
