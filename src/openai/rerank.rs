//! `/v1/rerank`, as Cohere, Jina and vLLM have it, for OpenAI has none: documents in the order of their worth to a query.

use super::face::Answer;
use super::native::{Native, cannot, required};
use super::object::{Object, array, items};
use super::reply::{Converted, NativeReply};
use crate::Error;

/// The request as the model takes it.
pub(super) fn native(fields: &Object<'_>, model: String) -> Result<Native, Error> {
    let query = required(fields, "query")?;
    let documents = fields.get("documents").and_then(items);
    let documents = documents.ok_or_else(|| cannot("\"documents\" is missing: give a list of texts"))?;
    if documents.is_empty() {
        return Err(cannot("\"documents\" is empty: give a list of texts"));
    }
    let contexts: Option<Vec<String>> =
        documents.iter().map(|document| Some(format!(r#"{{"text":{}}}"#, text(document)?))).collect();
    let contexts =
        contexts.ok_or_else(|| cannot("\"documents\" holds something that is neither a text nor {\"text\": …}"))?;
    let mut own = Object::default();
    own.set("query", query);
    own.set("contexts", array(&contexts));
    if let Some(wanted) = fields.get("top_n").or_else(|| fields.get("top_k")) {
        if wanted.parse::<u32>().is_ok_and(|wanted| wanted > 0) {
            own.set("top_k", wanted);
        } else {
            return Err(cannot(format!("\"top_n\": {wanted} is no number of documents: give 1 or more")));
        }
    }
    let return_documents = fields.get("return_documents") == Some("true");
    Ok(Native::json(&own, model, Answer::Rerank { return_documents }))
}

/// A document's text, as JSON.
fn text(document: &str) -> Option<String> {
    if document.starts_with('"') {
        return Some(document.to_owned());
    }
    let document = Object::read(document.as_bytes())?;
    document.get("text").filter(|text| text.starts_with('"')).map(str::to_owned)
}

/// The order of the documents; `None` where there is none in the reply.
pub(super) fn converted(reply: &NativeReply<'_>, return_documents: bool) -> Option<Converted> {
    let result = reply.result()?;
    let result = Object::read(&result)?;
    let contexts = Object::read(reply.request).and_then(|request| request.get("contexts").map(str::to_owned));
    let contexts = contexts.as_deref().and_then(items).unwrap_or_default();
    let ranked = items(result.get("response")?)?.into_iter().map(|ranked| {
        let ranked = Object::read(ranked.as_bytes())?;
        let (index, score) = (ranked.get("id")?, ranked.get("score")?);
        let document = contexts.get(index.parse::<usize>().ok()?).filter(|_| return_documents);
        let document = document.map_or_else(String::new, |document| format!(r#","document":{document}"#));
        Some(format!(r#"{{"index":{index},"relevance_score":{score}{document}}}"#))
    });
    let ranked = array(ranked.collect::<Option<Vec<_>>>()?);
    let tokens = reply.tokens(&result);
    let (id, model) = (reply.id("rerank"), super::object::quoted(reply.model));
    Some(Converted::json(format!(
        r#"{{"id":"{id}","object":"list","model":{model},"results":{ranked},"usage":{{"prompt_tokens":{tokens},"total_tokens":{tokens}}}}}"#
    )))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn documents_become_contexts_and_scores_results() {
        let fields =
            Object::read(br#"{"query":"q","documents":["a",{"text":"b"}],"top_n":1,"return_documents":true}"#).unwrap();
        let native = native(&fields, "m".into()).unwrap();
        let request: Value = serde_json::from_slice(&native.body).unwrap();
        assert_eq!(request, json!({"query": "q", "contexts": [{"text": "a"}, {"text": "b"}], "top_k": 1}));
        let body = br#"{"result":{"response":[{"id":1,"score":0.744}],"usage":{"prompt_tokens":34}},"success":true}"#;
        let reply = NativeReply { request: &native.body, ..NativeReply::of_json(body) };
        let made: Value = serde_json::from_slice(&converted(&reply, true).unwrap().body).unwrap();
        assert_eq!(made["results"], json!([{"index": 1, "relevance_score": 0.744, "document": {"text": "b"}}]));
        assert_eq!(made["usage"]["total_tokens"], 34);
    }
}
