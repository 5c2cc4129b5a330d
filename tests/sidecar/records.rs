//! What is kept of calls over real sockets: bodies where they are asked for, and records also when the disk is full.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use tollgate::sidecar::config::Config;

use crate::support::{Gate, LLAMA, Process, ask, client, vendor};

fn keeping(directory: &tempfile::TempDir, change: impl FnOnce(&mut Config)) -> Gate {
    Gate::with(vendor(), |config| {
        config.records.path = Some(directory.path().join("t.db"));
        change(config);
    })
}

/// What the admin port says of a call, once its record is there.
async fn told(gate: &Gate, id: &str, part: &str) -> reqwest::Response {
    let url = format!("http://{}/logs/{id}", gate.sidecar.admin());
    for _ in 0..1000 {
        if gate.client.get(&url).send().await.unwrap().status() == 200 {
            return gate.client.get(format!("{url}/{part}")).send().await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("no record of {id} after 5 s");
}

fn id(reply: &reqwest::Response) -> String {
    reply.headers()["cf-aig-log-id"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn bodies_are_kept_where_a_call_asks_for_it_and_are_what_went_by() {
    let directory = tempfile::tempdir().unwrap();
    let gate = keeping(&directory, |_| {});
    for body in [json!({"prompt": "Hello"}), json!({"prompt": "Hello", "stream": true}), json!({"messages": 7})] {
        let call = gate.post(&format!("/run/{LLAMA}"), &body).header("cf-aig-collect-log-payload", "true");
        let reply = call.send().await.unwrap();
        let (id, kind) = (id(&reply), reply.headers()["content-type"].clone());
        let answer = reply.bytes().await.unwrap();
        let request = told(&gate, &id, "request").await;
        assert_eq!(request.headers()["content-type"], "application/json");
        assert_eq!(request.json::<Value>().await.unwrap(), body);
        let response = told(&gate, &id, "response").await;
        assert_eq!(response.headers()["content-type"], kind);
        assert_eq!(response.bytes().await.unwrap(), answer, "{body}");
    }
    for (header, value) in [("x-nothing", "1"), ("cf-aig-collect-log-payload", "false")] {
        let call = gate.post(&format!("/run/{LLAMA}"), &json!({"prompt": "Hello"})).header(header, value);
        let reply = told(&gate, &id(&call.send().await.unwrap()), "request").await;
        assert_eq!(reply.status(), 404);
        assert!(reply.text().await.unwrap().contains("[records] payloads"));
    }
}

#[tokio::test]
async fn what_a_caller_thinks_of_an_answer_is_taken_at_once_and_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let gate = keeping(&directory, |_| {});
    let logs = format!("http://{}/logs", gate.sidecar.admin());
    let mut judged = Vec::new();
    for (n, feedback) in [1, -1, 1].into_iter().enumerate() {
        let reply = gate.run(LLAMA, &json!({"prompt": format!("call {n}")})).await;
        let id = id(&reply);
        reply.bytes().await.unwrap();
        gate.receipts.after(n + 1).await;
        let verdict = json!({"feedback": feedback, "score": 70, "metadata": {"by": "a person"}});
        let patched = gate.client.patch(format!("{logs}/{id}")).json(&verdict).send().await.unwrap();
        assert_eq!(patched.status(), 200, "{}", patched.text().await.unwrap());
        judged.push(id);
    }
    let bad = gate.client.get(format!("{logs}?feedback=-1")).send().await.unwrap().json::<Value>().await.unwrap();
    assert_eq!((&bad["result"][0]["id"], &bad["result_info"]["total_count"]), (&judged[1].clone().into(), &1.into()));
    for wrong in [json!({"feedback": 2}), json!({"score": 101}), json!({"metadata": {"a": {}}}), json!({"nonsense": 1})]
    {
        let refused = gate.client.patch(format!("{logs}/{}", judged[0])).json(&wrong).send().await.unwrap();
        assert_eq!(refused.status(), 400, "{wrong}");
    }
}

#[tokio::test]
async fn a_long_body_is_cut_and_that_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let gate = keeping(&directory, |config| {
        (config.records.payloads, config.records.max_payload) = (true, bytesize::ByteSize::b(20));
    });
    let body = json!({"prompt": "a prompt of more than twenty bytes"}).to_string();
    let reply = gate.run(LLAMA, &serde_json::from_str(&body).unwrap()).await;
    let request = told(&gate, &id(&reply), "request").await;
    assert_eq!(request.headers()["x-tollgate-cut-from-bytes"], body.len().to_string());
    assert_eq!(request.text().await.unwrap(), body[..20]);
}

#[tokio::test]
async fn the_log_is_listed_by_filter_and_page_with_a_total_and_deleted_with_its_bodies() {
    let directory = tempfile::tempdir().unwrap();
    let gate = keeping(&directory, |config| config.records.payloads = true);
    let mut last = String::new();
    for n in 0..7 {
        // The first two are the same, so one comes from the cache; the last is no good.
        let model = if n == 6 { "@cf/nobody/knows" } else { LLAMA };
        let reply = gate.run(model, &json!({"prompt": format!("call {}", n.max(1)), "temperature": 0})).await;
        last = id(&reply);
        reply.bytes().await.unwrap();
    }
    told(&gate, &last, "request").await;
    let logs = format!("http://{}/logs", gate.sidecar.admin());
    let get = async |query: &str| {
        gate.client.get(format!("{logs}?{query}")).send().await.unwrap().json::<Value>().await.unwrap()
    };
    for (query, total) in [("", 7), ("success=true", 6), ("success=false", 1), ("cached=true", 1), ("cached=false", 6)]
    {
        let page = get(&format!("per_page=2&{query}")).await;
        assert_eq!(page["result_info"]["total_count"], total, "{query}: {page}");
        assert_eq!(page["result"].as_array().unwrap().len(), total.min(2), "{query}: {page}");
    }
    let wrong = ["per_page=x", "per_page=0", "per_page=51", "page=0", "page=99999", "success=perhaps", "nonsense=1"];
    for wrong in wrong.into_iter().chain(["start_date=yesterday", "before=7", "outcome=perhaps", "status=ok"]) {
        let reply = gate.client.get(format!("{logs}?{wrong}")).send().await.unwrap();
        assert_eq!(reply.status(), 400, "{wrong}");
        let (reply, name) = (reply.text().await.unwrap(), wrong.split('=').next().unwrap());
        assert!(reply.contains(name), "{wrong}: {reply}");
    }
    let page = gate.client.delete(format!("{logs}?page=2&per_page=2")).send().await.unwrap();
    assert_eq!(page.status(), 400, "a page of the log was asked to be deleted, and all of it was");
    let deleted = gate.client.delete(format!("{logs}?cached=true")).send().await.unwrap();
    assert_eq!(deleted.json::<Value>().await.unwrap()["result"]["deleted"], 1);
    assert_eq!(gate.client.delete(&logs).send().await.unwrap().status(), 200);
    gate.sidecar.join().unwrap();
    let database = rusqlite::Connection::open(directory.path().join("t.db")).unwrap();
    let left = |table: &str| {
        database.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get::<_, i64>(0)).unwrap()
    };
    assert_eq!((left("records"), left("payloads")), (0, 0));
}

fn metric(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.split(' ').next() == Some(name));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("no {name} in {text}"))
}

