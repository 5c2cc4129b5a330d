//! reqwest, as the client of the layers: HTTP/1.1 and HTTP/2, TLS by rustls with ring, connections kept. One of your own goes
//! in by [`Around::reqwest`](super::Around::reqwest).
//!
//! Cargo builds one reqwest 0.13 for a whole program, and this crate asks it for rustls without a provider. Where yours has
//! `rustls` or `native-tls`, nothing changes. Where it has no TLS at all, a client of yours panics when it is made, by reqwest's own
//! word, unless a provider is there: `rustls::crypto::ring::default_provider().install_default()`, or reqwest's feature `rustls`.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::{Request, Response};
use http_body_util::BodyExt;
use tower::Service;

use crate::Error;
use crate::body::{Body, BoxError, TooLong};
use crate::layers::{Reply, ReplyFuture};

/// A reqwest client as a tower service. Cloning shares its connections.
#[derive(Clone, Debug)]
pub struct Client {
    client: reqwest::Client,
    /// For WebSockets, which HTTP/1.1 alone opens.
    #[cfg(feature = "sockets")]
    http1: reqwest::Client,
}

/// The system refuses what TLS needs.
#[derive(Debug, thiserror::Error)]
#[error("the HTTP client cannot be made: {0}")]
pub struct ClientError(#[source] reqwest::Error);

/// What sets the time-outs of a client that was handed in.
pub(super) const OWN_TIMEOUT: &str = "the HTTP client's own timeout";
/// How long until a connection stands.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl Client {
    /// Around a client of your own, with its proxies, time-outs and connections. Let it not follow redirects, and not decode
    /// bodies: replies are handed on as they are.
    ///
    /// For a WebSocket it has to speak HTTP/1.1 with the vendor (`http1_only`).
    pub fn of(client: reqwest::Client) -> Self {
        Self {
            #[cfg(feature = "sockets")]
            http1: client.clone(),
            client,
        }
    }

    /// With rustls and Mozilla's roots. Fails where the system refuses what TLS needs, such as randomness.
    pub fn new() -> Result<Self, ClientError> {
        Self::with_tls(tls())
    }

    /// With TLS as it is set up there.
    pub(crate) fn with_tls(tls: rustls::ClientConfig) -> Result<Self, ClientError> {
        #[cfg(feature = "sockets")]
        let mut http1_tls = tls.clone();
        #[cfg(feature = "sockets")]
        {
            http1_tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        }
        let builder = |tls| {
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls)
                .connect_timeout(CONNECT_TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
        };
        Ok(Self {
            client: builder(tls).build().map_err(ClientError)?,
            #[cfg(feature = "sockets")]
            http1: builder(http1_tls).http1_only().build().map_err(ClientError)?,
        })
    }

    fn client_for(&self, request: &Request<Body>) -> reqwest::Client {
        #[cfg(feature = "sockets")]
        if request.headers().contains_key(http::header::UPGRADE) {
            return self.http1.clone();
        }
        let _ = request;
        self.client.clone()
    }
}

/// TLS with Mozilla's roots, offering HTTP/2 first.
pub(crate) fn tls() -> rustls::ClientConfig {
    tls_believing(rustls::RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()))
}

/// TLS with these roots, offering HTTP/2 first.
pub(super) fn tls_believing(roots: rustls::RootCertStore) -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .map(|builder| builder.with_root_certificates(roots.clone()).with_no_client_auth())
        .unwrap_or_else(|_| rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth());
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// Believes any certificate: for a gate that asks itself over loopback.
#[cfg(feature = "sidecar")]
pub(crate) fn tls_unverified() -> rustls::ClientConfig {
    let mut config = tls();
    let verifier = unverified::Unverified(config.crypto_provider().clone());
    config.dangerous().set_certificate_verifier(Arc::new(verifier));
    config
}

#[cfg(feature = "sidecar")]
mod unverified {
    use std::sync::Arc;

    use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
    use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
    use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
    use rustls::{DigitallySignedStruct, Error, SignatureScheme};

    #[derive(Debug)]
    pub(super) struct Unverified(pub(super) Arc<CryptoProvider>);

    impl ServerCertVerifier for Unverified {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            cert: &CertificateDer<'_>,
            signed: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.0.signature_verification_algorithms.supported_schemes()
        }
    }
}

impl Service<Request<Body>> for Client {
    type Response = Reply;
    type Error = Error;
    type Future = ReplyFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> ReplyFuture {
        let client = self.client_for(&request);
        let sent_at = Instant::now();
        Box::pin(async move {
            let host = request.uri().authority().map_or_else(String::new, ToString::to_string);
            request.body().note_handed_over();
            let departure = request.body().departure().cloned();
            let request = reqwest::Request::try_from(request.map(sendable));
            let reply = match request {
                Ok(request) => client.execute(request).await,
                Err(error) => Err(error),
            };
            let reply = reply.map_err(|error| {
                // A request that could not be made, for which no connection stood, or that nobody read has not gone out.
                let has_left = departure.is_none_or(|departure| departure.may_have_left());
                let was_sent = has_left && !error.is_connect() && !error.is_builder();
                if error.is_timeout() && !error.is_connect() {
                    return Error::Timeout { after: sent_at.elapsed(), setting: OWN_TIMEOUT, was_sent };
                }
                Error::Unreachable { host, why: causes(&error), was_sent }
            })?;
            Ok(Response::from(reply).map(|body| Body::stream(body.map_err(move |error| broken_off(error, sent_at)))))
        })
    }
}

/// Why a reply's body ended early.
fn broken_off(error: reqwest::Error, sent_at: Instant) -> BoxError {
    if error.is_timeout() {
        return TooLong { what: "all of it", limit: sent_at.elapsed(), setting: OWN_TIMEOUT }.into();
    }
    error.into()
}

fn sendable(body: Body) -> reqwest::Body {
    match body.as_bytes() {
        Some(bytes) => bytes.clone().into(),
        None => reqwest::Body::wrap(body),
    }
}

/// An error and what lies behind it: reqwest's own words stop at "error sending request".
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words.push_str(": ");
            words.push_str(&cause_words);
        }
        source = cause.source();
    }
    words
}
