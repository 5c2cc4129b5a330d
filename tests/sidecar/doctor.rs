//! `tollgate doctor`: what is wrong is found, in the order in which it is to be mended.

use std::sync::{Arc, Mutex};

use axum::Router;
use http::{Method, StatusCode, Uri};
use serde_json::{Value, json};

use crate::support::{TOKEN, command, vendor};

/// The exit code, and what was found: about, grade and words.
fn doctor(upstream: &str, variables: &[(&str, &str)], arguments: &[&str]) -> (i32, Vec<(String, String, String)>) {
    let mut command = command();
    command.args(["doctor", "--json"]).args(arguments).envs([
        ("TOLLGATE_UPSTREAM_BASE_URL", upstream),
        ("CLOUDFLARE_ACCOUNT_ID", "acc"),
        ("CLOUDFLARE_API_TOKEN", TOKEN),
    ]);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(!said.contains(TOKEN), "{said}");
    let told: Value = serde_json::from_str(&said).unwrap();
    let word = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
    let found = told["findings"].as_array().unwrap().iter();
    let found = found.map(|it| (word(it, "about"), word(it, "grade"), word(it, "found") + ": " + &word(it, "mend")));
    (output.status.code().unwrap(), found.collect())
}

fn grades<'a>(found: &'a [(String, String, String)], about: &str) -> Vec<&'a str> {
    found.iter().filter(|(of, ..)| of == about).map(|(_, grade, _)| grade.as_str()).collect()
}

/// A vendor that says one thing to all.
async fn saying(status: StatusCode, date: &'static str) -> String {
    let body = json!({"success": false, "errors": [{"code": 10000, "message": "Authentication error"}]}).to_string();
    let answer = move || {
        let body = body.clone();
        async move { (status, [("date", date), ("content-type", "application/json")], body) }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    format!("http://{address}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gate_that_is_well_has_nothing_to_mend_and_spends_nothing() {
    let vendor = vendor();
    let place = tempfile::tempdir().unwrap();
    let records = place.path().join("tollgate.db");
    let (code, found) = doctor(
        &vendor.base_url(),
        &[("TOLLGATE_RECORDS_PATH", records.to_str().unwrap()), ("TOLLGATE_ACCOUNT_ANALYTICS", "true")],
        &[],
    );
    assert_eq!(code, 0, "{found:?}");
    for about in ["config", "files", "dns", "upstream", "clock", "token", "permissions"] {
        assert_eq!(grades(&found, about), ["ok"], "{about}: {found:?}");
    }
    assert!(vendor.spent("acc").is_zero());
    assert_eq!(vendor.counts().attempts, 0, "a model was called");
    assert!(!records.exists(), "it left a database behind");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_is_told_with_its_mend_and_what_stands_upon_it_is_not_asked() {
    // Nobody is there.
    let (code, found) = doctor("http://127.0.0.1:9", &[], &[]);
    assert_eq!((code, grades(&found, "upstream"), grades(&found, "token")), (1, vec!["wrong"], vec!["skipped"]));
    // A name that no resolver has, as of RFC 6761.
    let (code, found) = doctor("http://gate.invalid", &[], &[]);
    assert_eq!((code, grades(&found, "dns")), (1, vec!["wrong"]), "{found:?}");
    // A token that may not, and a clock that is years off.
    let refusing = saying(StatusCode::FORBIDDEN, "Wed, 01 Jan 2020 00:00:00 GMT").await;
    let (code, found) = doctor(&refusing, &[], &[]);
    assert_eq!(
        (code, grades(&found, "clock"), grades(&found, "token")),
        (1, vec!["wrong"], vec!["wrong"]),
        "{found:?}"
    );
    let token = found.iter().find(|(about, ..)| about == "token").unwrap();
    assert!(token.2.contains("Authentication error") && token.2.contains("Workers AI"), "{token:?}");
    // A place where nothing can be kept.
    let (code, found) =
        doctor("http://127.0.0.1:9", &[("TOLLGATE_RECORDS_PATH", "/proc/nowhere/t.db")], &["--offline"]);
    assert_eq!((code, grades(&found, "files"), grades(&found, "upstream")), (1, vec!["wrong"], vec!["skipped"]));
    // The config comes before all else.
    let (code, found) = doctor("http://127.0.0.1:9", &[("TOLLGATE_MAX_BODY", "lots")], &[]);
    assert_eq!((code, found.len(), grades(&found, "config")), (2, 1, vec!["wrong"]));
    // A store that is away.
    let variables = [("TOLLGATE_REPLICAS_STORE", "redis://127.0.0.1:9")];
    let (code, found) = doctor("http://127.0.0.1:9", &variables, &[]);
    assert_eq!((code, grades(&found, "store")), (1, vec!["wrong"]), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_asked_could_run_a_model() {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let seen = asked.clone();
    let answer = move |method: Method, uri: Uri| {
        seen.lock().unwrap().push(format!("{method} {}", uri.path()));
        async { (StatusCode::UNAUTHORIZED, "{}") }
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await });
    let (code, found) = doctor(&format!("http://{address}"), &[("TOLLGATE_ACCOUNT_ANALYTICS", "true")], &[]);
    assert_eq!((code, grades(&found, "token"), grades(&found, "permissions")), (1, vec!["wrong"], vec!["skipped"]));
    let v4 = "/client/v4";
    let all = [
        "GET /".to_owned(),
        format!("GET {v4}/accounts/acc/ai/models/search"),
        format!("GET {v4}/user/tokens/verify"),
        format!("GET {v4}/accounts/acc/tokens/verify"),
    ];
    assert_eq!(*asked.lock().unwrap(), all);
}
