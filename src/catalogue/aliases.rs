//! What callers may call a model besides the vendor's name for it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::Catalogue;

/// Names that stand for models: `gpt-4o-mini` for `@cf/meta/llama-3.3-70b-instruct-fp8-fast`.
///
/// A name may hold one `*` for any text; where the model's name holds one, too, that text goes there. Of several patterns the
/// one with the most letters of its own counts. The name `default` stands for every name that is not known, and for none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Aliases {
    exact: BTreeMap<String, String>,
    /// The most letters first.
    patterns: Vec<Pattern>,
    default: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    head: String,
    tail: String,
    model: String,
}

/// Why an alias cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the alias {name:?} {why}")]
pub struct AliasError {
    name: String,
    why: &'static str,
}

const DEFAULT: &str = "default";
/// What LiteLLM, the AI SDK and the AI Gateway write before a model of Workers AI.
const PROVIDERS: [&str; 2] = ["workers-ai/", "cloudflare/"];
/// Names by which the vendor itself chooses a model.
const ROUTED: [&str; 3] = ["cloudflare/", "dynamic/", "custom/"];

impl Aliases {
    /// Each name with the model that it stands for.
    pub fn new(entries: &BTreeMap<String, String>) -> Result<Self, AliasError> {
        let mut aliases = Self::default();
        for (name, model) in entries {
            let wrong = |why| AliasError { name: name.clone(), why };
            if name.is_empty() || model.is_empty() {
                return Err(wrong("needs a name and a model"));
            }
            let stars = (name.matches('*').count(), model.matches('*').count());
            match (name.split_once('*'), stars) {
                (None, (_, 0)) if name == DEFAULT => aliases.default = Some(model.clone()),
                (None, (_, 0)) => drop(aliases.exact.insert(name.clone(), model.clone())),
                (None, _) => return Err(wrong("has no `*` that the one in its model could stand for")),
                (Some((head, tail)), (1, 0 | 1)) => {
                    let (head, tail) = (head.to_owned(), tail.to_owned());
                    aliases.patterns.push(Pattern { head, tail, model: model.clone() });
                }
                (Some(_), _) => return Err(wrong("holds more than one `*`")),
            }
        }
        aliases.patterns.sort_by_key(|pattern| std::cmp::Reverse(pattern.head.len() + pattern.tail.len()));
        Ok(aliases)
    }

    /// The vendor's name of the model that a caller means. What nobody knows stays as it is, for the vendor may know it.
    pub fn resolve<'a>(&'a self, catalogue: &Catalogue, name: &'a str) -> Cow<'a, str> {
        if let Some(model) = self.exact.get(name) {
            return model.into();
        }
        if let Some(known) = known(catalogue, name) {
            return known;
        }
        if let Some(model) = self.patterns.iter().find_map(|pattern| pattern.fit(name)) {
            return model;
        }
        let is_vendors = name.starts_with('@') || ROUTED.iter().any(|prefix| name.starts_with(prefix));
        match &self.default {
            Some(model) if !is_vendors => model.into(),
            _ => name.into(),
        }
    }

    /// The model of a request that names none.
    pub fn default_model(&self) -> Option<&str> {
        self.default.as_deref()
    }

    /// The names without a `*`, each with its model.
    pub fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        let default = self.default.as_deref().map(|model| (DEFAULT, model));
        self.exact.iter().map(|(name, model)| (&**name, &**model)).chain(default)
    }
}

impl Pattern {
    fn fit<'a>(&'a self, name: &str) -> Option<Cow<'a, str>> {
        let any = name.strip_prefix(&*self.head)?.strip_suffix(&*self.tail)?;
        Some(if self.model.contains('*') { self.model.replace('*', any).into() } else { Cow::Borrowed(&*self.model) })
    }
}

/// A model of the catalogue by its own name, with a provider before it, or without `@cf/` and its author.
fn known<'a>(catalogue: &Catalogue, name: &'a str) -> Option<Cow<'a, str>> {
    if catalogue.get(name).is_some() {
        return Some(name.into());
    }
    if let Some(bare) = PROVIDERS.iter().find_map(|provider| name.strip_prefix(provider)) {
        return if bare.starts_with('@') { Some(bare.into()) } else { known(catalogue, bare) };
    }
    catalogue.by_short_name(name).map(|id| Cow::Owned(id.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn aliases(pairs: &[(&str, &str)]) -> Aliases {
        let entries = pairs.iter().map(|(name, model)| ((*name).to_owned(), (*model).to_owned()));
        Aliases::new(&entries.collect()).unwrap()
    }

    #[test]
    fn a_model_is_found_by_each_of_its_names() {
        let catalogue = Catalogue::default();
        let aliases = aliases(&[
            ("gpt-4o-mini", "@cf/a/exact"),
            ("gpt-4*", "@cf/a/four"),
            ("gpt-*-turbo", "@cf/a/*-fast"),
            ("@cf/a/old", "@cf/a/new"),
        ]);
        let llama = "@cf/meta/llama-3.2-1b-instruct";
        for (name, model) in [
            (llama, llama),
            ("workers-ai/@cf/meta/llama-3.2-1b-instruct", llama),
            ("cloudflare/@cf/meta/llama-3.2-1b-instruct", llama),
            ("llama-3.2-1b-instruct", llama),
            ("meta/llama-3.2-1b-instruct", llama),
            ("workers-ai/llama-3.2-1b-instruct", llama),
            ("gpt-4o-mini", "@cf/a/exact"),
            ("gpt-4o", "@cf/a/four"),
            ("gpt-3.5-turbo", "@cf/a/3.5-fast"),
            ("@cf/a/old", "@cf/a/new"),
            ("@cf/acme/unknown", "@cf/acme/unknown"),
            ("cloudflare/auto", "cloudflare/auto"),
            ("dynamic/support", "dynamic/support"),
            ("nobody", "nobody"),
        ] {
            assert_eq!(aliases.resolve(&catalogue, name), model, "{name}");
        }
    }

    #[test]
    fn the_default_is_for_names_that_nobody_knows() {
        let catalogue = Catalogue::default();
        let aliases = aliases(&[("default", "@cf/a/b")]);
        assert_eq!(aliases.resolve(&catalogue, "gpt-9"), "@cf/a/b");
        for name in ["dynamic/x", "cloudflare/auto", "@cf/acme/unknown", "@cf/baai/bge-m3"] {
            assert_eq!(aliases.resolve(&catalogue, name), name);
        }
    }

    #[test]
    fn a_short_name_of_two_models_is_neithers() {
        let entry = super::super::Entry::default();
        let both = ["@cf/a/twin", "@cf/b/twin"].map(|id| (id.to_owned(), entry.clone()));
        let catalogue = Catalogue::with(&both.into());
        assert_eq!(Aliases::default().resolve(&catalogue, "twin"), "twin");
        assert_eq!(Aliases::default().resolve(&catalogue, "a/twin"), "@cf/a/twin");
    }

    #[test]
    fn what_cannot_be_an_alias_is_told() {
        for (name, model) in [("", "x"), ("a", ""), ("a", "@cf/*"), ("a*b*", "x"), ("a*", "*x*")] {
            assert!(Aliases::new(&BTreeMap::from([(name.to_owned(), model.to_owned())])).is_err(), "{name} {model}");
        }
    }
}
