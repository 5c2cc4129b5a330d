//! `tollgate check`

use std::sync::Arc;

use clap::Args;
use serde_json::json;

use super::settings::{KEYS, Settings, variables};
use super::store::{self, Doubt};
use super::{Failure, print};
use crate::catalogue::Catalogue;
use crate::replicas::Link;
use crate::sidecar::config::ConfigError;
use crate::sidecar::shared_cache::SharedTier;
use crate::sidecar::{books, exposure, spending, webhooks};

#[derive(Args, Debug)]
pub(super) struct Check {
    #[command(flatten)]
    settings: Settings,
    /// Also ask the store of [replicas] who it is
    #[arg(long)]
    connect: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self) -> Result<(), Failure> {
        let variables = variables();
        let mut config = self.settings.load(&variables)?;
        // As `serve` has it, but where nothing was kept nothing is made.
        if config.keys_path.is_none() && std::path::Path::new(KEYS).exists() {
            config.keys_path = Some(KEYS.into());
        }
        let target = config.target(&variables).map_err(|error| Failure::Usage(error.to_string()))?;
        let catalogue = Arc::new(Catalogue::with(&config.models));
        spending::check(&config, &catalogue).map_err(|error| Failure::Usage(error.to_string()))?;
        books::check(&config, &variables).map_err(|error| Failure::Usage(error.to_string()))?;
        let wrong = |error: ConfigError| Failure::Usage(error.to_string());
        let road = config.road(&variables).map_err(wrong)?;
        let proxy = road.proxy_to(&target.base_url()).map(|proxy| format!("# through the proxy {proxy}\n"));
        config.tls.acceptor("[tls]").and(config.admin_tls.acceptor("[admin_tls]")).map_err(wrong)?;
        webhooks::endpoints(&config.webhooks, &variables, &road).map_err(|error| Failure::Usage(error.to_string()))?;
        let link = config.replicas.link().map_err(|error| Failure::Usage(error.to_string()))?;
        let mut store = match link.filter(|_| self.connect) {
            Some(link) => try_store(&link)?,
            None => String::new(),
        };
        if let Some(tier) = config.shared_tier().map_err(wrong)?.filter(|_| self.connect) {
            store += &try_cache(&tier)?;
        }
        let open = exposure::check(&config, &target).map_err(|error| Failure::Usage(error.to_string()))?;
        let config_account = config.account(&variables).map(str::to_owned);
        let doubts = spending::doubts(&config, &catalogue);
        for doubt in &doubts {
            eprintln!("tollgate: warning: {doubt}");
        }
        if self.json {
            let config = serde_json::to_value(&config).map_err(|error| Failure::Failed(error.to_string()))?;
            let body = json!({
                "upstream": format!("{target:?}"),
                "account": config_account,
                "open": open,
                "warnings": doubts,
                "config": config,
            });
            return print(&format!("{body:#}\n"));
        }
        let open: String = open.into_iter().map(|open| format!("# open: {open}\n")).collect();
        let account = config.account(&variables).unwrap_or("none: the short routes will answer 404");
        let shown = config.show().map_err(|error| Failure::Failed(error.to_string()))?;
        let doubts: String = doubts.into_iter().map(|doubt| format!("# warning: {doubt}\n")).collect();
        print(&format!(
            "# calls go to {target:?}\n{}# account of the short routes: {account}\n{store}{open}{doubts}{shown}",
            proxy.unwrap_or_default()
        ))
    }
}

/// What the store says of itself, and what of it would lose the limits' memory.
fn try_store(link: &Link) -> Result<String, Failure> {
    let server = super::block_on(async { link.try_out().await })?;
    let server = server.map_err(|why| Failure::Failed(format!("the store of [replicas] cannot be used: {why}")))?;
    let mut told = format!("# the store of [replicas] is {}\n", store::name(&server));
    for Doubt { found, mend } in store::doubts(&server) {
        told += &format!("# store: {found}: {mend}\n");
    }
    Ok(told)
}

/// The same of the store of cached answers.
fn try_cache(tier: &SharedTier) -> Result<String, Failure> {
    let server = super::block_on(async { tier.link.try_out().await })?;
    let server = server.map_err(|why| Failure::Failed(format!("the store of [cache] cannot be used: {why}")))?;
    let mut told = format!("# answers are shared through {}\n", store::name(&server));
    for Doubt { found, mend } in store::cache_doubts(&server, tier.has_own_store) {
        told += &format!("# cache store: {found}: {mend}\n");
    }
    Ok(told)
}
