//! `[[webhooks]]`: who is told what has happened.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::secret::Secret;

/// A server that is told. `[[webhooks]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Webhook {
    /// Where events go, by POST.
    pub url: WebhookUrl,
    /// Names it in the log and the metrics; the URL's host where it is not set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Which events; empty is all.
    #[serde(default)]
    pub events: Vec<Kind>,
    /// What signs them: `whsec_` and base64, or any text. Nothing is signed where there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Secret>,
    /// The variable that holds it instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_env: Option<String>,
}

/// A URL that events can go to. Its path and query are never shown, for they often are a secret.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct WebhookUrl(http::Uri);

/// What may happen that somebody is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Kind {
    /// A part of a budget is spent that its `warn_at` names.
    #[serde(rename = "budget.warned")]
    BudgetWarned,
    /// A budget is spent, or had no room for a call.
    #[serde(rename = "budget.exceeded")]
    BudgetExceeded,
    /// 80% of the day's free allocation are spent.
    #[serde(rename = "free.warned")]
    FreeWarned,
    /// The vendor lists another price, or reports other costs on replies than the table has.
    #[serde(rename = "price.drift")]
    PriceDrift,
    /// The vendor takes a model away that is listed, or in use and has two weeks left.
    #[serde(rename = "model.leaving")]
    ModelLeaving,
    /// A key, a model or a label has spent far more today than it usually does in a day.
    #[serde(rename = "spending.unusual")]
    SpendingUnusual,
    /// No attempt of the last half minute was answered.
    #[serde(rename = "upstream.down")]
    UpstreamDown,
    /// One is answered again.
    #[serde(rename = "upstream.up")]
    UpstreamUp,
    /// Sent by `tollgate webhooks test` alone.
    #[serde(rename = "test")]
    Test,
}

// === impl WebhookUrl ===

impl WebhookUrl {
    pub(in crate::sidecar) fn host(&self) -> &str {
        self.0.host().unwrap_or_default()
    }

    pub(in crate::sidecar) fn uri(&self) -> &http::Uri {
        &self.0
    }
}

impl TryFrom<String> for WebhookUrl {
    type Error = String;

    fn try_from(url: String) -> Result<Self, String> {
        let wrong = "this is no URL that events can go to: write it like https://hooks.example.com/tollgate";
        let parsed: http::Uri = url.parse().map_err(|_| wrong.to_owned())?;
        let is_web = matches!(parsed.scheme_str(), Some("http" | "https"));
        if is_web && parsed.host().is_some_and(|host| !host.is_empty()) { Ok(Self(parsed)) } else { Err(wrong.into()) }
    }
}

impl Serialize for WebhookUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.0.scheme_str().unwrap_or_default();
        let port = self.0.port_u16().map(|port| format!(":{port}")).unwrap_or_default();
        write!(f, "{scheme}://{}{port}/(hidden)", self.host())
    }
}

impl fmt::Debug for WebhookUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

// === impl Kind ===

impl Kind {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::BudgetWarned,
        Self::BudgetExceeded,
        Self::FreeWarned,
        Self::PriceDrift,
        Self::ModelLeaving,
        Self::SpendingUnusual,
        Self::UpstreamDown,
        Self::UpstreamUp,
        Self::Test,
    ];

    /// Its name in the config, on the wire and in the metrics.
    pub fn label(self) -> &'static str {
        match self {
            Self::BudgetWarned => "budget.warned",
            Self::BudgetExceeded => "budget.exceeded",
            Self::FreeWarned => "free.warned",
            Self::PriceDrift => "price.drift",
            Self::ModelLeaving => "model.leaving",
            Self::SpendingUnusual => "spending.unusual",
            Self::UpstreamDown => "upstream.down",
            Self::UpstreamUp => "upstream.up",
            Self::Test => "test",
        }
    }
}
