//! Bodies that were found to get past a gate's numbers, or to be refused though the vendor takes them: each passes byte by byte
//! where there is room for what its plain reading costs, and is refused where there is not.

#![cfg(feature = "encodings")]
#![allow(missing_docs, clippy::unwrap_used)]

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use tollgate::body::Body;
use tollgate::gateway::Gateway;
use tollgate::layers::budget::{self, Period, Rule, Unpriced};
use tollgate::layers::identify;
use tollgate::layers::identify::keys::{Key, Keys, sha256};
use tollgate::neurons::Neurons;
use tollgate::receipt::{Facts, Reader};
use tollgate::upstream::Around;
use tower::{ServiceExt, service_fn};

const LLAMA: &str = "@cf/meta/llama-3.2-1b-instruct";
const KIMI: &str = "@cf/moonshotai/kimi-k2.6";
const JSON: &str = "application/json";
const FORM: &str = "multipart/form-data; boundary=b";

/// A request, and what its plain reading costs, in whole neurons and rounded down; `None` where nothing bounds it.
struct Shape {
    what: &'static str,
    path: String,
    content_type: &'static str,
    encoding: Option<&'static str>,
    body: Vec<u8>,
    costs: Option<u64>,
}

fn shape(what: &'static str, model: &str, body: impl Into<Vec<u8>>, costs: impl Into<Option<u64>>) -> Shape {
    let path = format!("/run/{model}");
    Shape { what, path, content_type: JSON, encoding: None, body: body.into(), costs: costs.into() }
}

fn on(path: &str, shape: Shape) -> Shape {
    Shape { path: path.into(), ..shape }
}

