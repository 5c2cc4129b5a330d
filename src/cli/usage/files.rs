//! The records that a command reads.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::cli::serve::RECORDS;
use crate::cli::{Failure, admin};
use crate::readers::records::Archive;
use crate::sidecar::config::Config;

#[derive(Args, Debug, Default)]
pub(in crate::cli) struct Files {
    /// Records to read instead of the config's and those of [replicas] peers; several times, those of several gates are read as one
    #[arg(long, value_name = "FILE")]
    records: Vec<PathBuf>,
}

impl Files {
    /// The records that are named, or else those that the config names, or those that `tollgate serve` keeps where it names none, and
    /// with them those of `[replicas] peers`.
    pub(in crate::cli) fn open(&self, config: &Config) -> Result<Archive, Failure> {
        match self.records.iter().find(|path| !path.exists()) {
            _ if self.records.is_empty() && config.replicas.peers.is_empty() => {
                Archive::open(&own(config)?).map_err(failed)
            }
            _ if self.records.is_empty() => open_with_peers(config),
            Some(missing) => Err(Failure::Failed(format!("no records: {} is not there", missing.display()))),
            None => Archive::open_all(&self.records).map_err(failed),
        }
    }
}

/// Where the records are that the config names, or those that `tollgate serve` keeps where it names none.
fn own(config: &Config) -> Result<PathBuf, Failure> {
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
    Ok(path)
}

/// This gate's, and a copy of each other's as it is now. One that cannot be had is told of, for without it no sum is right.
fn open_with_peers(config: &Config) -> Result<Archive, Failure> {
    let place = std::env::temp_dir().join(format!("tollgate-{:016x}", fastrand::u64(..)));
    DirBuilder::new().mode(0o700).create(&place).map_err(|error| failed(format!("{}: {error}", place.display())))?;
    let all = copies(config, &place).and_then(|paths| Archive::open_all(&paths).map_err(failed));
    // What is open can be read without its name.
    drop(std::fs::remove_dir_all(&place));
    all
}

fn copies(config: &Config, place: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut paths = vec![own(config)?];
    let token = config.admin_token.as_ref().map(|token| token.reveal());
    for (n, peer) in config.replicas.peers.iter().enumerate() {
        let path = place.join(format!("{n}.db"));
        admin::download(peer, token, "/records", &path)?;
        paths.push(path);
    }
    Ok(paths)
}

/// What went wrong, for who asked.
pub(in crate::cli) fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::Failed(error.to_string())
}
