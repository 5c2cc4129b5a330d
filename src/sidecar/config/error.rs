//! Why a config cannot be, and where.

/// Why a config cannot be, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
#[non_exhaustive]
pub struct ConfigError {
    /// `tollgate.toml:3:10`, or a variable's or flag's name.
    pub place: String,
    /// What is wrong with it, and the mend.
    pub what: String,
}

impl ConfigError {
    /// Something is wrong at this place.
    pub(in crate::sidecar) fn at(place: impl Into<String>, what: impl ToString) -> Self {
        Self { place: place.into(), what: what.to_string() }
    }
}
