//! How the sidecar's connections come to upstream: whose certificates are believed, and through which proxy they go.
//!
//! Believed are Mozilla's authorities, the system's (`SSL_CERT_FILE` and `SSL_CERT_DIR` say where those are), and a private one.
//! An upstream over TLS is reached through the proxy that `HTTPS_PROXY` or `ALL_PROXY` names, unless `NO_PROXY` has its host: by
//! CONNECT, or by SOCKS 5. What is not TLS goes straight.

use std::fmt;
use std::sync::Arc;

use http::Uri;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::{SocksV5, Tunnel};
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};

use super::tls::tls_believing;

/// Which way connections take. Cloning shares it.
#[derive(Clone)]
pub struct Road {
    tls: Arc<ClientConfig>,
    straight: HttpsConnector<HttpConnector>,
    proxies: Arc<Matcher>,
}

/// What names proxies, as the variables of these names have it; empty where they are not set.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Proxies {
    /// `HTTPS_PROXY`
    pub https: String,
    /// `ALL_PROXY`
    pub all: String,
    /// `NO_PROXY`
    pub no: String,
}

/// A connector through a proxy.
pub(super) enum Proxied {
    Tunnel(Box<HttpsConnector<Tunnel<HttpsConnector<HttpConnector>>>>),
    Socks(Box<HttpsConnector<SocksV5<HttpConnector>>>),
}

/// A proxy that cannot be gone through.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} is no proxy: write it like http://proxy.example.com:3128 or socks5h://127.0.0.1:1080")]
pub struct ProxyError(&'static str);

// === impl Proxies ===

impl Proxies {
    fn matcher(&self) -> Result<Matcher, ProxyError> {
        let build = |https: &str, all: &str, no: &str| {
            Matcher::builder().https(https.to_owned()).all(all.to_owned()).no(no.to_owned()).build()
        };
        let anywhere = Uri::from_static("https://upstream.invalid/");
        // What cannot be read would else be gone around, silently.
        for (name, value) in [("HTTPS_PROXY", &self.https), ("ALL_PROXY", &self.all)] {
            let alone = (!value.is_empty()).then(|| build(value, "", "").intercept(&anywhere));
            let is_known =
                |proxy: Intercept| proxy.uri().scheme_str().is_some_and(|scheme| !scheme.starts_with("socks4"));
            if alone.is_some_and(|proxy| !proxy.is_some_and(is_known)) {
                return Err(ProxyError(name));
            }
        }
        Ok(build(&self.https, &self.all, &self.no))
    }
}

// === impl Road ===

impl Road {
    /// Believes Mozilla's authorities, and those of `authorities` besides.
    pub fn new(authorities: Vec<CertificateDer<'static>>, proxies: &Proxies) -> Result<Self, ProxyError> {
        let mut tls = tls_believing(roots(authorities));
        // hyper-rustls sets this for the versions that it is asked for.
        tls.alpn_protocols.clear();
        let straight = secured(&tls, tcp());
        Ok(Self { tls: Arc::new(tls), straight, proxies: Arc::new(proxies.matcher()?) })
    }

    /// Where a connection to there goes first, without its password; `None` is straight there.
    pub fn proxy_to(&self, upstream: &Uri) -> Option<String> {
        let proxy = self.intercept(upstream)?;
        let uri = proxy.uri();
        Some(format!("{}://{}", uri.scheme_str().unwrap_or_default(), uri.authority()?))
    }

    /// TLS for a client of HTTP/2, too, that believes the same authorities.
    pub(crate) fn tls(&self) -> ClientConfig {
        let mut tls = ClientConfig::clone(&self.tls);
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        tls
    }

    fn intercept(&self, upstream: &Uri) -> Option<Intercept> {
        if upstream.scheme_str() != Some("https") {
            return None;
        }
        self.proxies.intercept(upstream)
    }

    pub(super) fn straight(&self) -> HttpsConnector<HttpConnector> {
        self.straight.clone()
    }

    pub(super) fn proxied(&self, upstream: &Uri) -> Option<Proxied> {
        let proxy = self.intercept(upstream)?;
        let uri = proxy.uri().clone();
        if uri.scheme_str().is_some_and(|scheme| scheme.starts_with("socks")) {
            let mut socks = SocksV5::new(uri, tcp());
            if let Some((user, password)) = proxy.raw_auth() {
                socks = socks.with_auth(user.to_owned(), password.to_owned());
            }
            return Some(Proxied::Socks(Box::new(secured(&self.tls, socks))));
        }
        let mut tunnel = Tunnel::new(uri, self.straight.clone());
        if let Some(basic) = proxy.basic_auth() {
            tunnel = tunnel.with_auth(basic.clone());
        }
        Some(Proxied::Tunnel(Box::new(secured(&self.tls, tunnel))))
    }
}

impl Default for Road {
    /// Straight, and believing Mozilla's authorities alone.
    fn default() -> Self {
        let mut tls = tls_believing(roots(Vec::new()));
        tls.alpn_protocols.clear();
        let straight = secured(&tls, tcp());
        Self { tls: Arc::new(tls), straight, proxies: Arc::new(Matcher::builder().build()) }
    }
}

impl fmt::Debug for Road {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Road")
    }
}

/// The system's authorities, as far as they can be read: a container may have none.
pub(crate) fn system_authorities() -> Vec<CertificateDer<'static>> {
    let found = rustls_native_certs::load_native_certs();
    if !found.errors.is_empty() {
        tracing::debug!(errors = ?found.errors, "some of the system's authorities cannot be read");
    }
    found.certs
}

fn roots(authorities: Vec<CertificateDer<'static>>) -> RootCertStore {
    let mut roots = RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    roots.add_parsable_certificates(authorities);
    roots
}

fn tcp() -> HttpConnector {
    let mut tcp = HttpConnector::new();
    tcp.set_nodelay(true);
    tcp.enforce_http(false);
    tcp
}

fn secured<C>(tls: &ClientConfig, connector: C) -> HttpsConnector<C> {
    HttpsConnectorBuilder::new().with_tls_config(tls.clone()).https_or_http().enable_http1().wrap_connector(connector)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(https: &str, all: &str, no: &str, to: &str) -> Result<Option<String>, ProxyError> {
        let proxies = Proxies { https: https.into(), all: all.into(), no: no.into() };
        Road::new(Vec::new(), &proxies).map(|road| road.proxy_to(&to.parse().unwrap()))
    }

    #[test]
    fn proxies_are_taken_as_everybody_takes_them_and_never_shown_with_their_password() {
        const API: &str = "https://api.cloudflare.com/client/v4";
        let through = |proxy: &str| Ok(Some(proxy.to_owned()));
        assert_eq!(way("", "", "", API), Ok(None));
        assert_eq!(way("http://p:3128", "", "", API), through("http://p:3128"));
        assert_eq!(way("p:3128", "", "", API), through("http://p:3128"));
        assert_eq!(way("", "socks5h://me:secret@p:1080", "", API), through("socks5h://p:1080"));
        assert_eq!(way("http://me:secret@p:1", "socks5://q:2", "", API), through("http://p:1"));
        assert_eq!(way("http://p:1", "", "localhost,.cloudflare.com", API), Ok(None));
        assert_eq!(way("http://p:1", "", "*", API), Ok(None));
        assert_eq!(way("http://p:1", "", "", "http://127.0.0.1:8080"), Ok(None), "what is not TLS goes straight");
        for wrong in ["ftp://p:1", "://", "socks4://p:1"] {
            assert_eq!(way(wrong, "", "", API), Err(ProxyError("HTTPS_PROXY")), "{wrong}");
        }
    }
}
