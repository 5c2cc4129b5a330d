//! However a path is spelled: what the gate counted is what went upstream, and its own tokens leave on counted calls and on the
//! closed list of readings alone. Held against a reading as credulous as any server's could be.
//!
//! `TOLLGATE_CASES=100000` for the full count.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::sync::{Arc, LazyLock, Mutex};

use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use percent_encoding::percent_decode_str;
use proptest::prelude::*;
use tollgate::body::Body;
use tollgate::catalogue::Catalogue;
use tollgate::gateway::Gateway;
use tollgate::layers::identify::keys::{Key, Keys, sha256};
use tollgate::layers::{budget, cache, identify, retry};
use tollgate::neurons::Neurons;
use tollgate::receipt::{Facts, Reader};
use tollgate::upstream::Around;
use tower::{ServiceExt, service_fn};

const OWN: &str = "023e105f4ecef8ad9ca31a8372d0c353";
const OWN_TOKEN: &str = "Bearer gates-own";
const KEY: &str = "tg_a-clients-key";
const LLAMA: &str = "@cf/meta/llama-3.2-1b-instruct";

/// Read once, for all cases.
static CATALOGUE: LazyLock<Arc<Catalogue>> = LazyLock::new(Arc::default);

/// What went upstream.
#[derive(Clone, Debug)]
struct Sent {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: bytes::Bytes,
}

#[derive(Clone, Default)]
struct Sealed(Arc<Mutex<Vec<Facts>>>);

impl Reader for Sealed {
    fn sealed(&self, receipt: &Facts) {
        self.0.lock().unwrap().push(receipt.clone());
    }
}

/// What the gate holds, and what the client brings.
#[derive(Clone, Copy, Debug)]
struct Setting {
    has_token: bool,
    has_keys: bool,
    has_budget: bool,
    vouches: Vouches,
}

#[derive(Clone, Copy, Debug)]
enum Vouches {
    Nothing,
    Token,
    EmailAndKey,
}

const ROUTES: [&str; 24] = [
    "/client/v4/accounts/{own}/ai/run/{model}",
    "/client/v4/accounts/{own}/ai/run",
    "/client/v4/accounts/{own}/ai/v1/chat/completions",
    "/client/v4/accounts/{own}/ai/v1/messages",
    "/client/v4/accounts/{own}/ai/v1/rerank",
    "/client/v4/accounts/{own}/ai/models/search",
    "/client/v4/accounts/{own}/ai/models/schema?model={model}",
    "/client/v4/accounts/{own}/ai/tomarkdown",
    "/client/v4/accounts/{own}/ai/finetunes",
    "/client/v4/accounts/{own}/ai/finetunes/../run/{model}",
    "/client/v4/accounts/{own}/ai/websocket/run/{model}",
    "/client/v4/accounts/{own}/storage/kv/namespaces",
    "/client/v4/accounts/{own}/storage/../ai/run/{model}",
    "/client/v4/accounts/{other}/ai/run/{model}",
    "/client/v4/accounts/{other}/ai/models/search",
    "/client/v4/accounts/{other}/../{own}/ai/run/{model}",
    "/v1/{own}/gw/workers-ai/{model}",
    "/v1/{own}/gw/workers-ai/run/{model}",
    "/v1/{own}/gw/workers-ai/v1/embeddings",
    "/v1/{own}/gw/compat/chat/completions",
    "/v1/{own}/gw/openai/chat/completions",
    "/v1/{other}/gw/workers-ai/{model}",
    "/run/{model}",
    "/v1/responses",
];
const METHODS: [&str; 10] = ["POST", "POST", "POST", "GET", "HEAD", "PUT", "DELETE", "TRACE", "PURGE", "OPTIONS"];
/// What is put into a path, or in the place of one of its characters.
const TWISTS: [&str; 22] = [
    "/", "./", "../", "/.", "/..", "%2e", "%2E%2e", "%2f", "%2F..%2f", "\\", "%5c", ";x", "%3Bx=1", "%00", "%09",
    "%0a", "%20", "\u{a0}", "%C2%A0", "%25", "%", "?",
];

