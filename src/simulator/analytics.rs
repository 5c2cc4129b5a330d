//! `POST /client/v4/graphql`: what was charged to an account, by model and by the way it came in. It lags, and settles.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::dice;
use crate::neurons::Neurons;
use crate::usage::Usage;

/// What was charged, by the second.
#[derive(Debug, Default)]
pub(super) struct Ledger(Mutex<BTreeMap<Place, Charged>>);

/// Second, account, model, source.
type Place = (u64, String, String, &'static str);

#[derive(Clone, Copy, Debug, Default)]
struct Charged {
    calls: u64,
    input_tokens: u64,
    output_tokens: u64,
    neurons: Neurons,
}

/// As the vendor names calls over HTTP, and those of Workers.
pub(super) const REST: &str = "rest api";
pub(super) const BINDING: &str = "workers binding";
/// The oldest go where there are more.
const MAX_PLACES: usize = 200_000;

impl Ledger {
    pub(super) fn note(&self, account: &str, model: &str, source: &'static str, usage: &Usage, neurons: Neurons) {
        let mut places = self.0.lock();
        let charged = places.entry((seconds(SystemTime::now()), account.into(), model.into(), source)).or_default();
        charged.calls += 1;
        charged.input_tokens += usage.input_tokens;
        charged.output_tokens += usage.output_tokens;
        charged.neurons += neurons;
        while places.len() > MAX_PLACES {
            places.pop_first();
        }
    }

    /// The answer to the one question that is asked here. Each second's charges are seen when they are half as old as the lag,
    /// or older, and all of them when they are as old as it is.
    pub(super) fn answer(&self, question: &Value, lag: Duration) -> Value {
        let variables = &question["variables"];
        let moment = |name: &str| variables[name].as_str()?.parse::<Timestamp>().ok().map(|at| at.as_second() as u64);
        let (Some(account), Some(from), Some(until)) = (variables["a"].as_str(), moment("s"), moment("e")) else {
            return json!({"data": null, "errors": [{"message": "error parsing args: a, s and e are needed"}]});
        };
        let now = SystemTime::now();
        let mut groups: BTreeMap<(&str, &str), Charged> = BTreeMap::new();
        let places = self.0.lock();
        let span = (from, String::new(), String::new(), "")..(until + 1, String::new(), String::new(), "");
        for ((second, of, model, source), charged) in places.range(span) {
            if of == account && is_seen(*second, model, now, lag) {
                let group = groups.entry((model, source)).or_default();
                group.calls += charged.calls;
                group.input_tokens += charged.input_tokens;
                group.output_tokens += charged.output_tokens;
                group.neurons += charged.neurons;
            }
        }
        let rows: Vec<_> = groups.into_iter().map(|((model, source), charged)| row(model, source, charged)).collect();
        json!({"data": {"viewer": {"accounts": [{"aiInferenceAdaptiveGroups": rows}]}}, "errors": null})
    }
}

fn is_seen(second: u64, model: &str, now: SystemTime, lag: Duration) -> bool {
    let age = now.duration_since(SystemTime::UNIX_EPOCH + Duration::from_secs(second)).unwrap_or_default();
    let share = (dice::seed(&[model, &second.to_string()]) % 1000) as f64 / 1000.0;
    age >= lag.mul_f64(0.5 + share / 2.0)
}

fn row(model: &str, source: &str, charged: Charged) -> Value {
    let Charged { calls, input_tokens, output_tokens, neurons } = charged;
    json!({
        "count": calls,
        "sum": {
            "totalNeurons": neurons.as_f64(), "totalInputTokens": input_tokens, "totalOutputTokens": output_tokens,
        },
        "dimensions": {"modelId": model, "errorCode": 0, "requestSource": source},
    })
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
