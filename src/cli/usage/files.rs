//! The records that a command reads.

use std::path::PathBuf;

use clap::Args;

use crate::cli::Failure;
use crate::cli::serve::RECORDS;
use crate::readers::records::Archive;
use crate::sidecar::config::Config;

#[derive(Args, Debug, Default)]
pub(in crate::cli) struct Files {
    /// Records to read instead of the config's; several times, those of several gates are read as one
    #[arg(long, value_name = "FILE")]
    records: Vec<PathBuf>,
}

impl Files {
    /// The records that are named, or else those that the config names, or those that `tollgate serve` keeps where it names none.
    pub(in crate::cli) fn open(&self, config: &Config) -> Result<Archive, Failure> {
        match self.records.iter().find(|path| !path.exists()) {
            _ if self.records.is_empty() => open(config),
            Some(missing) => Err(Failure::Failed(format!("no records: {} is not there", missing.display()))),
            None => Archive::open_all(&self.records).map_err(failed),
        }
    }
}

/// The records that the config names, or those that `tollgate serve` keeps where it names none.
fn open(config: &Config) -> Result<Archive, Failure> {
    let path = match &config.records.path {
        Some(path) if path.as_os_str().is_empty() => {
            return Err(Failure::Failed("no records are kept: set [records] path".into()));
        }
        Some(path) => path.clone(),
        None => PathBuf::from(RECORDS),
    };
    if !path.exists() {
        return Err(Failure::Failed(format!(
            "no records yet: {} is not there; `tollgate serve` makes it",
            path.display()
        )));
    }
    Archive::open(&path).map_err(failed)
}

/// What went wrong, for who asked.
pub(in crate::cli) fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(error.to_string())
}
