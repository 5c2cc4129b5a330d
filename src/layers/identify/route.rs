//! Which paths are calls to a model.
//!
//! Routes are read from the [canonical form](super::path) of a path. Their words count in any case: whether the vendor takes
//! `/AI/Run` is not known, so it is a call here, and leaves as the call that it is.

use crate::call::Endpoint;

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// A call to a model.
    Call(Target<'a>),
    /// Something else under an account.
    Other(Other<'a>),
    /// Calls one after the other, if it names an account.
    Universal(Universal<'a>),
    /// Nothing the gate knows.
    Unknown,
}

/// Where a call goes, as far as its path tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// Absent on the short routes.
    pub(super) account: Option<&'a str>,
    pub(super) endpoint: Endpoint,
    /// Absent where the body names it.
    pub(super) model: Option<&'a str>,
}

/// What is under an account and is no call that the gate knows.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Other<'a> {
    pub(super) account: &'a str,
    /// What stands below the account on the vendor's API, such as `ai/models/search`. Absent on the AI Gateway's host.
    pub(super) below: Option<&'a str>,
    /// It stands where calls stand, and under no name that is known to be something else.
    pub(super) may_run: bool,
}

/// Where a WebSocket is opened.
#[cfg(feature = "sockets")]
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Socket<'a> {
    /// Absent on the short routes.
    pub(super) account: Option<&'a str>,
    /// Absent where the query names it.
    pub(super) model: Option<&'a str>,
}

/// What stands under `/ai/` and runs no model that a request names (the vendor's API reference, 2026-10).
const APART: [&str; 5] = ["/models", "/finetunes", "/tomarkdown", "/authors", "/tasks"];

type Found<'a> = Option<(Endpoint, Option<&'a str>)>;

/// A request that names an account and a gateway, and nothing below.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Universal<'a> {
    pub(super) account: &'a str,
    pub(super) gateway: &'a str,
}

impl<'a> Route<'a> {
    pub(super) fn of(path: &'a str) -> Self {
        if let Some(rest) = after(path, "/client/v4/accounts") {
            return Self::api(rest);
        }
        match short(path) {
            Some(target) => Self::Call(target),
            None => after(path, "/v1").map_or(Self::Unknown, Self::gateway),
        }
    }

    /// `/{account}/ai/…` on the vendor's API.
    fn api(rest: &'a str) -> Self {
        let Some((account, rest)) = first(rest).filter(|(account, _)| is_name(account)) else { return Self::Unknown };
        let below = Some(rest.trim_start_matches('/'));
        let Some(ai) = after(rest, "/ai") else { return Self::Other(Other { account, below, may_run: false }) };
        let found = match after(ai, "/v1") {
            Some(v1) => openai(v1).map(|endpoint| (endpoint, None)),
            None => native(ai),
        };
        let may_run = !APART.iter().any(|apart| after(ai, apart).is_some());
        Self::known(account, found).unwrap_or(Self::Other(Other { account, below, may_run }))
    }

    /// `/{account}/{gateway}/…` on the AI Gateway's host.
    fn gateway(rest: &'a str) -> Self {
        let names = first(rest).and_then(|(account, rest)| Some((account, first(rest)?)));
        let Some((account, (gateway, rest))) = names.filter(|(a, (g, _))| is_name(a) && is_name(g)) else {
            return Self::Unknown;
        };
        if rest.is_empty() {
            return Self::Universal(Universal { account, gateway });
        }
        if first(rest).is_none_or(|(_, below)| below.is_empty()) {
            return Self::Unknown;
        }
        let found = match (after(rest, "/workers-ai"), after(rest, "/compat")) {
            (Some(below), _) => workers_ai(below),
            (None, Some(below)) => openai(below).map(|endpoint| (endpoint, None)),
            (None, None) => return Self::Other(Other { account, below: None, may_run: false }),
        };
        Self::known(account, found).unwrap_or(Self::Other(Other { account, below: None, may_run: true }))
    }

    fn known(account: &'a str, found: Found<'a>) -> Option<Self> {
        found.map(|(endpoint, model)| Self::Call(Target { account: Some(account), endpoint, model }))
    }
}

