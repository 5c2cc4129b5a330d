//! A secret that stands in the config: it is read and never shown.

use serde::{Deserialize, Serialize};

/// A secret of the config's. It is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Secret(String);

// === impl Secret ===

impl Secret {
    /// For who has to show it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    /// It would be guessed at once.
    pub(in crate::sidecar) fn is_empty(&self) -> bool {
        self.0.trim().is_empty()
    }
}

impl From<String> for Secret {
    fn from(secret: String) -> Self {
        Self(secret)
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(hidden)")
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}
