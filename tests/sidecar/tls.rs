//! TLS on both ports and to upstream, on real sockets: versions by ALPN, clients by their certificates, renewed files, a
//! company's proxy and its own authority.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tollgate::layers::identify::keys::{Key, sha256};
use tollgate::sidecar::config::{BaseUrl, Config, Tls};

use crate::support::{GEMMA, Gate, LLAMA, TOKEN, ask, client_builder, config, start_with, vendor};

/// An authority, and what it has signed.
struct Authority {
    name: &'static str,
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &'static str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { name, issuer: Issuer::new(params, key), pem }
    }

    /// A certificate for a name, and its key.
    fn sign(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn write(&self, place: &Path) -> PathBuf {
        let path = place.join(format!("{}.pem", self.name));
        std::fs::write(&path, &self.pem).unwrap();
        path
    }

    /// A client that believes this authority alone, and shows this certificate.
    fn client(&self, shown: Option<&(String, String)>, alpn: &[&[u8]]) -> reqwest::Client {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_root_certificates(roots);
        let mut tls = match shown {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()];
                builder.with_client_auth_cert(chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap()).unwrap()
            }
        };
        tls.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
        client_builder().tls_backend_preconfigured(tls).build().unwrap()
    }
}

const BOTH: &[&[u8]] = &[b"h2", b"http/1.1"];

fn write(place: &Path, (cert, key): &(String, String)) -> Tls {
    let mut tls = Tls::default();
    for (name, pem, setting) in [("cert.pem", cert, &mut tls.cert), ("key.pem", key, &mut tls.key)] {
        let path = place.join(name);
        std::fs::write(&path, pem).unwrap();
        *setting = Some(path);
    }
    tls
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..600 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("not within a minute: {what}");
}

#[tokio::test]
async fn both_ports_speak_tls_by_alpn_and_renewed_files_are_in_force_for_new_connections() {
    let place = tempfile::tempdir().unwrap();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let gate = Gate::with(vendor(), |config| {
        config.tls = write(place.path(), &old.sign("gate"));
        config.admin_tls = config.tls.clone();
    });
    let url = format!("https://{}/run/{LLAMA}", gate.sidecar.listen());
    let body = json!({"prompt": "hello", "max_tokens": 20});
    let call = async |client: &reqwest::Client| Some(ask(client, &url, &body).send().await.ok()?.version());
    let kept = old.client(None, BOTH);
    assert_eq!(call(&kept).await, Some(http::Version::HTTP_2));
    assert_eq!(call(&old.client(None, &[b"http/1.1"])).await, Some(http::Version::HTTP_11));
    assert_eq!(call(&new.client(None, BOTH)).await, None, "who does not know the authority does not call");
    let plain = gate.client.post(url.replace("https", "http")).body("{}").send().await;
    assert!(plain.is_err(), "nothing is answered without TLS");
    let stream = json!({"prompt": "hello", "stream": true, "max_tokens": 40});
    let text = ask(&kept, &url, &stream).send().await.unwrap().text().await.unwrap();
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");

    let admin = format!("https://{}/metrics", gate.sidecar.admin());
    let metrics = async |client: &reqwest::Client| client.get(&admin).send().await.unwrap().text().await.unwrap();
    write(place.path(), &new.sign("gate"));
    until("the new certificate is in force", async || call(&new.client(None, BOTH)).await.is_some()).await;
    assert_eq!(call(&kept).await, Some(http::Version::HTTP_2), "what stands goes on");
    assert!(metrics(&new.client(None, BOTH)).await.contains("tollgate_tls_reload_failed 0"));
    std::fs::write(place.path().join("key.pem"), "no key at all").unwrap();
    let failed = async || metrics(&new.client(None, BOTH)).await.contains("tollgate_tls_reload_failed 2");
    until("the metrics tell of the broken file", failed).await;
    assert!(call(&new.client(None, BOTH)).await.is_some(), "and the good one stays in force");
}

#[tokio::test]
async fn with_client_ca_only_its_clients_come_in() {
    let place = tempfile::tempdir().unwrap();
    let (own, strange) = (Authority::new("own"), Authority::new("strange"));
    let gate = Gate::with(vendor(), |config| {
        config.tls = write(place.path(), &own.sign("gate"));
        config.tls.client_ca = Some(own.write(place.path()));
    });
    let url = format!("https://{}/run/{LLAMA}", gate.sidecar.listen());
    let call = async |client: reqwest::Client| ask(&client, &url, &json!({"prompt": "hello"})).send().await;
    assert!(call(own.client(None, BOTH)).await.is_err(), "no certificate");
    assert!(call(own.client(Some(&strange.sign("search-team")), BOTH)).await.is_err(), "another authority's");
    let reply = call(own.client(Some(&own.sign("search-team")), BOTH)).await.unwrap();
    assert_eq!(reply.status(), 200);
}

