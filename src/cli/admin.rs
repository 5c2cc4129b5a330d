//! The admin port of a running sidecar, for the commands that ask it.

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use super::settings::{Settings, variables};
use super::{Failure, block_on};

#[derive(Args, Clone, Debug, Default)]
pub(super) struct AdminArgs {
    #[command(flatten)]
    pub(super) settings: Settings,
    /// Where the sidecar's admin port is; by default as the config says
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// What the admin port asks for; by default the config's admin_token
    #[arg(long, value_name = "TOKEN", env = "TOLLGATE_ADMIN_TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
}

/// An admin port, and what it asks for.
pub(super) struct Admin {
    address: SocketAddr,
    token: Option<String>,
}

const PATIENCE: Duration = Duration::from_secs(30);

impl AdminArgs {
    /// A config that is wrong tells nothing: then it is to be said where the port is.
    pub(super) fn open(&self) -> Result<Admin, Failure> {
        let config = match (self.settings.load(&variables()), self.admin) {
            (Ok(config), _) => config,
            (Err(_), Some(_)) => crate::sidecar::config::Config::default(),
            (Err(Failure::Usage(why)), None) => {
                // The sidecar is asked all the same where it usually is; what it says of the config is its own.
                eprintln!("tollgate: {why}; asking the admin port where it is by default (or give --admin)");
                crate::sidecar::config::Config::default()
            }
            (Err(error), None) => return Err(error),
        };
        let mut address = self.admin.unwrap_or(config.admin);
        if address.ip().is_unspecified() {
            let loopback: std::net::IpAddr = match address {
                SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
            };
            address.set_ip(loopback);
        }
        let token =
            self.admin_token.clone().or_else(|| config.admin_token.as_ref().map(|token| token.reveal().to_owned()));
        Ok(Admin { address, token })
    }
}

impl Admin {
    /// Asks, and takes in the answer: its status, and its JSON.
    pub(super) fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Result<(u16, Value), Failure> {
        let failed = |why: String| {
            Failure::Failed(format!("the admin port of the sidecar at {} cannot be asked: {why}", self.address))
        };
        let uri: Uri = path.parse().map_err(|error: http::uri::InvalidUri| failed(error.to_string()))?;
        let mut request = Request::builder().method(method).uri(uri).header(header::HOST, self.address.to_string());
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let bytes = body.map(Value::to_string).unwrap_or_default();
        let request = request
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(bytes::Bytes::from(bytes)))
            .map_err(|error| failed(error.to_string()))?;
        let answer = block_on(async { tokio::time::timeout(PATIENCE, ask(self.address, request)).await })?;
        answer.map_err(|_| failed(format!("no answer within {PATIENCE:?}")))?.map_err(|error| failed(error.to_string()))
    }
}

/// Asks the admin port of another gate, and keeps the answer in a new file.
pub(super) fn download(peer: &str, token: Option<&str>, path: &str, into: &Path) -> Result<(), Failure> {
    let failed = |why: String| {
        Failure::Failed(format!(
            "the records of the gate at {peer} ([replicas] peers) cannot be read: {why}; name files by --records to do without"
        ))
    };
    let mut request = Request::builder().uri(path).header(header::HOST, peer);
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let request = request.body(Full::default()).map_err(|error| failed(error.to_string()))?;
    block_on(keep(peer, request, into))?.map_err(|error| failed(error.to_string()))
}

async fn keep(
    peer: &str,
    request: Request<Full<bytes::Bytes>>,
    into: &Path,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let late = |_| format!("nothing more came for {PATIENCE:?}");
    let stream = tokio::time::timeout(PATIENCE, tokio::net::TcpStream::connect(peer)).await.map_err(late)??;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await?;
    let driving = tokio::spawn(connection);
    let mut reply = tokio::time::timeout(PATIENCE, sender.send_request(request)).await.map_err(late)??;
    let mut file = std::fs::File::create_new(into)?;
    let status = reply.status().as_u16();
    while let Some(frame) = tokio::time::timeout(PATIENCE, reply.body_mut().frame()).await.map_err(late)? {
        if let Ok(data) = frame?.into_data() {
            file.write_all(&data)?;
        }
    }
    driving.abort();
    if status == 200 {
        return Ok(());
    }
    let said = std::fs::read(into)?;
    Err(format!("it says {status}: {}", String::from_utf8_lossy(&said[..said.len().min(300)]).trim()).into())
}

/// One request on a connection of its own.
async fn ask(
    address: SocketAddr,
    request: Request<Full<bytes::Bytes>>,
) -> Result<(u16, Value), Box<dyn std::error::Error + Send + Sync>> {
    let stream = tokio::net::TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream)).await?;
    let driving = tokio::spawn(connection);
    let reply = sender.send_request(request).await?;
    let status = reply.status().as_u16();
    let bytes = reply.into_body().collect().await?.to_bytes();
    driving.abort();
    // What is no JSON is a line of text.
    let text = || Value::from(String::from_utf8_lossy(&bytes).trim().to_owned());
    Ok((status, serde_json::from_slice(&bytes).unwrap_or_else(|_| text())))
}

/// What the port said instead of doing it.
pub(super) fn refused(status: u16, body: &Value) -> Failure {
    let why = body["error"].as_str().or_else(|| body.as_str()).map_or_else(|| body.to_string(), str::to_owned);
    match status {
        400 | 404 | 409 | 422 => Failure::Usage(why),
        _ => Failure::Failed(format!("the sidecar says {status}: {why}")),
    }
}
