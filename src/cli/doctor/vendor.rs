//! The way to the vendor: its name, its certificates, its clock, and what it says of the token.

use std::time::{Duration, Instant, SystemTime};

use http::header;
use serde_json::Value;

use super::Finding;
use crate::books::{Books, BooksError};
use crate::sidecar::books;
use crate::sidecar::config::{Config, Variables};
use crate::upstream::{Road, Target, causes};

/// For each question.
const PATIENCE: Duration = Duration::from_secs(10);
/// Clocks that differ by so much put calls into another window of a budget, and books beside each other that do not match.
const APART: Duration = Duration::from_secs(5);
/// So much is read of an answer to whether a token is active.
const LONGEST_ANSWER: usize = 64 << 10;
/// Looks at each part of the way, and stops where the next one cannot be.
pub(super) async fn ask(config: &Config, variables: &Variables, findings: &mut Vec<Finding>) {
    // Both were found right with the config.
    let (Ok(target), Ok(road)) = (config.target(variables), config.road(variables)) else { return };
    let proxy = road.proxy_to(&target.base_url());
    match &proxy {
        Some(proxy) => findings.push(Finding::skipped("dns", format!("the proxy {proxy} asks for names"))),
        None => findings.push(names(&target).await),
    }
    let client = reqwest::Client::builder()
        .tls_backend_preconfigured(road.tls())
        .timeout(PATIENCE)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("tollgate/", env!("CARGO_PKG_VERSION")))
        .build();
    let Ok(client) = client else { return };
    let is_reached = reach(&client, &target, &road, findings).await;
    let Some(account) = config.account(variables) else {
        return findings.push(Finding::warning(
            "token",
            "no account is set, so the short routes answer 404",
            "set [upstream] account_id or CLOUDFLARE_ACCOUNT_ID, or let clients name their account in paths",
        ));
    };
    let Some(token) = config.token(variables) else {
        let found = format!("the gate has none ({} is not set): clients send their own", config.upstream.api_token_env);
        return findings.push(Finding::skipped("token", found));
    };
    if !is_reached {
        return findings.push(Finding::skipped("token", "not asked: upstream cannot be reached"));
    }
    let mut books = match books::books(config, variables, "[upstream]") {
        Ok(books) => books,
        Err(error) => return findings.push(Finding::wrong("token", error.what, "correct it")),
    };
    books.timeout = PATIENCE;
    let is_allowed = match books.models().await {
        Ok(_) => {
            findings.push(Finding::ok("token", "the vendor takes it, and lets it read its list of models"));
            true
        }
        Err(error) => {
            let api = format!("{}/client/v4", config.books_url().trim_end_matches('/'));
            let is_active = verified(&client, &api, account, token).await;
            findings.push(refused(&error, is_active));
            false
        }
    };
    findings.push(analytics(config, &books, is_allowed).await);
}

async fn names(target: &Target) -> Finding {
    let url = target.base_url();
    let (host, port) = (url.host().unwrap_or_default(), url.port_u16().unwrap_or(443));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let found = tokio::time::timeout(PATIENCE, tokio::net::lookup_host((host, port))).await;
    let mend = "mend the resolver (/etc/resolv.conf; in a cluster its DNS policy), or [upstream] base_url";
    match found {
        Ok(Ok(addresses)) => Finding::ok("dns", format!("{host} has {} addresses", addresses.count())),
        Ok(Err(error)) => Finding::wrong("dns", format!("{host} has no address: {error}"), mend),
        Err(_) => Finding::wrong("dns", format!("nobody says where {host} is within 10 s"), mend),
    }
}

/// Whether upstream answers at all, whose certificates are believed, and what time it has there.
async fn reach(client: &reqwest::Client, target: &Target, road: &Road, findings: &mut Vec<Finding>) -> bool {
    let (url, began) = (target.base_url().to_string(), Instant::now());
    let is_tls = target.base_url().scheme_str() == Some("https");
    let reply = match client.get(url).send().await {
        Ok(reply) => reply,
        Err(error) => {
            let why = causes(&error.without_url());
            let is_distrust = ["certificate", "UnknownIssuer", "NotValidForName"].iter().any(|word| why.contains(word));
            let by = road
                .proxy_to(&target.base_url())
                .map(|proxy| format!(" through the proxy {proxy}"))
                .unwrap_or_default();
            findings.push(if is_distrust {
                let mend =
                    "name your company's authority in [upstream] ca or SSL_CERT_FILE, and look at this machine's clock";
                Finding::wrong("tls", format!("{}{by}: {why}", target.host()), mend)
            } else {
                let mend = "open the way out (firewall, HTTPS_PROXY), or correct [upstream] base_url";
                Finding::wrong("upstream", format!("{}{by} does not answer: {why}", target.host()), mend)
            });
            return false;
        }
    };
    if is_tls {
        findings.push(Finding::ok("tls", format!("{} is who it says it is", target.host())));
    }
    let took = began.elapsed();
    let found = format!("{} answers, {:.0} ms away", target.host(), took.as_secs_f64() * 1e3);
    findings.push(Finding::ok("upstream", found));
    findings.extend(clock(reply.headers().get(header::DATE).and_then(|date| date.to_str().ok()), took));
    true
}

