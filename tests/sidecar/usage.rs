//! What `tollgate usage` says of calls that really ran: each form of it adds up to the receipts.

use std::process::Command;

use serde_json::{Value, json};
use tollgate::layers::identify::keys::{Key, sha256};
use tollgate::neurons::Neurons;
use tollgate::sidecar::Sidecar;

use crate::support::{LLAMA, Receipts, client, command, config, tool, vendor};

/// Some calls of two keys on two models, recorded; the database, and what they cost together.
async fn ran(directory: &tempfile::TempDir) -> (std::path::PathBuf, Neurons) {
    let (vendor, path) = (vendor(), directory.path().join("t.db"));
    let mut config = config(&vendor.base_url());
    config.records.path = Some(path.clone());
    config.keys = ["red, team", "blue"].map(|name| Key::new(name, sha256(name))).to_vec();
    let receipts = Receipts::default();
    let variables = vec![("CLOUDFLARE_API_TOKEN".to_owned(), "t".to_owned())];
    let sidecar = Sidecar::start(config, &variables, vec![std::sync::Arc::new(receipts.clone())]).unwrap();
    let client = client();
    for n in 0..6 {
        let key = if n % 3 == 0 { "blue" } else { "red, team" };
        let model = if n % 2 == 0 { LLAMA } else { "@cf/meta/llama-3.2-3b-instruct" };
        let url = format!("http://{}/run/{model}", sidecar.listen());
        let body = json!({"prompt": format!("tale {n}"), "max_tokens": 20}).to_string();
        let reply = client.post(url).bearer_auth(key).body(body).send().await.unwrap();
        assert_eq!(reply.status(), 200);
        reply.bytes().await.unwrap();
    }
    let spent = receipts.after(6).await.iter().map(|facts| facts.cost.neurons).sum();
    sidecar.join().unwrap();
    (path, spent)
}

