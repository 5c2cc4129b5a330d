//! Which raise of a budget is the last one, wherever it was made.

use std::collections::HashMap;

use serde_json::Value;

use super::{Fact, Told};

/// The last raise of each budget and bucket that is known of.
#[derive(Debug, Default)]
pub(super) struct Raises(HashMap<String, Told>);

/// Raises that are kept in mind: those that end first make room.
const MOST: usize = 1024;

// === impl Raises ===

impl Raises {
    /// The time that a raise has which is made now: later than all that are known of its budget and bucket.
    pub(super) fn now(&self, budget: &str, bucket: Option<&[Value]>, now_ms: u64) -> u64 {
        self.0.get(&subject(budget, bucket)).map_or(now_ms, |last| now_ms.max(last.at_ms + 1))
    }

    /// Whether a raise is the last one of its budget and bucket. It is from now on, if so.
    pub(super) fn take(&mut self, told: &Told) -> bool {
        let Fact::Raise { budget, bucket, .. } = &told.fact else { return false };
        let subject = subject(budget, bucket.as_deref());
        let is_last = self.0.get(&subject).is_none_or(|last| (last.at_ms, &last.run) < (told.at_ms, &told.run));
        if is_last {
            if self.0.len() >= MOST && !self.0.contains_key(&subject) {
                let first = self.0.iter().min_by_key(|(_, told)| until(told)).map(|(subject, _)| subject.clone());
                first.map(|first| self.0.remove(&first));
            }
            self.0.insert(subject, told.clone());
        }
        is_last
    }

    /// Those that have not ended, as they were told first.
    pub(super) fn in_force(&self, now_ms: u64) -> Vec<Told> {
        self.0.values().filter(|told| until(told) > now_ms).cloned().collect()
    }
}

fn until(told: &Told) -> u64 {
    match told.fact {
        Fact::Raise { until_ms, .. } => until_ms.unwrap_or_default(),
        _ => 0,
    }
}

fn subject(budget: &str, bucket: Option<&[Value]>) -> String {
    format!("{budget}\n{}", bucket.map(|bucket| Value::Array(bucket.to_vec()).to_string()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raise(budget: &str, run: &str, at_ms: u64, until_ms: u64) -> Told {
        let fact = Fact::Raise {
            budget: budget.into(),
            bucket: None,
            to_micro: 1,
            until_ms: Some(until_ms),
            who: String::new(),
            reason: String::new(),
        };
        Told { from: run.into(), run: run.into(), at_ms, fact }
    }

    #[test]
    fn of_two_raises_at_once_every_gate_takes_the_same_one() {
        let (one, other) = (raise("b", "1", 5, 90), raise("b", "2", 5, 80));
        for order in [[&one, &other], [&other, &one]] {
            let mut raises = Raises::default();
            for told in order {
                raises.take(told);
            }
            assert_eq!(raises.0["b\n"].run, "2");
            assert!(!raises.take(&one), "the earlier one comes again");
            // Somebody whose clock is behind raises it after that.
            assert_eq!(raises.now("b", None, 3), 6);
            assert!(raises.take(&raise("b", "1", 6, 70)));
        }
    }

    #[test]
    fn raises_are_bounded_and_those_that_ended_are_not_told_again() {
        let mut raises = Raises::default();
        for n in 0..2 * MOST as u64 {
            assert!(raises.take(&raise(&n.to_string(), "1", n, n)));
        }
        assert_eq!(raises.0.len(), MOST);
        assert_eq!(raises.in_force(2 * MOST as u64 - 11).len(), 10);
    }
}
