//! `[cors]` and `allowed_hosts`: the web pages that may call, and the names that the gate goes by.

use std::net::IpAddr;

use http::header::HeaderValue;
use http::uri::Authority;
use serde::{Deserialize, Serialize};

/// `[cors]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Cors {
    /// Web pages that may call, by their origins, such as `https://app.example.com`. None by default.
    pub origins: Vec<Origin>,
}

/// Where a web page comes from, as browsers write it: scheme, host, and a port that is not the scheme's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Origin(String);

/// Why an [`Origin`] cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no web page's origin: write each as the browser does, like https://app.example.com or http://localhost:3000"
)]
pub struct OriginError(String);

/// A name that requests may have as their `Host`, without a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Host(String);

/// Why a [`Host`] cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no host's name: write it without scheme, port and path, like gate.internal or 10.0.0.5")]
pub struct HostError(String);

// === impl Origin, Host ===

impl TryFrom<String> for Origin {
    type Error = OriginError;

    fn try_from(text: String) -> Result<Self, OriginError> {
        let origin = text.to_ascii_lowercase();
        let is_one = origin.split_once("://").is_some_and(|(scheme, host)| {
            scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
                && !scheme.is_empty()
                && !host.contains(['@', '*'])
                && Authority::try_from(host).is_ok_and(|authority| !authority.host().is_empty())
        });
        if is_one { Ok(Self(origin)) } else { Err(OriginError(text)) }
    }
}

impl From<Origin> for String {
    fn from(origin: Origin) -> Self {
        origin.0
    }
}

impl Origin {
    pub(in crate::sidecar) fn header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.0).ok()
    }
}

impl TryFrom<String> for Host {
    type Error = HostError;

    fn try_from(text: String) -> Result<Self, HostError> {
        let bare = text.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
        let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_one = bare.parse::<IpAddr>().is_ok() || !bare.is_empty() && bare.bytes().all(is_usual);
        if is_one { Ok(Self(bare)) } else { Err(HostError(text)) }
    }
}

impl From<Host> for String {
    fn from(host: Host) -> Self {
        host.0
    }
}

impl Host {
    /// In small letters, an address of IPv6 without brackets.
    pub(in crate::sidecar) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_origin_and_no_host_is_named() {
        for wrong in ["*", "null", "app.example.com", "https://", "https://a/b", "https://*.a", "https://u@a"] {
            assert!(Origin::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
        for wrong in ["", "http://a", "a:80", "a/b", "*.a"] {
            assert!(Host::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
        assert!(Origin::try_from("HTTPS://App.Example.com:8443".to_owned()).is_ok());
    }
}
