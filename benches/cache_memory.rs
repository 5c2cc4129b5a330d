//! What the cache weighs after a million distinct answers of mixed size, beside the bound it was given.
//!
//!   cargo bench --bench cache_memory

#![allow(missing_docs, clippy::unwrap_used)]

use http::{Request, Response, header};
use http_body_util::BodyExt;
use tollgate::body::Body;
use tollgate::call::Call;
use tollgate::layers::{cache, identify};
use tower::{Service, ServiceBuilder, service_fn};

/// As in the sidecar.
#[cfg(feature = "sidecar")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ANSWERS: usize = 1_000_000;

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let settings = cache::Settings::default();
    let max_bytes = settings.max_bytes;
    let layer = cache::CacheLayer::new(settings);
    let text = "x".repeat(8192);
    let vendor = service_fn(move |call: Call| {
        // From nothing to 8 KiB, most of them short.
        let length =
            (call.body.iter().fold(7usize, |hash, byte| hash.wrapping_mul(31) ^ usize::from(*byte)) % 91).pow(2);
        let reply = Response::builder().header(header::CONTENT_TYPE, "application/json");
        let reply = reply.body(Body::from(format!("{{\"result\":\"{}\"}}", &text[..length])));
        async move { Ok::<_, tollgate::Error>(reply.unwrap()) }
    });
    let rest = service_fn(|_: Request<Body>| async { Ok::<_, tollgate::Error>(Response::new(Body::empty())) });
    let mut door = identify::Settings::default();
    (door.account, door.has_token) = (Some("a".into()), true);
    let mut stack =
        ServiceBuilder::new().layer(identify::IdentifyLayer::new(door, rest)).layer(layer.clone()).service(vendor);
    let before = resident_bytes();
    let mut most = 0;
    for n in 0..ANSWERS {
        let body = Body::from(format!("{{\"prompt\":\"question {n}\",\"seed\":1}}"));
        let request = Request::post("/run/@cf/meta/llama-3.2-1b-instruct").body(body).unwrap();
        runtime.block_on(async { stack.call(request).await.unwrap().into_body().collect().await.unwrap() });
        if n % 50_000 == 0 {
            most = most.max(resident_bytes() - before);
        }
    }
    most = most.max(resident_bytes() - before);
    let (entries, weight) = layer.size();
    println!(
        "{ANSWERS} distinct answers: {entries} kept, weighed at {:.3} of max_bytes; at most {:.3} of it resident",
        weight as f64 / max_bytes as f64,
        most as f64 / max_bytes as f64
    );
}