/// A change at one place: a character encoded once or twice, in the other case, or a twist before it.
#[derive(Clone, Debug)]
enum Change {
    Encode,
    EncodeTwice,
    OtherCase,
    Twist(&'static str),
}

fn changes() -> impl Strategy<Value = Vec<(prop::sample::Index, Change)>> {
    let change = prop_oneof![
        3 => Just(Change::Encode),
        1 => Just(Change::EncodeTwice),
        2 => Just(Change::OtherCase),
        4 => prop::sample::select(&TWISTS[..]).prop_map(Change::Twist),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), change), 0..5)
}

fn spelled(path: &str, changes: &[(prop::sample::Index, Change)]) -> String {
    let mut pieces: Vec<String> = path.chars().map(String::from).collect();
    for (place, change) in changes {
        let piece = &mut pieces[place.index(path.chars().count())];
        let encoded = || piece.bytes().map(|byte| format!("%{byte:02x}")).collect::<String>();
        *piece = match change {
            Change::Encode => encoded(),
            Change::EncodeTwice => encoded().replace('%', "%25"),
            Change::OtherCase => piece
                .chars()
                .map(|c| if c.is_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() })
                .collect(),
            Change::Twist(twist) => format!("{twist}{piece}"),
        };
    }
    pieces.concat()
}

/// As the most credulous server would read it: decoded until nothing is left to decode, `\` as `/`, without parameters and odd
/// characters, in small letters, with its dots resolved.
fn credulous(path: &str) -> Vec<String> {
    let mut path = path.split('?').next().unwrap().to_owned();
    loop {
        let decoded = percent_decode_str(&path).decode_utf8_lossy().into_owned();
        if decoded == path {
            break;
        }
        path = decoded;
    }
    let path: String = path.chars().filter(|c| !c.is_control() && !c.is_whitespace()).collect();
    let mut segments: Vec<String> = Vec::new();
    for segment in path.replace('\\', "/").to_lowercase().split('/') {
        match segment.split(';').next().unwrap() {
            "" | "." => {}
            ".." => drop(segments.pop()),
            name => segments.push(name.to_owned()),
        }
    }
    segments
}

/// Account and model of the call that this may be; the model where the path has it.
fn call_in(path: &str) -> Option<(String, Option<String>)> {
    let segments = credulous(path);
    let words: Vec<&str> = segments.iter().map(String::as_str).collect();
    let model = |rest: &[&str]| Some(rest.join("/")).filter(|name| !name.is_empty());
    match &words[..] {
        ["client", "v4", "accounts", account, "ai", "run", rest @ ..] => Some((account.to_string(), model(rest))),
        ["client", "v4", "accounts", account, "ai", "v1", "embeddings" | "responses" | "messages"] => {
            Some((account.to_string(), None))
        }
        ["client", "v4", "accounts", account, "ai", "v1", "chat", "completions"] => Some((account.to_string(), None)),
        ["v1", account, _, "workers-ai", "v1", "embeddings" | "responses" | "messages"]
        | ["v1", account, _, "workers-ai", "v1", "chat", "completions"]
        | ["v1", account, _, "compat", "chat", "completions"] => Some((account.to_string(), None)),
        ["v1", _, _, "workers-ai", "v1", ..] => None,
        ["v1", account, _, "workers-ai", "run", rest @ ..] | ["v1", account, _, "workers-ai", rest @ ..] => {
            Some((account.to_string(), model(rest)))
        }
        _ => None,
    }
}

