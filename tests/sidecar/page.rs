//! The live page: in a real browser, and who may look at it.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::support::{LLAMA, Process, ask, client, tool, vendor};

#[test]
fn a_browser_sees_what_the_metrics_say_and_survives_a_restart() {
    let Some(modules) = tool("TOLLGATE_TEST_BROWSER_MODULES", "the live page in a browser") else { return };
    let Some(chromium) = tool("TOLLGATE_TEST_CHROMIUM", "the live page in a browser") else { return };
    let Some(node) = tool("TOLLGATE_TEST_NODE", "the live page in a browser") else { return };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db").display().to_string();
    let vendor = vendor();
    let variables = [
        ("TOLLGATE_RECORDS_PATH", &*path),
        ("CLOUDFLARE_API_TOKEN", "t"),
        ("TOLLGATE_ACCOUNT_ANALYTICS", "true"),
        ("TOLLGATE_ACCOUNT_ANALYTICS_EVERY", "1s"),
        ("TOLLGATE_ACCOUNT_ANALYTICS_LAG", "1s"),
    ];
    wait_out_midnight();
    let mut process = Process::serve(&vendor.base_url(), &variables);
    let pictures = std::path::Path::new(&modules).parent().unwrap().to_owned();
    // Modules are looked for beside the script.
    let script = pictures.join("page.mjs");
    std::fs::copy(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser/page.mjs"), &script).unwrap();
    let mut browser = Command::new(std::path::Path::new(&node).join("node_modules/.bin/node"))
        .args([&script.display().to_string(), &process.listen, &process.admin, &chromium])
        .arg(&pictures)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("node starts");
    let mut answers = browser.stdin.take().unwrap();
    let mut said = Vec::new();
    for line in BufReader::new(browser.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        match &*line {
            "stop" => process.kill(),
            "start" => process.start_again(),
            _ => {
                said.push(line);
                continue;
            }
        }
        answers.write_all(b"\n").unwrap();
    }
    assert!(browser.wait().unwrap().success() && said.last().is_some_and(|line| line == "done"), "{said:?}");
}

/// The page tells of today, which may not end while it is looked at.
fn wait_out_midnight() {
    const DAY: u64 = 24 * 3600;
    let second = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs() % DAY;
    if second > DAY - 180 {
        std::thread::sleep(Duration::from_secs(DAY - second + 1));
    }
}

#[tokio::test]
async fn page_and_log_are_on_the_admin_port_alone_and_need_its_token() {
    let vendor = vendor();
    let client = client();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db").display().to_string();
    for token in ["", "open-sesame"] {
        let mut variables = vec![("TOLLGATE_RECORDS_PATH", &*path)];
        variables.extend((!token.is_empty()).then_some(("TOLLGATE_ADMIN_TOKEN", token)));
        let process = Process::serve(&vendor.base_url(), &variables);
        ask(&client, &format!("{}/run/{LLAMA}", process.listen), &serde_json::json!({"prompt": "x"}))
            .send()
            .await
            .unwrap();
        for page in [
            "/",
            "/page/now",
            "/page/log",
            "/page/config",
            "/page/keys",
            "/page/budgets",
            "/logs",
            "/budgets",
            "/books",
            "/cache",
        ] {
            let get = |base: &str| client.get(format!("{base}{page}"));
            let closed = if token.is_empty() { 200 } else { 401 };
            assert_eq!(get(&process.admin).send().await.unwrap().status(), closed, "{page} without a token");
            assert_eq!(get(&process.admin).bearer_auth("open").send().await.unwrap().status(), closed, "{page}");
            let open = get(&process.admin).basic_auth("me", Some("open-sesame")).send().await.unwrap();
            assert_eq!(open.status(), 200, "{page} with the token");
            assert_eq!(get(&process.listen).send().await.unwrap().status(), 404, "{page} on the proxy's port");
            let stranger = get(&process.admin).header("host", "evil.example").send().await.unwrap();
            assert_eq!(stranger.status(), 421, "{page} by another name");
        }
        for page in ["/metrics", "/healthz", "/readyz"] {
            let get = || client.get(format!("{}{page}", process.admin));
            assert_eq!(get().send().await.unwrap().status(), 200, "{page}");
            assert_eq!(
                get().header("host", "evil.example").send().await.unwrap().status(),
                421,
                "{page} by another name"
            );
        }
    }
}

#[tokio::test]
async fn what_clients_wrote_is_text_on_the_pages_of_the_log() {
    let (vendor, client, directory) = (vendor(), client(), tempfile::tempdir().unwrap());
    let path = directory.path().join("t.db").display().to_string();
    let variables = [("TOLLGATE_RECORDS_PATH", &*path), ("TOLLGATE_RECORDS_PAYLOADS", "true")];
    let process = Process::serve(&vendor.base_url(), &variables);
    let script = "<script>alert(1)</script>";
    let reply = ask(&client, &format!("{}/run/{LLAMA}", process.listen), &serde_json::json!({"prompt": script}))
        .header("cf-aig-metadata", format!("{{\"team\":\"{script}\"}}"))
        .send()
        .await
        .unwrap();
    let id = reply.headers()["cf-aig-log-id"].to_str().unwrap().to_owned();
    reply.bytes().await.unwrap();
    let page = async |path: &str| {
        let reply = client.get(format!("{}/page/{path}", process.admin)).send().await.unwrap();
        let policy = reply.headers()["content-security-policy"].to_str().unwrap().to_owned();
        assert!(policy.contains("script-src 'self';") && policy.contains("form-action 'self'"), "{policy}");
        let text = reply.text().await.unwrap();
        assert!(!text.contains(script), "{text}");
        text
    };
    let receipt = page(&format!("log/{id}")).await;
    assert!(receipt.contains("&lt;script&gt;") && receipt.contains("Its request"), "{receipt}");
    let link = format!("log/{id}");
    assert!(page("log?model=&metadata=team%3A%3Cscript%3Ealert(1)%3C%2Fscript%3E&max_duration=").await.contains(&link));
    assert!(!page("log?metadata=team:nobody").await.contains(&link));
    assert!(page("log?status=%3Cscript%3Ealert(1)%3C%2Fscript%3E").await.contains("trouble"));
    assert!(page("log/nothing").await.contains("no such record"));
    assert!(page("config").await.contains("What a reload would change"));
}
