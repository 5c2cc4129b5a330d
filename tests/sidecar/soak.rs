//! Hours in seconds: junk, leavers, faults and reloads, and then nothing is left of them.
//!
//! `TOLLGATE_SOAK=30m` for a long one. What is held is printed every so often; over the last two thirds it may not grow.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tollgate::simulator::{Fault, FaultRule, Trouble};

use crate::support::{Process, ask, client_builder, vendor};
use crate::wire::{Held, address, http1, http2, run};

fn lasts() -> Duration {
    let Ok(text) = std::env::var("TOLLGATE_SOAK") else { return Duration::from_secs(6) };
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let seconds = match unit {
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => panic!("TOLLGATE_SOAK is {text}: write it like 90s, 30m or 2h"),
    };
    Duration::from_secs(number.parse::<u64>().unwrap() * seconds)
}

/// One of many ways to treat a gate. None of them has to succeed.
async fn visit(n: u64, client: reqwest::Client, process: (String, std::net::SocketAddr)) {
    let (listen, to) = process;
    let url = format!("{listen}{}", run());
    let stream = n.is_multiple_of(2);
    let body = json!({"prompt": format!("visit {}", n % 5000), "stream": stream, "padding": "x".repeat((n % 7 * 30_000) as usize)});
    match n % 6 {
        0 | 1 => {
            if let Ok(reply) = ask(&client, &url, &body).send().await {
                let _ = reply.bytes().await;
            }
        }
        // Leaves within the reply, or before it.
        2 => {
            if let Ok(mut reply) = ask(&client, &url, &json!({"prompt": format!("{n}"), "stream": true})).send().await {
                let _ = reply.chunk().await;
            }
        }
        3 => {
            let asked = ask(&client, &url, &json!({"prompt": format!("gone {n}")})).send();
            let _ = tokio::time::timeout(Duration::from_millis(n % 5), asked).await;
        }
        // Junk, or a request that is cut anywhere.
        _ => {
            let question = format!("{{\"prompt\": \"cut {n}\"}}");
            let bytes = match n % 3 {
                0 => http1(&run(), &question),
                1 => http2(&run(), &question, 100),
                _ => (0..200).map(|byte| (n.wrapping_mul(31).wrapping_add(byte) >> 3) as u8).collect(),
            };
            if let Ok(mut stream) = TcpStream::connect(to).await {
                let _ = stream.write_all(&bytes[..(n as usize * 13) % bytes.len()]).await;
            }
        }
    }
}

/// What the config has besides, other at each reading.
fn changing(n: u64) -> String {
    let (limit, wait) = (100_000_000 + n, 1 + n % 3);
    format!(
        "[[budgets]]\nname = \"all\"\nlimit = \"{limit} neurons\"\nwindow = \"day\"\n[limits]\nmax_wait = \"{wait}s\"\n"
    )
}

#[tokio::test]
async fn nothing_is_left_of_many_bad_visits() {
    let vendor = vendor();
    for (trouble, share) in [
        (Trouble::DieMid, 0.02),
        (Trouble::Reset, 0.02),
        (Trouble::StallMid, 0.01),
        (Trouble::Stall, 0.01),
        (Trouble::Error(3040), 0.05),
        (Trouble::StreamError(5012), 0.02),
    ] {
        let mut rule = FaultRule::always(Fault::new(trouble));
        rule.share = share;
        vendor.fault(rule);
    }
    let process = Process::serve(
        &vendor.base_url(),
        &[
            ("TOLLGATE_UPSTREAM_FIRST_BYTE_TIMEOUT", "1s"),
            ("TOLLGATE_UPSTREAM_IDLE_TIMEOUT", "1s"),
            ("TOLLGATE_TIMEOUTS_IDLE", "2s"),
            ("TOLLGATE_CACHE_MAX_BYTES", "8MiB"),
            ("TOLLGATE_LOG_LEVEL", "error"),
        ],
    );
    let reply = process.reload_with(&changing(0)).await;
    assert_eq!(reply.status(), 200, "{}", reply.text().await.unwrap());
    let client = client_builder().pool_max_idle_per_host(8).build().unwrap();
    // Warm: what is made once is no leak.
    for n in 0..200 {
        visit(n, client.clone(), (process.listen.clone(), address(&process.listen))).await;
    }
    let before = Held::by(&process).await;
    let (begun, lasts) = (Instant::now(), lasts());
    let (mut visits, mut n, mut seen) = (JoinSet::new(), 200_u64, Vec::new());
    while begun.elapsed() < lasts {
        if visits.len() >= 32 {
            visits.join_next().await;
        }
        visits.spawn(visit(n, client.clone(), (process.listen.clone(), address(&process.listen))));
        n += 1;
        if begun.elapsed() >= (lasts / 60).max(Duration::from_secs(1)) * seen.len() as u32 {
            assert_eq!(process.reload_with(&changing(seen.len() as u64)).await.status(), 200);
            let held = Held::by(&process).await;
            seen.push(held.resident_kib);
            if seen.len() % 6 == 1 {
                println!("{:>5} s, {n} visits: {held:?}", begun.elapsed().as_secs());
            }
        }
    }
    visits.join_all().await;
    drop(client);
    let after = Held::is_back(&process, before, 64, "a soak").await;
    println!("{n} visits in {:?}: {before:?} before, {after:?} after; resident {seen:?} KiB", begun.elapsed());
    let third = seen.len() / 3;
    let middle = seen[third..2 * third].iter().max().unwrap();
    let last = seen[2 * third..].iter().max().unwrap();
    assert!(*last < middle + middle / 5 + 16 * 1024, "{seen:?}");
}
