//! The commands, as a person runs them.

use std::io::Write;
use std::process::Stdio;

use crate::support::command;

fn run(arguments: &[&str], stdin: &str) -> (i32, String, String) {
    let mut child =
        command().args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn config(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file
}

#[test]
fn a_wrong_config_exits_2_with_file_line_and_column() {
    for (text, place, word) in [
        ("listen = \"127.0.0.1:1\"\n[upstream]\nbase_ulr = \"x\"\n", ":3:1", "base_ulr"),
        ("shutdown_timeout = \"5 bananas\"\n", ":1:20", "unit"),
        ("[models.\"@cf/a/b\"]\nrequests_per_minute = 0\n", ":2:23", ""),
        ("[[budgets]]\nname = \"a\"\nlimit = \"1 USD\"\non_exceeded = \"rejct\"\n", ":4:15", "`reject`"),
    ] {
        let file = config(text);
        let path = file.path().to_str().unwrap();
        for command in ["check", "serve"] {
            let (code, _, stderr) = run(&[command, "--config", path], "");
            assert_eq!(code, 2, "{stderr}");
            assert!(stderr.contains(&format!("{path}{place}")) && stderr.contains(word), "{stderr}");
        }
    }
    assert_eq!(run(&["serve", "--config", "no-such.toml"], "").0, 2);
    assert_eq!(run(&["frobnicate"], "").0, 2);
}

#[test]
fn what_cannot_be_together_is_told_before_it_is_served() {
    let budget = "[[budgets]]\nname = \"all\"\nlimit = \"5 USD\"\n";
    for (text, place, word) in [
        (format!("{budget}{budget}"), "[[budgets]]", "twice"),
        (format!("{budget}keys = [\"teem\"]\n"), "[[budgets]]", "\"teem\""),
        ("[limits.keys.teem]\nrequests = 5\n".to_owned(), "[limits.keys]", "\"teem\""),
        ("[[keys]]\nname = \"team\"\nsha256 = \"zz\"\n".to_owned(), "[[keys]]", "keys new"),
    ] {
        let file = config(&text);
        for command in ["check", "serve"] {
            let (code, _, stderr) = run(&[command, "--config", file.path().to_str().unwrap()], "");
            assert_eq!(code, 2, "{stderr}");
            assert!(stderr.contains(place) && stderr.contains(word), "{stderr}");
        }
    }
}

#[test]
fn check_shows_what_is_in_force() {
    let file = config("workers = 3\n");
    let (code, stdout, _) = run(&["check", "--config", file.path().to_str().unwrap()], "");
    assert_eq!(code, 0);
    assert!(stdout.contains("workers = 3") && stdout.contains("first_byte_timeout = \"4m 10s\""), "{stdout}");
}

#[test]
fn models_lists_each_with_its_task_and_prices() {
    let (code, stdout, _) = run(&["models"], "");
    assert_eq!(code, 0);
    assert!(stdout.contains("@cf/meta/llama-3.2-1b-instruct"), "{stdout}");
    let (_, stdout, _) = run(&["models", "--json"], "");
    let models: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(models.as_object().map(|m| m.len()).or(models.as_array().map(Vec::len)), Some(81));
}

#[test]
fn estimate_tells_neurons_from_a_body() {
    let body = r#"{"messages": [{"role": "user", "content": "Why is the sky blue?"}], "max_tokens": 100}"#;
    let (code, stdout, stderr) = run(&["estimate", "--model", "@cf/meta/llama-3.2-1b-instruct"], body);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("neurons"), "{stdout}");
    let (code, _, stderr) = run(&["estimate", "--model", "@cf/meta/llama-3.2-1b-instruct"], "{");
    assert!(code != 0 && stderr.contains("JSON"), "{code} {stderr}");
}

#[test]
fn the_demo_ends_by_itself_and_tells_what_it_cost() {
    let temporary = tempfile::tempdir().unwrap();
    let demo = ["demo", "--for", "2s", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    let output = command().args(demo).env("TMPDIR", temporary.path()).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_dir(temporary.path()).unwrap().count(), 0, "the demo left its records behind");
    let total = stdout.lines().last().unwrap();
    assert!(total.starts_with("total") && !total.contains(" 0.000000 "), "{stdout}");
    assert!(stdout.contains("@cf/meta/llama-3.1-8b-instruct-fp8-fast"), "{stdout}");
}

#[test]
fn the_readmes_config_is_one() {
    let readme = include_str!("../../README.md");
    let blocks = readme.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let blocks: Vec<_> = blocks.collect();
    assert_eq!(blocks.len(), 1, "one config, with every table in it");
    // What is only there to be taken in is taken in.
    let all = blocks[0]
        .replace("# [[keys]]", "[[keys]]")
        .replace("\n# ", "\n")
        .replace("\"…\"", &format!("{:?}", "0".repeat(64)));
    for config in [blocks[0], &all] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, config.as_bytes()).unwrap();
        let mut command = command();
        command.args(["check", "--config"]).arg(file.path()).env("CLOUDFLARE_API_TOKEN", "t");
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
