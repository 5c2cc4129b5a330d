//! What the gate says of a request before it is made, against what the vendor charges for it at the worst.

use tollgate::simulator::{Coercion, Writes};

use crate::requests::{self, Asked};
use crate::run::{Broken, cases};
use crate::world::{Came, World};

#[test]
fn no_request_costs_more_than_its_bound_and_each_arrives_as_it_was_sent() {
    for (name, coercion) in [("dear", Coercion::Dear), ("plain", Coercion::Plain)] {
        let world = World::new(Writes::ToTheLimit, coercion);
        cases(&format!("requests, {name}"), 400, &requests::request(), |asked| check(&world, asked));
    }
}

fn check(world: &World, asked: &Asked) -> Result<(), Broken> {
    judge(world, asked, &world.ask(asked, &[]))
}

/// Whether what came of a call is as it should be.
pub fn judge(world: &World, asked: &Asked, came: &Came) -> Result<(), Broken> {
    let model = came.facts.model.id.to_string();
    let Some(arrived) = &came.arrived else { return refused(world, asked, came) };
    if arrived.body != asked.body {
        return Err((format!("changed on the way to {model}"), format!("{} bytes arrived", arrived.body.len())));
    }
    let sent = asked.content_type.as_deref();
    let kind = arrived.headers.get("content-type").map(|kind| kind.to_str().unwrap());
    if sent != kind {
        return Err(("another content type arrived".into(), format!("{kind:?}")));
    }
    match came.upper() {
        Some(upper) if came.charged > upper => {
            let kind = format!("bound too small for {:?} {model}", came.facts.model.task);
            Err((kind, format!("charged {}, bound {upper}", came.charged)))
        }
        _ => Ok(()),
    }
}

/// What the gate refuses, the vendor refuses, too.
fn refused(world: &World, asked: &Asked, came: &Came) -> Result<(), Broken> {
    let (status, _) = world.ask_vendor(asked, &[]);
    if !status.is_success() {
        return Ok(());
    }
    let why = came.body.as_ref().map(|body| String::from_utf8_lossy(body).into_owned()).unwrap_or_default();
    Err((format!("refused with {} what the vendor takes", came.status), why))
}
