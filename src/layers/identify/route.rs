//! Which paths are calls to a model.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::call::Endpoint;

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route<'a> {
    /// A call to a model.
    Call(Target<'a>),
    /// Something else under an account: it passes, unmetered.
    Through,
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
    pub(super) model: Option<Cow<'a, str>>,
}

impl<'a> Route<'a> {
    pub(super) fn of(path: &'a str) -> Self {
        if let Some(rest) = path.strip_prefix("/client/v4/accounts/") {
            return Self::api(rest);
        }
        match short(path) {
            Some(target) => Self::Call(target),
            None => path.strip_prefix("/v1/").map_or(Self::Unknown, Self::gateway),
        }
    }

    /// `{account}/ai/…` on the vendor's API.
    fn api(rest: &'a str) -> Self {
        let Some((account, rest)) = rest.split_once('/') else { return Self::Through };
        let Some(rest) = rest.strip_prefix("ai/") else { return Self::Through };
        let target = match rest.strip_prefix("v1/") {
            Some(v1) => openai(v1).map(|endpoint| (endpoint, None)),
            None => native(rest),
        };
        target.map_or(Self::Through, |(endpoint, model)| Self::call(account, endpoint, model))
    }

    /// `{account}/{gateway}/…` on the AI Gateway's host.
    fn gateway(rest: &'a str) -> Self {
        let mut parts = rest.splitn(4, '/');
        let (Some(account), Some(_gateway), Some(provider), Some(rest)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Self::Unknown;
        };
        let target = match provider {
            "workers-ai" => workers_ai(rest),
            "compat" => openai(rest).map(|endpoint| (endpoint, None)),
            _ => return Self::Through,
        };
        target.map_or(Self::Through, |(endpoint, model)| Self::call(account, endpoint, model))
    }

    fn call(account: &'a str, endpoint: Endpoint, model: Option<Cow<'a, str>>) -> Self {
        Self::Call(Target { account: Some(account), endpoint, model })
    }
}

type Found<'a> = Option<(Endpoint, Option<Cow<'a, str>>)>;

/// The short routes, for the configured account.
fn short(path: &str) -> Option<Target<'_>> {
    let found = match path.strip_prefix("/v1/") {
        Some(v1) => openai(v1).map(|endpoint| (endpoint, None)),
        None => native(path.strip_prefix('/')?),
    };
    found.map(|(endpoint, model)| Target { account: None, endpoint, model })
}

fn openai(rest: &str) -> Option<Endpoint> {
    match rest {
        "chat/completions" => Some(Endpoint::ChatCompletions),
        "embeddings" => Some(Endpoint::Embeddings),
        "responses" => Some(Endpoint::Responses),
        _ => None,
    }
}

fn native(rest: &str) -> Found<'_> {
    match rest.strip_prefix("run") {
        Some("" | "/") => Some((Endpoint::Run, None)),
        Some(model) => Some((Endpoint::Run, Some(name(model.strip_prefix('/')?)))),
        None => None,
    }
}

fn workers_ai(rest: &str) -> Found<'_> {
    if let Some(v1) = rest.strip_prefix("v1/") {
        return openai(v1).map(|endpoint| (endpoint, None));
    }
    native(rest).or_else(|| Some((Endpoint::Run, Some(name(rest)))))
}

/// Clients differ in what they encode: `%40cf/…` and `@cf%2F…` are the same model.
fn name(model: &str) -> Cow<'_, str> {
    if model.contains('%') { percent_decode_str(model).decode_utf8_lossy() } else { Cow::Borrowed(model) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(path: &str) -> (Option<&str>, Endpoint, Option<String>) {
        match Route::of(path) {
            Route::Call(t) => (t.account, t.endpoint, t.model.map(Cow::into_owned)),
            other => panic!("{path} is {other:?}"),
        }
    }

    #[test]
    fn every_form_of_the_facts_is_a_call() {
        let llama = || Some("@cf/meta/llama-3.1-8b-instruct".to_owned());
        let (run, chat) = (Endpoint::Run, Endpoint::ChatCompletions);
        for (path, want) in [
            ("/client/v4/accounts/a/ai/run/@cf/meta/llama-3.1-8b-instruct", (Some("a"), run, llama())),
            ("/client/v4/accounts/a/ai/run/%40cf%2Fmeta/llama-3.1-8b-instruct", (Some("a"), run, llama())),
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
            ("/run/@cf/meta/llama-3.1-8b-instruct", (None, run, llama())),
            ("/run", (None, run, None)),
        ] {
            let (account, endpoint, model) = want;
            assert_eq!(call(path), (account, endpoint, model), "{path}");
        }
    }

    #[test]
    fn the_rest_under_an_account_passes_through() {
        for path in [
            "/client/v4/accounts/a/ai/models/search",
            "/client/v4/accounts/a/ai/runs",
            "/client/v4/accounts/a/workers/scripts",
            "/v1/a/gw/openai/chat/completions",
        ] {
            assert_eq!(Route::of(path), Route::Through, "{path}");
        }
        for path in ["/", "/favicon.ico", "/v1/models", "/client/v4/user", "/runs"] {
            assert_eq!(Route::of(path), Route::Unknown, "{path}");
        }
    }
}
