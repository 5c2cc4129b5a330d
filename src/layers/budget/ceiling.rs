//! A call's own ceiling: a budget of one call, set by its caller ([`Ceiling`]).

use std::sync::Arc;

use tower::Service;

use super::{Budgets, clamp, negotiate, unbounded};
use crate::Error;
use crate::batches::Held;
use crate::call::{Allowance, Call};
use crate::ceiling::Ceiling;
use crate::layers::Reply;
use crate::neurons::Neurons;
use crate::receipt::Estimate;

/// The same call where its bound is under its ceiling, or one with fewer tokens that is; otherwise the refusal. `clamp`: the fewest
/// tokens that are written into a request, where any are.
pub(super) fn held(call: Call, clamp: Option<u32>) -> Result<Call, Error> {
    let Some(ceiling) = call.ceiling.clone() else { return Ok(call) };
    let (left, estimate) = (ceiling.left(), Estimate::of(&call));
    if estimate.upper.is_some_and(|upper| upper <= left) {
        return Ok(call);
    }
    if let Some(shorter) = clamp.and_then(|min_tokens| clamp::clamp(&call, left, min_tokens)) {
        return Ok(shorter);
    }
    call.receipt.note(|facts| facts.estimate = Some(estimate));
    Err(refusal(&call, &ceiling, estimate.upper, clamp.is_some()))
}

fn refusal(call: &Call, ceiling: &Ceiling, bound: Option<Neurons>, is_clamped: bool) -> Error {
    let (model, header, most) = (&call.model.id, ceiling.header, ceiling.most);
    let Some(needed) = bound else {
        let mend = unbounded::mend(call, is_clamped);
        let what = format!("nothing bounds what this call to {model} may cost, and {header} needs a bound: {mend}");
        return Error::OverCeiling { what, bound };
    };
    let lost = most.saturating_sub(ceiling.left());
    let before = if lost.is_zero() {
        String::new()
    } else {
        format!(", of which attempts that were never heard of again may have cost {lost}")
    };
    let hint = unbounded::limit_hint(call, is_clamped).unwrap_or_default();
    let what = format!(
        "this call to {model} may cost {needed} neurons (${}), and {header} allows {most}{before}; {hint}ask for fewer tokens or a \
         cheaper model, or raise the ceiling",
        needed.usd_decimal()
    );
    Error::OverCeiling { what, bound }
}

/// Asks for a call that has a ceiling: within the budgets, where there are any.
pub(super) async fn answer<S>(
    clamp: Option<u32>,
    budgets: Option<Arc<Budgets>>,
    mut inner: S,
    call: Call,
) -> Result<Reply, Error>
where
    S: Service<Call, Response = Reply, Error = Error>,
{
    if call.socket.is_some() {
        let what = "a socket's cost has no bound when it is opened: hold it to a budget instead of a ceiling".into();
        return Err(Error::OverCeiling { what, bound: None });
    }
    let call = held(call, clamp)?;
    match budgets {
        Some(budgets) => negotiate(&budgets, inner, call, None).await,
        None => ask(&mut inner, call).await,
    }
}

/// Asks, with what may have been lost by it counted against the ceiling.
pub(super) async fn ask<S>(inner: &mut S, mut call: Call) -> Result<Reply, Error>
where
    S: Service<Call, Response = Reply, Error = Error>,
{
    let Some(ceiling) = call.ceiling.clone() else { return inner.call(call).await };
    let needed = Estimate::of(&call).upper.unwrap_or(ceiling.most);
    let capped = Arc::new(Capped { ceiling, needed, rest: call.allowance.take() });
    let receipt = call.receipt.clone();
    call.allowance = Some(capped.clone());
    let reply = inner.call(call).await;
    let is_lost = match &reply {
        Ok(_) => false,
        Err(Error::Elapsed { .. }) => {
            receipt.read(|facts| facts.attempts.last().is_some_and(|attempt| attempt.may_have_cost))
        }
        Err(error) => error.may_have_cost(),
    };
    if is_lost {
        capped.ceiling.lose(needed);
    }
    reply
}

