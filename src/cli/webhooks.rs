//! `tollgate webhooks`

use clap::{Args, Subcommand};
use serde_json::json;

use super::settings::{Settings, variables};
use super::{Failure, block_on, print};
use crate::sidecar::webhooks::{self, Event};

#[derive(Args, Debug)]
pub(super) struct Webhooks {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Send a test event to each webhook of the config, once; exit 1 where one does not take it
    Test {
        #[command(flatten)]
        settings: Settings,
        /// An object a line
        #[arg(long)]
        json: bool,
    },
}

impl Webhooks {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Command::Test { settings, json } = self.command;
        let variables = variables();
        let config = settings.load(&variables)?;
        let road = config.road(&variables).map_err(|error| Failure::Usage(error.to_string()))?;
        let endpoints = webhooks::endpoints(&config.webhooks, &variables, &road);
        let endpoints = endpoints.map_err(|error| Failure::Usage(error.to_string()))?;
        if endpoints.is_empty() {
            return Err(Failure::Usage("the config has no [[webhooks]]: add one with its `url`".into()));
        }
        block_on(async {
            let mut failed = 0;
            for endpoint in &endpoints {
                let why = endpoint.send(&Event::test()).await.err();
                failed += usize::from(why.is_some());
                let (name, said) = (&endpoint.name, why.as_deref().unwrap_or("took it"));
                if json {
                    print(&format!("{}\n", json!({"webhook": name, "delivered": why.is_none(), "error": why})))?;
                } else {
                    print(&format!("{name}: {said}\n"))?;
                }
            }
            match failed {
                0 => Ok(()),
                failed => {
                    Err(Failure::Failed(format!("{failed} of {} webhooks did not take the event", endpoints.len())))
                }
            }
        })?
    }
}
