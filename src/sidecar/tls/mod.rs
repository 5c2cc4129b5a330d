//! TLS on both ports: the gate's own certificates, and those that clients have to show.
//!
//! The files are read again every few seconds, and what has changed is in force for the next connection; connections that
//! stand keep what they began with. Where the new files cannot be used, the old ones stay in force, and the log and the metrics say so.

mod subject;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

pub(super) use self::subject::name_of;
use super::config::{ConfigError, Tls};

/// Takes connections over TLS. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Acceptor(Arc<Inner>);

struct Inner {
    /// `[tls]` or `[admin_tls]`.
    table: &'static str,
    files: Files,
    config: ArcSwap<ServerConfig>,
    /// What the files had when they were last read, in force or not.
    seen: Mutex<Contents>,
    has_failed: AtomicBool,
    /// When the certificate in force ends, in seconds since 1970.
    not_after: AtomicU64,
}

#[derive(Clone, Debug)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
}

/// The bytes of all files.
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// How often the files are looked at.
const EVERY: Duration = Duration::from_secs(5);

// === impl Tls ===

impl Tls {
    fn files(&self, table: &'static str) -> Result<Option<Files>, ConfigError> {
        let wrong = |what: &str| Err(ConfigError { place: table.into(), what: what.into() });
        match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => {
                Ok(Some(Files { cert: cert.clone(), key: key.clone(), client_ca: self.client_ca.clone() }))
            }
            (None, None) if self.client_ca.is_none() => Ok(None),
            (None, None) => wrong("has a client_ca and no `cert` and `key`: set those of the gate itself, too"),
            _ => wrong("needs both `cert` and `key`: set the other one, too"),
        }
    }

    /// Reads the files, where the table has any; `table` is its name for errors.
    pub(crate) fn acceptor(&self, table: &'static str) -> Result<Option<Acceptor>, ConfigError> {
        let Some(files) = self.files(table)? else { return Ok(None) };
        let wrong = |what: String| ConfigError { place: table.into(), what };
        let contents = files.read().map_err(wrong)?;
        let (config, not_after) = contents.config(&files).map_err(wrong)?;
        Ok(Some(Acceptor(Arc::new(Inner {
            table,
            files,
            config: ArcSwap::from_pointee(config),
            seen: Mutex::new(contents),
            has_failed: AtomicBool::new(false),
            not_after: AtomicU64::new(not_after),
        }))))
    }
}

// === impl Files ===

impl Files {
    fn read(&self) -> Result<Contents, String> {
        let read = |path: &Path| std::fs::read(path).map_err(|why| format!("{} cannot be read: {why}", path.display()));
        Ok(Contents {
            cert: read(&self.cert)?,
            key: read(&self.key)?,
            client_ca: self.client_ca.as_deref().map(read).transpose()?,
        })
    }
}

// === impl Contents ===

impl Contents {
    /// What connections are taken with, and when the certificate ends.
    fn config(&self, files: &Files) -> Result<(ServerConfig, u64), String> {
        let shown = |path: &Path, what: &str| format!("{}: {what}", path.display());
        let chain = certificates(&self.cert).map_err(|why| shown(&files.cert, &why))?;
        let not_after = chain.first().and_then(|own| subject::not_after(own)).unwrap_or(0);
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| shown(&files.key, "there is no private key in PEM in it, or it has a password"))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match (&self.client_ca, &files.client_ca) {
            (Some(bytes), Some(path)) => {
                let mut roots = RootCertStore::empty();
                for authority in certificates(bytes).map_err(|why| shown(path, &why))? {
                    roots.add(authority).map_err(|error| shown(path, &error.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| shown(path, &error.to_string()))?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| {
            format!("{} and {} do not go together: {error}", files.cert.display(), files.key.display())
        })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok((config, not_after))
    }
}

/// The certificates of a file in PEM.
pub(super) fn authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = |what: String| format!("{}: {what}", path.display());
    let pem = std::fs::read(path).map_err(|why| shown(format!("it cannot be read: {why}")))?;
    certificates(&pem).map_err(shown)
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| format!("it is no PEM: {error}"))?;
    if all.is_empty() { Err("there is no certificate in PEM in it".into()) } else { Ok(all) }
}

// === impl Acceptor ===

impl Acceptor {
    /// The TLS handshake. A client that fails in it is nobody's call.
    pub(super) async fn accept(&self, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        TlsAcceptor::from(self.0.config.load_full()).accept(stream).await
    }

    /// Looks at the files again and again.
    pub(super) async fn watch(self) {
        loop {
            tokio::time::sleep(EVERY).await;
            // One that panicked has said so itself.
            let this = self.clone();
            let _ = tokio::task::spawn_blocking(move || this.reload()).await;
        }
    }

    /// Takes up what the files have now, where that is something else and can be used.
    pub(super) fn reload(&self) {
        let inner = &*self.0;
        let contents = match inner.files.read() {
            Ok(contents) if *inner.seen.lock() == contents => return,
            Ok(contents) => contents,
            Err(why) => return self.fail(&why),
        };
        // A key and its certificate are written one after the other: what does not go together yet is looked at again.
        match contents.config(&inner.files) {
            Ok((config, not_after)) => {
                inner.config.store(Arc::new(config));
                inner.not_after.store(not_after, Ordering::Relaxed);
                inner.has_failed.store(false, Ordering::Relaxed);
                *inner.seen.lock() = contents;
                tracing::info!(table = inner.table, "new certificates are in force for new connections");
            }
            Err(why) => self.fail(&why),
        }
    }

    /// Told once, until it is well again.
    fn fail(&self, why: &str) {
        if !self.0.has_failed.swap(true, Ordering::Relaxed) {
            tracing::error!(
                table = self.0.table,
                why,
                "the certificates' files cannot be used: those before stay in force"
            );
        }
    }

    /// The last look at the files found something that cannot be used.
    pub(super) fn has_failed(&self) -> bool {
        self.0.has_failed.load(Ordering::Relaxed)
    }

    /// When the certificate in force ends, in seconds since 1970; 0 where it does not say.
    pub(super) fn not_after(&self) -> u64 {
        self.0.not_after.load(Ordering::Relaxed)
    }
}

impl std::fmt::Debug for Acceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Acceptor({})", self.0.table)
    }
}
