//! Sockets that are open now, for whoever watches.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::catalogue::Model;
use crate::receipt::{CallId, Cost, Facts, Reader};
use crate::usage::Usage;

/// Knows of the sockets that are open, at most [`MOST`](Self::MOST) of them, as of the second before.
#[derive(Default)]
pub struct Running(Mutex<BTreeMap<CallId, Speech>>);

/// An open socket in short.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Speech {
    /// `cf-aig-log-id`.
    pub id: CallId,
    /// The model.
    pub model: Arc<Model>,
    /// The client's key, by its name.
    pub key: Option<Arc<str>>,
    /// How long it has been open.
    pub open_for: Duration,
    /// What it used so far.
    pub usage: Usage,
    /// What it cost so far.
    pub cost: Cost,
}

impl Running {
    /// More are not told apart: the metrics count them.
    pub const MOST: usize = 1_000;

    /// The oldest first.
    pub fn sockets(&self) -> Vec<Speech> {
        self.0.lock().values().cloned().collect()
    }

    fn note(&self, facts: &Facts) {
        let mut sockets = self.0.lock();
        if sockets.len() >= Self::MOST && !sockets.contains_key(&facts.id) {
            return;
        }
        let socket = Speech {
            id: facts.id,
            model: facts.model.clone(),
            key: facts.key.clone(),
            open_for: facts.socket.as_ref().map_or(Duration::ZERO, |socket| socket.opened_at.elapsed()),
            usage: facts.usage.clone(),
            cost: facts.cost,
        };
        sockets.insert(facts.id, socket);
    }
}

impl Reader for Running {
    fn sealed(&self, facts: &Facts) {
        if facts.socket.is_some() {
            self.0.lock().remove(&facts.id);
        }
    }

    fn upgraded(&self, facts: &Facts) {
        self.note(facts);
    }

    fn flowed(&self, facts: &Facts, _: &Usage) {
        // What was dropped before it was open has no place here.
        if facts.socket.is_some() {
            self.note(facts);
        }
    }
}
