//! What is no call, and whose token it leaves with.
//!
//! The gate's own token goes with what [`PassThrough`](super::PassThrough) lists and the gate's own account alone. All else needs an authorisation of
//! the client's own. What may run a model under a name that the gate does not know cannot be counted, so it is refused where
//! something has to be counted: where there are keys, a budget that can refuse, or a token of the gate's.

use std::sync::Arc;

use http::Method;
use http::header::{self, HeaderMap};

use super::path::CanonicalPath;
use super::route::Other;
use super::settings::Settings;
use crate::Error;
use crate::call::Credentials;
use crate::headers::{X_AUTH_EMAIL, X_AUTH_KEY};

/// Who pays for a request, and with whose authorisation.
#[derive(Debug)]
pub(super) struct Payer {
    pub(super) account: Arc<str>,
    pub(super) is_unlisted: bool,
    pub(super) credentials: Credentials,
}

// === impl Payer ===

impl Payer {
    /// The account that a path names, or the gate's own on a short route. Another account never gets the gate's token.
    pub(super) fn of(settings: &Settings, named: Option<&str>) -> Result<Self, Error> {
        let own = settings.account.as_ref();
        let of_the_gate =
            |account: &Arc<str>| Self { account: account.clone(), is_unlisted: false, credentials: Credentials::Gate };
        let named = match (named, own) {
            (None, Some(own)) => return Ok(of_the_gate(own)),
            // The usual account is shared, not copied. Account ids are hexadecimal digits, in either case.
            (Some(named), Some(own)) if own.eq_ignore_ascii_case(named) => return Ok(of_the_gate(own)),
            (Some(named), _) => named,
            (None, None) => return Err(no_account()),
        };
        let credentials = if own.is_none() { Credentials::Gate } else { Credentials::Client };
        if let Some(listed) = settings.accounts.iter().find(|listed| listed.eq_ignore_ascii_case(named)) {
            return Ok(Self { account: listed.clone(), is_unlisted: false, credentials });
        }
        if own.is_some() && settings.has_token {
            return Err(Error::Forbidden(
                "this gate serves the account that it has a token for, and the path names another one. Use the short routes, \
                 or have the account added to [upstream] accounts in the gate's config and send a token of its own"
                    .into(),
            ));
        }
        Ok(Self { account: named.into(), is_unlisted: true, credentials })
    }
}

fn no_account() -> Error {
    Error::NotFound(
        "the short routes need the gate's own account: set [upstream] account_id or CLOUDFLARE_ACCOUNT_ID, or use \
         /client/v4/accounts/{account}/ai/…"
            .into(),
    )
}

/// The client vouches for itself at the vendor: by a token, or by its account's e-mail address and key.
pub(super) fn is_authorized(headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION)
        || headers.contains_key(X_AUTH_EMAIL) && headers.contains_key(X_AUTH_KEY)
}

/// The AI Gateway takes a token as `cf-aig-authorization`, also bare; the vendor's API, where the call may leave for, does not.
#[cfg(feature = "sockets")]
pub(super) fn vouch(headers: &mut HeaderMap) {
    if is_authorized(headers) {
        return;
    }
    let Some(sent) = headers.get(crate::headers::CF_AIG_AUTHORIZATION).map(header::HeaderValue::as_bytes) else {
        return;
    };
    let is_bearer = sent.get(..7).is_some_and(|begin| begin.eq_ignore_ascii_case(b"bearer "));
    let value = if is_bearer { sent.to_vec() } else { [b"Bearer ", sent].concat() };
    if let Ok(mut value) = header::HeaderValue::from_bytes(&value) {
        value.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, value);
    }
}

