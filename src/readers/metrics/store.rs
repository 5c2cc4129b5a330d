//! How it goes with the store that several gates share, when Prometheus asks.

use std::sync::Arc;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Error, Gauge, IntCounter, IntCounterVec, IntGauge, Opts};

use crate::layers::rate_limit::Sharing;
use crate::replicas::{FleetClock, Noticed, Seen};

/// Looks at each scrape, and so costs nothing between two.
pub(super) struct StoreMetrics {
    seen: Arc<Seen>,
    sharing: Arc<Sharing>,
    up: IntGauge,
    replicas: IntGauge,
    trips: IntCounter,
    words: IntCounter,
    seconds: Counter,
    lost: IntCounterVec,
    noticed: Arc<Noticed>,
    notices: IntCounterVec,
    other_configs: IntGauge,
    clock: Arc<FleetClock>,
    clock_ahead: Gauge,
}

impl StoreMetrics {
    pub(super) fn new(
        seen: Arc<Seen>,
        sharing: Arc<Sharing>,
        noticed: Arc<Noticed>,
        clock: Arc<FleetClock>,
    ) -> Result<Self, Error> {
        let lost = "What was lost of the store: an exchange that was not answered, or all that it knew.";
        let notices = "What other gates told: taken, or refused because it was not signed by one or came twice.";
        let ahead = "How far this gate's wall clock is ahead of the store's; negative where it is behind.";
        let other_configs = "Gates that share the limits and have another config in force than this one.";
        Ok(Self {
            seen,
            sharing,
            up: IntGauge::new("tollgate_store_up", "1 while the store of the shared limits can be reached.")?,
            replicas: IntGauge::new("tollgate_replicas", "Gates that hold a part of the limit that was last told of.")?,
            trips: IntCounter::new("tollgate_store_round_trips_total", "Exchanges with the store.")?,
            words: IntCounter::new("tollgate_store_words_total", "What was said in them: one word for a limit.")?,
            seconds: Counter::new("tollgate_store_round_trip_seconds_total", "How long they took, all together.")?,
            lost: IntCounterVec::new(Opts::new("tollgate_store_lost_total", lost), &["why"])?,
            noticed,
            notices: IntCounterVec::new(Opts::new("tollgate_notices_total", notices), &["end"])?,
            other_configs: IntGauge::new("tollgate_replicas_with_another_config", other_configs)?,
            clock,
            clock_ahead: Gauge::new("tollgate_store_clock_ahead_seconds", ahead)?,
        })
    }
}

impl Collector for StoreMetrics {
    fn desc(&self) -> Vec<&Desc> {
        [
            self.up.desc(),
            self.replicas.desc(),
            self.trips.desc(),
            self.words.desc(),
            self.seconds.desc(),
            self.lost.desc(),
            self.notices.desc(),
            self.other_configs.desc(),
            self.clock_ahead.desc(),
        ]
        .concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let seen = &self.seen;
        self.up.set(i64::from(!self.sharing.is_away()));
        self.replicas.set(i64::try_from(seen.replicas()).unwrap_or(i64::MAX));
        let raise = |counter: &IntCounter, to: u64| counter.inc_by(to.saturating_sub(counter.get()));
        raise(&self.trips, seen.trips());
        raise(&self.words, seen.words());
        self.seconds.inc_by((seen.time().as_secs_f64() - self.seconds.get()).max(0.0));
        raise(&self.notices.with_label_values(&["taken"]), self.noticed.taken());
        raise(&self.notices.with_label_values(&["refused"]), self.noticed.refused());
        self.other_configs.set(i64::try_from(self.noticed.other_configs()).unwrap_or(i64::MAX));
        self.clock_ahead.set(self.clock.ahead());
        raise(&self.lost.with_label_values(&["unanswered"]), seen.lost());
        raise(&self.lost.with_label_values(&["memory"]), seen.forgotten());
        [
            self.up.collect(),
            self.replicas.collect(),
            self.trips.collect(),
            self.words.collect(),
            self.seconds.collect(),
            self.lost.collect(),
            self.notices.collect(),
            self.other_configs.collect(),
            self.clock_ahead.collect(),
        ]
        .concat()
    }
}
