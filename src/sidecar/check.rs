//! Whether a sidecar can be of a config.

use std::sync::Arc;

use super::config::{Config, ConfigError, Variables};
use super::{books, exposure, spending, webhooks};
use crate::catalogue::Catalogue;

/// Whether a sidecar can be of this config, as far as can be told without opening anything: what is wrong with it, or what of
/// it lets in anybody who comes by and says that it is meant to.
pub fn check(config: &Config, variables: &Variables) -> Result<Vec<String>, ConfigError> {
    let target = config.target(variables)?;
    let open = exposure::check(config, &target)?;
    let catalogue = Arc::new(Catalogue::with(&config.models));
    let keys = spending::check(config, &catalogue)?;
    spending::check_token(&keys, target.has_token())?;
    books::check(config, variables)?;
    config.otel.collector(variables)?;
    config.shared_tier()?;
    config.semantic_cache(&catalogue)?;
    config.replicas.shared()?;
    Ok(open)
}

/// The same, and whether the files that it names can be used: certificates, authorities, what webhooks are signed with.
pub(crate) fn check_with_files(config: &Config, variables: &Variables) -> Result<(), ConfigError> {
    check(config, variables)?;
    config.tls.acceptor("[tls]")?;
    config.admin_tls.acceptor("[admin_tls]")?;
    webhooks::endpoints(&config.webhooks, variables, &config.road(variables)?)?;
    Ok(())
}
