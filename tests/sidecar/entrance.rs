//! Who is let in, and by which road: web pages, strangers' names, guesses of keys, ports that are open to all.

use std::io::Read;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tollgate::layers::identify::keys::{Key, sha256};
use tollgate::sidecar::Sidecar;
use tollgate::sidecar::config::{Config, Origin};

use crate::support::{Gate, LLAMA, Process, TOKEN, browse, client, command, config, vendor};

#[test]
fn a_page_on_another_port_spends_nothing_and_reads_nothing() {
    let vendor = vendor();
    let process = Process::serve(&vendor.base_url(), &[("CLOUDFLARE_API_TOKEN", "t")]);
    if browse("stranger.mjs", &[&process.listen, &process.admin, LLAMA]) {
        assert!(vendor.seen().is_empty(), "a page's request went upstream: {:?}", vendor.seen());
    }
}

#[test]
fn a_page_that_is_invited_is_a_client() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gate = Gate::with(vendor(), |config| {
        config.cors.origins = vec![Origin::try_from(format!("http://localhost:{port}")).unwrap()];
    });
    browse("guest.mjs", &[&gate.url(""), LLAMA, &port.to_string()]);
}

/// What is told on a connection that ends with the reply.
async fn raw(address: std::net::SocketAddr, head: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let body = r#"{"prompt":"x"}"#;
    let request = format!(
        "{head}\r\ncf-aig-skip-cache: true\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply).await.unwrap();
    String::from_utf8_lossy(&reply).into_owned()
}

fn has_own_token(config: Config) -> Sidecar {
    let variables = vec![("CLOUDFLARE_API_TOKEN".to_owned(), TOKEN.to_owned())];
    Sidecar::start(config, &variables, Vec::new()).unwrap()
}

#[tokio::test]
async fn a_request_that_a_page_could_send_is_told_where_to_be_invited() {
    let vendor = vendor();
    let mut config = config(&vendor.base_url());
    config.cors.origins = vec![Origin::try_from("https://app.example".to_owned()).unwrap()];
    let sidecar = has_own_token(config);
    let run = format!("POST /run/{LLAMA} HTTP/1.1\r\nhost: localhost");
    for (head, status, says) in [
        (format!("{run}\r\norigin: https://evil.example"), 403, "[cors] origins"),
        (format!("{run}\r\norigin: null"), 403, "[cors] origins"),
        (format!("{run}\r\nsec-fetch-site: same-site"), 403, "[cors] origins"),
        (format!("POST /run/{LLAMA} HTTP/1.1\r\nhost: evil.example"), 403, "allowed_hosts"),
        (format!("POST http://evil.example/run/{LLAMA} HTTP/1.1\r\nhost: localhost"), 403, "allowed_hosts"),
        (format!("OPTIONS /run/{LLAMA} HTTP/1.1\r\nhost: localhost\r\norigin: https://evil.example"), 403, "[cors] origins"),
        ("GET /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nupgrade: websocket\r\norigin: https://evil.example".into(), 403, "\"error\":{"),
    ] {
        let reply = raw(sidecar.listen(), &head).await;
        assert!(reply.starts_with(&format!("HTTP/1.1 {status}")) && reply.contains(says), "{head}\n{reply}");
        assert!(!reply.contains("access-control-allow-origin"), "{reply}");
    }
    assert!(vendor.seen().is_empty());
    let asks = "access-control-request-method: POST\r\naccess-control-request-headers: authorization,content-type";
    let preflight =
        format!("OPTIONS /run/{LLAMA} HTTP/1.1\r\nhost: localhost\r\norigin: https://app.example\r\n{asks}");
    let reply = raw(sidecar.listen(), &preflight).await;
    assert!(
        reply.starts_with("HTTP/1.1 200") && reply.contains("access-control-allow-origin: https://app.example"),
        "{reply}"
    );
    assert!(reply.contains("access-control-allow-headers: authorization,content-type"), "{reply}");
    assert!(vendor.seen().is_empty());
    let reply = raw(sidecar.listen(), &format!("{run}\r\norigin: https://app.example")).await;
    assert!(
        reply.starts_with("HTTP/1.1 200") && reply.contains("access-control-allow-origin: https://app.example"),
        "{reply}"
    );
    let reply = raw(sidecar.listen(), &run).await;
    assert!(reply.starts_with("HTTP/1.1 200") && !reply.contains("access-control-"), "{reply}");
}

#[tokio::test]
async fn paths_in_odd_spellings_are_the_call_that_they_name_or_refused() {
    let vendor = vendor();
    let sidecar = has_own_token(config(&vendor.base_url()));
    for (target, status) in [
        ("//client/v4/accounts/%61cc/ai/./run/{model}/", 200),
        ("/client/v4/accounts/acc/ai/models/%2e%2e/run/{model}", 200),
        ("http://127.0.0.1/CLIENT/v4/accounts/ACC/ai/run/@CF/meta/llama-3.2-1b-instruct", 200),
        ("/client/v4/accounts/acc/ai/run\\{model}", 400),
        ("/client/v4/accounts/acc/ai/run;x/{model}", 400),
        ("/client/v4/accounts/acc/ai/%2572un/{model}", 400),
        ("/client/v4/accounts/acc/ai/run/{model}%00", 400),
        ("/client/v4/accounts/other/ai/run/{model}", 403),
        ("/client/v4/accounts/acc/ai/tomarkdown", 403),
        ("/client/v4/accounts/acc/ai/rerank", 403),
    ] {
        let target = target.replace("{model}", LLAMA);
        let before = vendor.seen().len();
        let reply = raw(sidecar.listen(), &format!("POST {target} HTTP/1.1\r\nhost: localhost")).await;
        assert!(reply.starts_with(&format!("HTTP/1.1 {status}")), "{target}\n{reply}");
        let seen = vendor.seen();
        assert_eq!(seen.len() - before, usize::from(status == 200), "{target}");
        if status == 200 {
            assert_eq!(seen.last().unwrap().path, format!("/client/v4/accounts/acc/ai/run/{LLAMA}"), "{target}");
        }
    }
    for method in ["TRACE", "PURGE", "HEAD", "PUT", "CONNECT"] {
        let before = vendor.seen().len();
        raw(
            sidecar.listen(),
            &format!("{method} /client/v4/accounts/acc/ai/models/search HTTP/1.1\r\nhost: localhost"),
        )
        .await;
        assert_eq!(vendor.seen().len(), before, "{method} went upstream");
    }
    let reply = raw(sidecar.listen(), "GET /client/v4/accounts/acc/ai/models/search HTTP/1.1\r\nhost: localhost").await;
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
}

#[tokio::test]
async fn a_gateway_that_a_request_names_gets_its_headers() {
    let gate = Gate::start();
    let ask = |named: bool| {
        let mut request = gate.post(&format!("/run/{LLAMA}"), &json!({"prompt": "x", "temperature": 0.7}));
        for (name, value) in
            [("cf-aig-cache-ttl", "600"), ("cf-aig-max-attempts", "3"), ("cf-aig-metadata", "{\"a\":1}")]
        {
            request = request.header(name, value);
        }
        if named { request.header("cf-aig-gateway-id", "mine") } else { request }
            .header("cf-aig-skip-cache", "true")
            .send()
    };
    for named in [true, false] {
        assert_eq!(ask(named).await.unwrap().status(), 200);
        let seen = gate.vendor.seen().pop().unwrap();
        for name in
            ["cf-aig-cache-ttl", "cf-aig-max-attempts", "cf-aig-metadata", "cf-aig-skip-cache", "cf-aig-gateway-id"]
        {
            assert_eq!(seen.headers.contains_key(name), named, "{name}");
        }
    }
}

#[tokio::test]
async fn a_callers_own_prices_are_finite_and_in_a_series_of_their_own() {
    let gate = Gate::start();
    for (n, price) in [
        "{\"per_token_in\":1e308,\"per_token_out\":1e308}",
        "{\"total_cost\":1e308}",
        "{\"total_cost\":NaN}",
        "{\"per_token_in\":-5}",
        "{\"per_token_in\":1e999}",
        "no price",
        "{\"total_cost\":0.25}",
        "{\"per_token_out\":0.001}",
    ]
    .into_iter()
    .enumerate()
    {
        let call = gate.post(&format!("/run/{LLAMA}"), &json!({"prompt": format!("question {n}")}));
        assert_eq!(call.header("cf-aig-custom-cost", price).send().await.unwrap().status(), 200, "{price}");
    }
    let receipts = gate.receipts.after(8).await;
    let custom: f64 = receipts.iter().filter_map(|facts| facts.cost.custom_usd).sum();
    let list: f64 = receipts.iter().map(|facts| facts.cost.neurons.usd()).sum();
    let metrics = gate.metrics().await;
    let value = |name: &str| -> f64 {
        let line = metrics.lines().find(|line| line.starts_with(&format!("{name}{{model=\"{LLAMA}\"}}")));
        line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no {name}"))
    };
    assert!(custom > 0.25 && custom < 1.0, "{custom}");
    assert!((value("tollgate_custom_cost_usd_total") - custom).abs() < 1e-9);
    assert!((value("tollgate_cost_usd_total") - list).abs() < 1e-9);
    let endless = metrics.lines().find(|line| line.ends_with("Inf") || line.ends_with("NaN"));
    assert_eq!(endless, None);
}

#[tokio::test]
async fn guesses_of_a_key_are_slowed_and_lock_out_nobody_who_was_in() {
    let vendor = vendor();
    let mut config = config(&vendor.base_url());
    config.keys = vec![Key::new("team", sha256("tg_right"))];
    let sidecar = has_own_token(config);
    let client = client();
    let url = format!("http://{}/v1/chat/completions", sidecar.listen());
    let ask = |key: String| {
        let body = json!({"model": LLAMA, "messages": [{"role": "user", "content": "x"}]}).to_string();
        client.post(&url).bearer_auth(key).body(body).send()
    };
    assert_eq!(ask("tg_right".into()).await.unwrap().status(), 200);
    let mut slowed = None;
    for n in 0..5000 {
        let reply = ask(format!("guess-{n}")).await.unwrap();
        if reply.status() == 429 {
            slowed = Some(reply);
            break;
        }
        assert_eq!(reply.status(), 401);
    }
    let slowed = slowed.expect("a guess is turned away unlooked at");
    assert!(slowed.headers().contains_key("retry-after"));
    let said: Value = slowed.json().await.unwrap();
    assert!(said["error"]["message"].as_str().unwrap().contains("wrong keys"), "{said}");
    assert_eq!(ask("tg_right".into()).await.unwrap().status(), 200, "who was in before");
}

#[test]
fn what_is_open_to_all_has_to_be_meant_and_is_told() {
    let own = ("CLOUDFLARE_API_TOKEN", "t");
    for (variables, place) in [
        (vec![("TOLLGATE_LISTEN", "0.0.0.0:0"), own], "listen"),
        (vec![("TOLLGATE_ADMIN", "0.0.0.0:0")], "admin"),
        (vec![("TOLLGATE_ADMIN_TOKEN", "")], "admin_token"),
    ] {
        for subcommand in ["serve", "check"] {
            let output = command().arg(subcommand).envs(variables.iter().copied()).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert!(
                output.status.code() == Some(2) && said.starts_with(&format!("tollgate: {place}: ")),
                "{subcommand}: {said}"
            );
            assert!(place == "admin_token" || said.contains("open = true"), "{said}");
        }
    }
    let open = [("TOLLGATE_LISTEN", "0.0.0.0:0"), ("TOLLGATE_ADMIN", "0.0.0.0:0"), ("TOLLGATE_OPEN", "true"), own];
    let output = command().arg("check").envs(open).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && said.matches("# open: ").count() == 2, "{said}");
    let mut process = Process::serve("http://127.0.0.1:1", &open);
    process.terminate();
    assert!(process.child.wait().unwrap().success());
    let mut log = String::new();
    process.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(log.contains("WARN") && log.contains("can spend the account's money"), "{log}");
    assert!(log.contains("can read the log"), "{log}");
}