/// The vendor's clock has whole seconds, and the answer was on its way for a while.
fn clock(date: Option<&str>, took: Duration) -> Option<Finding> {
    let theirs = httpdate::parse_http_date(date?).ok()?;
    let now = SystemTime::now();
    let apart = now.duration_since(theirs).unwrap_or_else(|error| error.duration());
    if apart > APART + took + Duration::from_secs(1) {
        let found = format!("this machine's clock is {:.0} s off upstream's", apart.as_secs_f64());
        let mend = "let a time service set the clock (chrony, systemd-timesyncd): budgets' windows end by it";
        return Some(Finding::wrong("clock", found, mend));
    }
    Some(Finding::ok("clock", "as upstream's"))
}

/// Whether the vendor knows the token as an active one, a person's or an account's; `None` where it does not say.
async fn verified(client: &reqwest::Client, api: &str, account: &str, token: &str) -> Option<bool> {
    let mut said = None;
    for path in ["user/tokens/verify".to_owned(), format!("accounts/{account}/tokens/verify")] {
        let Ok(reply) = client.get(format!("{api}/{path}")).bearer_auth(token).send().await else { continue };
        let status = reply.status();
        let is_active = read(reply).await.is_some_and(|body| body["result"]["status"] == "active");
        if status.is_success() && is_active {
            return Some(true);
        }
        if status.is_success() || status.is_client_error() && status != http::StatusCode::NOT_FOUND {
            said = Some(false);
        }
    }
    said
}

/// An answer that is short and JSON.
async fn read(mut reply: reqwest::Response) -> Option<Value> {
    let mut body = Vec::new();
    while let Some(piece) = reply.chunk().await.ok()? {
        body.extend_from_slice(&piece);
        if body.len() > LONGEST_ANSWER {
            return None;
        }
    }
    serde_json::from_slice(&body).ok()
}

/// What it means that the vendor's list cannot be read with the token.
fn refused(error: &BooksError, is_active: Option<bool>) -> Finding {
    let about = "token";
    match error {
        BooksError::NotAllowed { said, .. } => {
            let (found, mend) = match is_active {
                Some(true) => (
                    "is active and has no permission for Workers AI in this account",
                    "give it the permission Workers AI: Read for this account (the template Workers AI), or correct the account",
                ),
                Some(false) => (
                    "is none that the vendor knows as active: revoked, expired, or not whole",
                    "make one from the template Workers AI, and set it as it was shown",
                ),
                None => ("is refused", "make one from the template Workers AI, for this account"),
            };
            Finding::wrong(about, format!("it {found}; the vendor says: {said}"), mend)
        }
        BooksError::Refused { status: 404, said } => Finding::wrong(
            about,
            format!("the vendor knows no such account: {said}"),
            "correct [upstream] account_id or CLOUDFLARE_ACCOUNT_ID",
        ),
        BooksError::Refused { status: 429, .. } => {
            Finding::warning(about, error.to_string(), "wait five minutes: the vendor's API is asked too often")
        }
        _ => Finding::warning(about, error.to_string(), "ask again; look at cloudflarestatus.com"),
    }
}

/// What the account's analytics are read with, where they are asked for.
async fn analytics(config: &Config, books: &Books, is_allowed: bool) -> Finding {
    let about = "permissions";
    if !config.account.analytics {
        return Finding::skipped(about, "not asked: [account] analytics is off");
    }
    if !is_allowed {
        return Finding::skipped(about, "not asked: the vendor does not take the token");
    }
    let now = SystemTime::now();
    match books.spent(now - Duration::from_secs(60), now).await {
        Ok(_) => Finding::ok(about, "it may read the account's analytics"),
        Err(BooksError::NotAllowed { what, permission, .. }) => {
            Finding::warning(about, format!("it may not read {what}"), format!("give it the permission {permission}"))
        }
        Err(error) => Finding::warning(about, error.to_string(), "ask again, or do without"),
    }
}
