//! `/v1/models`: the models that a caller may ask, each with what the gate knows of it.

use serde_json::{Value, json};

use crate::catalogue::{Aliases, Catalogue, Model};

/// What a path under `/v1/models` asks for.
#[derive(Debug, PartialEq)]
pub(crate) enum Wanted {
    List,
    /// One model, by any of its names.
    One(String),
}

/// 2026-08-28T00:00:00Z, the day of the built-in table: OpenAI promises a date, and the vendor tells none.
const TABLE_DATE: u64 = 1_787_875_200;

impl Wanted {
    /// `None` where the path, which is decoded, is none of these.
    pub(crate) fn of(path: &str) -> Option<Self> {
        match path.strip_prefix("/v1/models")? {
            "" | "/" => Some(Self::List),
            name => Some(Self::One(name.strip_prefix('/')?.to_owned())),
        }
    }
}

/// The models of the catalogue and the names that stand for them, as far as `may_ask` lets.
pub(crate) fn list(catalogue: &Catalogue, aliases: &Aliases, may_ask: impl Fn(&str) -> bool) -> Value {
    let models = catalogue.models();
    let models = models.iter().filter(|model| may_ask(&model.id)).map(|model| entry(&model.id, model));
    let names = aliases.names().filter_map(|(name, id)| {
        let model = catalogue.get(id).filter(|_| may_ask(id));
        Some(entry(name, &*model?))
    });
    json!({"object": "list", "data": models.chain(names).collect::<Vec<_>>()})
}

/// One model by any of its names; `None` where the catalogue has none, or the caller may not ask it.
pub(crate) fn one(
    catalogue: &Catalogue,
    aliases: &Aliases,
    name: &str,
    may_ask: impl Fn(&str) -> bool,
) -> Option<Value> {
    let id = aliases.resolve(catalogue, name);
    let model = catalogue.get(&id).filter(|_| may_ask(&id))?;
    Some(entry(name, &model))
}

/// OpenAI's four fields, and the gate's own behind them.
fn entry(name: &str, model: &Model) -> Value {
    let author = model.id.split('/').nth(1).unwrap_or("cloudflare");
    let mut entry = json!({
        "id": name,
        "object": "model",
        "created": TABLE_DATE,
        "owned_by": author,
        "task": model.task,
        "context_window": model.context,
        "neurons": model.prices,
        "limit": {"requests": model.limit.requests, "per_seconds": model.limit.per.as_secs()},
        "paid_plan_only": model.paid_plan_only,
        "deprecated": model.deprecated,
        "replacement": model.replacement,
    });
    if name != &*model.id {
        entry["alias_of"] = json!(&*model.id);
    }
    entry
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn a_model_is_named_with_its_slashes() {
        assert_eq!(Wanted::of("/v1/models"), Some(Wanted::List));
        assert_eq!(Wanted::of("/v1/models/@cf/baai/bge-m3"), Some(Wanted::One("@cf/baai/bge-m3".into())));
        assert_eq!(Wanted::of("/v1/modelsx"), None);
    }

    #[test]
    fn who_may_ask_one_model_sees_it_and_its_names_alone() {
        let catalogue = Catalogue::default();
        let entries = [("small", "@cf/baai/bge-m3"), ("big", "@cf/zai-org/glm-5.2"), ("b*", "@cf/baai/bge-m3")];
        let aliases =
            Aliases::new(&entries.map(|(a, b)| (a.to_owned(), b.to_owned())).into_iter().collect::<BTreeMap<_, _>>())
                .unwrap();
        let only = |id: &str| id == "@cf/baai/bge-m3";
        let list = list(&catalogue, &aliases, only);
        let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["@cf/baai/bge-m3", "small"]);
        assert_eq!(one(&catalogue, &aliases, "bge-m3", only).unwrap()["alias_of"], "@cf/baai/bge-m3");
        assert_eq!(one(&catalogue, &aliases, "big", only), None);
        assert_eq!(one(&catalogue, &aliases, "@cf/nobody/knows", |_| true), None);
    }
}
