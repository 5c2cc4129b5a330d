//! `[aliases]`: other names of models, as the config writes them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::catalogue::{AliasError, Aliases};

/// `[aliases]`: a model for each name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct AliasTable {
    table: BTreeMap<String, String>,
    aliases: Aliases,
}

impl AliasTable {
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// As the door takes them.
    pub fn aliases(&self) -> Aliases {
        self.aliases.clone()
    }
}

impl TryFrom<BTreeMap<String, String>> for AliasTable {
    type Error = AliasError;

    fn try_from(table: BTreeMap<String, String>) -> Result<Self, AliasError> {
        Ok(Self { aliases: Aliases::new(&table)?, table })
    }
}

impl From<AliasTable> for BTreeMap<String, String> {
    fn from(aliases: AliasTable) -> Self {
        aliases.table
    }
}