#[tokio::test]
async fn a_certificate_is_the_key_that_it_names() {
    let (place, own, vendor) = (tempfile::tempdir().unwrap(), Authority::new("own"), vendor());
    let mut config = config(&vendor.base_url());
    config.tls = write(place.path(), &own.sign("gate"));
    config.tls.client_ca = Some(own.write(place.path()));
    let mut key = Key::new("search-team", sha256("tg_the-teams-own"));
    key.models = vec![LLAMA.into()];
    config.keys = vec![key, Key::new("other-team", sha256("tg_the-others-own"))];
    let variables = vec![("CLOUDFLARE_API_TOKEN".to_owned(), "the-vendors-token".to_owned())];
    let (sidecar, receipts) = start_with(config, &variables);
    let base = format!("https://{}", sidecar.listen());
    let call = async |name: &str, token: &str, model: &str| {
        let client = own.client(Some(&own.sign(name)), BOTH);
        let request = client.post(format!("{base}/run/{model}")).bearer_auth(token).json(&json!({"prompt": "hello"}));
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(call("search-team", "whatever a client sends", LLAMA).await, 200);
    assert_eq!(call("search-team", "whatever a client sends", GEMMA).await, 403, "it is for one model");
    assert_eq!(call("search-team", "tg_the-others-own", GEMMA).await, 200, "a key that is known comes first");
    assert_eq!(call("nobody's", "whatever a client sends", LLAMA).await, 401);
    let keys: Vec<_> = receipts.after(4).await.into_iter().map(|facts| facts.key).collect();
    let named = |name: &str| Some(Arc::<str>::from(name));
    assert_eq!(keys, [named("search-team"), named("search-team"), named("other-team"), None]);
}

#[test]
fn files_that_cannot_be_used_are_told_with_their_names() {
    let place = tempfile::tempdir().unwrap();
    let own = Authority::new("own");
    let good = write(place.path(), &own.sign("gate"));
    let other = place.path().join("other.pem");
    std::fs::write(&other, own.sign("other").1).unwrap();
    let tls = |change: &dyn Fn(&mut Tls)| {
        let mut tls = good.clone();
        change(&mut tls);
        let mut config = config("http://127.0.0.1:1");
        config.tls = tls;
        tollgate::sidecar::Sidecar::start(config, &Vec::new(), Vec::new()).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(tls(&|_| {}), Ok(()));
    for (change, says) in [
        (&(|tls: &mut Tls| tls.key = None) as &dyn Fn(&mut Tls), "both `cert` and `key`"),
        (&|tls| tls.key = Some("/nowhere/key.pem".into()), "/nowhere/key.pem cannot be read"),
        (&|tls| tls.key = tls.cert.clone(), "no private key"),
        (&|tls| tls.key = Some(other.clone()), "do not go together"),
        (&|tls| tls.cert = tls.key.clone(), "no certificate"),
        (&|tls| tls.client_ca = tls.key.clone(), "no certificate"),
    ] {
        let said = tls(change).unwrap_err();
        assert!(said.contains("[tls]") && said.contains(says), "{says}: {said}");
    }
}

/// TLS before a server that has none.
async fn terminator(tls: &Tls, behind: SocketAddr) -> SocketAddr {
    let read = |path: &Option<PathBuf>| std::fs::read(path.as_ref().unwrap()).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(&read(&tls.cert)).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(&read(&tls.key)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(chain, key).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut behind = TcpStream::connect(behind).await.unwrap();
                let _ = copy_bidirectional(&mut stream, &mut behind).await;
            });
        }
    });
    address
}

/// A proxy for CONNECT, and the heads that it was sent.
async fn proxy() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, kept) = (listener.local_addr().unwrap(), heads.clone());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let kept = kept.clone();
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await.unwrap());
                }
                let head = String::from_utf8(head).unwrap();
                let target = head.split(' ').nth(1).unwrap().to_owned();
                kept.lock().unwrap().push(head);
                let mut behind = TcpStream::connect(target.replace("localhost", "127.0.0.1")).await.unwrap();
                stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.unwrap();
                let _ = copy_bidirectional(&mut stream, &mut behind).await;
            });
        }
    });
    (address, heads)
}

