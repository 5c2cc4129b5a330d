//! Callers without keys on real sockets: one that floods, and one that asks once.

use std::net::IpAddr;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::json;
use tollgate::sidecar::config::Config;

use crate::support::{Gate, LLAMA, TOKEN, client_builder, config, start_with, vendor};

const FLOOD: usize = 30;

/// A gate whose model has ten calls at once and then one each half second, with a token of its own or without.
fn gate(fair_by: &str, has_token: bool) -> Gate {
    let text = format!(
        "[limits]\nfair_by = \"{fair_by}\"\nmax_wait = \"60s\"\n[limits.models.\"{LLAMA}\"]\nrequests = 20\nper = \"10s\"\n"
    );
    let vendor = vendor();
    let mut config = config(&vendor.base_url());
    config.limits = Config::parse(&text, "test").unwrap().limits;
    let token = has_token.then(|| ("CLOUDFLARE_API_TOKEN".into(), TOKEN.into()));
    let (sidecar, receipts) = start_with(config, &token.into_iter().collect());
    Gate { vendor, sidecar, receipts, client: client_builder().build().unwrap() }
}

/// Who asks: from where, and with what.
struct Caller {
    address: [u8; 4],
    token: Option<&'static str>,
    user: &'static str,
}

impl Caller {
    fn client(&self) -> reqwest::Client {
        client_builder().local_address(IpAddr::from(self.address)).build().unwrap()
    }

    async fn ask(&self, gate: &Gate, client: &reqwest::Client, n: usize) -> reqwest::StatusCode {
        let body = json!({"prompt": format!("{} {n}", self.user), "max_tokens": 1});
        let mut request = client.post(gate.url(&format!("/run/{LLAMA}"))).json(&body);
        request = request.header("cf-aig-metadata", json!({"user": self.user}).to_string());
        if let Some(token) = self.token {
            request = request.bearer_auth(token);
        }
        request.send().await.unwrap().status()
    }
}

/// How many of the flood's calls are still unanswered when the other's one call is.
async fn left_of_the_flood(gate: &Gate, flood: Caller, other: Caller) -> usize {
    let (flooding, asking) = (flood.client(), other.client());
    let mut calls: FuturesUnordered<_> = (0..FLOOD).map(|n| flood.ask(gate, &flooding, n)).collect();
    // What goes at once has gone, so the rest waits.
    for _ in 0..10 {
        assert_eq!(calls.next().await.unwrap(), 200);
    }
    let mut one = std::pin::pin!(other.ask(gate, &asking, 0));
    loop {
        tokio::select! {
            status = &mut one => {
                assert_eq!(status, 200);
                return calls.len();
            }
            Some(status) = calls.next() => assert_eq!(status, 200),
            else => panic!("the flood is over, and the other has not been answered"),
        }
    }
}

#[tokio::test]
async fn a_caller_without_a_key_does_not_wait_for_anothers_flood() {
    let local = [127, 0, 0, 1];
    for (fair_by, has_token, flood, other) in [
        (
            "token",
            false,
            Caller { address: local, token: Some("flood"), user: "a" },
            Caller { address: local, token: Some("other"), user: "b" },
        ),
        // The gate's own token makes clients' needless; then their addresses tell them apart.
        (
            "token",
            true,
            Caller { address: local, token: None, user: "a" },
            Caller { address: [127, 0, 0, 2], token: None, user: "b" },
        ),
        (
            "address",
            false,
            Caller { address: local, token: Some("shared"), user: "a" },
            Caller { address: [127, 0, 0, 2], token: Some("shared"), user: "b" },
        ),
        (
            "metadata.user",
            false,
            Caller { address: local, token: Some("shared"), user: "a" },
            Caller { address: local, token: Some("shared"), user: "b" },
        ),
    ] {
        let gate = gate(fair_by, has_token);
        let left = left_of_the_flood(&gate, flood, other).await;
        println!("{fair_by}: {left} of the flood's {FLOOD} calls were left");
        assert!(left >= 15, "by {fair_by}: the other waited until {left} of {FLOOD} were left");
    }
}

#[tokio::test]
async fn models_that_need_the_paid_plan_take_fifty_a_minute_where_credits_pay_for_them() {
    let model = "@cf/moonshotai/kimi-k2.6";
    for (billing, limit) in [("postpaid", 20), ("unified", 50)] {
        let gate = Gate::with(vendor(), |config| {
            let text = format!("[account]\nbilling = \"{billing}\"\n[limits]\nmax_wait = \"0s\"\n");
            let parsed = Config::parse(&text, "test").unwrap();
            (config.account, config.limits) = (parsed.account, parsed.limits);
        });
        let ask = async |n: usize| gate.run(model, &json!({"prompt": format!("{billing} {n}"), "max_tokens": 1})).await;
        let refusal = loop {
            let replies = futures_util::future::join_all((0..64).map(&ask)).await;
            if let Some(refusal) = replies.into_iter().find(|reply| reply.status() == 429) {
                break refusal;
            }
        };
        let policy = refusal.headers()["ratelimit-policy"].to_str().unwrap();
        assert!(policy.contains(&format!("q={limit};")), "{billing}: {policy}");
    }
}
