//! The sidecar as a process: signals, and what its log may say.

use std::io::Read;
use std::time::Duration;

use serde_json::json;
use tollgate::simulator::Settings;

use crate::support::{LLAMA, Process, TOKEN, ask, client, vendor};

#[tokio::test]
async fn sigterm_lets_a_stream_end_and_takes_no_new_calls() {
    let mut settings = Settings::default();
    (settings.latency, settings.rate_limits) = (1.0, false);
    let vendor = tollgate::simulator::start(settings).unwrap();
    let mut process = Process::serve(&vendor.base_url(), &[]);
    let url = format!("{}/run/{LLAMA}", process.listen);
    let mut reply = ask(&client(), &url, &json!({"prompt": "a long tale", "stream": true})).send().await.unwrap();
    let mut text = reply.chunk().await.unwrap().unwrap().to_vec();
    process.terminate();
    let refused = async {
        while ask(&client(), &url, &json!({"prompt": "x"})).send().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), refused).await.expect("new calls are refused");
    while let Some(chunk) = reply.chunk().await.unwrap() {
        text.extend_from_slice(&chunk);
    }
    assert!(text.ends_with(b"data: [DONE]\n\n"), "the stream was cut");
    drop(reply);
    assert!(process.child.wait().unwrap().success());
}

#[tokio::test]
async fn no_token_or_prompt_is_ever_logged() {
    let vendor = vendor();
    let keys = format!("[{{name = \"team\", sha256 = \"{}\"}}]", tollgate::layers::identify::keys::sha256(TOKEN));
    for (format, keys) in [("text", "[]"), ("json", "[]"), ("text", &*keys)] {
        let variables = [
            ("TOLLGATE_LOG_LEVEL", "trace"),
            ("TOLLGATE_LOG_FORMAT", format),
            ("CLOUDFLARE_API_TOKEN", "s3cret-own"),
            ("TOLLGATE_KEYS", keys),
        ];
        let mut process = Process::serve(&vendor.base_url(), &variables);
        let url = format!("{}/run/{LLAMA}", process.listen);
        for body in [json!({"prompt": "private words"}), json!({"prompt": "private words", "stream": true}), json!([])]
        {
            ask(&client(), &url, &body).send().await.unwrap().bytes().await.unwrap();
        }
        let wrong = client().post(&url).bearer_auth("tg_a-wrong-key").body("{}").send().await.unwrap();
        wrong.bytes().await.unwrap();
        let other = client().post(&url).header("x-auth-email", "a@b.example").header("x-auth-key", "s3cret-xauth");
        other.header("cf-aig-metadata", "private words").body("{}").send().await.unwrap().bytes().await.unwrap();
        process.terminate();
        assert!(process.child.wait().unwrap().success());
        let mut log = String::new();
        process.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        let tollgates: String = log.lines().filter(|line| line.contains("tollgate")).collect();
        assert!(tollgates.contains("llama"), "the calls are logged at this level: {log}");
        for secret in [TOKEN, "s3cret-own", "private words", "tg_a-wrong-key", "s3cret-xauth"] {
            assert!(!log.contains(secret), "{secret} in the log");
        }
    }
}

#[tokio::test]
async fn a_port_that_is_taken_is_said_also_by_another_gate() {
    let vendor = vendor();
    let other = Process::serve(&vendor.base_url(), &[]);
    let address = other.listen.strip_prefix("http://").unwrap();
    let output = crate::support::command().args(["serve", "--listen", address]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(1) && said.contains(address), "{said}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = crate::support::command().args(["serve", "--listen", &address]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&address) && said.contains("listen"), "{said}");
}
