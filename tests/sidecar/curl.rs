//! What a person types: plain curl.

use std::process::Command;

use serde_json::Value;

use crate::support::{Gate, LLAMA};

/// Runs curl, which is silent and keeps no config, and gives what it printed; `None` where there is no curl.
fn curl(arguments: &[&str]) -> Option<String> {
    let output = match Command::new("curl")
        .args(["-q", "--silent", "--show-error", "--noproxy", "*"])
        .args(arguments)
        .output()
    {
        Ok(output) => output,
        Err(error) => {
            assert!(std::env::var_os("TOLLGATE_TEST_ALL").is_none(), "curl: {error}");
            println!("left out: curl, which is not here (tests/all installs it)");
            return None;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

const JSON: [&str; 4] = ["-H", "content-type: application/json", "-H", "authorization: Bearer any"];

#[test]
fn a_chat() {
    let gate = Gate::start();
    let body =
        format!(r#"{{"model": "{LLAMA}", "messages": [{{"role": "user", "content": "Why is the sky blue?"}}]}}"#);
    let Some(said) = curl(&[&JSON[..], &["-d", &body, "-D", "-", &gate.url("/v1/chat/completions")]].concat()) else {
        return;
    };
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("\r\nx-tollgate-cost-usd: 0.0000"), "{head}");
    let reply: Value = serde_json::from_str(body).unwrap();
    assert!(!reply["choices"][0]["message"]["content"].as_str().unwrap().is_empty(), "{reply}");
}

#[test]
fn a_stream() {
    let gate = Gate::start();
    let body =
        format!(r#"{{"model": "{LLAMA}", "messages": [{{"role": "user", "content": "a tale"}}], "stream": true}}"#);
    let Some(said) = curl(&[&JSON[..], &["-N", "-d", &body, &gate.url("/v1/chat/completions")]].concat()) else {
        return;
    };
    assert!(said.matches("data: {").count() > 10 && said.ends_with("data: [DONE]\n\n"), "{said}");
}

#[test]
fn a_native_run() {
    let gate = Gate::start();
    let Some(said) =
        curl(&[&JSON[..], &["-d", r#"{"prompt": "hello"}"#, &gate.url(&format!("/run/{LLAMA}"))]].concat())
    else {
        return;
    };
    let reply: Value = serde_json::from_str(&said).unwrap();
    assert!(reply["success"] == true && reply["result"]["response"].is_string(), "{reply}");
}

#[test]
fn an_upload_of_raw_audio() {
    let gate = Gate::start();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    // 8 bytes a millisecond, to the simulator.
    std::io::Write::write_all(&mut file, &[7; 24_000]).unwrap();
    let data = format!("@{}", file.path().display());
    let url = gate.url("/run/@cf/openai/whisper");
    let headers = ["-H", "content-type: application/octet-stream", "-H", "authorization: Bearer any"];
    let Some(said) = curl(&[&headers[..], &["--data-binary", &data, &url]].concat()) else { return };
    let reply: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(reply["result"]["transcription_info"]["duration"], 3.0, "{reply}");
}

#[test]
fn an_error_has_a_status_a_code_and_a_message() {
    let gate = Gate::start();
    let url = gate.url("/run/@cf/nobody/knows");
    let Some(said) = curl(&[&JSON[..], &["-d", r#"{"prompt": "hello"}"#, "-w", "\n%{http_code}", &url]].concat())
    else {
        return;
    };
    let (body, status) = said.rsplit_once('\n').unwrap();
    assert_eq!(status, "400");
    let reply: Value = serde_json::from_str(body).unwrap();
    assert!(reply["success"] == false && reply["errors"][0]["code"] == 5007, "{reply}");
    // With --fail, a script sees it.
    let failed = Command::new("curl").args(["-q", "-sf", "--noproxy", "*", &gate.url("/nowhere")]).output().unwrap();
    assert_eq!(failed.status.code(), Some(22));
}
