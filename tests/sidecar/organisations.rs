//! Budgets as organisations have them, over real sockets: split by two things, raised and begun anew by an operator, in force
//! again after a restart.

use serde_json::{Value, json};
use tollgate::layers::budget::{Period, Rule, Share, Split, Zone};
use tollgate::neurons::Neurons;

use crate::support::{GEMMA, LLAMA, ask, client, config, start, vendor};

/// A call that reserves some 1.8 neurons: 100 tokens at 18,252 micro-neurons.
fn body(model: &str, user: &str) -> Value {
    json!({"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": user}]})
}

#[tokio::test]
async fn an_operator_raises_one_bucket_and_resets_another_and_both_outlive_a_restart() {
    let vendor = vendor();
    let directory = tempfile::tempdir().unwrap();
    let mut config = config(&vendor.base_url());
    config.records.path = Some(directory.path().join("t.db"));
    config.admin_token = Some("open sesame".to_owned().into());
    let mut rule = Rule::new("each user's", Neurons::from_whole(4), Period::Day);
    rule.split_by = vec![Split::Metadata("user".into()), Split::Model];
    rule.timezone = Some(Zone::try_from("Europe/Berlin".to_owned()).unwrap());
    rule.warn_at = vec![Share::try_from(0.5).unwrap()];
    config.budgets.push(rule);
    let client = client();
    let (sidecar, _) = start(config.clone());
    let call = async |address: std::net::SocketAddr, user: &str, model: &str| {
        let url = format!("http://{address}/v1/chat/completions");
        let metadata = json!({"user": user}).to_string();
        let mut passed = 0;
        while passed < 20 {
            let reply =
                ask(&client, &url, &body(model, user)).header("cf-aig-metadata", &metadata).send().await.unwrap();
            if reply.status() != 200 {
                assert_eq!(reply.status(), 402);
                break;
            }
            reply.bytes().await.unwrap();
            passed += 1;
        }
        passed
    };
    let change = async |admin: std::net::SocketAddr, what: &str, body: Value| {
        let url = format!("http://{admin}/budgets/each%20user's/{what}");
        let asked = client.post(url).basic_auth("maria", Some("open sesame")).json(&body);
        let reply = asked.send().await.unwrap();
        (reply.status().as_u16(), reply.json::<Value>().await.unwrap_or_default())
    };
    for user in ["ann", "bob"] {
        assert!(call(sidecar.listen(), user, LLAMA).await >= 1);
        assert_eq!(call(sidecar.listen(), user, LLAMA).await, 0, "{user} has none left for this model");
    }
    assert!(call(sidecar.listen(), "ann", GEMMA).await >= 1, "and has a bucket of its own for another");
    let admin = sidecar.admin();
    let until = in_an_hour();
    let ann = json!(["ann", LLAMA]);
    let raise = json!({"to": "50 neurons", "until": until, "bucket": ann, "reason": "the launch"});
    assert_eq!(change(admin, "raise", raise).await.0, 200);
    let (status, reset) = change(admin, "reset", json!({"bucket": ["bob", LLAMA], "reason": "a runaway test"})).await;
    assert!(status == 200 && reset["forgotten_neurons"].as_f64().unwrap() > 0.5, "{reset}");
    for (what, body, status) in [
        ("raise", json!({"to": "lots"}), 400),
        ("raise", json!({"to": "5 USD", "bucket": ["ann"]}), 400),
        ("raise", json!({"to": "5 USD", "until": "2020-01-01T00:00:00Z"}), 400),
        ("reset", json!({"bucket": ["bob", LLAMA], "reason": " "}), 400),
        ("reset", json!({"reason": "which?"}), 400),
        ("reset", json!({"bucket": ["nobody", LLAMA], "reason": "x"}), 404),
    ] {
        let (got, said) = change(admin, what, body.clone()).await;
        assert_eq!(got, status, "{what} {body}: {said}");
    }
    let url = format!("http://{admin}/budgets/each%20user's");
    assert_eq!(client.post(format!("{url}/reset")).json(&json!({"reason": "x"})).send().await.unwrap().status(), 401);
    assert!(call(sidecar.listen(), "bob", LLAMA).await >= 1, "bob's bucket has begun anew");
    assert!(call(sidecar.listen(), "ann", LLAMA).await >= 5, "ann's is raised");
    sidecar.join().unwrap();
    let (sidecar, _) = start(config);
    let url = format!("http://{}/budgets/each%20user's?limit=2", sidecar.admin());
    let told: Value = client.get(url).bearer_auth("open sesame").send().await.unwrap().json().await.unwrap();
    let rows = told["buckets"].as_array().unwrap();
    assert_eq!(rows.len(), 2, "{told}");
    let hers = rows.iter().find(|row| row["bucket"] == ann).unwrap_or_else(|| panic!("{told}"));
    assert_eq!(hers["limit_neurons"], 50.0, "after a restart");
    assert_eq!(call(sidecar.listen(), "bob", LLAMA).await, 0, "and what was spent is not forgotten");
    sidecar.join().unwrap();
}

fn in_an_hour() -> String {
    jiff::Timestamp::try_from(std::time::SystemTime::now() + std::time::Duration::from_secs(3600)).unwrap().to_string()
}
