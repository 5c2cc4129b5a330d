//! Where calls go and which way they take, as a config and its variables have it.

use super::config::{BaseUrl, Config, ConfigError, Variables, variable};
use super::tls;
use crate::upstream::{self, Affinity, Proxies, Road, Target};

impl Config {
    /// Where calls go, with the tokens that the named variables hold.
    pub fn target(&self, variables: &Variables) -> Result<Target, ConfigError> {
        let upstream = &self.upstream;
        let gateway = Some(upstream.gateway.clone()).filter(|name| !name.is_empty());
        let default = if gateway.is_some() { upstream::GATEWAY } else { upstream::API };
        let base_url = upstream.base_url.as_ref().map_or(default, BaseUrl::as_str);
        let wrong = |place: &str| {
            let place = place.to_owned();
            move |error: upstream::TargetError| ConfigError { place, what: error.to_string() }
        };
        let mut target = Target::new(base_url).map_err(wrong("[upstream] base_url"))?;
        if let Some(token) = variable(variables, &upstream.api_token_env) {
            target = target.with_token(token).map_err(wrong(&upstream.api_token_env))?;
        }
        if let Some(token) = variable(variables, &upstream.gateway_token_env) {
            target = target.with_gateway_token(token).map_err(wrong(&upstream.gateway_token_env))?;
        }
        target.gateway = gateway;
        target.affinity = Affinity::new(upstream.session_affinity.clone());
        target.first_byte_timeout = upstream.first_byte_timeout;
        target.idle_timeout = upstream.idle_timeout;
        target.body_timeout = upstream.body_timeout;
        Ok(target)
    }

    /// Which way calls take: whose certificates are believed, and through which proxy.
    pub fn road(&self, variables: &Variables) -> Result<Road, ConfigError> {
        // Nobody is believed on the way to an upstream without TLS.
        let is_tls = self.upstream.base_url.as_ref().is_none_or(|url| url.as_str().starts_with("https:"));
        let is_tls = is_tls || !self.webhooks.is_empty() || self.otel.is_tls(variables);
        let mut authorities = if is_tls { upstream::system_authorities() } else { Vec::new() };
        if let Some(path) = &self.upstream.ca {
            let wrong = |what: String| ConfigError { place: "[upstream] ca".into(), what };
            authorities.extend(tls::authorities(path).map_err(wrong)?);
        }
        let either = |name: &str| {
            let small = name.to_ascii_lowercase();
            variable(variables, name).or_else(|| variable(variables, &small)).unwrap_or_default().to_owned()
        };
        let mut proxies = Proxies::default();
        (proxies.https, proxies.all, proxies.no) = (either("HTTPS_PROXY"), either("ALL_PROXY"), either("NO_PROXY"));
        Road::new(authorities, &proxies)
            .map_err(|error| ConfigError { place: "environment".into(), what: error.to_string() })
    }

    /// The gate's own token for the vendor.
    pub(crate) fn token<'a>(&self, variables: &'a Variables) -> Option<&'a str> {
        variable(variables, &self.upstream.api_token_env)
    }

    /// Where the vendor's books are: with the API, also where calls leave through an AI Gateway.
    pub(crate) fn books_url(&self) -> &str {
        let own = self.upstream.base_url.as_ref().map(BaseUrl::as_str);
        own.filter(|url| !url.starts_with(upstream::GATEWAY)).unwrap_or(upstream::API)
    }

    /// The account of the short routes.
    pub fn account<'a>(&'a self, variables: &'a Variables) -> Option<&'a str> {
        let ours = self.upstream.account_id.as_deref();
        ours.or_else(|| variable(variables, "CLOUDFLARE_ACCOUNT_ID")).filter(|id| !id.is_empty())
    }
}
