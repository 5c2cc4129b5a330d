//! Lists of steps, against asking one step after the other by hand.

use proptest::prelude::*;
use serde_json::{Value, json};
use tollgate::neurons::Neurons;
use tollgate::receipt::Outcome;
use tollgate::simulator::{Coercion, Writes};

use crate::requests::Asked;
use crate::run::{Broken, cases};
use crate::world::World;

const GATEWAY: &str = "/v1/acc/gw";
/// What goes wrong with a step, as `x-simulate` has it; most have nothing.
const TROUBLES: [&str; 10] = ["", "", "", "", "3040", "3021", "5007", "500", "error-in-200=3040", "stream-error=3040"];

/// A step: how it is written, and as a request by itself.
#[derive(Clone, Debug)]
struct Step {
    provider: &'static str,
    endpoint: String,
    query: Value,
    trouble: &'static str,
    /// What else stands in it, and is nobody's.
    extra: Option<(&'static str, Value)>,
}

impl Step {
    fn written(&self) -> Value {
        let mut step = json!({"provider": self.provider, "endpoint": self.endpoint, "query": self.query});
        if !self.trouble.is_empty() {
            step["headers"] = json!({"x-simulate": self.trouble, "Content-Type": "application/json"});
        }
        if let Some((name, value)) = &self.extra {
            step[*name] = value.clone();
        }
        step
    }

    fn alone(&self) -> Asked {
        asked(format!("{GATEWAY}/{}/{}", self.provider, self.endpoint.trim_start_matches('/')), &self.query)
    }
}

fn asked(path: String, body: &Value) -> Asked {
    let content_type = Some("application/json".to_owned());
    Asked { path, content_type, content_encoding: None, body: body.to_string().into_bytes() }
}

fn step() -> BoxedStrategy<Step> {
    let models = prop::sample::select(vec![
        "@cf/meta/llama-3.2-1b-instruct",
        "@cf/google/gemma-4-26b-a4b-it",
        "@cf/qwen/qwen3-30b-a3b-fp8",
        "@cf/nobody/knows",
    ]);
    let extra = prop::option::of(prop::sample::select(vec![
        ("config", json!({"requestTimeout": 60_000, "unheard": [1]})),
        ("config", Value::Null),
        ("headers", Value::Null),
        ("comment", json!({"deep": [{}]})),
    ]));
    let trouble = prop::sample::select(&TROUBLES[..]);
    (models, 0usize..6, trouble, any::<bool>(), 0u32..1_000, extra)
        .prop_map(|(model, form, trouble, stream, number, extra)| {
            let words = format!("tale {number}");
            let chat = |model: String| json!({"model": model, "messages": [{"role": "user", "content": words}], "max_tokens": 30, "stream": stream});
            let native = json!({"prompt": words, "max_tokens": 30, "stream": stream});
            let (provider, endpoint, query) = match form {
                0 => ("workers-ai", model.to_owned(), native),
                1 => ("workers-ai", format!("/run/{model}"), native),
                2 => ("workers-ai", "v1/chat/completions".to_owned(), chat(model.to_owned())),
                3 => ("workers-ai", "v1/messages".to_owned(), chat(model.to_owned())),
                4 => ("compat", "chat/completions".to_owned(), chat(format!("workers-ai/{model}"))),
                // No path, or none that is known.
                _ => ("workers-ai", "v1/no such".to_owned(), native),
            };
            // Headers of a step's own would take the trouble out of it.
            let extra = extra.filter(|(name, _)| *name != "headers" || trouble.is_empty());
            Step { provider, endpoint, query, trouble, extra }
        })
        .boxed()
}

#[test]
fn a_list_of_steps_is_answered_as_the_steps_are_one_by_one() {
    let world = World::new(Writes::Usual, Coercion::Plain);
    let strategy = prop::collection::vec(step(), 1..5);
    cases("steps", 300, &strategy, |steps| check(&world, steps));
}

fn check(world: &World, steps: &[Step]) -> Result<(), Broken> {
    let list: Vec<Value> = steps.iter().map(Step::written).collect();
    let before = world.seen();
    let told = world.ask_list(&asked(GATEWAY.to_owned(), &json!(list)));
    let sent = world.seen() - before;
    // By hand, until one answers.
    let (mut charged, mut arrived, mut answered) = (Neurons::ZERO, 0, None);
    for (number, step) in steps.iter().enumerate() {
        let before = world.seen();
        let came = match step.endpoint.contains(' ') {
            true => None,
            false if step.trouble.is_empty() => Some(world.ask(&step.alone(), &[])),
            false => Some(world.ask(&step.alone(), &[("x-simulate", step.trouble)])),
        };
        arrived += world.seen() - before;
        charged += came.as_ref().map_or(Neurons::ZERO, |came| came.charged);
        let is_good = came.as_ref().is_some_and(|came| came.status.is_success() && came.facts.outcome == Outcome::Ok);
        if is_good || number + 1 == steps.len() {
            answered = Some((number, came));
            break;
        }
    }
    let (number, came) = answered.unwrap();
    let figures =
        format!("step {number}: {:?}, told {:?} {}", came.as_ref().map(|came| came.status), told.step, told.status);
    if told.step != Some(number) {
        return Err(("another step answers".into(), figures));
    }
    if sent != arrived {
        return Err((format!("{sent} requests went out, and by hand {arrived}"), figures));
    }
    let oks = told.outcomes.iter().filter(|outcome| **outcome == Outcome::Ok).count();
    if oks > 1 || told.cost != told.charged {
        return Err((
            "another cost than the vendor's".into(),
            format!("{oks} answers, {} for {}", told.cost, told.charged),
        ));
    }
    if told.charged != charged {
        return Err(("another bill".into(), format!("{} for {charged}, {figures}", told.charged)));
    }
    match came {
        Some(came) if came.status != told.status => Err(("another status".into(), figures)),
        Some(came) if came.status.is_success() && came.body != told.body => Err(("another reply".into(), figures)),
        _ => Ok(()),
    }
}
