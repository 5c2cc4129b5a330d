//! `/v1/moderations` by llama-guard: which of its hazards a text holds, under OpenAI's names.

use super::face::Answer;
use super::native::{Native, cannot};
use super::object::{Object, array, items, quoted};
use super::reply::{Converted, NativeReply};
use crate::Error;

const LLAMA_GUARD: &str = "@cf/meta/llama-guard-3-8b";

/// OpenAI's categories, and the hazards of llama-guard that are theirs (MLCommons' S1 to S14).
const CATEGORIES: [(&str, &[&str]); 13] = [
    ("harassment", &["S5"]),
    ("harassment/threatening", &[]),
    ("hate", &["S10"]),
    ("hate/threatening", &[]),
    ("illicit", &["S2", "S6", "S7", "S8", "S13", "S14"]),
    ("illicit/violent", &["S1", "S9"]),
    ("self-harm", &["S11"]),
    ("self-harm/instructions", &[]),
    ("self-harm/intent", &[]),
    ("sexual", &["S3", "S12"]),
    ("sexual/minors", &["S4"]),
    ("violence", &["S1", "S9"]),
    ("violence/graphic", &[]),
];

/// The model that is asked: OpenAI's own names, and none, stand for llama-guard.
pub(super) fn model(named: Option<&str>, resolve: impl Fn(Option<&str>) -> Option<String>) -> String {
    let is_openais =
        named.is_none_or(|name| name.starts_with("omni-moderation") || name.starts_with("text-moderation"));
    let meant = named.and_then(|name| resolve(Some(name)).filter(|model| !is_openais || model != name));
    meant.unwrap_or_else(|| LLAMA_GUARD.to_owned())
}

/// The request as llama-guard takes it.
pub(super) fn native(fields: &Object<'_>, model: String) -> Result<Native, Error> {
    if !model.contains("llama-guard") {
        return Err(cannot(format!("{model} moderates nothing: leave \"model\" out, or take {LLAMA_GUARD}")));
    }
    let input = fields.get("input").ok_or_else(|| cannot("\"input\" is missing: give a text"))?;
    let text = match items(input) {
        None if input.starts_with('"') => Some(input.to_owned()),
        Some(texts) if texts.len() == 1 && texts[0].starts_with('"') => Some(texts[0].to_owned()),
        Some(parts) => joined(&parts),
        None => None,
    };
    let text = text.ok_or_else(|| {
        cannot(format!(
            "\"input\" must be one text a call: {model} reads no pictures, and judges one conversation at a time"
        ))
    })?;
    let mut own = Object::default();
    own.set("messages", format!(r#"[{{"role":"user","content":{text}}}]"#));
    own.set("temperature", "0");
    Ok(Native::json(&own, model, Answer::Moderation))
}

/// Parts that are all text make one.
fn joined(parts: &[&str]) -> Option<String> {
    let texts = parts.iter().map(|part| Object::read(part.as_bytes())?.text("text"));
    let texts = texts.collect::<Option<Vec<_>>>().filter(|texts| !texts.is_empty())?;
    Some(quoted(&texts.join("\n")))
}

/// OpenAI's verdict; `None` where there is none in the reply.
pub(super) fn converted(reply: &NativeReply<'_>) -> Option<Converted> {
    let result = reply.result()?;
    let hazards = hazards(&Object::read(&result)?)?;
    let is_in = |own: &[&str]| own.iter().any(|hazard| hazards.iter().any(|found| found == hazard));
    let each = |value: &dyn Fn(bool) -> &'static str| {
        let fields = CATEGORIES.iter().map(|(name, own)| format!(r#""{name}":{}"#, value(is_in(own))));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    };
    let categories = each(&|is_in| if is_in { "true" } else { "false" });
    let scores = each(&|is_in| if is_in { "1.0" } else { "0.0" });
    let inputs = each(&|_| r#"["text"]"#);
    let flagged = !hazards.is_empty();
    let hazards = array(hazards.iter().map(|hazard| quoted(hazard)).collect::<Vec<_>>());
    let (id, model) = (reply.id("modr"), quoted(reply.model));
    Some(Converted::json(format!(
        r#"{{"id":"{id}","model":{model},"results":[{{"flagged":{flagged},"categories":{categories},"category_scores":{scores},"category_applied_input_types":{inputs},"x_tollgate":{{"hazards":{hazards}}}}}]}}"#
    )))
}

/// `unsafe\nS1,S10`, `{"safe": false, "categories": ["S1"]}`, or `safe`.
fn hazards(result: &Object<'_>) -> Option<Vec<String>> {
    let response = result.get("response")?;
    if let Some(verdict) = Object::read(response.as_bytes()) {
        let named = verdict.get("categories").and_then(items).unwrap_or_default();
        let named = named.iter().filter_map(|name| super::object::text(name)).collect::<Vec<_>>();
        let is_safe = verdict.get("safe") == Some("true");
        return Some(if is_safe { Vec::new() } else { or_unnamed(named) });
    }
    let text = super::object::text(response)?;
    let (verdict, rest) = text.trim().split_once(['\n', ' ']).unwrap_or((text.trim(), ""));
    if !verdict.eq_ignore_ascii_case("unsafe") {
        return Some(Vec::new());
    }
    let named = rest.split([',', '\n', ' ']).map(str::trim).filter(|name| !name.is_empty());
    Some(or_unnamed(named.map(str::to_owned).collect()))
}

fn or_unnamed(named: Vec<String>) -> Vec<String> {
    if named.is_empty() { vec!["unsafe".to_owned()] } else { named }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn verdict(response: &str) -> Value {
        let body = format!(r#"{{"result":{{"response":{response}}}}}"#);
        let made = converted(&NativeReply::of_json(body.as_bytes())).unwrap();
        serde_json::from_slice::<Value>(&made.body).unwrap()["results"][0].clone()
    }

    #[test]
    fn llama_guards_hazards_are_openais_categories() {
        for told in [r#""\n\nunsafe\nS1,S10""#, r#"{"safe": false, "categories": ["S1", "S10"]}"#] {
            let verdict = verdict(told);
            assert_eq!(verdict["flagged"], true, "{verdict}");
            let categories = &verdict["categories"];
            assert!(
                categories["violence"] == true && categories["hate"] == true && categories["sexual"] == false,
                "{verdict}"
            );
            assert_eq!(categories.as_object().unwrap().len(), CATEGORIES.len());
        }
        for safe in [r#""safe""#, r#"{"safe": true, "categories": []}"#] {
            assert_eq!(verdict(safe)["flagged"], false);
        }
    }

    #[test]
    fn one_text_is_judged_and_more_are_refused() {
        let ask = |input: &str| {
            native(&Object::read(format!(r#"{{"input":{input}}}"#).as_bytes()).unwrap(), LLAMA_GUARD.into())
        };
        for one in [r#""a""#, r#"["a"]"#, r#"[{"type":"text","text":"a"}]"#] {
            let native = ask(one).unwrap();
            assert!(native.body.starts_with(br#"{"messages":[{"role":"user","content":"a"}]"#), "{:?}", native.body);
        }
        for more in [r#"["a","b"]"#, r#"[{"type":"image_url","image_url":{"url":"x"}}]"#, "7", "[]"] {
            assert!(ask(more).is_err(), "{more}");
        }
    }
}
