//! Every kind of reply that once got past the gate's reading, and its like.

use tollgate::call::Endpoint;
use tollgate::receipt::Ending;
use tollgate::vendor_error::Meaning;

use super::gate::answer;
use super::generate::Reply;

const EVENTS: &str = "text/event-stream";
const JSON: &str = "application/json";
const ROLE: &str = r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}"#;
const WORD: &str = r#"data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":null}]}"#;
const DONE: &str = "data: [DONE]";
const CREATED: &str = r#"data: {"type":"response.created","response":{"object":"response","status":"in_progress","output":[],"instructions":"be kind"}}"#;
const DELTA: &str = r#"data: {"type":"response.output_text.delta","delta":"response.completed"}"#;

fn stream(endpoint: Endpoint, lines: &[&str]) -> Reply {
    let text = lines.iter().map(|line| format!("{line}\n\n")).collect();
    Reply { endpoint, is_stream: true, content_type: EVENTS, text }
}

fn json(endpoint: Endpoint, text: &str) -> Reply {
    Reply { endpoint, is_stream: false, content_type: JSON, text: text.to_owned() }
}

/// Each with its name and how it ends.
fn shapes() -> Vec<(&'static str, Reply, Ending)> {
    use Endpoint::{ChatCompletions as Chat, Responses, Run};
    let failed = |meaning| Ending::Failed(meaning);
    let (cut, full) = (failed(Meaning::CutOff), failed(Meaning::OutOfCapacity));
    let deep = format!(
        r#"{{"result":{{"response":{}{{"usage":{{"prompt_tokens":1,"completion_tokens":1}},"error":"x"}}{}}},"success":true}}"#,
        "[".repeat(63),
        "]".repeat(63)
    );
    let one = |text: &str| format!(r#"{{"result":{{"response":"Hi"}},{text},"messages":[]}}"#);
    let mut all = vec![
        (
            "an error in a 200",
            json(Run, r#"{"result":{},"success":false,"errors":[{"code":3040,"message":"x"}]}"#),
            full,
        ),
        ("no success, and no word of why", json(Run, &one(r#""success":false,"errors":[]"#)), failed(Meaning::Failing)),
        ("errors as an object", json(Run, &one(r#""errors":{"code":3040}"#)), full),
        ("errors as a text", json(Run, &one(r#""errors":"3040: full""#)), full),
        ("error as a list of codes", json(Run, &one(r#""errors":null,"error":[{"code":[3040]}]"#)), full),
        ("error as a text", json(Chat, &one(r#""error":"AiError: AiError: 3040: full""#)), full),
        (
            "an error of a choice",
            json(Chat, r#"{"choices":[{"message":{"content":"Hi"},"error":{"code":3040}}]}"#),
            full,
        ),
        (
            "the error of the first choice, a good second",
            json(
                Chat,
                r#"{"choices":[{"message":{},"error":{"code":3040}},{"message":{"content":"Hi"},"error":null}]}"#,
            ),
            full,
        ),
        (
            "finish_reason error",
            json(Chat, r#"{"choices":[{"message":{"content":"Hi"},"finish_reason":"error"}]}"#),
            failed(Meaning::Failing),
        ),
        (
            "a failed response",
            json(
                Responses,
                r#"{"object":"response","status":"failed","error":{"code":"server_error","message":"x"},"output":[]}"#,
            ),
            failed(Meaning::Failing),
        ),
        (
            "an incomplete response",
            json(
                Responses,
                r#"{"object":"response","status":"incomplete","output":[{"type":"message","content":[{"type":"output_text","text":"Hi"}]}]}"#,
            ),
            failed(Meaning::Incomplete),
        ),
        ("an error behind the role", stream(Chat, &[ROLE, r#"data: {"error":{"code":3040}}"#, DONE]), full),
        (
            "an error behind a word",
            stream(Chat, &[ROLE, WORD, r#"data: {"errors":[{"code":3040}],"success":false}"#, DONE]),
            full,
        ),
        ("an error behind the end", stream(Chat, &[WORD, r#"data: {"error":"3040: full"}"#]), full),
        ("an event called error", stream(Chat, &[WORD, "event: error\ndata: {\"code\":3040,\"message\":\"x\"}"]), full),
        (
            "an event called error without JSON",
            stream(Chat, &[WORD, "event: error\ndata: overloaded"]),
            failed(Meaning::Failing),
        ),
        (
            "an event of type error",
            stream(Responses, &[CREATED, r#"data: {"type":"error","code":"3040","message":"x"}"#]),
            full,
        ),
        (
            "response.failed",
            stream(
                Responses,
                &[
                    CREATED,
                    DELTA,
                    r#"data: {"type":"response.failed","response":{"status":"failed","error":{"code":"rate_limit_exceeded"}}}"#,
                ],
            ),
            failed(Meaning::OverRate),
        ),
        (
            "response.incomplete",
            stream(
                Responses,
                &[CREATED, DELTA, r#"data: {"type":"response.incomplete","response":{"status":"incomplete"}}"#],
            ),
            failed(Meaning::Incomplete),
        ),
        (
            "a chunk that finished in error",
            stream(Chat, &[WORD, r#"data: {"choices":[{"delta":{},"finish_reason":"error"}]}"#, DONE]),
            failed(Meaning::Failing),
        ),
        ("a chat without its end", stream(Chat, &[ROLE, WORD]), cut),
        ("a native stream without its end", stream(Run, &[r#"data: {"response":"Hi"}"#]), cut),
        ("a response without its end, whose text has its name", stream(Responses, &[CREATED, DELTA]), cut),
        ("a response that says [DONE] instead", stream(Responses, &[CREATED, DELTA, DONE]), cut),
        ("nothing but the role", stream(Chat, &[ROLE]), cut),
        ("no event at all", stream(Chat, &[]), cut),
        ("a document that is cut", json(Run, r#"{"result":{"response":"Hi"}"#), cut),
        ("no document at all", json(Run, ""), cut),
        ("a page", json(Run, "<html>Welcome</html>"), cut),
        ("an empty answer", json(Run, r#"{"result":{"response":""},"success":true,"errors":[]}"#), Ending::Empty),
        ("an empty result", json(Run, r#"{"result":{},"success":true,"errors":[]}"#), Ending::Empty),
        ("no result", json(Run, r#"{"result":null,"success":true,"errors":[]}"#), Ending::Empty),
        (
            "an empty choice",
            json(
                Chat,
                r#"{"choices":[{"message":{"content":null},"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":0}}"#,
            ),
            Ending::Empty,
        ),
        (
            "only thoughts",
            json(Chat, r#"{"choices":[{"message":{"content":"","reasoning_content":"hm"}}]}"#),
            Ending::Empty,
        ),
        (
            "no vectors",
            json(Run, r#"{"result":{"shape":[0,3],"data":[],"pooling":"cls"},"success":true}"#),
            Ending::Empty,
        ),
        ("an empty stream", stream(Chat, &[ROLE, DONE]), Ending::Empty),
        (
            "a tool's call",
            json(
                Chat,
                r#"{"choices":[{"message":{"content":null,"tool_calls":[{"id":"t","function":{"name":"f","arguments":""}}]}}]}"#,
            ),
            Ending::Answer,
        ),
        ("a forged usage 63 deep", json(Run, &deep), Ending::Answer),
        (
            "an end and a name in a text",
            stream(Chat, &[r#"data: {"choices":[{"delta":{"content":"\ndata: [DONE]\n\n{\"error\":1}"}}]}"#, DONE]),
            Ending::Answer,
        ),
        (
            "CRs alone",
            Reply { text: format!("{ROLE}\r\r{WORD}\r\rdata:[DONE] \r\r"), ..stream(Chat, &[]) },
            Ending::Answer,
        ),
        (
            "data over lines",
            Reply { text: "data: {\"response\":\r\ndata: \"Hi\"}\r\n\r\ndata: [DONE]\r\n".into(), ..stream(Run, &[]) },
            Ending::Answer,
        ),
        (
            "one line break an event",
            Reply { text: format!("{ROLE}\n{WORD}\n{DONE}\n"), ..stream(Chat, &[]) },
            Ending::Answer,
        ),
        ("events under JSON's type", Reply { content_type: JSON, ..stream(Chat, &[WORD, DONE]) }, Ending::Answer),
        (
            "JSON under the events' type",
            Reply { is_stream: true, content_type: EVENTS, ..json(Run, r#"{"errors":[{"code":3040}]}"#) },
            full,
        ),
    ];
    for nothing in ["null", "\"\"", "{}", "[]", "false", "[null]", r#"{"code":null}"#] {
        all.push((
            "no error",
            json(Run, &one(&format!(r#""success":true,"error":{nothing},"errors":{nothing}"#))),
            Ending::Answer,
        ));
        let choice =
            format!(r#"data: {{"error":{nothing},"choices":[{{"delta":{{"content":"Hi"}},"error":{nothing}}}]}}"#);
        all.push(("no error in a stream", stream(Chat, &[&choice, DONE]), Ending::Answer));
    }
    all
}

pub fn replies() -> impl Iterator<Item = (&'static str, Reply)> {
    shapes().into_iter().map(|(name, reply, _)| (name, reply))
}

#[test]
fn every_shape_ends_as_it_says_and_only_answers_are_kept() {
    for (name, reply, ending) in shapes() {
        for piece in [1, 7, reply.text.len().max(1)] {
            let found = answer(&reply, reply.text.as_bytes(), false, piece);
            assert_eq!(found.facts.ending, ending, "{name}: {}", reply.text);
            assert_eq!(found.told.is_kept, ending == Ending::Answer, "{name}");
        }
    }
}

#[test]
fn usage_is_told_once_and_by_the_vendor_alone() {
    use Endpoint::{ChatCompletions as Chat, Responses, Run};
    let told = |reply: &Reply| {
        let told = answer(reply, reply.text.as_bytes(), false, 11).told;
        told.usage.map(|(read, cached, written, _)| (read, cached, written))
    };
    for (reply, wanted) in [
        (
            json(
                Run,
                r#"{"result":{"response":"Hi","usage":{"prompt_tokens":5,"input_tokens":5,"completion_tokens":2,"output_tokens":2}}}"#,
            ),
            Some((5, 0, 2)),
        ),
        (
            json(Run, r#"{"result":{"response":"Hi","usage":{"prompt_tokens":"5","completion_tokens":"2"}}}"#),
            Some((5, 0, 2)),
        ),
        (
            json(
                Chat,
                r#"{"choices":[{"message":{"content":"Hi"},"usage":{"prompt_tokens":5,"completion_tokens":2}}]}"#,
            ),
            Some((5, 0, 2)),
        ),
        (
            json(
                Chat,
                r#"{"choices":[{"message":{"content":"Hi"},"usage":{"prompt_tokens":5,"completion_tokens":2}}],"usage":{"prompt_tokens":5,"completion_tokens":2}}"#,
            ),
            Some((5, 0, 2)),
        ),
        (json(Run, r#"{"result":{"response":{"usage":{"prompt_tokens":1,"completion_tokens":1}}}}"#), None),
        (json(Run, r#"{"result":{"response":"Hi","usage":{"prompt_tokens":1e30,"completion_tokens":2}}}"#), None),
        (
            json(
                Responses,
                r#"{"object":"response","status":"completed","output":[{"type":"message","content":[{"text":"{\"usage\":{\"input_tokens\":1}}"}]}],"usage":{"input_tokens":5,"output_tokens":2}}"#,
            ),
            Some((5, 0, 2)),
        ),
    ] {
        assert_eq!(told(&reply), wanted, "{}", reply.text);
    }
    for depth in [1, 62, 63, 64, 65, 100, 1000] {
        let forged = format!(
            r#"{{"a":{}{{"usage":{{"prompt_tokens":1,"completion_tokens":1}}}}{}}}"#,
            "[".repeat(depth),
            "]".repeat(depth)
        );
        let text = format!(
            r#"{{"result":{{"response":{forged},"usage":{{"prompt_tokens":5,"completion_tokens":2}}}},"success":true}}"#
        );
        assert_eq!(told(&json(Run, &text)), Some((5, 0, 2)), "{depth} deep");
        let text = format!(r#"{{"result":{{"response":{forged}}},"success":true}}"#);
        assert_eq!(told(&json(Run, &text)), None, "{depth} deep");
    }
}
