//! Deepgram's own routes, for its clients: what they call a model is one that the vendor has of theirs.

use std::borrow::Cow;

use crate::catalogue::Catalogue;

/// A route of Deepgram's streaming API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deepgram {
    /// `/v1/listen`
    Listen,
    /// `/v2/listen`
    Turns,
    /// `/v1/speak`
    Speak,
}

/// A model of the vendor's, and the voice that the name had in it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named<'a> {
    pub(super) model: Cow<'a, str>,
    pub(super) speaker: Option<&'a str>,
}

const HOUSE: &str = "@cf/deepgram/";

impl Deepgram {
    pub(super) fn of(path: &str) -> Option<Self> {
        let routes = [("/v1/listen", Self::Listen), ("/v2/listen", Self::Turns), ("/v1/speak", Self::Speak)];
        routes.into_iter().find(|(route, _)| path.eq_ignore_ascii_case(route)).map(|(_, route)| route)
    }

    /// The model that is meant: `nova-3-general` is `@cf/deepgram/nova-3`, `aura-2-thalia-en` is `@cf/deepgram/aura-2-en` with the
    /// voice of thalia. Any other name stays as it is, for it may be the vendor's own or an alias.
    pub(super) fn model<'a>(self, catalogue: &Catalogue, name: Option<&'a str>) -> Named<'a> {
        let plain = |model: &'a str| Named { model: Cow::Borrowed(model), speaker: None };
        let Some(name) = name else {
            return plain(match self {
                Self::Listen => "@cf/deepgram/nova-3",
                Self::Turns => "@cf/deepgram/flux",
                Self::Speak => "@cf/deepgram/aura-2-en",
            });
        };
        let ours = |name: String| Some(name).filter(|name| catalogue.get(name).is_some());
        if let Some(model) = ours(format!("{HOUSE}{name}")) {
            return Named { model: model.into(), speaker: None };
        }
        if let Some((voice, language)) = name.rsplit_once('-')
            && let Some((family, speaker)) = voice.rsplit_once('-')
            && family.starts_with("aura")
        {
            let family = if family == "aura" { "aura-1" } else { family };
            let model = ours(format!("{HOUSE}{family}-{language}")).or_else(|| ours(format!("{HOUSE}{family}")));
            if let Some(model) = model {
                return Named { model: model.into(), speaker: Some(speaker) };
            }
        }
        // `nova-3-general`, `flux-general-en`: what follows the family is a kind of it.
        let ends = name.match_indices('-').map(|(end, _)| &name[..end]);
        let family = ends.rev().find_map(|family| ours(format!("{HOUSE}{family}")));
        family.map_or_else(|| plain(name), |model| Named { model: model.into(), speaker: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deepgrams_names_are_the_vendors_models() {
        let catalogue = Catalogue::default();
        for (route, name, model, speaker) in [
            (Deepgram::Listen, None, "@cf/deepgram/nova-3", None),
            (Deepgram::Listen, Some("nova-3"), "@cf/deepgram/nova-3", None),
            (Deepgram::Listen, Some("nova-3-general"), "@cf/deepgram/nova-3", None),
            (Deepgram::Listen, Some("nova-2"), "nova-2", None),
            (Deepgram::Turns, Some("flux-general-en"), "@cf/deepgram/flux", None),
            (Deepgram::Speak, Some("aura-2-thalia-en"), "@cf/deepgram/aura-2-en", Some("thalia")),
            (Deepgram::Speak, Some("aura-2-celeste-es"), "@cf/deepgram/aura-2-es", Some("celeste")),
            (Deepgram::Speak, Some("aura-asteria-en"), "@cf/deepgram/aura-1", Some("asteria")),
            (Deepgram::Speak, Some("@cf/deepgram/aura-1"), "@cf/deepgram/aura-1", None),
            (Deepgram::Speak, Some("-"), "-", None),
        ] {
            assert_eq!(route.model(&catalogue, name), Named { model: model.into(), speaker }, "{name:?}");
        }
    }
}