#[cfg(feature = "sockets")]
impl<'a> Socket<'a> {
    pub(super) fn of(path: &'a str) -> Option<Self> {
        // The AI Gateway's form names the model in its query.
        if let Some((account, rest)) = after(path, "/v1").and_then(first).filter(|(account, _)| is_name(account))
            && let Some((_, rest)) = first(rest).filter(|(gateway, _)| is_name(gateway))
            && after(rest, "/workers-ai").is_some_and(|below| matches!(below, "" | "/" | "/run"))
        {
            return Some(Self { account: Some(account), model: None });
        }
        match Route::of(path) {
            Route::Call(Target { account, endpoint: Endpoint::Run, model }) => Some(Self { account, model }),
            _ => None,
        }
    }
}

/// The short routes, for the configured account.
fn short(path: &str) -> Option<Target<'_>> {
    let found = match after(path, "/v1") {
        Some(v1) => openai(v1).map(|endpoint| (endpoint, None)),
        None => native(path),
    };
    found.map(|(endpoint, model)| Target { account: None, endpoint, model })
}

fn openai(rest: &str) -> Option<Endpoint> {
    let routes = [
        ("/chat/completions", Endpoint::ChatCompletions),
        ("/embeddings", Endpoint::Embeddings),
        ("/responses", Endpoint::Responses),
        ("/messages", Endpoint::Messages),
    ];
    routes.into_iter().find(|(route, _)| rest.eq_ignore_ascii_case(route)).map(|(_, endpoint)| endpoint)
}

fn native(rest: &str) -> Found<'_> {
    let model = after(rest, "/run")?;
    Some((Endpoint::Run, model.strip_prefix('/')))
}

fn workers_ai(rest: &str) -> Found<'_> {
    match after(rest, "/v1") {
        Some(v1) => openai(v1).map(|endpoint| (endpoint, None)),
        None => native(rest).or_else(|| Some((Endpoint::Run, rest.strip_prefix('/')))),
    }
}

/// What follows these segments at the beginning of a path: nothing, or a path.
fn after<'a>(path: &'a str, segments: &str) -> Option<&'a str> {
    let (begin, rest) = path.split_at_checked(segments.len())?;
    (begin.eq_ignore_ascii_case(segments) && (rest.is_empty() || rest.starts_with('/'))).then_some(rest)
}

/// A path's first segment, and the path below it.
fn first(path: &str) -> Option<(&str, &str)> {
    let path = path.strip_prefix('/')?;
    Some(path.split_at(path.find('/').unwrap_or(path.len())))
}

