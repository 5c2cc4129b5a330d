//! `[catalogue]`: where models and prices come from besides the built-in table.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// `[catalogue]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct CatalogueSettings {
    /// How often the vendor's list of models is read, for new models and prices; `0s` is never.
    #[serde(with = "super::duration")]
    pub refresh: Duration,
    /// Where the last good list is kept, and what was learned of prices; an empty one is nowhere. `tollgate serve` keeps
    /// `tollgate.models.json` where none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
}

// === impl CatalogueSettings ===

impl CatalogueSettings {
    /// Where it is kept, if it is.
    pub fn path(&self) -> Option<&PathBuf> {
        self.path.as_ref().filter(|path| !path.as_os_str().is_empty())
    }
}
