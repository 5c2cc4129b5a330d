//! What open streams weigh.

use serde_json::json;
use tollgate::simulator::{Fault, FaultRule, Trouble};

use crate::support::{LLAMA, Process, ask, client_builder, vendor};
use crate::wire::resident_kib;

const STREAMS: u64 = 1000;
/// The goal is 20. Of the 29 that it takes, 16 are two buffers of hyper's server: one that it writes heads with, and one that it looks
/// with whether the client is still there.
const MAX_KIB: f64 = 40.0;

#[tokio::test]
async fn a_thousand_open_streams_stay_within_their_weight() {
    let vendor = vendor();
    let process = Process::serve(&vendor.base_url(), &[]);
    let url = format!("{}/run/{LLAMA}", process.listen);
    let client = client_builder().build().unwrap();
    let body = json!({"prompt": "x".repeat(1000), "stream": true});
    // Warm: what is allocated once is no stream's weight.
    for _ in 0..20 {
        ask(&client, &url, &body).send().await.unwrap().bytes().await.unwrap();
    }
    let before = resident_kib(process.child.id());
    vendor.fault(FaultRule::always(Fault::new(Trouble::StallMid)));
    let mut open = Vec::new();
    for n in 0..STREAMS {
        // Each its own: the same question would share one call.
        let body = json!({"prompt": format!("{n} {}", "x".repeat(1000)), "stream": true});
        let mut reply = ask(&client, &url, &body).send().await.unwrap();
        reply.chunk().await.unwrap().unwrap();
        open.push(reply);
    }
    let each = (resident_kib(process.child.id()) - before) as f64 / STREAMS as f64;
    println!("{each:.1} KiB a stream");
    assert!(each < MAX_KIB, "{each:.1} KiB a stream");
}
