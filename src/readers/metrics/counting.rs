//! What a sealed receipt adds to the metrics.

use super::families::{Families, PerModel};
use super::gate::Metrics;
use crate::receipt::{Attempt, CacheStatus, Facts, Reader, Source};
use crate::usage::Usage;

/// The codes that [`vendor_error`](crate::vendor_error) knows; any other is `other`.
const CODES: [(u32, &str); 33] = [
    (2005, "2005"),
    (2009, "2009"),
    (2016, "2016"),
    (2017, "2017"),
    (2021, "2021"),
    (2049, "2049"),
    (3003, "3003"),
    (3006, "3006"),
    (3007, "3007"),
    (3008, "3008"),
    (3021, "3021"),
    (3023, "3023"),
    (3030, "3030"),
    (3036, "3036"),
    (3039, "3039"),
    (3040, "3040"),
    (3041, "3041"),
    (3042, "3042"),
    (3046, "3046"),
    (4006, "4006"),
    (5004, "5004"),
    (5005, "5005"),
    (5006, "5006"),
    (5007, "5007"),
    (5012, "5012"),
    (5016, "5016"),
    (5018, "5018"),
    (5019, "5019"),
    (5035, "5035"),
    (7003, "7003"),
    (7013, "7013"),
    (8007, "8007"),
    (10000, "10000"),
];

impl Reader for Metrics {
    fn opened(&self) {
        self.in_flight.inc();
    }

    fn identified(&self, facts: &Facts) {
        if facts.stream {
            self.streams.inc();
        }
    }

    fn upgraded(&self, facts: &Facts) {
        self.speech.opened(&facts.model);
    }

    fn flowed(&self, facts: &Facts, new: &Usage) {
        self.speech.heard(&facts.model, new.audio_ms);
    }

    fn sealed(&self, facts: &Facts) {
        self.in_flight.dec();
        match facts.socket {
            Some(_) => self.speech.closed(&facts.model),
            // Of a socket that was dropped before it was open nothing was told either.
            None => self.speech.heard(&facts.model, facts.usage.audio_ms),
        }
        if facts.stream {
            self.streams.dec();
        }
        let (families, model) = (&self.families, self.model(&facts.model));
        model.outcome(families, facts.outcome).inc();
        model.duration.observe(facts.duration.as_secs_f64());
        if let Some(first_byte) = facts.first_byte {
            model.first_byte.observe(first_byte.as_secs_f64());
        }
        if facts.told_absurdly {
            self.absurd.inc();
        }
        if let Some(overhead) = facts.overhead() {
            self.overhead.observe(overhead.as_secs_f64());
        }
        if !facts.attempts.is_empty() {
            model.wait(families).observe(facts.waited.as_secs_f64());
        }
        for attempt in &facts.attempts {
            count_attempt(families, model, attempt);
        }
        if let Some(refused) = facts.refused {
            families.count_refusal(model, refused);
        }
        count_cache(families, model, facts);
        if ran_without_a_price(facts) {
            families.unpriced.with_label_values(&[&*model.model]).inc();
        }
        self.count_cost(model, facts);
    }
}

impl Metrics {
    fn count_cost(&self, model: &PerModel, facts: &Facts) {
        let (families, usage, cost) = (&self.families, &facts.usage, &facts.cost);
        if usage.input_tokens > 0 || usage.output_tokens > 0 {
            let [input, cached, output] = model.tokens(families);
            input.inc_by(usage.input_tokens.saturating_sub(usage.cached_input_tokens));
            cached.inc_by(usage.cached_input_tokens);
            if usage.cached_input_tokens > 0 {
                let saved = facts.saved_by_prefix().as_f64();
                families.prefix_saved.with_label_values(&[&*model.model]).inc_by(saved);
            }
            output.inc_by(usage.output_tokens);
        }
        if let Some(counter) = model.neurons(families, cost.source) {
            counter.inc_by(cost.neurons.as_f64());
            model.cost_usd(families).inc_by(cost.neurons.usd());
            if let Some(usd) = cost.custom_usd {
                families.custom_cost_usd.with_label_values(&[&*model.model]).inc_by(usd);
            }
            self.kinds.count(&facts.model.prices, usage, cost.neurons);
        }
        if let Some(drift) = cost.drift().filter(|_| cost.source == Source::Reported) {
            model.drift(families).set(drift);
        }
        if let Some(estimate) = facts.estimate.filter(|e| e.input_tokens > 0)
            && usage.input_tokens > 0
            && cost.source > Source::Estimated
        {
            self.estimate_ratio.observe(estimate.input_tokens as f64 / usage.input_tokens as f64);
        }
    }
}

/// It was answered by a model that has no price, and the vendor did not say what that cost.
fn ran_without_a_price(facts: &Facts) -> bool {
    let is_answered =
        facts.attempts.last().is_some_and(|attempt| attempt.status.is_some_and(|status| status.is_success()));
    facts.model.prices.is_empty() && facts.cost.source < Source::Computed && is_answered
}

fn count_attempt(families: &Families, model: &PerModel, attempt: &Attempt) {
    if attempt.status == Some(http::StatusCode::OK) && attempt.code.is_none() && attempt.model == model.model {
        return model.answered(families).inc();
    }
    let status = attempt.status.map_or("none".to_owned(), |status| status.as_str().to_owned());
    let label = if *model.model == *"other" { "other" } else { &attempt.model };
    families.attempts.with_label_values(&[label, &status, code(attempt.code)]).inc();
    if let Some(reason) = attempt.retried {
        families.retries.with_label_values(&[label, reason]).inc();
    }
}

/// A code's label.
fn code(code: Option<u32>) -> &'static str {
    let Some(code) = code else { return "" };
    CODES.iter().find(|(known, _)| *known == code).map_or("other", |(_, label)| label)
}

fn count_cache(families: &Families, model: &PerModel, facts: &Facts) {
    let Some(counter) = model.cache(families, facts.cache) else { return };
    counter.inc();
    use CacheStatus::{Coalesced, Hit, Partial, SemanticHit, Shared};
    if matches!(facts.cache, Hit | Coalesced | Partial | Shared | SemanticHit) {
        families.saved.with_label_values(&[&*model.model]).inc_by(facts.saved.as_f64());
    }
}