fn gate(
    setting: Setting,
    sent: Arc<Mutex<Vec<Sent>>>,
    sealed: Sealed,
) -> impl tower::Service<Request<Body>, Response = Response<identify::ReplyBody>, Error = std::convert::Infallible> {
    let vendor = service_fn(move |request: Request<Body>| {
        let sent = sent.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            let path = head.uri.path_and_query().unwrap().to_string();
            sent.lock().unwrap().push(Sent { method: head.method, path, headers: head.headers, body });
            let reply = Response::builder().header("content-type", "application/json");
            Ok::<_, std::io::Error>(reply.body(Full::<bytes::Bytes>::from("{\"result\":{},\"success\":true}")).unwrap())
        }
    });
    let mut retries = retry::Settings::default();
    retries.max_attempts = 1;
    let mut kept = cache::Settings::default();
    kept.ttl = std::time::Duration::ZERO;
    let mut door = identify::Settings::default();
    if setting.has_keys {
        door.keys = Keys::new(&[Key::new("team", sha256(KEY))]).unwrap();
    }
    let mut builder =
        Gateway::builder().account(OWN).base_url("http://127.0.0.1:1").retry(retries).cache(kept).door(door);
    if setting.has_token {
        builder = builder.token(OWN_TOKEN.strip_prefix("Bearer ").unwrap());
    }
    if setting.has_budget {
        let mut budgets = budget::Settings::default();
        budgets.rules.push(budget::Rule::new("all", Neurons::from_whole(1_000_000), budget::Period::Month));
        builder = builder.budgets(budgets);
    }
    builder.catalogue(CATALOGUE.clone()).reader(Arc::new(sealed)).build_around(Around::new(vendor)).unwrap()
}

fn request(setting: Setting, method: &str, path: &str, model: &str) -> Option<Request<Body>> {
    let mut request = Request::builder().method(method).uri(path).header("content-type", "application/json");
    if setting.has_keys {
        request = request.header("cf-aig-authorization", format!("Bearer {KEY}"));
    }
    request = match setting.vouches {
        Vouches::Nothing => request,
        Vouches::Token => request.header("authorization", "Bearer clients-own"),
        Vouches::EmailAndKey => request.header("x-auth-email", "a@b.example").header("x-auth-key", "clients-own"),
    };
    let body = serde_json::json!({"model": model, "prompt": "x", "input": "x", "messages": [], "max_tokens": 1});
    request.body(Body::from(body.to_string())).ok()
}

/// What has to hold of what went upstream.
fn judge(setting: Setting, sent: &[Sent], sealed: &[Facts]) -> Result<(), TestCaseError> {
    prop_assert!(sent.len() <= 1, "{sent:?}");
    let Some(sent) = sent.first() else { return Ok(()) };
    let counted = sealed.iter().find(|facts| !facts.attempts.is_empty());
    let shown = format!("{sent:?} of {counted:?}");
    if let Some(facts) = counted {
        prop_assert_eq!(&sent.method, Method::POST);
        let endpoint = facts.endpoint.unwrap();
        let form = match endpoint {
            tollgate::call::Endpoint::Run => "run".to_owned(),
            other => format!("v1/{}", other.label()),
        };
        let bare = format!("/client/v4/accounts/{}/ai/{form}", facts.account);
        let path = sent.path.split('?').next().unwrap();
        if path.starts_with("/v1/") {
            // Another provider's, which is counted where somebody answers for it.
            prop_assert!(setting.has_keys || setting.has_budget, "{}", shown);
            prop_assert_eq!(path.split('/').nth(4), facts.model.id.split('/').next(), "{}", shown);
            prop_assert!(sent.headers.get("authorization").is_none_or(|value| value != OWN_TOKEN), "{}", shown);
        } else if path == bare {
            let body: serde_json::Value = serde_json::from_slice(&sent.body).unwrap();
            prop_assert_eq!(body["model"].as_str(), Some(&*facts.model.id), "{}", shown);
        } else {
            prop_assert_eq!(path, format!("{bare}/{}", facts.model.id), "{}", shown);
        }
    }
    let is_call = call_in(&sent.path);
    prop_assert!(is_call.is_none() || counted.is_some(), "a call that nobody counted: {shown}");
    if let (Some((account, _)), Some(facts)) = (&is_call, counted) {
        prop_assert_eq!(&facts.account.to_lowercase(), account);
    }
    let segments = credulous(&sent.path);
    let is = |place: usize, words: &[&str]| segments.get(place).is_some_and(|word| words.contains(&&**word));
    let under_ai = is(0, &["client"]) && is(4, &["ai"]) || is(0, &["v1"]) && is(3, &["workers-ai", "compat"]);
    let is_read = [Method::GET, Method::HEAD, Method::OPTIONS].contains(&sent.method);
    let is_apart = is(0, &["client"]) && is(5, &["models", "finetunes", "tomarkdown", "authors", "tasks"]);
    if counted.is_none() && under_ai && !is_read && !is_apart {
        prop_assert!(
            !setting.has_token && !setting.has_keys && !setting.has_budget,
            "uncounted where it counts: {shown}"
        );
    }
    let signs = sent.headers.get("authorization").is_some_and(|value| value == OWN_TOKEN);
    if signs {
        let is_own_call = counted.is_some_and(|facts| &*facts.account == OWN);
        let path = sent.path.split('?').next().unwrap();
        let is_listed = sent.method == Method::GET
            && ["models/search", "models/schema"]
                .iter()
                .any(|read| path == format!("/client/v4/accounts/{OWN}/ai/{read}"));
        prop_assert!(is_own_call || is_listed, "the gate's token on {shown}");
        prop_assert!(!sent.headers.contains_key("x-auth-key"), "two authorisations on {shown}");
    }
    prop_assert!(!format!("{:?}", sent.headers).contains(KEY), "the key on {shown}");
    Ok(())
}

