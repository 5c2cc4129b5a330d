//! Real SDKs through the sidecar. They are installed by `tests/all`; `cargo test` alone says that it leaves them out.

use std::process::Command;

use crate::support::{Gate, tool};

#[test]
fn the_openai_python_client() {
    let Some(python) = tool("TOLLGATE_TEST_PYTHON", "the openai Python client") else { return };
    for compat in [false, true] {
        let gate = Gate::with(crate::support::vendor(), |config| config.compat.openai_streams = compat);
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/openai_client.py");
        let output = Command::new(&python).arg(script).arg(gate.url("/v1")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        println!("{said}");
    }
}
