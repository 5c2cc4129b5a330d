//! What an operator is told: what is said of a call, of a budget and of a config is so.

use std::io::Write;
use std::time::Duration;

use serde_json::{Value, json};
use tollgate::receipt::Outcome;
use tollgate::sidecar::config::Config;

use crate::support::{GEMMA, Gate, LLAMA, command, start, vendor};

fn one_in_five_seconds() -> Gate {
    let vendor = vendor();
    Gate::with(vendor, |config| {
        let limit = format!("[limits.models.{LLAMA:?}]\nrequests = 1\nper = \"5s\"\n[limits]\nmax_wait = \"30s\"\n");
        config.limits = Config::parse(&limit, "t").unwrap().limits;
    })
}

#[tokio::test]
async fn a_call_whose_own_deadline_ends_in_the_queue_is_told_as_queued() {
    let gate = one_in_five_seconds();
    let body = json!({"prompt": "x"});
    assert_eq!(gate.run(LLAMA, &body).await.status(), 200);
    let late = gate.post(&format!("/run/{LLAMA}"), &json!({"prompt": "y"})).header("cf-aig-request-timeout", "300");
    let late = late.send().await.unwrap();
    let status = late.status();
    let told: Value = late.json().await.unwrap();
    assert_eq!((status.as_u16(), &told["errors"][0]["type"]), (504, &"queue_timeout".into()), "{told}");
    let facts = gate.receipts.after(2).await.remove(1);
    assert_eq!((facts.outcome, facts.attempts.len()), (Outcome::RateLimited, 0));
    assert!(facts.waited >= Duration::from_millis(290), "waited {:?}", facts.waited);
    let own = facts.overhead().unwrap();
    assert!(
        own + Duration::from_millis(250) < facts.duration,
        "the gate's own time is {own:?} of {:?}",
        facts.duration
    );
    let metrics = gate.metrics().await;
    let line = format!("tollgate_rate_limit_rejected_total{{model=\"{LLAMA}\",scope=\"deadline\"}} 1");
    assert!(metrics.contains(&line), "{metrics}");
}

