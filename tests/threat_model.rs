//! The page on security names the tests that hold its promises, and they are there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;

/// Every Rust source below a folder, as one text.
fn sources(folder: &Path, text: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_dir() {
            sources(&entry, text);
        } else if entry.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&std::fs::read_to_string(entry).unwrap());
        }
    }
}

/// What stands in backquotes and reads like the name of a test: a sentence.
fn named(page: &str) -> Vec<&str> {
    let quoted = page.split('`').skip(1).step_by(2);
    let is_a_name =
        |text: &&str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    quoted.filter(is_a_name).filter(|text| text.matches('_').count() >= 3).collect()
}

#[test]
fn every_test_that_the_threat_model_names_is_there() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(home.join("docs/security.md")).unwrap();
    let mut code = String::new();
    sources(&home.join("src"), &mut code);
    sources(&home.join("tests"), &mut code);
    let names = named(&page);
    assert!(names.len() > 40, "{} names", names.len());
    let missing: Vec<_> = names.iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}
