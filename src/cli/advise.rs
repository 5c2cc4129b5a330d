//! `tollgate advise`

use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::json;

use super::settings::{Settings, variables};
use super::usage::Files;
use super::{Failure, print};
use crate::readers::records::Evidence;
use crate::sidecar::advice::{self, Advice, Known};

#[derive(Args, Debug)]
pub(super) struct Advise {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    files: Files,
    /// How far back to look
    #[arg(long, value_name = "DURATION", default_value = "7d", value_parser = humantime::parse_duration)]
    since: Duration,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Advise {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.settings.load(&variables())?;
        let catalogue = self.settings.catalogue(&config);
        let now = SystemTime::now();
        let until = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let archive = self.files.open(&config)?;
        let evidence = archive.evidence(millis(until.saturating_sub(self.since)), millis(until) + 1);
        let evidence = evidence.map_err(|error| Failure::Failed(error.to_string()))?;
        let keys = config.keys.iter().map(|key| key.name.clone()).collect();
        let priced = advice::priced(&config.models);
        let advice = advice::advice(&evidence, &Known { catalogue: &catalogue, keys, priced, now });
        print(&if self.json { in_json(&advice, &evidence) } else { in_words(&advice, &evidence) })
    }
}

const NO_DIGESTS: &str =
    "repeats and shared beginnings were not looked for: no call of that time has a digest ([records] digests)";

fn in_json(advice: &[Advice], evidence: &Evidence) -> String {
    let told = |advice: &Advice| {
        json!({
            "waste": advice.waste, "of": advice.of, "calls": advice.calls,
            "saved": {"neurons": advice.saved.as_f64(), "usd": advice.saved.usd()},
            "shown": advice.shown, "change": advice.change, "in_return": advice.in_return,
        })
    };
    let (spent, not_seen) = (evidence.spent, (evidence.with_digest == 0).then_some(NO_DIGESTS));
    let told = json!({
        "spent": {"neurons": spent.as_f64(), "usd": spent.usd()},
        "advice": advice.iter().map(told).collect::<Vec<_>>(),
        "not_looked_at": not_seen,
    });
    format!("{told:#}\n")
}

fn in_words(advice: &[Advice], evidence: &Evidence) -> String {
    let mut text = format!("{} neurons were spent (${})\n", evidence.spent, evidence.spent.usd_decimal());
    if advice.is_empty() {
        text += "the records show nothing to change\n";
    }
    for (place, advice) in advice.iter().enumerate() {
        let Advice { waste, of, saved, shown, change, in_return, .. } = advice;
        let money = match saved.is_zero() {
            true => "saves no neurons".to_owned(),
            false => format!("saves {saved} neurons, ${}", saved.usd_decimal()),
        };
        text += &format!(
            "\n{}. {waste}, {of}: {money}\n   shown      {shown}\n   change     {change}\n   in return  {in_return}\n",
            place + 1
        );
    }
    if evidence.with_digest == 0 {
        text += &format!("\n{NO_DIGESTS}\n");
    }
    text
}
