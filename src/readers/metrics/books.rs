//! What the vendor's own books say, looked at when Prometheus asks.

use std::sync::Arc;
use std::time::SystemTime;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, GaugeVec, IntCounter, IntGauge, IntGaugeVec, Opts};

use crate::books::{Book, Known};
use crate::catalogue::Catalogue;

/// Collects what is [`Known`], and what the catalogue has learned. A model's label is its catalogue name.
pub(super) struct BooksMetrics {
    known: Arc<Known>,
    catalogue: Arc<Catalogue>,
    account: GaugeVec,
    settled: Gauge,
    is_up: IntGaugeVec,
    read: GaugeVec,
    agree: IntGaugeVec,
    price_changes: IntCounter,
    leaves: GaugeVec,
    vanished: IntGauge,
    learned: GaugeVec,
}

/// A model that has been gone for longer is no news.
const GONE_FOR_DAYS: i32 = -7;

impl BooksMetrics {
    pub(super) fn new(known: Arc<Known>, catalogue: Arc<Catalogue>) -> Result<Self, prometheus::Error> {
        let gauges = |name: &str, help: &str, label: &str| GaugeVec::new(Opts::new(name, help), &[label]);
        let whole = |name: &str, help: &str, labels: &[&str]| IntGaugeVec::new(Opts::new(name, help), labels);
        Ok(Self {
            known,
            catalogue,
            account: gauges(
                "tollgate_account_neurons",
                "Neurons of the account's day, by the vendor's books: those that passed the gate, and those spent elsewhere.",
                "via",
            )?,
            settled: Gauge::new(
                "tollgate_account_until_timestamp_seconds",
                "Until when the vendor's books of the account's day were read.",
            )?,
            is_up: whole(
                "tollgate_books_up",
                "The vendor's book could be read the last time; 0 is trouble.",
                &["book"],
            )?,
            read: gauges("tollgate_books_read_timestamp_seconds", "When the vendor's book was last read.", "book")?,
            agree: whole(
                "tollgate_books_agree",
                "The gate's figures of the day agree with the vendor's, model by model, to 1%.",
                &[],
            )?,
            price_changes: IntCounter::new("tollgate_price_changes_total", "Prices that the vendor's list set anew.")?,
            leaves: gauges(
                "tollgate_model_leaves_timestamp_seconds",
                "When the vendor takes a model away, where it has said so.",
                "model",
            )?,
            vanished: IntGauge::new("tollgate_models_vanished", "Models known here that the vendor lists no more.")?,
            learned: gauges(
                "tollgate_learned_price_ratio",
                "Reported over the table's price, where it was learned that they differ.",
                "model",
            )?,
        })
    }

    fn collectors(&self) -> [&dyn Collector; 9] {
        [
            &self.account,
            &self.settled,
            &self.is_up,
            &self.read,
            &self.agree,
            &self.price_changes,
            &self.leaves,
            &self.vanished,
            &self.learned,
        ]
    }

    fn look_at_books(&self) {
        for (name, book) in [("models", self.known.list()), ("analytics", self.known.analytics())] {
            // A book that nobody is to read has no series.
            if book == Book::default() {
                continue;
            }
            self.is_up.with_label_values(&[name]).set(book.trouble.is_none().into());
            if let Some(at) = book.read_at {
                self.read.with_label_values(&[name]).set(timestamp(at));
            }
        }
        if let Some(account) = self.known.account() {
            self.account.with_label_values(&["gate"]).set(account.gate.as_f64());
            self.account.with_label_values(&["elsewhere"]).set(account.elsewhere.as_f64());
            self.settled.set(timestamp(account.until));
            if let Some(report) = account.report {
                self.agree.with_label_values::<&str>(&[]).set(report.agrees().into());
            }
        }
        self.price_changes.inc_by(self.known.price_changes().saturating_sub(self.price_changes.get()));
    }

    fn look_at_models(&self) {
        let now = SystemTime::now();
        self.leaves.reset();
        self.learned.reset();
        for model in self.catalogue.models().iter().filter(|model| model.is_listed()) {
            let is_news = model.days_left(now).is_some_and(|days| days >= GONE_FOR_DAYS);
            if let Some(at) = model.leaves_at().filter(|_| is_news) {
                self.leaves.with_label_values(&[&*model.id]).set(timestamp(at));
            }
            if let Some(ratio) = model.learned.ratio() {
                self.learned.with_label_values(&[&*model.id]).set(ratio);
            }
        }
        self.vanished.set(self.catalogue.vanished().len() as i64);
    }
}

impl Collector for BooksMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.collectors().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.look_at_books();
        self.look_at_models();
        self.collectors().into_iter().flat_map(Collector::collect).collect()
    }
}

fn timestamp(at: SystemTime) -> f64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}
