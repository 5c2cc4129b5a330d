//! `tollgate health`

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use clap::Args;
use serde_json::json;

use super::settings::{Settings, variables};
use super::{Failure, block_on, print};

#[derive(Args, Debug)]
pub(super) struct Health {
    #[command(flatten)]
    settings: Settings,
    /// The admin port of the gate that is asked [default: the config's]
    #[arg(long, value_name = "ADDRESS")]
    admin: Option<SocketAddr>,
    /// How long its answer is waited for
    #[arg(long, value_name = "TIME", default_value = "3s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// As JSON: whether it is ready, the status and the words of its answer
    #[arg(long)]
    json: bool,
}

impl Health {
    pub(super) fn run(self) -> Result<(), Failure> {
        let config = self.settings.load(&variables())?;
        let mut admin = self.admin.unwrap_or(config.admin);
        // What is bound for all is asked here.
        match admin.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => admin.set_ip(Ipv4Addr::LOCALHOST.into()),
            IpAddr::V6(ip) if ip.is_unspecified() => admin.set_ip(Ipv6Addr::LOCALHOST.into()),
            _ => {}
        }
        let scheme = if config.admin_tls.cert.is_some() { "https" } else { "http" };
        let failed = |why: String| Failure::Failed(format!("the gate at {admin} is not ready: {why}"));
        // The certificate is the gate's own, for a name that this address may not be.
        let client = reqwest::Client::builder().no_proxy().timeout(self.timeout);
        let client = client.tls_backend_preconfigured(crate::upstream::tls_unverified()).build();
        let client = client.map_err(|error| failed(error.to_string()))?;
        let asked = async {
            let reply = client.get(format!("{scheme}://{admin}/readyz")).send().await?;
            let status = reply.status();
            Ok::<_, reqwest::Error>((status, reply.text().await?))
        };
        let (status, said) = block_on(asked)?.map_err(|error| failed(crate::upstream::causes(&error)))?;
        if self.json {
            let told = json!({"ready": status.is_success(), "status": status.as_u16(), "says": said.trim()});
            print(&format!("{told}\n"))?;
        }
        if self.json && status.is_success() {
            return Ok(());
        }
        if status.is_success() { print(&said) } else { Err(failed(format!("it says {status}, {}", said.trim()))) }
    }
}
