//! The config as every command finds it: `--config FILE` or `tollgate.toml` here, the variables, the flags.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::sidecar::config::{self, Config, Variables};

#[derive(Args, Clone, Debug, Default)]
pub(super) struct Settings {
    /// The config file; ./tollgate.toml where there is one
    #[arg(long, value_name = "FILE", env = "TOLLGATE_CONFIG")]
    config: Option<PathBuf>,
}

/// Every variable of the environment that is text.
pub(super) fn variables() -> Variables {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

impl Settings {
    pub(super) fn load(&self, variables: &Variables) -> Result<Config, Failure> {
        let file = self.config.clone().or_else(config::default_file);
        Config::load(file.as_deref(), variables).map_err(|error| Failure::Usage(error.to_string()))
    }
}
