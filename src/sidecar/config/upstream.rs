//! `[upstream]`: where calls go.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::affinity::SessionBy;
use crate::layers::identify::PassThrough;
use crate::upstream::{self, Target};

/// `[upstream]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Upstream {
    /// The vendor's API, the AI Gateway's host, or a stand-in. By default the first, or the second where `gateway` is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base_url: Option<BaseUrl>,
    /// The account of the short routes; `CLOUDFLARE_ACCOUNT_ID` where it is not set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account_id: Option<String>,
    /// Further accounts that clients may name in paths, with tokens of their own. Accounts that are not listed share one free
    /// allocation and one set of limits; where the gate has an account and a token of its own they are refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<String>,
    /// What leaves with the gate's own token besides calls to models, as method and path below the account. All else under an
    /// account needs a token of the client's own.
    pub pass_through: Vec<PassThrough>,
    /// The variable that holds the gate's own token. Where that is not set, the client's Authorization goes through.
    pub api_token_env: String,
    /// The name of an AI Gateway: every call leaves through it.
    pub gateway: String,
    /// The variable that holds the token of an authenticated AI Gateway.
    pub gateway_token_env: String,
    /// Authorities that are believed besides Mozilla's and the system's, in PEM: a company's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// What makes calls one session with the vendor's prefix cache, where they say nothing of it themselves: `off`; `auto`, what
    /// they begin with; `key`, their client's key; or `metadata.NAME`, an entry of their metadata.
    pub session_affinity: SessionBy,
    /// How long until a connection stands.
    #[serde(with = "super::duration")]
    pub connect_timeout: Duration,
    /// How long until a reply's head is here, and then until a stream's first event. The vendor gives up after 240 s, and by
    /// default we wait longer than that.
    #[serde(with = "super::duration")]
    pub first_byte_timeout: Duration,
    /// How long between two pieces of a reply.
    #[serde(with = "super::duration")]
    pub idle_timeout: Duration,
    /// How long until the end of a reply that is no stream of events, and a second more for each KiB of it.
    #[serde(with = "super::duration")]
    pub body_timeout: Duration,
}

/// A URL that calls can go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BaseUrl(String);

impl Default for Upstream {
    fn default() -> Self {
        Self {
            base_url: None,
            account_id: None,
            accounts: Vec::new(),
            pass_through: PassThrough::usual(),
            api_token_env: "CLOUDFLARE_API_TOKEN".into(),
            gateway: String::new(),
            gateway_token_env: "CF_AIG_TOKEN".into(),
            ca: None,
            session_affinity: SessionBy::Off,
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: upstream::FIRST_BYTE_TIMEOUT,
            idle_timeout: upstream::IDLE_TIMEOUT,
            body_timeout: upstream::BODY_TIMEOUT,
        }
    }
}

// === impl BaseUrl ===

impl TryFrom<String> for BaseUrl {
    type Error = upstream::TargetError;

    fn try_from(url: String) -> Result<Self, Self::Error> {
        Target::new(&url).map(|_| Self(url))
    }
}

impl From<BaseUrl> for String {
    fn from(url: BaseUrl) -> Self {
        url.0
    }
}

impl BaseUrl {
    /// As it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