fn typed(content_type: &'static str, shape: Shape) -> Shape {
    Shape { content_type, ..shape }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn part(name: &str, value: &str) -> String {
    format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
}

/// A token that llama-3.2-1b writes costs 0.018 neurons; a window of kimi-k2.6, 95,325.
fn texts() -> Vec<Shape> {
    let chat = "/v1/chat/completions";
    let named = |rest: &str| format!(r#"{{"model":"{KIMI}","messages":[{{"role":"user","content":"x"}}]{rest}}}"#);
    let deep = |inner: &str| {
        format!(r#"{{"prompt":"x","max_tokens":1000,"a":{}1{}{inner}}}"#, "[".repeat(5000), "]".repeat(5000))
    };
    vec![
        shape("half an emoji", LLAMA, r#"{"prompt":"\ud83d","max_tokens":1000}"#, 18),
        shape("a byte order mark", LLAMA, "\u{feff}{\"prompt\":\"x\",\"max_tokens\":1000}", 18),
        shape(
            "bytes that are no UTF-8",
            LLAMA,
            [&b"{\"prompt\":\""[..], &[0xff, 0xc3, 0x28], b"\",\"max_tokens\":1000}"].concat(),
            18,
        ),
        shape("nesting over 128", LLAMA, deep(""), 18),
        shape("trailing NULs", LLAMA, "{\"prompt\":\"x\",\"max_tokens\":1000}\0\0\0", 18),
        shape("two objects", LLAMA, r#"{"prompt":"x","max_tokens":1000}{"max_tokens":1}"#, 18),
        shape("no object", LLAMA, "[1,2]", None),
        shape("no JSON", LLAMA, "{\"prompt\":", None),
        shape("requests of an odd type", LLAMA, r#"{"requests":7,"prompt":"x","max_tokens":1000}"#, 18),
        shape("no requests", LLAMA, r#"{"requests":[],"prompt":"x","max_tokens":1000}"#, 18),
        shape("null as requests", LLAMA, r#"{"requests":null,"prompt":"x","max_tokens":1000}"#, 18),
        shape("no requests at all", LLAMA, r#"{"requests":[]}"#, 4),
        shape("requests of texts", LLAMA, r#"{"requests":["a","b","c","d"]}"#, 18),
        shape("a request_id beside a prompt", LLAMA, r#"{"request_id":"r","prompt":"x"}"#, 4),
        on(
            &format!("/run/{LLAMA}?xqueueRequest=true"),
            shape("a parameter that only ends so", LLAMA, r#"{"request_id":"r"}"#, 4),
        ),
        on(
            &format!("/run/{LLAMA}?queueRequest=true"),
            shape("a poll with a prompt", LLAMA, r#"{"request_id":"r","prompt":"x"}"#, 4),
        ),
        on(
            &format!("/run/{LLAMA}?queueRequest=true"),
            shape("a poll of an odd id", LLAMA, r#"{"request_id":{"a":1}}"#, 4),
        ),
        shape("twins, the last is larger", LLAMA, r#"{"prompt":"x","max_tokens":1,"max_tokens":1000}"#, 18),
        shape("twins, the last is null", KIMI, r#"{"prompt":"x","max_tokens":1,"max_tokens":null}"#, 95_325),
        shape("an escaped key", LLAMA, r#"{"prompt":"x","max_tokens":1,"max_t\u006fkens":1000}"#, 18),
        shape("a string as a limit", LLAMA, r#"{"prompt":"x","max_tokens":"1000"}"#, 18),
        shape("a list as a limit", LLAMA, r#"{"prompt":"x","max_tokens":[1000]}"#, 18),
        shape("zero as a limit", LLAMA, r#"{"prompt":"x","max_tokens":0}"#, 4),
        shape("no number as a limit", LLAMA, r#"{"prompt":"x","max_tokens":"many"}"#, None),
        shape("a negative limit", KIMI, r#"{"prompt":"x","max_tokens":-1}"#, 95_325),
        shape("no default", KIMI, r#"{"prompt":"x"}"#, 95_325),
        shape("no default, three times", KIMI, r#"{"prompt":"x","n":3}"#, 285_975),
        shape("a limit beside, not within the input", KIMI, r#"{"max_tokens":1,"input":{"prompt":"x"}}"#, 95_325),
        shape("an input without a limit", KIMI, r#"{"input":{"prompt":"x","max_tokens":1},"prompt":"y"}"#, 95_325),
        on(chat, shape("null as a limit", "", named(r#","max_tokens":null"#), 95_325)),
        on(chat, shape("the larger of two", "", named(r#","max_tokens":1,"max_completion_tokens":100000"#), 36_363)),
        on(chat, shape("a limit that chat does not have", "", named(r#","max_output_tokens":1"#), 95_325)),
        on(
            "/v1/responses",
            shape("gpt-oss by Responses", "", r#"{"model":"@cf/openai/gpt-oss-120b","input":"x"}"#, 8_727),
        ),
        shape("gpt-oss by Responses' form", "@cf/openai/gpt-oss-120b", r#"{"input":"x","max_tokens":1}"#, 8_727),
        shape(
            "two lists of requests",
            LLAMA,
            r#"{"requests":[{"prompt":"x","max_tokens":500}],"requests":[{"prompt":"x","max_tokens":1000}]}"#,
            18,
        ),
        shape(
            "each request its own limit",
            LLAMA,
            r#"{"requests":[{"prompt":"x","max_tokens":400},{"prompt":"y","n":2,"max_tokens":300}]}"#,
            18,
        ),
        shape(
            "a text that begins with data:",
            LLAMA,
            format!(r#"{{"prompt":"data:{}","max_tokens":1}}"#, "x ".repeat(50_000)),
            None::<u64>.or(Some(0)),
        ),
        on(
            chat,
            shape(
                "a picture behind a link",
                "",
                named(
                    r#","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}],"max_tokens":1"#,
                ),
                22_639,
            ),
        ),
        on(
            chat,
            shape(
                "a file",
                "",
                named(
                    r#","messages":[{"role":"user","content":[{"type":"file","file":{"file_id":"f-1"}}]}],"max_tokens":1"#,
                ),
                22_639,
            ),
        ),
        shape("a translation", "@cf/meta/m2m100-1.2b", r#"{"text":"x","target_lang":"fr","max_tokens":1}"#, None),
        shape("a speech by the minute", "@cf/myshell-ai/melotts", r#"{"prompt":"x"}"#, None),
        shape("a model without prices", "@cf/acme/new", r#"{"prompt":"x","max_tokens":1}"#, None),
        shape(
            "the dearer of path and body",
            "@cf/cloudflare/clef-flash",
            format!(r#"{{"model":"clef","state":"{}"}}"#, "x".repeat(46_000)),
            1_003,
        ),
        Shape {
            encoding: Some("gzip"),
            body: gzip(br#"{"prompt":"x","max_tokens":1000}"#),
            ..shape("gzip", LLAMA, "", 18)
        },
        Shape {
            encoding: Some("gzip"),
            body: gzip(named(r#","max_completion_tokens":1000"#).as_bytes()),
            ..on(chat, shape("gzip, by the model in it", "", "", 363))
        },
        Shape { encoding: Some("gzip"), ..shape("no gzip", LLAMA, "{}", None) },
    ]
}

fn pictures() -> Vec<Shape> {
    let (schnell, phoenix) = ("@cf/black-forest-labs/flux-1-schnell", "@cf/leonardo/phoenix-1.0");
    let (lucid, flux_2) = ("@cf/leonardo/lucid-origin", "@cf/black-forest-labs/flux-2-dev");
    let form = part("prompt", "fox") + &part("steps", "500") + "--b--\r\n";
    let spelled = |what, body: String| typed(FORM, shape(what, flux_2, body, 74_999));
    vec![
        shape("a size that is not read", schnell, r#"{"prompt":"x","width":8,"height":8}"#, 172),
        shape("steps by the name that is not read", phoenix, r#"{"prompt":"x","steps":1}"#, 3_119),
        shape("sizes of nothing", lucid, r#"{"prompt":"x","width":0,"height":0}"#, 3_904),
        shape(
            "a size that is no number",
            lucid,
            r#"{"prompt":"x","width":"wide","height":"tall","num_steps":-1}"#,
            26_600,
        ),
        shape("a size in quotes", lucid, r#"{"prompt":"x","width":" 2e3 ","height":"2000","num_steps":"40"}"#, 17_000),
        shape(
            "a size within an input",
            phoenix,
            r#"{"width":8,"height":8,"num_steps":1,"input":{"prompt":"x"}}"#,
            3_119,
        ),
        spelled("a form", form.clone()),
        spelled("line feeds", form.replace("\r\n", "\n")),
        spelled("a preamble", format!("hello\r\n{form}")),
        spelled("a boundary in the text", form.replace("fox", "--b fox --b--")),
        spelled("300 parts", (0..300).map(|n| part(&format!("x{n}"), "1")).collect::<String>() + &form),
        spelled("twice, the last is cheaper", part("steps", "500") + &part("steps", "1") + "--b--"),
        spelled("a number with a file's name", form.replace("name=\"steps\"", "name=\"steps\"; filename=\"s\"")),
        spelled("a decoy", form.replace("form-data; name=\"steps\"", "form-data; x=\"; name=y\"; name=\"steps\"")),
        spelled("1e3", form.replace("500", "5e2")),
        typed("Multipart/Form-Data; Boundary=\"b\"", spelled("letter case", form.clone())),
        typed(
            "Multipart/Form-Data; Boundary=\"b\"",
            Shape { content_type: "Multipart/Form-Data; Boundary=\"b\"", ..spelled("quotes", form.clone()) },
        ),
        shape(
            "a form within JSON",
            flux_2,
            serde_json::json!({"multipart": {"body": form, "contentType": "multipart/form-data; boundary=b"}})
                .to_string(),
            74_999,
        ),
    ]
}

fn sounds() -> Vec<Shape> {
    // 16 bits, 16 kHz: taken for 64 kbit/s, 8,000 bytes are a second.
    let mut samples = b"{\"a\":".to_vec();
    samples.resize(960_000, 7);
    let nova = "@cf/deepgram/nova-3";
    vec![
        typed("audio/wav", shape("samples that look like JSON", nova, samples.clone(), 945)),
        typed("application/octet-stream", shape("samples without a type", nova, samples, 945)),
        typed("audio/pcm", shape("JSON that is a sound", nova, format!("{{\"a\":\"{}\"}}", "x".repeat(480_000)), 472)),
        shape("a sound behind a link", nova, r#"{"audio":{"url":"https://x/y.wav"}}"#, None),
    ]
}

type Arrived = Arc<Mutex<Vec<Bytes>>>;

async fn ask(shape: &Shape, limit: Option<u64>, unpriced: Unpriced) -> (StatusCode, String, Arrived) {
    let rule = limit.map(|limit| Rule::new("all", Neurons::from_whole(limit), Period::Month));
    ask_of(shape, rule.into_iter().collect(), unpriced).await
}

async fn ask_of(shape: &Shape, rules: Vec<Rule>, unpriced: Unpriced) -> (StatusCode, String, Arrived) {
    let arrived = Arrived::default();
    let seen = arrived.clone();
    let vendor = service_fn(move |request: Request<Body>| {
        let seen = seen.clone();
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            seen.lock().unwrap().push(body);
            let reply =
                r#"{"result":{"response":"x","usage":{"prompt_tokens":1,"completion_tokens":1}},"success":true}"#;
            let reply =
                Response::builder().header(header::CONTENT_TYPE, JSON).body(http_body_util::Full::<Bytes>::from(reply));
            Ok::<_, std::io::Error>(reply.unwrap())
        }
    });
    let mut settings = budget::Settings::default();
    (settings.unpriced, settings.rules) = (unpriced, rules);
    let gate = Gateway::builder().account("023e").token("t").base_url("http://127.0.0.1:1").budgets(settings);
    let gate = gate.build_around(Around::new(vendor)).unwrap();
    let mut request = Request::post(&shape.path).header(header::CONTENT_TYPE, shape.content_type);
    if let Some(encoding) = shape.encoding {
        request = request.header(header::CONTENT_ENCODING, encoding);
    }
    let reply = gate.oneshot(request.body(Body::from(shape.body.clone())).unwrap()).await.unwrap();
    let status = reply.status();
    let text = reply.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8_lossy(&text).into_owned(), arrived)
}

/// 429 as the vendor has it, and 402 on the routes that answer as OpenAI does.
fn is_refusal(status: StatusCode) -> bool {
    status == StatusCode::TOO_MANY_REQUESTS || status == StatusCode::PAYMENT_REQUIRED
}

fn shapes() -> Vec<Shape> {
    let mut shapes = texts();
    shapes.extend(pictures());
    shapes.extend(sounds());
    shapes
}

#[tokio::test]
async fn measuring_refuses_nothing_and_changes_nothing() {
    for shape in shapes() {
        let (status, text, arrived) = ask(&shape, None, Unpriced::Refuse).await;
        assert_eq!(status, 200, "{}: {text}", shape.what);
        assert_eq!(*arrived.lock().unwrap(), std::slice::from_ref(&shape.body), "{}", shape.what);
    }
}

#[tokio::test]
async fn what_does_not_fit_is_refused_and_what_nothing_bounds_is_refused_with_what_to_add() {
    for shape in shapes() {
        let Some(costs) = shape.costs else {
            let (status, text, arrived) = ask(&shape, Some(1 << 40), Unpriced::Refuse).await;
            assert!(is_refusal(status) && text.contains("nothing bounds"), "{}: {status} {text}", shape.what);
            assert!(arrived.lock().unwrap().is_empty(), "{}", shape.what);
            for unpriced in [Unpriced::Allow, Unpriced::AtMost(Neurons::from_whole(50))] {
                assert_eq!(ask(&shape, Some(1 << 40), unpriced).await.0, 200, "{}", shape.what);
            }
            assert!(
                is_refusal(ask(&shape, Some(49), Unpriced::AtMost(Neurons::from_whole(50))).await.0),
                "{}",
                shape.what
            );
            continue;
        };
        if costs > 1 {
            let (status, text, arrived) = ask(&shape, Some(costs), Unpriced::Refuse).await;
            assert!(is_refusal(status) && arrived.lock().unwrap().is_empty(), "{}: {status} {text}", shape.what);
        }
        // The bound is not many times the plain reading, but for a sound of an unknown codec.
        let times = if shape.path.contains("nova") { 16 } else { 3 };
        let (status, text, _) = ask(&shape, Some(costs * times + 300), Unpriced::Refuse).await;
        assert_eq!(status, 200, "{}: {text}", shape.what);
    }
}

#[tokio::test]
async fn a_call_that_may_have_the_whole_window_is_told_so_or_clamped() {
    let shape = shape("no limit", KIMI, r#"{"prompt":"x"}"#, 95_325);
    let (_, text, _) = ask(&shape, Some(1000), Unpriced::Refuse).await;
    for word in ["give max_tokens", "clamp_max_tokens", "262144 tokens", "95"] {
        assert!(text.contains(word), "{word} in {text}");
    }
}

#[tokio::test]
async fn an_encoding_that_cannot_be_read_and_a_bomb_are_told() {
    let unknown = Shape { encoding: Some("compress"), ..shape("unknown", LLAMA, "{}", None) };
    let (status, text, _) = ask(&unknown, None, Unpriced::Refuse).await;
    assert!(status == 415 && text.contains("gzip, deflate, br or zstd"), "{status} {text}");
    let bomb = gzip(&vec![b' '; 40 << 20]);
    let bomb = Shape { encoding: Some("gzip"), ..shape("a bomb", LLAMA, bomb, None) };
    let (status, text, _) = ask(&bomb, None, Unpriced::Refuse).await;
    assert!(status == 413 && text.contains("content encoding"), "{status} {text}");
}

#[tokio::test]
async fn a_budget_that_only_counts_needs_no_bound() {
    let shape = shape("a translation", "@cf/meta/m2m100-1.2b", r#"{"text":"x","target_lang":"fr"}"#, None);
    let mut rule = Rule::new("counts", Neurons::from_whole(1), Period::Month);
    rule.on_exceeded = budget::OnExceeded::Allow;
    assert_eq!(ask_of(&shape, vec![rule], Unpriced::Refuse).await.0, 200);
}

#[tokio::test]
async fn a_poll_costs_nothing_unless_it_brings_what_was_not_paid() {
    let replies = [
        r#"{"result":{"status":"queued","request_id":"r-1"},"success":true}"#,
        r#"{"result":{"status":"running","request_id":"r-1"},"success":true}"#,
        r#"{"result":{"responses":[],"usage":{"prompt_tokens":9,"completion_tokens":9}},"success":true}"#,
    ];
    let next = Arc::new(AtomicUsize::new(0));
    let vendor = service_fn(move |_: Request<Body>| {
        let reply = replies[next.fetch_add(1, Ordering::SeqCst).min(2)];
        let reply =
            Response::builder().header(header::CONTENT_TYPE, JSON).body(http_body_util::Full::<Bytes>::from(reply));
        async move { Ok::<_, std::io::Error>(reply.unwrap()) }
    });
    let costs = Arc::new(Costs::default());
    let gate = Gateway::builder().account("023e").token("t").base_url("http://127.0.0.1:1").reader(costs.clone());
    let gate = gate.build_around(Around::new(vendor)).unwrap();
    let poll = |id: &str| format!(r#"{{"request_id":"{id}"}}"#);
    for body in [r#"{"requests":[{"prompt":"x"}]}"#.to_owned(), poll("r-1"), poll("r-1"), poll("r-2"), poll("r-2")] {
        let request = Request::post(format!("/run/{LLAMA}?queueRequest=true"));
        let reply = gate.clone().oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
        reply.into_body().collect().await.unwrap();
    }
    // Each is paid when its answers come, and once; another's, too.
    let paid: Vec<_> = costs.0.lock().unwrap().iter().map(|cost| !cost.is_zero()).collect();
    assert_eq!(paid, [false, false, true, true, false]);
}

#[tokio::test]
async fn a_key_for_one_model_is_none_for_another_that_the_body_names() {
    let flash = "@cf/cloudflare/clef-flash";
    let mut key = Key::new("k", sha256("secret"));
    key.models = vec![flash.into(), LLAMA.into()];
    let mut door = identify::Settings::default();
    door.keys = Keys::new(&[key]).unwrap();
    let vendor = service_fn(|_: Request<Body>| async {
        Ok::<_, std::io::Error>(Response::new(http_body_util::Full::<Bytes>::from("{}")))
    });
    let gate = Gateway::builder().account("023e").token("t").base_url("http://127.0.0.1:1").door(door);
    let gate = gate.build_around(Around::new(vendor)).unwrap();
    let run = format!("/run/{flash}");
    for (path, body, status) in [
        (&*run, r#"{"state":"x"}"#.to_owned(), 200),
        (&run, r#"{"model":"clef-flash","state":"x"}"#.to_owned(), 200),
        (&run, r#"{"model":"clef","state":"x"}"#.to_owned(), 403),
        (&run, r#"{"m\u006fdel":"@cf/cloudflare/clef","state":"x"}"#.to_owned(), 403),
        ("/v1/chat/completions", format!(r#"{{"model":"{KIMI}","model":"{LLAMA}"}}"#), 200),
        ("/v1/chat/completions", format!(r#"{{"model":"{LLAMA}","model":"{KIMI}"}}"#), 403),
    ] {
        let request = Request::post(path).header(header::AUTHORIZATION, "Bearer secret").body(Body::from(body.clone()));
        assert_eq!(gate.clone().oneshot(request.unwrap()).await.unwrap().status(), status, "{body}");
    }
}

/// What each call cost.
#[derive(Default)]
struct Costs(Mutex<Vec<Neurons>>);

impl Reader for Costs {
    fn sealed(&self, receipt: &Facts) {
        self.0.lock().unwrap().push(receipt.cost.neurons);
    }
}
