//! Where the examples send their calls: to your account if its variables are set, else to the stand-in for Workers AI.

use tollgate::gateway::{Builder, Gateway};
use tollgate::simulator::{self, Running};

/// A builder that is set for one of the two; the stand-in lives as long as it is held.
pub fn builder() -> std::io::Result<(Builder, Option<Running>)> {
    // This crate's reqwest comes without a TLS provider for clients of its caller's making; yours has one, most likely.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.is_empty());
    match (variable("CLOUDFLARE_ACCOUNT_ID"), variable("CLOUDFLARE_API_TOKEN")) {
        (Some(account), Some(token)) => Ok((Gateway::builder().account(&account).token(&token), None)),
        _ => {
            println!("(CLOUDFLARE_ACCOUNT_ID and CLOUDFLARE_API_TOKEN are not set: a stand-in answers)");
            let mut settings = simulator::Settings::default();
            settings.latency = 0.2;
            let vendor = simulator::start(settings)?;
            Ok((Gateway::builder().account("023e").token("any").base_url(&vendor.base_url()), Some(vendor)))
        }
    }
}
