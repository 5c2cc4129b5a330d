//! `tollgate check`

use std::sync::Arc;

use clap::Args;

use super::settings::{Settings, variables};
use super::{Failure, print};
use crate::catalogue::Catalogue;
use crate::sidecar::{books, exposure, spending, webhooks};

#[derive(Args, Debug)]
pub(super) struct Check {
    #[command(flatten)]
    settings: Settings,
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        let variables = variables();
        let config = self.settings.load(&variables)?;
        let target = config.target(&variables).map_err(|error| Failure::Usage(error.to_string()))?;
        let catalogue = Arc::new(Catalogue::with(&config.models));
        spending::check(&config, &catalogue).map_err(|error| Failure::Usage(error.to_string()))?;
        books::check(&config, &variables).map_err(|error| Failure::Usage(error.to_string()))?;
        webhooks::endpoints(&config.webhooks, &variables).map_err(|error| Failure::Usage(error.to_string()))?;
        let open = exposure::check(&config, &target).map_err(|error| Failure::Usage(error.to_string()))?;
        let open: String = open.into_iter().map(|open| format!("# open: {open}\n")).collect();
        let account = config.account(&variables).unwrap_or("none: the short routes will answer 404");
        let shown = config.show().map_err(|error| Failure::Failed(error.to_string()))?;
        print(&format!("# calls go to {target:?}\n# account of the short routes: {account}\n{open}{shown}"))
    }
}
