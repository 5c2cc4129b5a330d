//! How a call, its reply and the look into the cache ended.

use serde::Serialize;

use crate::vendor_error::Meaning;

/// How a call ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// Answered.
    Ok,
    /// Answered from the cache.
    CacheHit,
    /// Refused for its rate, by us or upstream.
    RateLimited,
    /// Refused for its cost.
    BudgetExceeded,
    /// The request was wrong.
    ClientError,
    /// Upstream failed, could not be reached, or died in the middle.
    UpstreamError,
    /// Nobody answered in time.
    Timeout,
    /// The client went away.
    #[default]
    Aborted,
}

/// How a reply of the vendor's ended, by its own end and not the transport's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Ending {
    /// It has not, or nobody could read it.
    #[default]
    Open,
    /// An answer, and all of it.
    Answer,
    /// All of it, without an error, and nothing that a client could use: no text, no tool, no vector.
    Empty,
    /// The vendor said in it that it failed, or it stopped before its end.
    Failed(Meaning),
}

/// What the cache had to say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
pub enum CacheStatus {
    /// No cache was asked.
    #[default]
    None,
    /// Answered from it.
    Hit,
    /// Looked, was not there.
    Miss,
    /// Did not look, because the request or the kind of request said so.
    Bypass,
    /// Joined a twin already in flight.
    Coalesced,
    /// Some items of the request were there.
    Partial,
    /// Answered from what another gate had kept.
    Shared,
    /// Answered as a question that means the same was before.
    #[serde(rename = "SEMANTIC_HIT")]
    SemanticHit,
}

// === impl Ending, Outcome, CacheStatus ===

impl Ending {
    pub(crate) const CUT_OFF: Self = Self::Failed(Meaning::CutOff);
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 8] = [
        Self::Ok,
        Self::CacheHit,
        Self::RateLimited,
        Self::BudgetExceeded,
        Self::ClientError,
        Self::UpstreamError,
        Self::Timeout,
        Self::Aborted,
    ];

    /// Its metric label.
    pub fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::CacheHit => "cache_hit",
            Self::RateLimited => "rate_limited",
            Self::BudgetExceeded => "budget_exceeded",
            Self::ClientError => "client_error",
            Self::UpstreamError => "upstream_error",
            Self::Timeout => "timeout",
            Self::Aborted => "aborted",
        }
    }
}

impl CacheStatus {
    /// Every status.
    pub const ALL: [Self; 8] = [
        Self::None,
        Self::Hit,
        Self::Miss,
        Self::Bypass,
        Self::Coalesced,
        Self::Partial,
        Self::Shared,
        Self::SemanticHit,
    ];

    /// The value of `cf-aig-cache-status`: a hit is one wherever it was kept.
    pub(crate) fn told(self) -> Option<&'static str> {
        if self == Self::Shared { Self::Hit.label() } else { self.label() }
    }

    /// Its metric label; `None` where no cache was asked.
    pub fn label(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Hit => Some("HIT"),
            Self::Miss => Some("MISS"),
            Self::Bypass => Some("BYPASS"),
            Self::Coalesced => Some("COALESCED"),
            Self::Partial => Some("PARTIAL"),
            Self::Shared => Some("SHARED"),
            Self::SemanticHit => Some("SEMANTIC_HIT"),
        }
    }
}
