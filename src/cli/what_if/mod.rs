//! `tollgate what-if`

mod answers;
mod ask;
mod changes;
mod clock;
mod comparison;
mod replay;
#[cfg(test)]
mod tests;
mod words;

use std::sync::Arc;

use clap::Args;

use self::changes::Changes;
use self::replay::{Replay, Setting};
use super::settings::{Settings, variables};
use super::usage::Files;
use super::usage::by::named;
use super::usage::span::SpanArgs;
use super::{Failure, print};

#[derive(Args, Debug)]
pub(super) struct WhatIf {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    span: SpanArgs,
    #[command(flatten)]
    changes: Changes,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl WhatIf {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.settings.load(&variables())?;
        let span = self.span.resolve(jiff::Timestamp::now())?;
        let changed = self.changes.of(&config, &variables())?;
        let archive = self.files.open(&config)?;
        let labels = named(&config)?;
        let replay = Replay { archive: &archive, from_ms: span.from_ms, until_ms: span.until_ms, labels };
        // Each has models of its own, for they learn of what is replayed.
        let catalogue = |config| Arc::new(self.settings.catalogue(config));
        let unchanged = replay.through(&Setting::of(&config, catalogue(&config)))?;
        let with_changes = match self.changes.are_any() {
            false => None,
            true => {
                let mut setting = Setting::of(&changed, catalogue(&changed));
                setting.was = (&config, catalogue(&config));
                setting.models = self.changes.models()?;
                Some(replay.through(&setting)?)
            }
        };
        print(&match self.json {
            true => words::json(&span, &unchanged, with_changes.as_ref()),
            false => words::table(&span, &unchanged, with_changes.as_ref()),
        })
    }
}