fn cases(usual: u32) -> u32 {
    std::env::var("TOLLGATE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

proptest! {
    #![proptest_config(ProptestConfig { max_global_rejects: u32::MAX, ..ProptestConfig::with_cases(cases(1024)) })]
    #[test]
    fn what_was_counted_is_what_went_upstream_and_tokens_leave_on_nothing_else(
        route in prop::sample::select(&ROUTES[..]),
        method in prop::sample::select(&METHODS[..]),
        other in prop::sample::select(&["beef", "acc", "023e105f4ecef8ad9ca31a8372d0c35", "(unlisted)", "", ".."][..]),
        model in prop_oneof![
            4 => Just(LLAMA.to_owned()),
            1 => Just(format!("workers-ai/{LLAMA}")),
            1 => changes().prop_map(|changes| spelled(LLAMA, &changes)),
            1 => "[@a-z/.;% ]{0,12}",
            1 => Just("x".repeat(300)),
        ],
        changes in changes(),
        (has_token, has_keys, has_budget) in any::<(bool, bool, bool)>(),
        vouches in prop::sample::select(&[Vouches::Nothing, Vouches::Token, Vouches::EmailAndKey][..]),
    ) {
        let setting = Setting { has_token, has_keys, has_budget, vouches };
        let path = route.replace("{own}", OWN).replace("{other}", other).replace("{model}", &model);
        let path = spelled(&path, &changes);
        // What is no request at all is HTTP's to refuse.
        let Some(request) = request(setting, method, &path, &model) else { return Ok(()) };
        let (sent, sealed) = (Arc::<Mutex<Vec<Sent>>>::default(), Sealed::default());
        let gate = gate(setting, sent.clone(), sealed.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let reply = gate.oneshot(request).await.unwrap();
            let _ = reply.into_body().collect().await;
        });
        let (sent, sealed) = (sent.lock().unwrap().clone(), sealed.0.lock().unwrap().clone());
        judge(setting, &sent, &sealed)?;
    }
}

/// One request of a client with nothing but what `vouches` says; what went upstream, and the reply's status.
fn ask(setting: Setting, method: &str, path: &str) -> (u16, Option<Sent>, Vec<Facts>) {
    let (sent, sealed) = (Arc::<Mutex<Vec<Sent>>>::default(), Sealed::default());
    let gate = gate(setting, sent.clone(), sealed.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let status = runtime.block_on(async {
        let reply = gate.oneshot(request(setting, method, path, LLAMA).unwrap()).await.unwrap();
        let status = reply.status().as_u16();
        let _ = reply.into_body().collect().await;
        status
    });
    let (sent, sealed) = (sent.lock().unwrap().pop(), sealed.0.lock().unwrap().clone());
    (status, sent, sealed)
}

const ALONE: Setting = Setting { has_token: true, has_keys: false, has_budget: false, vouches: Vouches::Nothing };

#[test]
fn every_spelling_of_a_call_is_that_call() {
    let canonical = format!("/client/v4/accounts/{OWN}/ai/run/{LLAMA}");
    for path in [
        "/client/v4/accounts/%30{rest}/ai/run/{model}",
        "/client/v4//accounts/{own}/ai//run/{model}/",
        "/client/v4/accounts/{own}/./ai/run/{model}",
        "/client/v4/accounts/{own}/ai/models/../run/{model}",
        "/client/v4/accounts/{own}/ai/models/%2e%2E/run/{model}",
        "/client/v4/accounts/other/../{own}/ai/run/{model}",
        "/client/v4/accounts/{OWN}/AI/RUN/@CF/META/llama-3.2-1b-instruct",
        "/client/v4/accounts/{own}/ai/%72un/%40cf%2Fmeta%2Fllama-3.2-1b-instruct",
        "/client/v4/accounts/{own}/ai%2Frun/{model}",
        "http://elsewhere.example/client/v4/accounts/{own}/ai/run/{model}",
        "/v1/{own}/gw/workers-ai/{model}",
        "/v1/{own}/gw/Workers-AI//run/workers-ai/{model}",
        "/run/{model}/",
    ] {
        let path = path
            .replace("{own}", OWN)
            .replace("{OWN}", &OWN.to_uppercase())
            .replace("{rest}", &OWN[1..])
            .replace("{model}", LLAMA);
        let (status, sent, sealed) = ask(ALONE, "POST", &path);
        let sent = sent.unwrap_or_else(|| panic!("{path} was answered with {status}"));
        assert_eq!(sent.path, canonical, "{path}");
        assert_eq!((&*sealed[0].account, &*sealed[0].model.id), (OWN, LLAMA), "{path}");
    }
}

#[test]
fn what_may_be_a_call_by_a_second_reading_is_refused() {
    for path in [
        "/client/v4/accounts/{own}/ai/%2572un/{model}",
        "/client/v4/accounts/{own}/ai/run;x/{model}",
        "/client/v4/accounts/{own}/ai;x=1/run/{model}",
        "/client/v4/accounts/{own}/ai\\run/{model}",
        "/client/v4/accounts/{own}/ai/tomarkdown/..%2frun/{model}",
        "/client/v4/accounts/{own}%00/ai/run/{model}",
        "/client/v4/accounts/{own}/ai/run%09/{model}",
        "/client/v4/accounts/{own}/ai/run\u{a0}/{model}",
        "/client/v4/accounts/{own}/ai/run/{model}%20",
        "/client/v4/accounts/{own}/ai/run/{model}%3Fx",
        "/client/v4/accounts/{own}/ai/run/{model}%C2%A0",
        "/../client/v4/accounts/{own}/ai/run/{model}",
    ] {
        for vouches in [Vouches::Nothing, Vouches::Token] {
            let path = path.replace("{own}", OWN).replace("{model}", LLAMA);
            let (status, sent, _) = ask(Setting { vouches, ..ALONE }, "POST", &path);
            assert!(sent.is_none() && (400..=404).contains(&status), "{path}: {status}, {sent:?}");
        }
    }
}

#[test]
fn the_gates_token_goes_with_a_closed_list_and_with_its_own_account() {
    let own = |sent: &Option<Sent>| {
        sent.as_ref().is_some_and(|sent| sent.headers.get("authorization").is_some_and(|value| value == OWN_TOKEN))
    };
    let clients = |sent: &Option<Sent>| {
        let headers = sent.as_ref().map(|sent| &sent.headers);
        headers.is_some_and(|h| {
            h.get("authorization").is_some_and(|v| v == "Bearer clients-own") || h.contains_key("x-auth-key")
        })
    };
    for read in ["models/search?search=llama", "models/schema?model=@cf/a/b", "authors/search", "tasks/search"] {
        let (status, sent, _) = ask(ALONE, "GET", &format!("/client/v4/accounts/{OWN}/ai/{read}"));
        assert!(status == 200 && own(&sent), "{read}: {status}");
    }
    for (method, path) in [
        ("POST", "/client/v4/accounts/{own}/ai/tomarkdown"),
        ("POST", "/client/v4/accounts/{own}/ai/finetunes"),
        ("GET", "/client/v4/accounts/{own}/ai/finetunes"),
        ("GET", "/client/v4/accounts/{own}/storage/kv/namespaces"),
        ("HEAD", "/client/v4/accounts/{own}/ai/models/search"),
        ("GET", "/Client/v4/accounts/{own}/ai/models/search"),
        ("TRACE", "/client/v4/accounts/{own}/ai/models/search"),
        ("PURGE", "/client/v4/accounts/{own}/ai/models/search"),
        ("POST", "/v1/{own}/gw/openai/chat/completions"),
    ] {
        let path = path.replace("{own}", OWN);
        let (status, sent, _) = ask(ALONE, method, &path);
        assert!(status == 403 && sent.is_none(), "{method} {path} without a token of the client's: {status}");
        for vouches in [Vouches::Token, Vouches::EmailAndKey] {
            for has_keys in [false, true] {
                let (status, sent, _) = ask(Setting { vouches, has_keys, ..ALONE }, method, &path);
                assert!(status == 200 && clients(&sent) && !own(&sent), "{method} {path} with {vouches:?}: {status}");
                assert_eq!(sent.unwrap().path, path);
            }
        }
    }
    for path in [
        "/client/v4/accounts/other/ai/run/@cf/a/b",
        "/client/v4/accounts/other/ai/models/search",
        "/v1/other/gw/workers-ai/@cf/a/b",
    ] {
        for method in ["GET", "POST"] {
            let (status, sent, _) = ask(ALONE, method, path);
            assert!([403, 405].contains(&status) && sent.is_none(), "{method} {path}: {status}");
        }
    }
    for method in ["GET", "HEAD", "PUT", "DELETE", "TRACE", "PURGE", "OPTIONS"] {
        let (status, sent, _) = ask(ALONE, method, &format!("/run/{LLAMA}"));
        assert!(status == 405 && sent.is_none(), "{method}: {status}");
    }
}

#[test]
fn a_post_that_may_run_a_model_unknown_to_the_gate_passes_only_where_nothing_is_counted() {
    let nothing = Setting { has_token: false, has_keys: false, has_budget: false, vouches: Vouches::Token };
    let path = format!("/client/v4/accounts/{OWN}/ai/v1/rerank");
    assert_eq!(ask(nothing, "POST", &path).0, 200);
    for setting in [
        Setting { has_token: true, ..nothing },
        Setting { has_keys: true, ..nothing },
        Setting { has_budget: true, ..nothing },
    ] {
        let (status, sent, _) = ask(setting, "POST", &path);
        assert!(status == 403 && sent.is_none(), "{setting:?}: {status}");
    }
}

#[test]
fn an_email_and_a_key_are_an_authorisation() {
    let setting = Setting { has_token: false, has_keys: false, has_budget: false, vouches: Vouches::EmailAndKey };
    let (status, sent, _) = ask(setting, "POST", &format!("/run/{LLAMA}"));
    assert!(status == 200 && sent.unwrap().headers.contains_key("x-auth-key"), "{status}");
    let (status, _, _) = ask(Setting { vouches: Vouches::Nothing, ..setting }, "POST", &format!("/run/{LLAMA}"));
    assert_eq!(status, 401);
}
