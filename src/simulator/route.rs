//! What a path asks for.

use percent_encoding::percent_decode_str;

/// A route of the vendor's, with what its path tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Route {
    pub(super) account: String,
    pub(super) wants: Wants,
    /// Absent where the body names it.
    pub(super) model: Option<String>,
    /// Another provider behind the AI Gateway, whose models' names begin with its own.
    pub(super) provider: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wants {
    Run,
    Chat,
    Embeddings,
    Responses,
    /// Anthropic's form.
    Messages,
    Search,
    /// The analytics.
    GraphQl,
    /// Anything else under an account.
    Other,
}

impl Route {
    pub(super) fn of(path: &str) -> Option<Self> {
        if path == "/client/v4/graphql" {
            return Some(Self::new("", Wants::GraphQl, None));
        }
        if let Some(rest) = path.strip_prefix("/client/v4/accounts/") {
            let (account, rest) = rest.split_once('/')?;
            let Some(ai) = rest.strip_prefix("ai/") else { return Some(Self::new(account, Wants::Other, None)) };
            return Some(Self::api(account, ai).unwrap_or_else(|| Self::new(account, Wants::Other, None)));
        }
        let mut parts = path.strip_prefix("/v1/")?.splitn(4, '/');
        let (account, _gateway, provider, rest) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        match provider {
            "workers-ai" => Self::api(account, rest).or_else(|| Some(Self::new(account, Wants::Run, Some(rest)))),
            "compat" => Self::api(account, &format!("v1/{rest}")),
            other => Self::elsewhere(account, other, rest),
        }
    }

    /// Another provider's model, in one of the forms that Workers AI has, too.
    fn elsewhere(account: &str, provider: &str, rest: &str) -> Option<Self> {
        let form = rest.strip_prefix("v1/").unwrap_or(rest);
        let route = Self::api(account, &format!("v1/{form}"))?;
        Some(Self { provider: Some(provider.to_owned()), ..route })
    }

    fn api(account: &str, rest: &str) -> Option<Self> {
        let wants = match rest {
            "v1/chat/completions" => Wants::Chat,
            "v1/embeddings" => Wants::Embeddings,
            "v1/responses" => Wants::Responses,
            "v1/messages" => Wants::Messages,
            "models/search" => Wants::Search,
            "run" => Wants::Run,
            _ => return Some(Self::new(account, Wants::Run, Some(rest.strip_prefix("run/")?))),
        };
        Some(Self::new(account, wants, None))
    }

    fn new(account: &str, wants: Wants, model: Option<&str>) -> Self {
        let model = model.map(|name| percent_decode_str(name).decode_utf8_lossy().into_owned());
        Self { account: account.to_owned(), wants, model, provider: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_path_is_known() {
        let of = |path| Route::of(path).map(|r| (r.wants, r.model));
        let llama = || Some("@cf/meta/llama-3.2-1b-instruct".to_owned());
        assert_eq!(of("/client/v4/accounts/a/ai/run/@cf/meta/llama-3.2-1b-instruct"), Some((Wants::Run, llama())));
        assert_eq!(of("/client/v4/accounts/a/ai/run/%40cf/meta/llama-3.2-1b-instruct"), Some((Wants::Run, llama())));
        assert_eq!(of("/client/v4/accounts/a/ai/run"), Some((Wants::Run, None)));
        assert_eq!(of("/client/v4/accounts/a/ai/v1/chat/completions"), Some((Wants::Chat, None)));
        assert_eq!(of("/v1/a/gw/workers-ai/@cf/meta/llama-3.2-1b-instruct"), Some((Wants::Run, llama())));
        assert_eq!(of("/v1/a/gw/workers-ai/run/@cf/meta/llama-3.2-1b-instruct"), Some((Wants::Run, llama())));
        assert_eq!(of("/v1/a/gw/workers-ai/v1/embeddings"), Some((Wants::Embeddings, None)));
        assert_eq!(of("/v1/a/gw/compat/chat/completions"), Some((Wants::Chat, None)));
        assert_eq!(of("/client/v4/accounts/a/ai/models/search"), Some((Wants::Search, None)));
        assert_eq!(of("/client/v4/accounts/a/storage/kv"), Some((Wants::Other, None)));
        assert_eq!(of("/client/v4/graphql"), Some((Wants::GraphQl, None)));
        assert_eq!(of("/nothing"), None);
    }
}
