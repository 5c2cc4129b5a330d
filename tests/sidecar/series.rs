//! How many series Prometheus has to keep, whatever comes.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use serde_json::json;
use tollgate::layers::budget::{Period, Rule};
use tollgate::layers::identify::keys::sha256;
use tollgate::neurons::Neurons;
use tollgate::sidecar::config::Config;
use tollgate::simulator::{Fault, FaultRule, Trouble};

use crate::support::{Gate, LLAMA, client, config, start_with};

const KEYS: usize = 1_000;
const MODELS: usize = 100;
const AT_ONCE: usize = 32;

fn secret(n: usize) -> String {
    format!("tg-{n:04}")
}

/// A hundred models, some of them the user's own, and a thousand keys.
fn many() -> Config {
    let known =
        tollgate::catalogue::Catalogue::default().models().into_iter().filter(|model| model.is_listed()).count();
    let mut text = String::new();
    for n in 0..MODELS - known {
        text += &format!("[models.\"@cf/acme/model-{n}\"]\ntask = \"Text Generation\"\n");
        text += "prices = { input_token = 2457, output_token = 18252 }\n";
    }
    for n in 0..KEYS {
        text += &format!("[[keys]]\nname = \"team-{n}\"\nsha256 = \"{}\"\n", sha256(&secret(n)));
    }
    Config::parse(&text, "test").unwrap()
}

fn gate() -> Gate {
    let many = many();
    let mut settings = tollgate::simulator::Settings::default();
    (settings.latency, settings.rate_limits, settings.models) = (0.0, false, many.models.clone());
    let vendor = tollgate::simulator::start(settings).unwrap();
    let mut config = config(&vendor.base_url());
    (config.keys, config.models) = (many.keys, many.models);
    config.budgets.push(Rule::new("everyone", Neurons::from_whole(1_000_000), Period::Day));
    config.retry.max_attempts = NonZeroU32::new(2).unwrap();
    config.retry.delay = Duration::ZERO;
    let (sidecar, receipts) = start_with(config, &vec![("CLOUDFLARE_API_TOKEN".into(), "the-gates".into())]);
    Gate { vendor, sidecar, receipts, client: client() }
}

fn series(metrics: &str) -> usize {
    metrics.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).count()
}

/// Series by the name of their family.
fn families(metrics: &str) -> BTreeMap<&str, usize> {
    let mut counts = BTreeMap::new();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        *counts.entry(line.split(['{', ' ']).next().unwrap()).or_default() += 1;
    }
    counts
}

/// Sends all of them, so many at once.
async fn all(requests: Vec<reqwest::RequestBuilder>) {
    use futures_util::StreamExt;
    let sent = requests.into_iter().map(|request| async {
        if let Ok(reply) = request.send().await {
            let _ = reply.bytes().await;
        }
    });
    futures_util::stream::iter(sent).buffer_unordered(AT_ONCE).collect::<Vec<_>>().await;
}

#[tokio::test]
async fn a_hundred_models_a_thousand_keys_and_a_scanner_stay_under_5000_series() {
    let gate = gate();
    let models: Vec<_> = {
        let catalogue = tollgate::catalogue::Catalogue::with(&many().models);
        catalogue.models().into_iter().filter(|model| model.is_listed()).map(|model| model.id.to_string()).collect()
    };
    assert_eq!(models.len(), MODELS);
    let ask = |model: &str, n: usize, body: serde_json::Value| {
        let url = gate.url(&format!("/run/{model}"));
        let request = gate.client.post(url).bearer_auth(secret(n % KEYS));
        request.header("content-type", "application/json").body(body.to_string())
    };

    // Each model: answered, again from the cache, streamed, refused for its input, out of capacity and tried again.
    for code in [None, Some(3040), Some(5006)] {
        gate.vendor.clear_faults();
        if let Some(code) = code {
            gate.vendor.fault(FaultRule::always(Fault::new(Trouble::Error(code))));
        }
        let body = json!({"prompt": format!("trouble {code:?}"), "text": "a bridge", "audio": "UklGRg=="});
        for _ in 0..2 {
            all(models.iter().enumerate().map(|(n, model)| ask(model, n, body.clone())).collect()).await;
        }
        let body = json!({"prompt": format!("stream {code:?}"), "stream": true});
        all(models.iter().enumerate().map(|(n, model)| ask(model, n, body.clone())).collect()).await;
    }
    gate.vendor.clear_faults();
    // Each key, and a scanner: paths, models, keys and methods that mean nothing.
    let asked_before = models.len() * 9;
    all((0..KEYS).map(|n| ask(LLAMA, n, json!({"prompt": format!("key {n}")}))).collect()).await;
    all((0..1_000).map(|n| ask(&format!("@cf/junk/model-{n}"), n, json!({"prompt": "x"}))).collect()).await;
    let junk = (0..1_000).map(|n| gate.client.get(gate.url(&format!("/{n}/.env?token={n}"))).bearer_auth(secret(n)));
    all(junk.collect()).await;
    let guess = |n| gate.client.post(gate.url(&format!("/run/{LLAMA}"))).bearer_auth(format!("guess-{n}")).body("{}");
    all((0..1_000).map(guess).collect()).await;
    gate.receipts.after(asked_before + 2 * KEYS).await;

    let begun = Instant::now();
    let metrics = gate.metrics().await;
    println!("{} series, {} bytes, scraped in {:?}", series(&metrics), metrics.len(), begun.elapsed());
    for (family, count) in families(&metrics) {
        println!("{count:>6} {family}");
    }
    for model in &models {
        assert!(metrics.contains(&format!("tollgate_requests_total{{model=\"{model}\"")), "{model} was not asked");
    }
    for junk in ["junk", ".env", "team-", "guess-", "tg-"] {
        assert!(!metrics.contains(junk), "{junk} is in a label");
    }
    assert!(series(&metrics) < 5_000, "{} series", series(&metrics));
}