#[tokio::test]
async fn a_budgets_cheaper_model_is_told_by_its_step_and_counted() {
    let gate = Gate::with(vendor(), |config| {
        let text = format!(
            "[[budgets]]\nname = \"dear\"\nlimit = \"0.001 neurons\"\nmodels = [{GEMMA:?}]\non_exceeded = {LLAMA:?}\n"
        );
        config.budgets = Config::parse(&text, "t").unwrap().budgets;
    });
    let reply = gate.run(GEMMA, &json!({"prompt": "x", "max_tokens": 5})).await;
    assert_eq!((reply.status().as_u16(), &reply.headers()["cf-aig-step"]), (200, &"1".parse().unwrap()));
    drop(reply);
    let facts = gate.receipts.after(1).await.remove(0);
    assert_eq!((&*facts.asked.id, &*facts.model.id, facts.step), (GEMMA, LLAMA, 1));
    let metrics = gate.metrics().await;
    for line in
        ["tollgate_budget_diverted_total{budget=\"dear\"} 1", "tollgate_budget_rejected_total{budget=\"dear\"} 0"]
    {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

#[tokio::test]
async fn an_upstream_that_is_not_there_has_none_of_the_vendors_codes() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (sidecar, _receipts) = start(crate::support::config(&format!("http://{nobody}")));
    let url = format!("http://{}/run/{LLAMA}", sidecar.listen());
    let reply = crate::support::ask(&crate::support::client(), &url, &json!({"prompt": "x"})).send().await.unwrap();
    let told: Value = reply.json().await.unwrap();
    assert_eq!((&told["errors"][0]["code"], &told["errors"][0]["type"]), (&502.into(), &"upstream_unreachable".into()));
}

#[test]
fn who_finds_the_port_taken_leaves_no_file_behind() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let place = tempfile::tempdir().unwrap();
    let mut serve = command();
    serve.current_dir(place.path()).env_remove("TOLLGATE_RECORDS_PATH").env_remove("TOLLGATE_CATALOGUE_PATH");
    serve.env_remove("TOLLGATE_KEYS_PATH");
    let output = serve.args(["serve", "--listen", &taken.local_addr().unwrap().to_string()]).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    let left: Vec<_> = std::fs::read_dir(place.path()).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn check(text: &str, arguments: &[&str]) -> (i32, String, String) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let mut check = command();
    check.args(["check", "--config"]).arg(file.path()).args(arguments).env("CLOUDFLARE_API_TOKEN", "t");
    let output = check.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn check_finds_slips_of_the_pen_and_open_doors() {
    for level in ["inof", "info,tollgate=loud", ""] {
        let (code, _, said) = check(&format!("[log]\nlevel = {level:?}\n"), &[]);
        assert!(code == 2 && said.contains(":2:9: ") && said.contains("no level"), "{level}: {code} {said}");
    }
    assert_eq!(check("[log]\nlevel = \"info,tollgate::layers=debug\"\n", &[]).0, 0);
    let hash = tollgate::layers::identify::keys::sha256("k");
    let key = format!("[[keys]]\nname = \"a\"\nsha256 = {hash:?}\nmodels = [\"@cf/meta/lama\"]\n");
    let budget = "[[budgets]]\nname = \"b\"\nlimit = \"1 USD\"\non_exceeded = \"@cf/meta/lama\"\n";
    for (text, place) in [(&*key, "[[keys]] \"a\" models"), (budget, "[[budgets]] \"b\" on_exceeded")] {
        let (code, shown, said) = check(text, &[]);
        assert!(code == 0 && said.contains(place) && said.contains("lama"), "{code} {said}");
        assert!(shown.contains(&format!("# warning: {place}")), "{shown}");
        let (_, shown, _) = check(text, &["--json"]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        assert!(shown["warnings"][0].as_str().unwrap().contains(place), "{shown}");
    }
    for text in ["listen = \"0.0.0.0:1\"\n", "admin = \"0.0.0.0:1\"\n"] {
        let (code, _, said) = check(text, &[]);
        assert!(code == 2 && said.contains("anybody who reaches this address"), "{code} {said}");
    }
}

#[tokio::test]
async fn a_call_is_found_by_its_id_its_callers_and_its_vendors() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("t.db");
    let gate = Gate::with(vendor(), |config| config.records.path = Some(path.clone()));
    let asked = gate.post(&format!("/run/{LLAMA}"), &json!({"prompt": "x"})).header("cf-aig-event-id", "mine");
    let id = asked.send().await.unwrap().headers()["cf-aig-log-id"].to_str().unwrap().to_owned();
    gate.run(LLAMA, &json!({"prompt": "another"})).await;
    let vendor_id = gate.receipts.after(2).await[0].vendor_id.clone().unwrap();
    let by_api = format!("http://{}/logs?vendor_id={vendor_id}", gate.sidecar.admin());
    let mut rows = Value::Null;
    for _ in 0..500 {
        rows = gate.client.get(&by_api).send().await.unwrap().json().await.unwrap();
        if rows["result_info"]["count"] == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(rows["result"][0]["id"], id, "{rows}");
    for (flag, value, code) in [
        ("--id", &*id, 0),
        ("--event-id", "mine", 0),
        ("--vendor-id", &vendor_id, 0),
        ("--id", "0123456789abcdef0123456789abcdef", 1),
        ("--id", "zz", 2),
        ("--since", "yesterday-ish", 2),
    ] {
        let mut logs = command();
        logs.args(["logs", "--json", flag, value]).env("TOLLGATE_RECORDS_PATH", &path);
        let output = logs.output().unwrap();
        let (shown, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{flag} {value}: {said}");
        assert_eq!(shown.lines().count(), usize::from(code == 0), "{flag} {value}: {shown}");
        assert!(code != 0 || shown.contains(&id), "{flag}: {shown}");
    }
    let mut logs = command();
    logs.args(["logs", "--since", "1h"]).env("TOLLGATE_RECORDS_PATH", &path);
    assert_eq!(String::from_utf8(logs.output().unwrap().stdout).unwrap().lines().count(), 2);
}

#[test]
fn a_model_that_is_not_there_exits_alike_in_words_and_in_json() {
    for arguments in [&["models", "nosuch"][..], &["models", "nosuch", "--json"]] {
        assert_eq!(command().args(arguments).output().unwrap().status.code(), Some(1), "{arguments:?}");
    }
}