fn usage(path: &std::path::Path, arguments: &[&str]) -> String {
    let output = command().arg("usage").args(arguments).env("TOLLGATE_RECORDS_PATH", path).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn every_form_of_usage_adds_up_to_what_was_spent() {
    let directory = tempfile::tempdir().unwrap();
    let (path, spent) = ran(&directory).await;
    let table = usage(&path, &[]);
    assert!(table.contains(&format!("6 calls, {spent} neurons")), "{table}");
    for by in ["day", "month", "model", "key", "account", "key,model", "month,key,model"] {
        for span in [&["--since", "12h"][..], &["--time-zone", "Asia/Kolkata"]] {
            let lines: Value = serde_json::from_str(&usage(&path, &[&["--json", "--by", by], span].concat())).unwrap();
            let lines = lines.as_array().unwrap();
            let sum: f64 = lines.iter().map(|line| line["neurons"].as_f64().unwrap()).sum();
            assert!((sum - spent.as_f64()).abs() < 1e-6, "{by}: {sum} of {spent}");
            assert!(by.split(',').all(|name| lines[0][name].is_string()), "{lines:?}");
        }
    }
    let csv = usage(&path, &["--csv", "--by", "key,model"]);
    assert!(csv.starts_with("key,model,calls,") && csv.contains("\n\"red, team\",@cf/"), "{csv}");
    let markdown = usage(&path, &["--markdown", "--by", "key"]);
    assert!(markdown.lines().any(|line| line.starts_with("| blue | 2 | 0 |")), "{markdown}");
    assert!(usage(&path, &["--month", "2020-01"]).contains("0 calls"));
    let wrong = command().args(["usage", "--by", "key,key"]).env("TOLLGATE_RECORDS_PATH", &path).output().unwrap();
    assert_eq!(wrong.status.code(), Some(2));
}

/// The sum of a column, in whole units of the twelfth decimal.
fn sum(csv: &str, column: &str) -> i128 {
    let mut rows = csv.lines();
    let place = rows.next().unwrap().split(',').position(|name| name == column).unwrap();
    // Of what has commas, only the last columns come before those that are ours.
    let figure = |row: &str| {
        let (whole, decimals) = row.split(',').nth(place).unwrap().split_once('.').unwrap().to_owned();
        format!("{whole}{decimals:0<12}").parse::<i128>().unwrap()
    };
    rows.map(figure).sum()
}

#[tokio::test]
async fn keys_are_summed_up_by_their_labels() {
    let directory = tempfile::tempdir().unwrap();
    let (path, spent) = ran(&directory).await;
    let key = |name: &str, labels: &str| format!("[[keys]]\nname = {name:?}\nsha256 = {:?}\n{labels}\n", sha256(name));
    let keys = key("red, team", "labels = { team = \"search\" }") + &key("blue", "");
    let config = directory.path().join("tollgate.toml");
    std::fs::write(&config, format!("keys_path = \"\"\n[records]\npath = {path:?}\n{keys}")).unwrap();
    let told_by = |arguments: &[&str]| {
        let variables = [("TOLLGATE_CONFIG", &config), ("TOLLGATE_RECORDS_PATH", &path)];
        command().args(arguments).envs(variables).output().unwrap()
    };
    let told = |arguments: &[&str]| {
        let output = told_by(arguments);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let lines: Value = serde_json::from_str(&told(&["usage", "--by", "label.team", "--json"])).unwrap();
    let calls =
        |name: &str| lines.as_array().unwrap().iter().find(|line| line["team"] == name).unwrap()["calls"].clone();
    assert_eq!((calls("search"), calls("")), (json!(4), json!(2)));
    assert!(told(&["usage", "--by", "label.team,model", "--csv"]).starts_with("team,model,calls,"));
    let page = told(&["report", "--by", "label.team", "--since", "12h"]);
    assert!(page.contains("<h3>search</h3>") && page.contains(&format!("<td>{spent}</td>")), "{page}");
    let tags = r#""{""key"":""red, team"",""team"":""search""}""#;
    assert!(told(&["usage", "--format", "focus"]).contains(tags), "labels are tags");
    let wrong = told_by(&["usage", "--by", "team"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("label.team"));
}

#[tokio::test]
async fn a_replay_of_what_really_ran_is_what_ran() {
    let directory = tempfile::tempdir().unwrap();
    let (path, spent) = ran(&directory).await;
    let what_if = |arguments: &[&str]| {
        let output = command().arg("what-if").args(arguments).env("TOLLGATE_RECORDS_PATH", &path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let change = format!("{LLAMA}=@cf/meta/llama-3.2-3b-instruct");
    let told: Value = serde_json::from_str(&what_if(&["--since", "12h", "--model", &change, "--json"])).unwrap();
    assert_eq!(told["recorded"]["neurons"], told["replayed"]["neurons"]);
    assert_eq!(told["recorded"]["neurons"], json!(spent.as_f64()));
    assert_eq!((&told["replayed"]["ended_the_same"], &told["replayed"]["without_bound"]), (&json!(6), &json!(0)));
    assert!(told["changed"]["neurons"].as_f64() > told["replayed"]["neurons"].as_f64(), "{told}");
    assert_eq!(told["changed"]["models"].as_object().unwrap().len(), 1);
    let words = what_if(&["--since", "12h", "--budget", "all=0.001 neurons/day"]);
    assert!(words.contains("the budget \"all\" refuses 6 calls"), "{words}");
}

/// Fails where a Parquet file says other things than a CSV file, or has texts where figures and moments are meant.
const SAME_TABLE: &str = r#"
import csv, sys
from datetime import datetime
from decimal import Decimal
import pyarrow as pa, pyarrow.parquet as pq
table = pq.read_table(sys.argv[1])
rows = list(csv.DictReader(open(sys.argv[2])))
assert table.column_names == list(rows[0]) and table.num_rows == len(rows) > 0, table.schema
types = {"BilledCost": pa.decimal128(38, 12), "x_Calls": pa.int64(), "ChargePeriodStart": pa.timestamp("ms", tz="UTC"), "SkuId": pa.string()}
for name, kind in types.items():
    assert table.schema.field(name).type == kind, table.schema.field(name)
read = {Decimal: Decimal, int: int, str: str, datetime: datetime.fromisoformat}
for kept, told in zip(table.to_pylist(), rows):
    for name, value in kept.items():
        assert value is None and told[name] == "" or value == read[type(value)](told[name]), (name, value, told[name])
"#;

#[tokio::test]
async fn cost_tools_can_read_it() {
    let directory = tempfile::tempdir().unwrap();
    let (path, spent) = ran(&directory).await;
    let csv = usage(&path, &["--format", "focus"]);
    for column in ["BilledCost", "EffectiveCost", "ListCost", "ContractedCost"] {
        assert_eq!(sum(&csv, column), i128::from(spent.micro()) * 11, "{column}");
    }
    let file = directory.path().join("focus.csv");
    std::fs::write(&file, &csv).unwrap();
    let Some(validator) = tool("TOLLGATE_TEST_FOCUS", "the FOCUS specification's own validator") else { return };
    let table = directory.path().join("focus.parquet");
    assert_eq!(usage(&path, &["--format", "focus", "--parquet", table.to_str().unwrap()]), "");
    let python = std::path::Path::new(&validator).with_file_name("python");
    let read = Command::new(python).args(["-c", SAME_TABLE]).args([&table, &file]).output().unwrap();
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let checked = Command::new(validator).args(["--data-file", file.to_str().unwrap()]).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout) + String::from_utf8_lossy(&checked.stderr);
    // Two of the validator's rules (1.0.0) fail on any file: one misses a list of currencies that its package does not ship,
    // the other a column that 1.0 does away with.
    let own_faults = ["BillingCurrency_IsCurrencyCode failed:", "SkuPriceId_Nullable failed:"];
    let failed: Vec<_> = said.lines().filter(|line| line.ends_with(" failed:") && !own_faults.contains(line)).collect();
    assert!(said.contains("Validation") && failed.is_empty(), "{said}\n{csv}");
}

#[tokio::test]
async fn a_report_is_a_page_that_adds_up_and_loads_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (path, spent) = ran(&directory).await;
    let report = |arguments: &[&str]| {
        let output = command().arg("report").args(arguments).env("TOLLGATE_RECORDS_PATH", &path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let page = report(&["--since", "12h", "--by", "key"]);
    // In all, by day and by key.
    assert_eq!(page.matches(&format!("<td>{spent}</td>")).count(), 3, "{page}");
    assert!(page.contains("<h3>red, team</h3>") && page.contains("<rect"), "{page}");
    for loading in ["<script", "<link", "src=", "href=", "url(", "@import"] {
        assert!(!page.contains(loading), "{loading}");
    }
    let file = directory.path().join("report.html");
    assert_eq!(report(&["--since", "12h", "-o", file.to_str().unwrap()]), "");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), page);
    assert!(report(&["--csv"]).starts_with("key,day,model,calls,"));
}

#[tokio::test]
async fn several_gates_records_add_up_and_none_is_counted_twice() {
    let directories = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let (one, spent_at_one) = ran(&directories[0]).await;
    let (other, spent_at_other) = ran(&directories[1]).await;
    let spent = spent_at_one + spent_at_other;
    let run = |arguments: &[&str]| {
        let files = ["--records", one.to_str().unwrap(), "--records", other.to_str().unwrap()];
        let output = command().args(arguments).args(files).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(run(&["usage"]).contains(&format!("12 calls, {spent} neurons")), "{}", run(&["usage"]));
    let lines: Value = serde_json::from_str(&run(&["usage", "--json", "--by", "key,model"])).unwrap();
    let sum: f64 = lines.as_array().unwrap().iter().map(|line| line["neurons"].as_f64().unwrap()).sum();
    assert!((sum - spent.as_f64()).abs() < 1e-6, "{sum} of {spent}");
    let calls: Vec<_> = lines.as_array().unwrap().iter().map(|line| line["calls"].as_u64().unwrap()).collect();
    assert_eq!(calls, [2, 2, 4, 4], "{lines}");
    let logs = run(&["logs", "--json", "-n", "100"]);
    let ids: std::collections::BTreeSet<_> =
        logs.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].to_string()).collect();
    assert_eq!((logs.lines().count(), ids.len()), (12, 12), "{logs}");
    let oldest = ids.first().unwrap().trim_matches('"');
    assert!(run(&["logs", "--id", oldest]).contains(oldest));
    assert!(run(&["report", "--since", "12h"]).contains(&format!("<td>{spent}</td>")));
    assert!(run(&["advise"]).starts_with(&format!("{spent} neurons were spent")), "{}", run(&["advise"]));
    let replayed: Value = serde_json::from_str(&run(&["what-if", "--since", "12h", "--json"])).unwrap();
    assert_eq!(replayed["replayed"]["ended_the_same"], 12, "{replayed}");
    assert_eq!(replayed["replayed"]["neurons"], json!(spent.as_f64()), "{replayed}");
    let copy = directories[1].path().join("copy.db");
    std::fs::copy(&one, &copy).unwrap();
    for (files, what) in [
        ([&one, &one], "name each file once"),
        ([&one, &copy], "name each file once"),
        ([&one, &directories[0].path().join("none.db")], "is not there"),
    ] {
        let output =
            command().args(["usage", "--records"]).arg(files[0]).arg("--records").arg(files[1]).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(what), "{said}");
    }
}

#[tokio::test]
async fn what_other_gates_have_recorded_is_read_by_their_admin_ports() {
    let (vendor, client, places) = (vendor(), client(), [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()]);
    let variables = vec![("CLOUDFLARE_API_TOKEN".to_owned(), "t".to_owned())];
    let gate = |place: &tempfile::TempDir| {
        let mut config = config(&vendor.base_url());
        config.records.path = Some(place.path().join("t.db"));
        config.records.payloads = true;
        config.admin_token = Some("look".to_owned().into());
        Sidecar::start(config, &variables, Vec::new()).unwrap()
    };
    let gates = places.each_ref().map(gate);
    for n in 0..5 {
        let url = format!("http://{}/run/{LLAMA}", gates[n % 2].listen());
        let body = json!({"prompt": format!("tale {n}"), "max_tokens": 20}).to_string();
        assert_eq!(client.post(url).bearer_auth("t").body(body).send().await.unwrap().status(), 200);
    }
    let ask = |arguments: &[&str], peer: &str, token: &str| {
        let peers = format!("[{peer:?}]");
        let mut command = command();
        command.env("TOLLGATE_RECORDS_PATH", places[0].path().join("t.db")).env("TOLLGATE_REPLICAS_PEERS", peers);
        command.env("TOLLGATE_ADMIN_TOKEN", token).args(arguments).output().unwrap()
    };
    let (peer, own) = (gates[1].admin().to_string(), gates[0].admin().to_string());
    let copy = client.get(format!("http://{own}/records")).bearer_auth("look").send().await.unwrap();
    assert_eq!(copy.status(), 200);
    let copy = copy.bytes().await.unwrap();
    assert!(copy.starts_with(b"SQLite format 3") && !copy.windows(6).any(|words| words == b"tale 0"));
    let read = |arguments: &[&str]| {
        let output = ask(arguments, &peer, "look");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let spent: f64 = vendor.counts().neurons().as_f64();
    let lines: Value = serde_json::from_str(&read(&["usage", "--json", "--by", "account"])).unwrap();
    assert_eq!(lines[0]["calls"], 5, "{lines}");
    assert!((lines[0]["neurons"].as_f64().unwrap() - spent).abs() < 1e-6, "{lines} of {spent}");
    let logs = read(&["logs", "--json"]);
    let ids: std::collections::BTreeSet<_> =
        logs.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["id"].to_string()).collect();
    assert_eq!((logs.lines().count(), ids.len()), (5, 5), "{logs}");
    assert!(read(&["advise"]).contains(" neurons were spent"), "{}", read(&["advise"]));
    // Its own records are no other gate's, a wrong token opens nothing, and a gate that is not there is missed.
    for (peer, token, what) in [
        (&*own, "look", "name each file once"),
        (&*peer, "guess", "it says 401"),
        ("127.0.0.1:1", "look", "127.0.0.1:1"),
    ] {
        let output = ask(&["usage"], peer, token);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(1) && said.contains(what), "{what}: {said}");
    }
}