/// Attempts that may have cost count against the ceiling, before they count against the budgets.
#[derive(Debug)]
struct Capped {
    ceiling: Arc<Ceiling>,
    needed: Neurons,
    rest: Option<Arc<dyn Allowance>>,
}

impl Allowance for Capped {
    fn again(&self) -> bool {
        let has_room = self.ceiling.left() >= self.needed + self.needed;
        if !has_room || self.rest.as_ref().is_some_and(|rest| !rest.again()) {
            return false;
        }
        self.ceiling.lose(self.needed);
        true
    }

    fn hold(self: Arc<Self>) -> Option<Arc<dyn Held>> {
        self.rest.clone()?.hold()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use tower::{Layer, ServiceExt};

    use super::*;
    use crate::catalogue::{Catalogue, Task};
    use crate::ceiling::MAX_NEURONS;
    use crate::layers::budget::{BudgetLayer, OnExceeded, Period, Rule, Settings};
    use crate::layers::fallback::FallbackLayer;
    use crate::layers::meter::MeterLayer;
    use crate::layers::retry::RetryLayer;
    use crate::layers::testing::{LLAMA, Vendor, call, call_on, ok};

    const DEARER: &str = "@cf/meta/llama-3.3-70b-instruct-fp8-fast";

    fn upper(model: &str, body: &str) -> Neurons {
        Estimate::of(&call(model, body)).upper.unwrap()
    }

    fn under(most: Neurons, call: Call) -> Call {
        Call { ceiling: Some(Arc::new(Ceiling::new(most, MAX_NEURONS))), ..call }
    }

    fn settings(rules: Vec<Rule>, clamp_max_tokens: bool) -> BudgetLayer {
        let settings = Settings { rules, clamp_max_tokens, ..Settings::default() };
        BudgetLayer::new(Budgets::new(settings, Catalogue::default()).unwrap())
    }

    fn below(neurons: Neurons) -> Neurons {
        neurons.saturating_sub(Neurons::from_micro(1))
    }

    fn times(neurons: Neurons, n: u64) -> Neurons {
        Neurons::from_micro(neurons.micro() * n)
    }

    #[tokio::test]
    async fn a_call_whose_bound_is_over_its_ceiling_is_refused_and_told_the_bound() {
        let bound = upper(LLAMA, "{}");
        for layer in [BudgetLayer::default(), settings(vec![Rule::new("b", times(bound, 9), Period::Day)], false)] {
            let vendor = Vendor(|_| async { Ok(ok("{}")) });
            layer.layer(vendor).oneshot(under(bound, call(LLAMA, "{}"))).await.unwrap();
            let never = Vendor(|_| async { panic!("it was sent") });
            let error = layer.layer(never).oneshot(under(below(bound), call(LLAMA, "{}"))).await.unwrap_err();
            assert!(error.to_string().contains(&bound.decimal()), "{error}");
            for form in [crate::ErrorForm::Cloudflare, crate::ErrorForm::OpenAi, crate::ErrorForm::Anthropic] {
                let reply = error.response(form);
                assert_eq!(reply.status(), 402);
                assert_eq!(reply.headers()["x-tollgate-bound-neurons"], bound.decimal());
                assert_eq!(reply.headers()["x-should-retry"], "false");
            }
        }
    }

    #[tokio::test]
    async fn what_nothing_bounds_is_refused_whatever_budgets_take_for_its_bound() {
        let rules = vec![Rule::new("b", Neurons::from_whole(9), Period::Day)];
        let mut settings = Settings { rules, ..Settings::default() };
        settings.unpriced = crate::layers::budget::Unpriced::AtMost(Neurons::from_micro(1));
        let layer = BudgetLayer::new(Budgets::new(settings, Catalogue::default()).unwrap());
        let never = Vendor(|_| async { panic!("it was sent") });
        let error = layer.layer(never).oneshot(under(Neurons::MAX, call("@cf/a/unknown", "{}"))).await.unwrap_err();
        assert!(error.to_string().contains("nothing bounds") && error.status() == 402, "{error}");
    }

    #[tokio::test]
    async fn where_tokens_are_clamped_the_call_fits_under_its_ceiling() {
        let body = r#"{"prompt":"hello","max_tokens":5000}"#;
        let most = Neurons::from_whole(3);
        let vendor = Vendor(move |call: Call| async move {
            assert!(Estimate::of(&call).upper.unwrap() <= most);
            Ok(ok("{}"))
        });
        settings(vec![], true).layer(vendor).oneshot(under(most, call(LLAMA, body))).await.unwrap();
        let never = Vendor(|_| async { panic!("it was sent") });
        settings(vec![], true)
            .layer(never)
            .oneshot(under(Neurons::from_micro(9), call(LLAMA, body)))
            .await
            .unwrap_err();
    }

    #[tokio::test]
    async fn a_dearer_model_that_a_budget_asks_instead_is_held_to_the_ceiling_as_well() {
        let mut rule = Rule::new("b", Neurons::from_micro(1), Period::Day);
        rule.models = vec![LLAMA.into()];
        rule.on_exceeded = OnExceeded::Model(DEARER.into());
        let (cheap, dear) = (upper(LLAMA, "{}"), upper(DEARER, "{}"));
        assert!(dear > cheap);
        let vendor = || {
            Vendor(|call: Call| async move {
                assert_eq!(&*call.model.id, DEARER);
                Ok(ok("{}"))
            })
        };
        let layer = settings(vec![rule], false);
        layer.layer(vendor()).oneshot(under(dear, call(LLAMA, "{}"))).await.unwrap();
        let error = layer.layer(vendor()).oneshot(under(below(dear), call(LLAMA, "{}"))).await.unwrap_err();
        assert!(matches!(error, Error::OverCeiling { bound: Some(bound), .. } if bound == dear), "{error}");
    }

    /// How many attempts are made of a call whose every attempt is lost, on its model and the next of the chain.
    async fn lost_attempts(most: Neurons, with_budget: bool) -> u32 {
        let chain = format!(r#"{{"{LLAMA}": {{"fallback": ["{DEARER}"]}}}}"#);
        let catalogue = Arc::new(Catalogue::with(&serde_json::from_str(&chain).unwrap()));
        let count = Arc::new(AtomicU32::new(0));
        let counted = count.clone();
        let vendor = Vendor(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            async { Err(Error::Timeout { after: Duration::ZERO, setting: "test", was_sent: true }) }
        });
        let rules = if with_budget { vec![Rule::new("b", Neurons::from_whole(9_000), Period::Day)] } else { vec![] };
        let stack = tower::ServiceBuilder::new()
            .layer(FallbackLayer::new(catalogue.clone()))
            .layer(settings(rules, false))
            .layer(RetryLayer::default())
            .layer(MeterLayer::default())
            .service(vendor);
        let call = call_on(Arc::new([]), catalogue.find(LLAMA, Task::TextGeneration), "{}");
        stack.oneshot(under(most, call)).await.unwrap_err();
        count.load(Ordering::SeqCst)
    }

    #[tokio::test(start_paused = true)]
    async fn attempts_that_were_lost_count_together_whatever_model_they_were_on() {
        let (cheap, dear) = (upper(LLAMA, "{}"), upper(DEARER, "{}"));
        for with_budget in [false, true] {
            let attempts = async |most| lost_attempts(most, with_budget).await;
            assert_eq!(attempts(cheap).await, 1);
            assert_eq!(attempts(below(times(cheap, 2))).await, 1);
            assert_eq!(attempts(times(cheap, 2)).await, 2);
            let all_but_one = times(cheap, 4) + dear;
            assert_eq!(attempts(below(all_but_one)).await, 4, "the next model is not asked");
            assert_eq!(attempts(all_but_one).await, 5);
            assert_eq!(attempts(times(cheap, 4) + times(dear, 4)).await, 8);
        }
    }
}
