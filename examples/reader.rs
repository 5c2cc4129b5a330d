//! A reader of receipts of your own: who spends how much, by a tag of the calls. `cargo run --example reader`

mod common;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::json;
use tollgate::client::{Options, WorkersAi};
use tollgate::neurons::Neurons;
use tollgate::receipt::{Facts, Metadatum, Reader};

/// Sums up what each team spends.
#[derive(Default)]
struct Teams(Mutex<BTreeMap<String, (u32, Neurons)>>);

impl Reader for Teams {
    /// Runs where a call ends, on its way: quick, and without waiting for anything but this map.
    fn sealed(&self, receipt: &Facts) {
        let team = receipt.metadata.iter().find(|(name, _)| name == "team");
        let Some((_, Metadatum::String(team))) = team else { return };
        let Ok(mut teams) = self.0.lock() else { return };
        let (calls, neurons) = teams.entry(team.clone()).or_default();
        *calls += 1;
        *neurons += receipt.cost.neurons;
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (builder, _vendor) = common::builder()?;
    let teams = Arc::new(Teams::default());
    let ai = WorkersAi::new(builder.reader(teams.clone()).build()?);
    for (n, team) in ["search", "support", "search", "growth", "support", "search"].into_iter().enumerate() {
        let mut options = Options::default();
        options.metadata = vec![("team".into(), Metadatum::String(team.into()))];
        let tagged = ai.with(options);
        tagged.run("@cf/meta/llama-3.2-1b-instruct", &json!({"prompt": format!("Question {n} of {team}")})).await?;
    }
    for (team, (calls, neurons)) in &*teams.0.lock().map_err(|_| "a reader panicked")? {
        println!("{team:10} {calls} calls  {neurons} neurons  ${:.6}", neurons.usd());
    }
    Ok(())
}
