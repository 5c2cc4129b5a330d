//! `[replicas]`: other gates before the same account.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize, Serializer};

use super::secret::Secret;
use crate::layers::rate_limit::OnStoreLoss;

/// `[replicas]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Replicas {
    /// The Valkey or Redis that all gates of the account share: `redis://user:password@host:6379`, `rediss://` with TLS, or
    /// `valkey://`. Where none is set, this gate is the only one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub store: Option<StoreUrl>,
    /// What all gates that share know and nobody else does, 16 bytes or more. With it they tell each other of budgets that were raised or
    /// reset, keys that were made or revoked, purges of the cache, and free neurons that are used up; and what `[cache] shared` keeps at
    /// the store is sealed with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// This gate's name, which no other has and a restart keeps; the host's and the port of `listen` where none is set.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What the gates that share have in common, where others use the same store.
    pub fleet: String,
    /// How long an answer of the store is waited for.
    #[serde(with = "super::duration")]
    pub timeout: Duration,
    /// What the limits do while the store cannot be reached: `keep` goes on with what this gate held, for `keep_for`; `closed` stops
    /// at once; `open` counts alone, so that each gate has the whole limit.
    pub on_store_loss: OnStoreLoss,
    /// How long a gate goes on with what it held. What one held that died is idle for as long, and a window.
    #[serde(with = "super::duration")]
    pub keep_for: Duration,
    /// The admin ports of the other gates, as `host:port`: commands that read records read theirs, too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<String>,
}

/// Where the store is. Its password is not shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct StoreUrl(String);

/// A secret that can be guessed keeps nothing secret.
pub(in crate::sidecar) const LEAST_SECRET_BYTES: usize = 16;

// === impl Replicas ===

impl Default for Replicas {
    fn default() -> Self {
        Self {
            store: None,
            secret: None,
            name: String::new(),
            fleet: "tollgate".into(),
            timeout: Duration::from_millis(250),
            on_store_loss: OnStoreLoss::default(),
            keep_for: Duration::from_secs(30),
            peers: Vec::new(),
        }
    }
}

// === impl StoreUrl ===

impl StoreUrl {
    /// With its password, for who connects.
    pub(in crate::sidecar) fn reveal(&self) -> &str {
        &self.0
    }

    /// Where it is, without its password.
    fn shown(&self) -> String {
        match (self.0.split_once("://"), self.0.rsplit_once('@')) {
            (Some((scheme, rest)), Some((_, host))) => match rest.split_once(':') {
                Some((user, _)) if rest.contains('@') && user.len() < rest.len() - host.len() => {
                    format!("{scheme}://{user}:…@{host}")
                }
                _ => format!("{scheme}://…@{host}"),
            },
            _ => self.0.clone(),
        }
    }
}

impl From<String> for StoreUrl {
    fn from(url: String) -> Self {
        Self(url)
    }
}

impl Serialize for StoreUrl {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.shown())
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown())
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::Config;

    #[test]
    fn a_stores_password_is_not_shown() {
        for (url, shown) in [
            ("redis://host:6379", "redis://host:6379"),
            ("redis://:s3cret@host:6379/1", "redis://:…@host:6379/1"),
            ("rediss://gate:s3cret@host", "rediss://gate:…@host"),
            ("redis://:p@ss:w@host", "redis://:…@host"),
        ] {
            let text = format!("[replicas]\nstore = {url:?}\n");
            let config = Config::parse(&text, "").unwrap();
            assert_eq!(config.replicas.store.as_ref().unwrap().shown(), shown);
            assert!(!config.show().unwrap().contains("s3cret") && !format!("{config:?}").contains("s3cret"));
        }
    }
}
