//! Clients' own keys over real sockets: who comes in, and what never leaves.

use serde_json::json;
use tollgate::layers::identify::keys::{Key, sha256};
use tollgate::sidecar::Sidecar;

use crate::support::{LLAMA, client, config, vendor};

const KEY: &str = "tg_a-clients-own-key";
const OWN: &str = "the-vendors-token";

#[tokio::test]
async fn a_key_opens_its_models_and_never_leaves_the_gate() {
    let vendor = vendor();
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(&vendor.base_url());
    config.records.path = Some(directory.path().join("t.db"));
    let mut key = Key::new("search-team", sha256(KEY));
    key.models = vec![LLAMA.into()];
    config.keys.push(key);
    let missing = Sidecar::start(config.clone(), &Vec::new(), Vec::new()).unwrap_err().to_string();
    assert!(missing.contains("api_token_env"), "{missing}");
    let variables = vec![("CLOUDFLARE_API_TOKEN".to_owned(), OWN.to_owned())];
    let sidecar = Sidecar::start(config, &variables, Vec::new()).unwrap();
    let (url, admin, client) = (format!("http://{}", sidecar.listen()), sidecar.admin(), client());
    let ask = |path: &str, header: &str, token: &str| {
        let body = json!({"model": LLAMA, "prompt": "x", "messages": [{"role": "user", "content": "x"}]});
        // The vendor's search is a GET; all else are calls.
        let request = match path.ends_with("/search") {
            true => client.get(format!("{url}{path}")),
            false => client.post(format!("{url}{path}")).body(body.to_string()),
        };
        request.header(header, format!("Bearer {token}")).send()
    };
    let run = format!("/run/{LLAMA}");
    let mut said = String::new();
    for (path, header, token, status) in [
        (&*run, "authorization", KEY, 200),
        (&*run, "cf-aig-authorization", KEY, 200),
        ("/v1/chat/completions", "authorization", KEY, 200),
        (&*run, "authorization", OWN, 401),
        ("/v1/chat/completions", "authorization", "tg_wrong-key", 401),
        ("/run/@cf/baai/bge-m3", "authorization", KEY, 403),
        ("/client/v4/accounts/acc/ai/models/search", "authorization", "tg_wrong-key", 401),
        ("/client/v4/accounts/acc/ai/models/search", "authorization", KEY, 200),
    ] {
        let reply = ask(path, header, token).await.unwrap();
        let got = reply.status().as_u16();
        let text = reply.text().await.unwrap();
        assert_eq!(got, status, "{path} {header}: {text}");
        said += &text;
    }
    let metadata = client.post(format!("{url}{run}")).bearer_auth(KEY).header("cf-aig-metadata", r#"{"a":{"b":1}}"#);
    assert_eq!(metadata.body("{\"prompt\":\"x\"}").send().await.unwrap().status(), 200);
    for path in ["/metrics", "/budgets"] {
        said += &client.get(format!("http://{admin}{path}")).send().await.unwrap().text().await.unwrap();
    }
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    let logs = client.get(format!("http://{admin}/logs?key=search-team&outcome=ok&per_page=2")).send().await.unwrap();
    let logs = logs.text().await.unwrap();
    let page: serde_json::Value = serde_json::from_str(&logs).unwrap();
    assert_eq!(page["result"].as_array().unwrap().len(), 2, "{logs}");
    let id = page["result"][0]["id"].as_str().unwrap();
    let one = format!("http://{admin}/client/v4/accounts/a/ai-gateway/gateways/g/logs/{id}");
    let patched = client.patch(&one).header("content-type", "application/json").body(r#"{"feedback":1,"score":80}"#);
    assert_eq!(patched.send().await.unwrap().status(), 200);
    let wrong = client.patch(&one).header("content-type", "application/json").body(r#"{"feedback":7}"#);
    assert_eq!(wrong.send().await.unwrap().status(), 400);
    let text = client.get(&one).send().await.unwrap().text().await.unwrap();
    assert!(text.contains("\"score\":80") && text.contains("\"feedback\":1"), "{text}");
    said += &(logs + &text);

    for seen in vendor.seen() {
        assert!(!format!("{:?}", seen.headers).contains("tg_"), "a client's key went upstream: {}", seen.path);
    }
    sidecar.join().unwrap();
    for file in std::fs::read_dir(directory.path()).unwrap() {
        said += &String::from_utf8_lossy(&std::fs::read(file.unwrap().path()).unwrap());
    }
    for secret in [KEY, OWN, "tg_wrong-key", &sha256(KEY)] {
        assert!(!said.contains(secret), "{secret} in a reply, a metric or the records");
    }
}
