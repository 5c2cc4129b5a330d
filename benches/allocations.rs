//! How often a call through the whole gate allocates, and how much: every layer on, a cache miss.

#![allow(missing_docs, clippy::unwrap_used)]

mod common;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const CALLS: u64 = 10_000;
const MODEL: &str = "@cf/meta/llama-3.2-1b-instruct";

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut gate = common::gate(0);
    // Tables grow and handles are resolved with the first calls.
    for n in 0..CALLS {
        runtime.block_on(common::call(&mut gate, common::request(n, MODEL, 0)));
    }
    let requests: Vec<_> = (0..CALLS).map(|n| common::request(CALLS + n, MODEL, 0)).collect();
    let _profiler = dhat::Profiler::builder().testing().build();
    let before = dhat::HeapStats::get();
    for request in requests {
        runtime.block_on(common::call(&mut gate, request));
    }
    let after = dhat::HeapStats::get();
    let each = |after: u64, before: u64| (after - before) as f64 / CALLS as f64;
    println!(
        "{:.1} allocations and {:.0} bytes a call",
        each(after.total_blocks, before.total_blocks),
        each(after.total_bytes, before.total_bytes)
    );
}
