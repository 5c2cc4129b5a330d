//! What the page knows of the past: the last hour by minutes, and today by models.
//!
//! It looks at the counters now and then and keeps the differences, so that watching costs no call anything.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::readers::metrics::totals::{ModelTotals, Totals};
use crate::readers::records::{Moment, Usage};

/// Minutes on the charts.
pub(super) const MINUTES: usize = 60;
/// Models that have a line of their own; further ones share one.
const MODELS: usize = 200;
const OTHER: &str = "other";
/// Calls a second are those of this time.
const RATE_OVER: Duration = Duration::from_secs(15);
const MINUTES_A_DAY: u64 = 24 * 60;

/// The past, and the counters as they were last seen.
#[derive(Default)]
pub(super) struct History {
    /// The latest is the last; without gaps.
    minutes: VecDeque<Minute>,
    /// Which minute since 1970 the last one is.
    last_minute: u64,
    /// Since 00:00 UTC.
    pub(super) today: BTreeMap<String, Used>,
    seen: Totals,
    rate: VecDeque<(Instant, f64)>,
}

/// What happened in one minute.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Minute {
    /// Neurons by model.
    pub(super) neurons: BTreeMap<String, f64>,
    pub(super) calls: f64,
    pub(super) hits: f64,
    pub(super) failed: f64,
    pub(super) refused_upstream: f64,
}

/// What a model used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Used {
    pub(super) calls: f64,
    pub(super) neurons: f64,
    pub(super) saved: f64,
}

impl History {
    /// Takes up the counters as they are in this minute since 1970.
    pub(super) fn observe(&mut self, minute: u64, now: Instant, totals: Totals) {
        self.move_to(minute);
        let seen = std::mem::take(&mut self.seen);
        for (model, figures) in &totals.models {
            self.add(model, figures, seen.models.get(model).copied().unwrap_or_default());
        }
        let calls = totals.models.values().map(|model| model.calls).sum();
        self.rate.push_back((now, calls));
        while self.rate.len() > 2 && self.rate.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= RATE_OVER) {
            self.rate.pop_front();
        }
        self.seen = totals;
    }

    /// Takes up what earlier runs have written.
    pub(super) fn remember(&mut self, minute: u64, moments: Vec<Moment>, today: Vec<Usage>) {
        self.move_to(minute);
        for moment in moments {
            let Some(place) = self.place(moment.minute) else { continue };
            let minute = &mut self.minutes[place];
            minute.calls += moment.calls as f64;
            minute.hits += moment.hits as f64;
            *entry(&mut minute.neurons, &moment.model) += moment.neurons.as_f64();
        }
        for usage in today {
            let used = entry(&mut self.today, &usage.names.concat());
            used.calls += usage.calls as f64;
            used.neurons += usage.neurons.as_f64();
            used.saved += usage.saved.as_f64();
        }
    }

    /// The counters when they were last looked at.
    pub(super) fn totals(&self) -> &Totals {
        &self.seen
    }

    /// Oldest first, always [`MINUTES`] of them.
    pub(super) fn minutes(&self) -> impl Iterator<Item = &Minute> {
        self.minutes.iter()
    }

    /// Which minute since 1970 the last one is.
    pub(super) fn last_minute(&self) -> u64 {
        self.last_minute
    }

    pub(super) fn calls_a_second(&self) -> f64 {
        let (Some((from, before)), Some((until, after))) = (self.rate.front(), self.rate.back()) else { return 0.0 };
        let seconds = until.duration_since(*from).as_secs_f64();
        if seconds > 0.0 { (after - before) / seconds } else { 0.0 }
    }

    fn place(&self, minute: u64) -> Option<usize> {
        let ago = usize::try_from(self.last_minute.checked_sub(minute)?).ok()?;
        (MINUTES - 1).checked_sub(ago)
    }

    fn move_to(&mut self, minute: u64) {
        let passed = minute.saturating_sub(self.last_minute).min(MINUTES as u64);
        if minute / MINUTES_A_DAY > self.last_minute / MINUTES_A_DAY {
            self.today.clear();
        }
        self.last_minute = self.last_minute.max(minute);
        self.minutes.extend((0..passed).map(|_| Minute::default()));
        while self.minutes.len() > MINUTES {
            self.minutes.pop_front();
        }
    }

    fn add(&mut self, model: &str, now: &ModelTotals, before: ModelTotals) {
        let Some(minute) = self.minutes.back_mut() else { return };
        let (calls, neurons) = (now.calls - before.calls, now.neurons - before.neurons);
        minute.calls += calls;
        minute.hits += now.hits - before.hits;
        minute.failed += now.failed - before.failed;
        minute.refused_upstream += now.refused_upstream - before.refused_upstream;
        if neurons > 0.0 {
            *entry(&mut minute.neurons, model) += neurons;
        }
        if calls > 0.0 || neurons > 0.0 {
            let used = entry(&mut self.today, model);
            used.calls += calls;
            used.neurons += neurons;
            used.saved += now.saved - before.saved;
        }
    }
}

fn entry<'a, V: Default>(map: &'a mut BTreeMap<String, V>, model: &str) -> &'a mut V {
    let name = if map.len() < MODELS || map.contains_key(model) { model } else { OTHER };
    map.entry(name.to_owned()).or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(neurons: f64) -> Totals {
        let figures = ModelTotals { calls: neurons, neurons, ..ModelTotals::default() };
        let mut totals = Totals::default();
        totals.models.insert("m".into(), figures);
        totals
    }

    fn spent(history: &History) -> Vec<f64> {
        history.minutes().map(|minute| minute.neurons.values().sum()).collect()
    }

    #[test]
    fn what_is_counted_stands_in_its_minute_and_midnight_begins_a_day() {
        let (mut history, now) = (History::default(), Instant::now());
        let midnight = 30_000 * MINUTES_A_DAY;
        history.observe(midnight - 3, now, totals(5.0));
        history.observe(midnight - 3, now, totals(7.0));
        history.observe(midnight - 1, now + Duration::from_secs(10), totals(10.0));
        assert_eq!(spent(&history)[MINUTES - 3..], [7.0, 0.0, 3.0]);
        assert_eq!((history.today["m"].neurons, history.calls_a_second()), (10.0, 0.5));
        history.observe(midnight, now, totals(11.0));
        assert_eq!(history.today["m"].neurons, 1.0);
        history.observe(midnight + 500, now, totals(12.0));
        let minutes = spent(&history);
        assert_eq!((minutes.len(), minutes[MINUTES - 1], minutes.iter().sum::<f64>()), (MINUTES, 1.0, 1.0));
    }

    #[test]
    fn junk_models_share_a_line() {
        let mut map: BTreeMap<String, f64> = BTreeMap::new();
        for n in 0..1000 {
            *entry(&mut map, &format!("junk-{n}")) += 1.0;
        }
        assert_eq!((map.len(), map[OTHER]), (MODELS + 1, 800.0));
    }
}
