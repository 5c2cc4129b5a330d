//! `[tls]` and `[admin_tls]`: the files of certificates.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// `[tls]`, for the clients' port, or `[admin_tls]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Tls {
    /// The certificate and those between it and its authority, in PEM. The port speaks TLS where it is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its private key, in PEM, without a password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// The authorities whose clients alone may connect, in PEM. Without it clients show no certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_ca: Option<PathBuf>,
}

impl Tls {
    /// Clients have to show a certificate.
    pub(crate) fn knows_clients(&self) -> bool {
        self.cert.is_some() && self.client_ca.is_some()
    }
}