#[tokio::test]
async fn a_full_disk_loses_no_call_and_no_record_and_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("t.db").display().to_string();
    let vendor = vendor();
    // No file may grow over 400 KiB, as if the disk ended there; a program hears of it as of a full disk.
    let limit = "trap '' XFSZ; ulimit -S -f 400; exec \"$@\"";
    let variables = [("TOLLGATE_RECORDS_PATH", &*path), ("TOLLGATE_RECORDS_PAYLOADS", "true")];
    let process = Process::serve_under(&["bash", "-c", limit, "bash"], &vendor.base_url(), &variables);
    let (client, admin) = (client(), format!("{}/metrics", process.admin));
    let metrics = async || client.get(&admin).send().await.unwrap().text().await.unwrap();
    let mut calls = 0;
    while metric(&metrics().await, "tollgate_records_failures_total") < 2.0 {
        calls += 1;
        assert!(calls < 500, "the disk never got full");
        let body = json!({"prompt": "x".repeat(50_000), "max_tokens": 2});
        let reply = ask(&client, &format!("{}/run/{LLAMA}", process.listen), &body).send().await.unwrap();
        assert_eq!(reply.status(), 200);
    }
    let text = metrics().await;
    assert!(metric(&text, "tollgate_records_waiting") > 0.0 && metric(&text, "tollgate_records_lag_seconds") > 0.0);
    // Someone makes room.
    let pid = process.child.id().to_string();
    assert!(Command::new("prlimit").args(["--pid", &pid, "--fsize=unlimited"]).status().unwrap().success());
    for n in 0.. {
        let text = metrics().await;
        // The lag ends with the write that takes the last of them.
        if metric(&text, "tollgate_records_waiting") == 0.0 && metric(&text, "tollgate_records_lag_seconds") == 0.0 {
            assert_eq!(metric(&text, "tollgate_records_written_total"), f64::from(calls), "{text}");
            assert_eq!(metric(&text, "tollgate_records_lost_total"), 0.0);
            break;
        }
        assert!(n < 2_000, "the records are not written although there is room: {text}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
