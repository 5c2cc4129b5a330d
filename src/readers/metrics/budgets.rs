//! How the budgets stand, looked at when Prometheus asks.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Gauge, GaugeVec, IntCounterVec, Opts};

use crate::layers::budget::{CurrentBudgets, FREE};

/// Collects the state of all budgets. A budget's label is its name in the config; the values it is split by are summed up.
pub(super) struct BudgetMetrics {
    budgets: CurrentBudgets,
    limit: GaugeVec,
    spent: GaugeVec,
    reserved: GaugeVec,
    left: GaugeVec,
    rejected: IntCounterVec,
    diverted: IntCounterVec,
    free_remaining: Gauge,
    free_lasts: Gauge,
}

impl BudgetMetrics {
    /// Of these budgets.
    pub(super) fn new(budgets: CurrentBudgets) -> Result<Self, prometheus::Error> {
        let gauge = |name: &str, help: &str| GaugeVec::new(Opts::new(name, help), &["budget"]);
        Ok(Self {
            budgets,
            limit: gauge(
                "tollgate_budget_limit_neurons",
                "What a budget, or each bucket of it, may cost in a window.",
            )?,
            spent: gauge("tollgate_budget_spent_neurons", "Spent in this window, all buckets together.")?,
            reserved: gauge("tollgate_budget_reserved_neurons", "Reserved by calls that run, all buckets together.")?,
            left: gauge(
                "tollgate_budget_left_neurons",
                "What the bucket that has least left has left in this window.",
            )?,
            rejected: IntCounterVec::new(
                Opts::new("tollgate_budget_rejected_total", "Calls that a budget had no room for."),
                &["budget"],
            )?,
            diverted: IntCounterVec::new(
                Opts::new(
                    "tollgate_budget_diverted_total",
                    "Calls that a budget had no room for and sent to a cheaper model.",
                ),
                &["budget"],
            )?,
            free_remaining: Gauge::new(
                "tollgate_free_neurons_remaining",
                "What is left of the day's free allocation, as far as it passed here.",
            )?,
            free_lasts: Gauge::new(
                "tollgate_free_neurons_lasts_seconds",
                "When the free allocation will be used up at the pace of the last minutes; +Inf while nothing is spent.",
            )?,
        })
    }

    fn collectors(&self) -> [&dyn Collector; 8] {
        [
            &self.limit,
            &self.spent,
            &self.reserved,
            &self.left,
            &self.rejected,
            &self.diverted,
            &self.free_remaining,
            &self.free_lasts,
        ]
    }
}

impl Collector for BudgetMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.collectors().into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // A budget that is in the config no more stands for nothing.
        [&self.limit, &self.spent, &self.reserved, &self.left].into_iter().for_each(GaugeVec::reset);
        for status in self.budgets.get().status() {
            let labels = [status.name.as_str()];
            self.limit.with_label_values(&labels).set(status.limit.as_f64());
            self.spent.with_label_values(&labels).set(status.spent.as_f64());
            self.reserved.with_label_values(&labels).set(status.reserved.as_f64());
            self.left.with_label_values(&labels).set(status.left.as_f64());
            for (counter, so_far) in [(&self.rejected, status.rejected), (&self.diverted, status.diverted)] {
                let counter = counter.with_label_values(&labels);
                counter.inc_by(so_far.saturating_sub(counter.get()));
            }
            if status.name == FREE {
                self.free_remaining.set(status.left.as_f64());
                self.free_lasts.set(status.lasts.map_or(f64::INFINITY, |lasts| lasts.as_secs_f64()));
            }
        }
        self.collectors().into_iter().flat_map(Collector::collect).collect()
    }
}
