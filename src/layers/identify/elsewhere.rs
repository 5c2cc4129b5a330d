//! Calls to other providers behind an AI Gateway, as far as their paths and bodies tell what they are.
//!
//! A step of the universal endpoint is always such a call. A request to a provider by itself is one where somebody has to answer for
//! what it costs: where there are budgets that refuse, or keys. Elsewhere it passes unread.

use http::Method;

use super::path::CanonicalPath;
use super::route::{Other, Target};
use super::settings::Settings;
use super::short::NamedModel;
use crate::Error;
use crate::call::{Elsewhere, Endpoint};

/// The forms of other providers that are known, by how their paths end.
const FORMS: [(&str, Endpoint); 4] = [
    ("/chat/completions", Endpoint::ChatCompletions),
    ("/embeddings", Endpoint::Embeddings),
    ("/responses", Endpoint::Responses),
    ("/messages", Endpoint::Messages),
];

impl Elsewhere {
    /// From the canonical path of a request to an AI Gateway: `/v1/{account}/{gateway}/{provider}/…`.
    pub(super) fn of(decoded: &str, encoded: &str) -> Option<Self> {
        let below = |path: &str| path.splitn(5, '/').nth(4).filter(|rest| !rest.is_empty()).map(str::to_owned);
        let gateway = decoded.split('/').nth(3)?;
        Some(Self { gateway: gateway.into(), path: below(encoded)?.into() })
    }

    /// Of a request by itself, where it has to be counted.
    pub(super) fn counted(
        settings: &Settings,
        method: &Method,
        other: &Other<'_>,
        path: &CanonicalPath<'_>,
    ) -> Option<Self> {
        let is_providers = other.below.is_none() && !other.may_run;
        let is_counted = settings.has_budgets || !settings.keys.is_empty();
        (is_providers && is_counted && *method == Method::POST)
            .then(|| Self::of(path.decoded(), path.encoded()))
            .flatten()
    }

    /// Who answers.
    pub(super) fn provider(&self) -> &str {
        self.path.split('/').next().unwrap_or_default()
    }

    pub(super) fn target<'a>(&self, account: &'a str) -> Target<'a> {
        let form = FORMS.iter().find(|(end, _)| self.path.ends_with(end));
        Target { account: Some(account), endpoint: form.map_or(Endpoint::Run, |(_, endpoint)| *endpoint), model: None }
    }

    /// The model's name as the config and the vendor's catalogue write it: `openai/gpt-5`. Where the body names none, it may
    /// stand in the path, as it does with Google (`…/models/gemini-3:generateContent`).
    pub(super) fn told(&self, named: Option<(String, std::ops::Range<usize>)>) -> Result<NamedModel, Error> {
        let by_path = || {
            let name = self.path.rsplit_once("/models/")?.1.split('/').next()?;
            Some(name.split(':').next()?.to_owned())
        };
        let (name, place) = match named {
            Some((name, place)) => (Some(name), Some(place)),
            None => (by_path(), None),
        };
        let provider = self.provider();
        let name = match name.filter(|name| !name.is_empty()) {
            Some(name) => format!("{provider}/{name}"),
            None => provider.to_owned(),
        };
        Ok(NamedModel { name, place, with_name: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_tells_provider_form_and_sometimes_the_model() {
        let of = |path: &str| Elsewhere::of(path, path).unwrap();
        let openai = of("/v1/acc/gw/openai/v1/chat/completions");
        assert_eq!(
            (&*openai.gateway, &*openai.path, openai.provider()),
            ("gw", "openai/v1/chat/completions", "openai")
        );
        assert_eq!(openai.target("acc").endpoint, Endpoint::ChatCompletions);
        assert_eq!(openai.told(Some(("gpt-5".into(), 0..1))).unwrap().name, "openai/gpt-5");
        let google = of("/v1/acc/gw/google-ai-studio/v1beta/models/gemini-3:generateContent");
        assert_eq!(
            (google.target("acc").endpoint, google.told(None).unwrap().name),
            (Endpoint::Run, "google-ai-studio/gemini-3".into())
        );
        assert_eq!(of("/v1/acc/gw/replicate/predictions").told(None).unwrap().name, "replicate");
    }
}
