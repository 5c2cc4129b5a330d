//! Multipart forms. The first line is the content type's parameters.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tollgate::call::Endpoint;
use tollgate::layers::identify::measure;

fuzz_target!(|input: &[u8]| {
    let end = input.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let (parameters, body) = input.split_at(end);
    let Ok(parameters) = std::str::from_utf8(parameters) else { return };
    let kind = format!("multipart/form-data; {parameters}");
    let asked = measure(&body[body.len().min(1)..], &kind, Endpoint::Run);
    assert_eq!(asked.ok(), measure(&body[body.len().min(1)..], &kind, Endpoint::Run).ok());
});
