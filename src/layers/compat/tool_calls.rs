//! Tool calls in OpenAI's form: `id`, `type`, `function` with `arguments` as a string; in a stream also `index`.

use crate::openai::object::{Object, array, count, items, quoted};

/// The tool calls of one choice of a stream.
#[derive(Debug, Default)]
pub(super) struct ToolCalls {
    begun: Vec<Begun>,
}

/// A call of which the first delta was told.
#[derive(Debug)]
struct Begun {
    /// The index that the vendor gives it, which it may give to a later one, too.
    told: Option<u64>,
    /// As the vendor writes it.
    id: Option<String>,
    is_named: bool,
}

/// A model that calls more tools in one answer than this is not read further.
const MAX_CALLS: usize = 1024;

/// The calls of a whole message; `None` where there are none. `id` begins the names of those that have none.
pub(super) fn whole(json: &str, id: &str) -> Option<String> {
    let calls = items(json).filter(|calls| !calls.is_empty())?;
    let calls = calls.iter().enumerate().map(|(index, call)| match Object::read(call.as_bytes()) {
        Some(call) => first(call, id, index).json(),
        None => (*call).to_owned(),
    });
    Some(array(calls.collect::<Vec<_>>()))
}

impl ToolCalls {
    /// Some tool was called.
    pub(super) fn is_empty(&self) -> bool {
        self.begun.is_empty()
    }

    /// The calls of a delta; `None` where there are none.
    pub(super) fn delta(&mut self, json: &str, id: &str) -> Option<String> {
        let calls = items(json).filter(|calls| !calls.is_empty())?;
        let calls = calls.into_iter().map(|call| match Object::read(call.as_bytes()) {
            Some(object) if self.begun.len() < MAX_CALLS => self.call(object, id),
            _ => call.to_owned(),
        });
        Some(array(calls.collect::<Vec<_>>()))
    }

    fn call(&mut self, mut call: Object<'_>, id: &str) -> String {
        let told = call.get("index").and_then(count);
        let own_id = call.get("id").filter(|id| *id != "\"\"").map(str::to_owned);
        let is_named = is_named(&call);
        let index = match self.place(told, own_id.as_deref(), is_named) {
            Some(index) => {
                let begun = &mut self.begun[index];
                follow(&mut call, begun.is_named);
                begun.is_named |= is_named;
                index
            }
            None => {
                let index = self.begun.len();
                call = first(call, id, index);
                self.begun.push(Begun { told, id: own_id, is_named });
                index
            }
        };
        call.set("index", index.to_string());
        call.json()
    }

    /// Which call a delta goes on with; `None` where it begins one.
    fn place(&self, told: Option<u64>, id: Option<&str>, is_named: bool) -> Option<usize> {
        let latest = |is_it: &dyn Fn(&Begun) -> bool| self.begun.iter().rposition(is_it);
        let by_index = told.and_then(|told| latest(&|begun| begun.told == Some(told)));
        match (id, by_index) {
            (Some(id), _) => {
                let by_id = latest(&|begun| begun.id.as_deref() == Some(id));
                // The first delta may have come without the id.
                by_id.or_else(|| by_index.filter(|index| self.begun[*index].id.is_none()))
            }
            (None, Some(index)) => Some(index),
            (None, None) if told.is_some() || is_named => None,
            (None, None) => self.begun.len().checked_sub(1),
        }
    }
}

fn is_named(call: &Object<'_>) -> bool {
    call.object("function").is_some_and(|function| function.get("name").is_some()) || call.get("name").is_some()
}

/// The `function` of a call; the vendor's own form has its fields beside the others.
fn function(call: &mut Object<'_>) -> String {
    if let Some(function) = call.get("function") {
        return function.to_owned();
    }
    let mut function = Object::default();
    for name in ["name", "arguments"] {
        if let Some(value) = call.remove(name) {
            function.set(name, value.into_owned());
        }
    }
    function.json()
}

/// A call, or the first delta of one: with all that names it.
fn first<'a>(mut call: Object<'a>, id: &str, index: usize) -> Object<'a> {
    let told = function(&mut call);
    let mut function = Object::read(told.as_bytes()).unwrap_or_default();
    if function.get("name").is_none() {
        function.set("name", "\"\"");
    }
    let arguments = function.get("arguments").map_or_else(|| "\"\"".to_owned(), arguments);
    function.set("arguments", arguments);
    if call.get("id").is_none_or(|id| id == "\"\"") {
        call.set_text("id", &format!("call_{}_{index}", id.trim_start_matches("chatcmpl-")));
    }
    call.set("type", "\"function\"");
    call.set("function", function.json());
    call
}

/// A delta of a call that has begun: clients add texts up, so what was said is not said again.
fn follow(call: &mut Object<'_>, is_named: bool) {
    let told = function(call);
    let mut function = Object::read(told.as_bytes()).unwrap_or_default();
    if is_named || function.get("name").is_none() {
        function.remove("name");
    }
    match function.get("arguments").map(arguments) {
        Some(told) => function.set("arguments", told),
        None => drop(function.remove("arguments")),
    }
    call.remove("id");
    call.remove("type");
    call.set("function", function.json());
}

/// Arguments as a string of JSON.
fn arguments(json: &str) -> String {
    if json.starts_with('"') { json.to_owned() } else { quoted(json) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn deltas(told: &[Value]) -> Vec<Value> {
        let mut calls = ToolCalls::default();
        let mended = told.iter().map(|told| calls.delta(&told.to_string(), "chatcmpl-7").unwrap());
        mended.map(|json| serde_json::from_str::<Value>(&json).unwrap()[0].clone()).collect()
    }

    #[test]
    fn a_whole_call_has_all_that_openai_promises() {
        let native = whole(r#"[{"name":"weather","arguments":{"city": "Oslo"}}]"#, "chatcmpl-7").unwrap();
        let wanted = json!([{"id": "call_7_0", "type": "function", "function": {"name": "weather", "arguments": "{\"city\": \"Oslo\"}"}}]);
        assert_eq!(serde_json::from_str::<Value>(&native).unwrap(), wanted);
        let good = r#"[{"id":"c","type":"function","function":{"name":"f","arguments":"{}"}}]"#;
        assert_eq!(whole(good, "x").unwrap(), good);
        assert_eq!(whole("[]", "x"), None);
    }

    #[test]
    fn what_names_a_call_is_told_once() {
        let named = |arguments: &str| json!([{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": arguments}}]);
        let told = deltas(&[named("{\"a\""), named(":1}")]);
        assert_eq!(told[0], named("{\"a\"")[0]);
        assert_eq!(told[1], json!({"index": 0, "function": {"arguments": ":1}"}}));
    }

    #[test]
    fn calls_that_share_an_index_or_have_none_are_told_apart() {
        let call = |id: &str| json!([{"index": 0, "id": id, "function": {"name": "f", "arguments": ""}}]);
        let more = json!([{"index": 0, "id": null, "function": {"arguments": "{}"}}]);
        let told = deltas(&[call("a"), call("b"), more]);
        assert_eq!([&told[0]["index"], &told[1]["index"], &told[2]["index"]], [0, 1, 1]);
        assert_eq!(told[2], json!({"index": 1, "function": {"arguments": "{}"}}));
        let native = json!([{"name": "f", "arguments": {"a": 1}}]);
        let told = deltas(&[native.clone(), native]);
        assert_eq!([&told[0]["index"], &told[1]["index"]], [0, 1]);
        assert_eq!(told[1]["function"]["arguments"], "{\"a\":1}");
    }
}
