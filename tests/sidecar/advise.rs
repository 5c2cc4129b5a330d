//! What `tollgate advise` and the live page say of calls that really ran.

use std::time::Duration;

use serde_json::{Value, json};
use tollgate::sidecar::Sidecar;

use crate::support::{Receipts, client, command, config, vendor};

/// A model with a cheaper twin of the same weights.
const DEAR: &str = "@cf/meta/llama-3-8b-instruct";

#[tokio::test]
async fn what_a_running_gate_records_is_advised_on_by_the_command_and_by_its_page() {
    let directory = tempfile::tempdir().unwrap();
    let (vendor, path) = (vendor(), directory.path().join("t.db"));
    let mut config = config(&vendor.base_url());
    (config.records.path, config.records.digests) = (Some(path.clone()), true);
    let receipts = Receipts::default();
    let variables = vec![("CLOUDFLARE_API_TOKEN".to_owned(), "t".to_owned())];
    let sidecar = Sidecar::start(config, &variables, vec![std::sync::Arc::new(receipts.clone())]).unwrap();
    let client = client();
    // Twelve questions, and one of them again and again: sampled answers are not kept.
    for n in 0..24 {
        let url = format!("http://{}/run/{DEAR}", sidecar.listen());
        let body = json!({"prompt": format!("tale {}", n.min(12)), "max_tokens": 20}).to_string();
        let reply = client.post(url).body(body).send().await.unwrap();
        assert_eq!(reply.status(), 200);
        reply.bytes().await.unwrap();
    }
    receipts.after(24).await;
    let page = async {
        loop {
            let page = client.get(format!("http://{}/", sidecar.admin())).send().await.unwrap().text().await.unwrap();
            if page.contains("id=\"advice\"") {
                break page;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let page = tokio::time::timeout(Duration::from_secs(300), page).await.expect("the page tells what to change");
    assert!(page.contains("ask @cf/meta/llama-3-8b-instruct-awq"), "{page}");
    sidecar.join().unwrap();

    let output = command().args(["advise", "--json"]).env("TOLLGATE_RECORDS_PATH", &path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |waste: &str| told["advice"].as_array().unwrap().iter().find(|advice| advice["waste"] == waste).cloned();
    let (twin, repeats) = (of("cheaper_twin").unwrap(), of("repeats").unwrap());
    assert_eq!((&twin["of"], &twin["calls"]), (&json!(DEAR), &json!(24)));
    assert!(twin["saved"]["neurons"].as_f64().unwrap() > 0.0);
    assert_eq!(repeats["calls"], 11);
    assert!(repeats["change"].as_str().unwrap().contains("sampled = true"), "{repeats}");
    assert_eq!(told["not_looked_at"], Value::Null);
}
