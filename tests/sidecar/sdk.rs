//! Real SDKs through the sidecar. They are installed by `tests/all`; `cargo test` alone says that it leaves them out.

use std::path::Path;
use std::process::Command;

use tollgate::openai::Form;

use crate::harness;
use crate::support::{Gate, tool};

fn gate(v1: Form) -> Gate {
    harness::gate(|config| config.compat.v1 = v1)
}

/// Runs it, and fails with what it said.
fn run(command: &mut Command) {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    println!("{said}");
}

/// Runs a file of tests with node's own runner, beside the packages that are installed.
fn node_test(file: &str, variables: &[(&str, &str)]) {
    let Some(installed) = tool("TOLLGATE_TEST_NODE", &format!("tests/node/{file}")) else { return };
    let place = crate::support::node_place(Path::new(&installed));
    let mut node = Command::new(Path::new(&installed).join("node_modules/.bin/node"));
    run(node.args(["--test", file]).current_dir(place.path()).envs(variables.iter().copied()));
}

fn through(gate: &Gate, file: &str) {
    node_test(file, &[("TOLLGATE_URL", &gate.url(""))]);
}

#[test]
fn the_openai_python_client() {
    let Some(python) = tool("TOLLGATE_TEST_PYTHON", "the openai Python client") else { return };
    for v1 in [Form::OpenAi, Form::Vendor] {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/openai_client.py");
        run(Command::new(&python).arg(script).arg(gate(v1).url("/v1")));
    }
}

/// A script of `tests/clients/python`, unless its name is left out.
fn python_client(name: &str) {
    if std::env::var("TOLLGATE_TEST_WITHOUT").is_ok_and(|without| without.split(',').any(|part| part == name)) {
        eprintln!("left out: {name} (TOLLGATE_TEST_WITHOUT)");
        return;
    }
    let Some(python) = tool("TOLLGATE_TEST_CLIENTS", &format!("tests/clients/python/{name}.py")) else { return };
    let script = format!("{}/tests/clients/python/{name}.py", env!("CARGO_MANIFEST_DIR"));
    run(Command::new(&python).arg(script).arg(gate(Form::OpenAi).url("")));
}

#[test]
fn generated_calls_hold_before_openais_own_models() {
    python_client("openai_strict");
}

#[test]
fn langchains_own_suite_passes_as_it_does_without_a_gate() {
    let Some(python) = tool("TOLLGATE_TEST_CLIENTS", "LangChain's suite for makers of models") else { return };
    let (gate, script) =
        (Gate::start(), concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/python/provider_suite.py"));
    run(Command::new(&python).arg(script).args([gate.url(""), gate.vendor.base_url()]));
}

#[test]
fn langchain_for_javascript() {
    through(&gate(Form::OpenAi), "langchain.test.js");
}

#[test]
fn websockets_and_deepgrams_sdk_for_python() {
    python_client("sockets_client");
}

#[test]
fn ws_for_node() {
    through(&gate(Form::OpenAi), "sockets.test.js");
}

#[test]
fn tanstack_ai() {
    through(&gate(Form::Vendor), "tanstack.test.js");
}

#[test]
fn the_cloudflare_node_client() {
    through(&gate(Form::OpenAi), "cloudflare.test.js");
}

#[test]
fn the_vercel_ai_sdk() {
    through(&gate(Form::OpenAi), "ai.test.js");
}

#[test]
fn the_dashboards_fit_grafanas_schema_and_the_compose_file_its_paths() {
    node_test("dashboards.test.js", &[("TOLLGATE_DASHBOARDS", concat!(env!("CARGO_MANIFEST_DIR"), "/dashboards"))]);
}