/// A SOCKS 5 server that wants to know who asks (RFC 1928 and 1929), and what it was told: user, password and the place by its name.
async fn socks() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    async fn text(stream: &mut TcpStream) -> String {
        let mut text = vec![0; stream.read_u8().await.unwrap().into()];
        stream.read_exact(&mut text).await.unwrap();
        String::from_utf8(text).unwrap()
    }
    let told = Arc::new(Mutex::new(Vec::new()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, kept) = (listener.local_addr().unwrap(), told.clone());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let kept = kept.clone();
            tokio::spawn(async move {
                assert_eq!(stream.read_u8().await.unwrap(), 5, "the version");
                let methods = text(&mut stream).await;
                assert!(methods.contains('\u{2}'), "it does not say who it is: {methods:?}");
                stream.write_all(&[5, 2]).await.unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), 1, "the version of saying who");
                let (user, password) = (text(&mut stream).await, text(&mut stream).await);
                stream.write_all(&[1, 0]).await.unwrap();
                let mut asked = [0; 4];
                stream.read_exact(&mut asked).await.unwrap();
                assert_eq!(asked, [5, 1, 0, 3], "a connection to a name");
                let (host, port) = (text(&mut stream).await, stream.read_u16().await.unwrap());
                kept.lock().unwrap().push(format!("{user}:{password}@{host}:{port}"));
                let mut behind = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                stream.write_all(&[5, 0, 0, 1, 127, 0, 0, 1, 0, 0]).await.unwrap();
                let _ = copy_bidirectional(&mut stream, &mut behind).await;
            });
        }
    });
    (address, told)
}

#[tokio::test]
async fn upstream_is_reached_through_a_companys_proxy_with_its_own_authority() {
    let (place, company, vendor) = (tempfile::tempdir().unwrap(), Authority::new("company"), vendor());
    let tls = write(place.path(), &company.sign("upstream"));
    let behind: SocketAddr = vendor.base_url().trim_start_matches("http://").parse().unwrap();
    let upstream = format!("https://localhost:{}", terminator(&tls, behind).await.port());
    let (proxy, heads) = proxy().await;
    let named = format!("http://me:s3cret@{proxy}");
    let run = async |change: &dyn Fn(&mut Config), variables: &[(&str, &str)]| {
        let mut config = config(&upstream);
        config.upstream.base_url = Some(BaseUrl::try_from(upstream.clone()).unwrap());
        change(&mut config);
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let (sidecar, _) = start_with(config, &variables);
        let url = format!("http://{}/run/{LLAMA}", sidecar.listen());
        let reply = ask(&crate::support::client(), &url, &json!({"prompt": "hello"})).send().await.unwrap();
        (reply.status().as_u16(), reply.text().await.unwrap())
    };
    let ca = company.write(place.path());
    let believed = |config: &mut Config| config.upstream.ca = Some(ca.clone());
    let (status, said) = run(&|_| {}, &[]).await;
    assert!(status >= 500 && said.contains("UnknownIssuer"), "an authority that nobody knows: {status} {said}");
    assert_eq!(run(&believed, &[]).await.0, 200, "straight");
    assert_eq!(run(&believed, &[("HTTPS_PROXY", &named), ("NO_PROXY", "localhost")]).await.0, 200);
    assert_eq!(heads.lock().unwrap().len(), 0, "NO_PROXY has it");
    assert_eq!(run(&believed, &[("ALL_PROXY", &named)]).await.0, 200);
    let head = heads.lock().unwrap().pop().unwrap();
    let basic = format!("Basic {}", STANDARD.encode("me:s3cret"));
    assert!(head.starts_with(&format!("CONNECT {}", upstream.trim_start_matches("https://"))), "{head}");
    assert!(head.contains(&basic) && !head.contains(TOKEN), "{head}");
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (status, said) = run(&believed, &[("https_proxy", &format!("http://me:s3cret@{nobody}"))]).await;
    assert!(status >= 500 && !said.contains("s3cret"), "a proxy that is not there: {status} {said}");
    let (socks, told) = socks().await;
    for scheme in ["socks5", "socks5h"] {
        let named = format!("{scheme}://me:s3cret@{socks}");
        assert_eq!(run(&believed, &[("ALL_PROXY", &named)]).await.0, 200, "{scheme}");
        let told = told.lock().unwrap().pop();
        assert_eq!(told, Some(format!("me:s3cret@{}", upstream.trim_start_matches("https://"))), "{scheme}");
    }
}
