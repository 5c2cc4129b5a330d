//! The config as every command finds it: `--config FILE` or `tollgate.toml` here, the variables, the flags.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::catalogue::Catalogue;
use crate::sidecar::books::Learned;
use crate::sidecar::config::{self, Config, ConfigError, Variables};

#[derive(Args, Clone, Debug, Default)]
pub(super) struct Settings {
    /// The config file; ./tollgate.toml where there is one
    #[arg(long, value_name = "FILE", env = "TOLLGATE_CONFIG", global = true)]
    config: Option<PathBuf>,
}

/// What a sidecar learns of models, where its config does not say.
pub(super) const MODELS: &str = "tollgate.models.json";

/// The keys of a sidecar whose config names no file for them.
pub(super) const KEYS: &str = "tollgate.keys.db";

/// Every variable of the environment that is text.
pub(super) fn variables() -> Variables {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

impl Settings {
    pub(super) fn load(&self, variables: &Variables) -> Result<Config, Failure> {
        self.read(variables).map_err(|error| Failure::Usage(error.to_string()))
    }

    pub(super) fn read(&self, variables: &Variables) -> Result<Config, ConfigError> {
        Config::load(self.file().as_deref(), variables)
    }

    /// Where the config is, if it is in a file.
    pub(super) fn file(&self) -> Option<PathBuf> {
        self.config.clone().or_else(config::default_file)
    }

    /// The models as the sidecar of this config has them in force: with what it has read and learned, as far as it kept that.
    pub(super) fn catalogue(&self, config: &Config) -> Catalogue {
        let catalogue = Catalogue::with(&config.models);
        self.learned(config).apply(&catalogue, !config.catalogue.refresh.is_zero());
        catalogue
    }

    /// What the sidecar of this config has kept of the vendor's list and of prices. Where that cannot be read it starts anew,
    /// and so do we.
    pub(super) fn learned(&self, config: &Config) -> Learned {
        let path = config.catalogue.path.clone().unwrap_or_else(|| MODELS.into());
        if path.as_os_str().is_empty() {
            return Learned::default();
        }
        Learned::read(&path).unwrap_or_else(|error| {
            eprintln!(
                "tollgate: {} ([catalogue] path) cannot be read: {error}; the built-in table it is",
                path.display()
            );
            Learned::default()
        })
    }
}