/// What an account or a gateway can be called.
fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(path: &str) -> (Option<&str>, Endpoint, Option<String>) {
        match Route::of(path) {
            Route::Call(t) => (t.account, t.endpoint, t.model.map(str::to_owned)),
            other => panic!("{path} is {other:?}"),
        }
    }

    #[test]
    fn every_form_of_the_facts_is_a_call() {
        let llama = || Some("@cf/meta/llama-3.1-8b-instruct".to_owned());
        let (run, chat) = (Endpoint::Run, Endpoint::ChatCompletions);
        for (path, want) in [
            ("/client/v4/accounts/a/ai/run/@cf/meta/llama-3.1-8b-instruct", (Some("a"), run, llama())),
            ("/Client/V4/accounts/a/AI/Run/@cf/meta/llama-3.1-8b-instruct", (Some("a"), run, llama())),
            ("/client/v4/accounts/a/ai/v1/messages", (Some("a"), Endpoint::Messages, None)),
            ("/client/v4/accounts/a/ai/run", (Some("a"), run, None)),
            ("/client/v4/accounts/a/ai/v1/chat/completions", (Some("a"), chat, None)),
            ("/client/v4/accounts/a/ai/v1/embeddings", (Some("a"), Endpoint::Embeddings, None)),
            ("/client/v4/accounts/a/ai/v1/responses", (Some("a"), Endpoint::Responses, None)),
            ("/v1/a/gw/workers-ai/@cf/meta/llama-3.1-8b-instruct", (Some("a"), run, llama())),
            ("/v1/a/gw/workers-ai/run/@cf/meta/llama-3.1-8b-instruct", (Some("a"), run, llama())),
            ("/v1/a/gw/workers-ai/v1/chat/completions", (Some("a"), chat, None)),
            ("/v1/a/gw/workers-ai/v1/embeddings", (Some("a"), Endpoint::Embeddings, None)),
            ("/v1/a/gw/compat/chat/completions", (Some("a"), chat, None)),
            ("/v1/chat/completions", (None, chat, None)),
            ("/v1/embeddings", (None, Endpoint::Embeddings, None)),
            ("/v1/responses", (None, Endpoint::Responses, None)),
            ("/v1/messages", (None, Endpoint::Messages, None)),
            ("/V1/a/gw/Workers-AI/@cf/meta/llama-3.1-8b-instruct", (Some("a"), run, llama())),
            ("/run/@cf/meta/llama-3.1-8b-instruct", (None, run, llama())),
            ("/run", (None, run, None)),
        ] {
            let (account, endpoint, model) = want;
            assert_eq!(call(path), (account, endpoint, model), "{path}");
        }
    }

    #[test]
    fn the_rest_under_an_account_is_told_by_whether_it_may_run_a_model() {
        for (path, below, may_run) in [
            ("/client/v4/accounts/a/ai/models/search", Some("ai/models/search"), false),
            ("/client/v4/accounts/a/AI/tomarkdown", Some("AI/tomarkdown"), false),
            ("/client/v4/accounts/a/ai/runs", Some("ai/runs"), true),
            ("/client/v4/accounts/a/ai/v1/rerank", Some("ai/v1/rerank"), true),
            ("/client/v4/accounts/a/ai/v1/chat/completions/x", Some("ai/v1/chat/completions/x"), true),
            ("/client/v4/accounts/a/ai", Some("ai"), true),
            ("/client/v4/accounts/a/workers/scripts", Some("workers/scripts"), false),
            ("/client/v4/accounts/a", Some(""), false),
            ("/v1/a/gw/openai/chat/completions", None, false),
            ("/v1/a/gw/compat/rerank", None, true),
            ("/v1/a/gw/workers-ai/v1/rerank", None, true),
        ] {
            assert_eq!(Route::of(path), Route::Other(Other { account: "a", below, may_run }), "{path}");
        }
    }

    #[cfg(feature = "sockets")]
    #[test]
    fn a_socket_is_opened_where_the_vendor_opens_it() {
        let nova = Some("@cf/deepgram/nova-3");
        for (path, account, model) in [
            ("/client/v4/accounts/a/ai/run/@cf/deepgram/nova-3", Some("a"), nova),
            ("/run/@cf/deepgram/nova-3", None, nova),
            ("/v1/a/gw/workers-ai", Some("a"), None),
            ("/v1/a/gw/workers-ai/run/@cf/deepgram/nova-3", Some("a"), nova),
            ("/v1/a/gw/workers-ai/@cf/deepgram/nova-3", Some("a"), nova),
        ] {
            assert_eq!(Socket::of(path), Some(Socket { account, model }), "{path}");
        }
        for path in
            ["/", "/v1/chat/completions", "/v1/a/gw/openai", "/v1/a/gw", "/client/v4/accounts/a/ai/models/search"]
        {
            assert_eq!(Socket::of(path), None, "{path}");
        }
    }

    #[test]
    fn an_account_and_a_gateway_alone_are_the_universal_endpoint() {
        assert_eq!(Route::of("/v1/a/gw"), Route::Universal(Universal { account: "a", gateway: "gw" }));
    }

    #[test]
    fn what_is_under_no_account_is_unknown() {
        let long = format!("/client/v4/accounts/{}/ai/run/x", "a".repeat(65));
        for path in [
            "/",
            "",
            "*",
            "/favicon.ico",
            "/v1/models",
            "/v1/a/gw/workers-ai",
            "/client/v4/user",
            "/client/v4/accounts",
            "/client/v4/accounts/a b/ai/run/x",
            "/client/v4/accounts/a.b/ai/run/x",
            "/v1/a/g w/workers-ai/x",
            "/runs",
            &long,
        ] {
            assert_eq!(Route::of(path), Route::Unknown, "{path}");
        }
    }
}
