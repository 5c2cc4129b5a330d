//! What was answered and charged: the figures that a gate's own are checked against.

use std::collections::BTreeMap;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::analytics::{BINDING, Ledger, REST};
use crate::catalogue::Model;
use crate::neurons::Neurons;
use crate::usage::Usage;

/// What one stand-in has seen since it started.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Counts {
    /// Requests for a model, answered or not.
    pub attempts: u64,
    /// Refusals for the rate, 429 with code 3021, that no fault asked for.
    pub rate_limited: u64,
    /// What each model answered and charged, by its name.
    pub models: BTreeMap<String, ModelCounts>,
    /// What was charged to accounts for calls that came in by a Worker's binding, where no gate stands.
    pub elsewhere: Neurons,
}

/// What one model answered.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct ModelCounts {
    /// Answers begun: a stream that nobody read to its end counts, and was charged, in whole.
    pub answered: u64,
    /// Tokens read, cached ones included.
    pub input_tokens: u64,
    /// The part of them that was cached.
    pub cached_input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Milliseconds of audio heard.
    pub audio_ms: u64,
    /// Characters spoken.
    pub characters: u64,
    /// What was charged, by the catalogue.
    pub neurons: Neurons,
}

#[derive(Debug, Default)]
pub(super) struct Books {
    pages: Mutex<Pages>,
    pub(super) ledger: Ledger,
    /// Workers' share of each account's spending.
    elsewhere: f64,
}

#[derive(Debug, Default)]
struct Pages {
    counts: Counts,
    /// What Workers have yet to spend, to have their share.
    owed: f64,
    /// What each account has spent on the day, counted from the epoch.
    spent: BTreeMap<String, (u64, Neurons)>,
}

/// More accounts than this share one allocation.
const MAX_ACCOUNTS: usize = 10_000;

impl Counts {
    /// What all models charged together.
    pub fn neurons(&self) -> Neurons {
        self.models.values().map(|model| model.neurons).sum()
    }

    /// What all models answered together.
    pub fn answered(&self) -> u64 {
        self.models.values().map(|model| model.answered).sum()
    }
}

impl Books {
    pub(super) fn new(elsewhere: f64) -> Self {
        Self { elsewhere: elsewhere.clamp(0.0, 0.99), ..Self::default() }
    }

    pub(super) fn counts(&self) -> Counts {
        self.pages.lock().counts.clone()
    }

    pub(super) fn attempted(&self) {
        self.pages.lock().counts.attempts += 1;
    }

    pub(super) fn rate_limited(&self) {
        self.pages.lock().counts.rate_limited += 1;
    }

    /// What an account has spent today.
    pub(super) fn spent(&self, account: &str) -> Neurons {
        let pages = self.pages.lock();
        pages.spent.get(account).filter(|(day, _)| *day == today()).map_or(Neurons::ZERO, |(_, spent)| *spent)
    }

    /// Charges an answer by the model's prices, and tells what it cost.
    pub(super) fn charge(&self, account: &str, model: &Model, usage: &Usage) -> Neurons {
        let cost = model.prices.cost(usage);
        self.charge_as(account, model, usage, cost);
        cost
    }

    /// Charges an answer as much as its own reply says.
    pub(super) fn charge_as(&self, account: &str, model: &Model, usage: &Usage, cost: Neurons) {
        let mut pages = self.pages.lock();
        let counts = pages.counts.models.entry(model.id.to_string()).or_default();
        counts.answered += 1;
        counts.input_tokens += usage.input_tokens;
        counts.cached_input_tokens += usage.cached_input_tokens;
        counts.output_tokens += usage.output_tokens;
        counts.audio_ms += usage.audio_ms;
        counts.characters += usage.characters;
        counts.neurons += cost;
        pages.spend(account, cost);
        self.ledger.note(account, &model.id, REST, usage, cost);
        pages.owed += cost.as_f64() * self.elsewhere / (1.0 - self.elsewhere);
        let workers_turn = pages.owed >= cost.as_f64() && self.elsewhere > 0.0;
        if workers_turn {
            pages.owed -= cost.as_f64();
        }
        drop(pages);
        if workers_turn {
            self.charge_elsewhere(account, model, usage);
        }
    }

    /// Charges a call of a Worker's, and tells what it cost.
    pub(super) fn charge_elsewhere(&self, account: &str, model: &Model, usage: &Usage) -> Neurons {
        let cost = model.prices.cost(usage);
        let mut pages = self.pages.lock();
        pages.counts.elsewhere += cost;
        pages.spend(account, cost);
        self.ledger.note(account, &model.id, BINDING, usage, cost);
        cost
    }
}

impl Pages {
    fn spend(&mut self, account: &str, cost: Neurons) {
        let known = self.spent.len() < MAX_ACCOUNTS || self.spent.contains_key(account);
        let (day, spent) = self.spent.entry(if known { account } else { "" }.to_owned()).or_default();
        if *day != today() {
            (*day, *spent) = (today(), Neurons::ZERO);
        }
        *spent += cost;
    }
}

fn today() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs() / 86_400)
}