/// With whose authorisation something leaves that is no call, if it may.
pub(super) fn credentials(
    settings: &Settings,
    method: &Method,
    path: &CanonicalPath<'_>,
    other: &Other<'_>,
    headers: &HeaderMap,
) -> Result<Credentials, Error> {
    let payer = Payer::of(settings, Some(other.account))?;
    let is_read = [Method::GET, Method::HEAD, Method::OPTIONS].contains(method);
    if other.may_run && !is_read && settings.must_count() {
        return Err(Error::Forbidden(
            "this route is not known here and may run a model, which could not be counted: use …/ai/run/{model} or one of \
             …/ai/v1/chat/completions, …/embeddings, …/responses, …/messages"
                .into(),
        ));
    }
    let is_listed = |below| settings.pass_through.iter().any(|listed| listed.lists(method, below));
    let is_own = settings.account.as_ref().is_none_or(|own| **own == *other.account);
    let goes_with_own = settings.has_token
        && payer.credentials == Credentials::Gate
        && is_own
        && path.is_plain()
        && path.decoded().starts_with("/client/v4/accounts/")
        && other.below.is_some_and(is_listed);
    match goes_with_own {
        true => Ok(Credentials::Gate),
        false if is_authorized(headers) => Ok(Credentials::Client),
        false => Err(not_without_token(settings, method, other)),
    }
}

fn not_without_token(settings: &Settings, method: &Method, other: &Other<'_>) -> Error {
    let how = "send an API token of your own as `Authorization: Bearer`, or X-Auth-Email with X-Auth-Key";
    if !settings.has_token {
        return Error::Unauthorized(format!("no token: {how}"));
    }
    let key = if settings.keys.is_empty() { "" } else { ", and the gate's key as cf-aig-authorization" };
    let list = match other.below {
        Some(below) => format!("; or have \"{method} {}\" added to [upstream] pass_through", shown(below)),
        None => String::new(),
    };
    Error::Forbidden(format!("the gate's own token does not go with this request: {how}{key}{list}"))
}

fn shown(path: &str) -> String {
    path.chars().take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::super::pass_through::PassThrough;
    use super::*;

    #[test]
    fn what_is_listed_is_one_request_or_all_below_a_path() {
        let lists = |listed: &str, method: Method, below| listed.parse::<PassThrough>().unwrap().lists(&method, below);
        assert!(lists("GET ai/models/search", Method::GET, "ai/models/search"));
        assert!(lists("GET ai/finetunes/*", Method::GET, "ai/finetunes/public"));
        for (listed, method, below) in [
            ("GET ai/models/search", Method::POST, "ai/models/search"),
            ("GET ai/models/search", Method::HEAD, "ai/models/search"),
            ("GET ai/models/search", Method::GET, "ai/models/search/x"),
            ("GET ai/models/search", Method::GET, "ai/models/searching"),
            ("GET ai/models/search", Method::GET, "AI/models/search"),
            ("GET ai/finetunes/*", Method::GET, "ai/finetunes"),
            ("GET ai/finetunes/*", Method::GET, "ai/finetunesx/y"),
        ] {
            assert!(!lists(listed, method.clone(), below), "{listed} is not {method} {below}");
        }
        for wrong in [
            "",
            "GET",
            "ai/models",
            "GET /ai/models",
            "GET ai//x",
            "GET ai/../x",
            "GET ai/%72un",
            "TRACE ai/x",
            "G\u{e9}T x",
            "GET *",
        ] {
            assert!(wrong.parse::<PassThrough>().is_err(), "{wrong}");
        }
        for usual in PassThrough::usual() {
            assert_eq!(String::from(usual.clone()).parse(), Ok(usual));
        }
    }

    #[test]
    fn another_account_never_gets_the_gates_token() {
        let mut settings = Settings { account: Some("023e".into()), has_token: true, ..Settings::default() };
        settings.accounts = vec!["beef".into()];
        let of = |settings: &Settings, named| {
            Payer::of(settings, named).map(|payer| (payer.account, payer.credentials, payer.is_unlisted))
        };
        for named in [None, Some("023e"), Some("023E")] {
            assert_eq!(of(&settings, named).unwrap(), ("023e".into(), Credentials::Gate, false));
        }
        assert_eq!(of(&settings, Some("BEEF")).unwrap(), ("beef".into(), Credentials::Client, false));
        assert_eq!(of(&settings, Some("other")).unwrap_err().status(), 403);
        settings.has_token = false;
        assert_eq!(of(&settings, Some("other")).unwrap(), ("other".into(), Credentials::Client, true));
        settings.account = None;
        assert_eq!(of(&settings, None).unwrap_err().status(), 404);
        assert!(of(&settings, Some("other")).unwrap().2);
    }
}
