//! A sound is as long as it is in whatever form it is sent.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use tollgate::neurons::Neurons;

use crate::support::{Gate, ask};

const WHISPER: &str = "@cf/openai/whisper";

/// Five minutes in Ogg and in AAC, of which 64 KiB would be less than two.
fn sounds() -> Vec<(&'static str, Vec<u8>)> {
    let sample =
        |name: &str| std::fs::read(format!("{}/tests/data/sounds/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    vec![("opus.ogg", sample("opus.ogg").repeat(75)), ("aac.adts", sample("aac.adts").repeat(75))]
}

#[tokio::test]
async fn five_minutes_are_five_minutes_as_bytes_as_base64_and_as_a_list_of_numbers() {
    let gate = Gate::start();
    let url = gate.url(&format!("/run/{WHISPER}"));
    let mut calls = 0;
    for (name, sound) in sounds() {
        let base64 = STANDARD.encode(&sound);
        let bodies = [
            json!({"audio": base64}),
            json!({"audio": format!("data:audio/ogg;base64,{base64}")}),
            json!({"audio": sound}),
        ];
        let raw = gate.client.post(&url).bearer_auth("t").header("content-type", "audio/ogg").body(sound.clone());
        let asked = bodies.iter().map(|body| ask(&gate.client, &url, body)).chain([raw]);
        for request in asked {
            assert_eq!(request.send().await.unwrap().status(), 200, "{name}");
            calls += 1;
            let facts = gate.receipts.after(calls).await.pop().unwrap();
            let upper = facts.estimate.unwrap().upper.unwrap_or(Neurons::ZERO);
            // 41.14 neurons a minute, and what the frames at the ends of each piece add.
            assert!((205.0..230.0).contains(&upper.as_f64()), "{name}: {upper}");
        }
    }
}
