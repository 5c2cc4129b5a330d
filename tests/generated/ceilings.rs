//! A call's own ceiling, against what the vendor charges at the worst.

use std::cell::Cell;

use proptest::prelude::*;
use tollgate::neurons::Neurons;
use tollgate::simulator::{Coercion, Writes};

use crate::requests::{self, Asked};
use crate::run::{Broken, cases};
use crate::world::World;

/// Ceilings by what a call may cost and what it cost without one.
const CEILINGS: usize = 5;

#[test]
fn no_call_passes_a_ceiling_that_its_real_cost_is_over() {
    let world = World::new(Writes::ToTheLimit, Coercion::Dear);
    let (passed, refused) = (Cell::new(0u32), Cell::new(0u32));
    let strategy = (requests::request(), 0u64..2_000_000, any::<bool>());
    cases("ceilings", 500, &strategy, |(asked, any, in_usd)| {
        let free = world.ask(asked, &[]);
        let (upper, charged) = (free.upper().unwrap_or_default(), free.charged);
        let below = |neurons: Neurons| neurons.saturating_sub(Neurons::from_micro(1));
        for most in [upper, below(upper), charged, below(charged), Neurons::from_micro(*any)] {
            check(
                &world,
                asked,
                most,
                *in_usd,
                free.arrived.is_some().then_some(free.upper()).flatten(),
                (&passed, &refused),
            )?;
        }
        Ok(())
    });
    let (passed, refused) = (passed.get(), refused.get());
    println!("ceilings: {passed} calls passed, {refused} were refused, {CEILINGS} ceilings a request");
    assert!(passed > 100 && refused > 100, "{passed} passed, {refused} refused: neither may be rare");
}

fn check(
    world: &World,
    asked: &Asked,
    most: Neurons,
    in_usd: bool,
    bound: Option<Neurons>,
    (passed, refused): (&Cell<u32>, &Cell<u32>),
) -> Result<(), Broken> {
    let header = match in_usd {
        true => ("x-tollgate-max-usd", most.usd_exact()),
        false => ("x-tollgate-max-neurons", most.decimal()),
    };
    let came = world.ask(asked, &[(header.0, &header.1)]);
    let model = came.facts.model.id.to_string();
    let Some(arrived) = &came.arrived else {
        refused.set(refused.get() + 1);
        let was_over = bound.is_none_or(|bound| bound > most);
        let kind = format!("refused with {} though its bound is under its ceiling", came.status);
        return if was_over { Ok(()) } else { Err((kind, format!("bound {bound:?}, ceiling {most}, {model}"))) };
    };
    passed.set(passed.get() + 1);
    if let Some(name) = arrived.headers.keys().find(|name| name.as_str().starts_with("x-tollgate-")) {
        return Err(("a header of the gate's own went upstream".into(), name.to_string()));
    }
    match came.charged > most {
        true => Err((format!("over its ceiling on {model}"), format!("charged {}, ceiling {most}", came.charged))),
        false => Ok(()),
    }
}
