//! `[records]`: what is kept of each call.

use std::path::PathBuf;
use std::time::Duration;

use bytesize::ByteSize;
use serde::{Deserialize, Serialize};

use crate::payload::{Keep, Payloads};
use crate::readers::records;

/// `[records]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Records {
    /// The database; an empty one is none. `tollgate serve` keeps `tollgate.db` where none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// Where they cannot be kept, go on without them, and say so; but not with budgets, which would begin anew.
    #[serde(skip)]
    pub may_be_missing: bool,
    /// Older records go.
    #[serde(with = "super::duration")]
    pub retention: Duration,
    /// The oldest records go where the database and its log together are larger.
    pub max_size: ByteSize,
    /// Records that may wait to be written.
    pub queue: usize,
    /// Keep the bodies of each call, but for those that say `cf-aig-collect-log-payload: false`; else only where a call
    /// says `true`.
    pub payloads: bool,
    /// Keep keyed digests of what was asked, and of what it begins with, by which `tollgate advise` tells repeats. They cost each
    /// call a microsecond or two.
    pub digests: bool,
    /// Of each body at most this; `0B` keeps none, whatever a call asks for.
    pub max_payload: ByteSize,
}

impl Default for Records {
    fn default() -> Self {
        let records::Settings { retention, max_bytes, queue, .. } = records::Settings::default();
        Self {
            path: None,
            may_be_missing: false,
            retention,
            max_size: ByteSize::b(max_bytes),
            queue,
            payloads: false,
            digests: false,
            max_payload: ByteSize::b(Payloads::default().max_bytes as u64),
        }
    }
}

impl Records {
    /// Where they are kept, if they are.
    pub fn path(&self) -> Option<&PathBuf> {
        self.path.as_ref().filter(|path| !path.as_os_str().is_empty())
    }

    /// Which bodies are kept.
    pub fn payloads(&self) -> Payloads {
        let max_bytes = usize::try_from(self.max_payload.as_u64()).unwrap_or(usize::MAX);
        let keep = match self.payloads {
            _ if self.path().is_none() || max_bytes == 0 => Keep::Never,
            true => Keep::Always,
            false => Keep::WhenAsked,
        };
        Payloads { keep, max_bytes }
    }
}
