//! What a million conversations leave in memory where each gets its session: all that is allocated, before and after.
//!
//!   TOLLGATE_CONVERSATIONS=1000000 cargo test --test affinity_memory -- --nocapture

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use tollgate::call::{Call, Endpoint};
use tollgate::catalogue::{Catalogue, Task};
use tollgate::upstream::{Affinity, SessionBy};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

/// Where nothing else is asked for: each takes a tenth of a millisecond with a debug build that is watched.
const CONVERSATIONS: u64 = 50_000;

#[test]
fn conversations_leave_nothing_behind() {
    let conversations = std::env::var("TOLLGATE_CONVERSATIONS").map_or(CONVERSATIONS, |count| count.parse().unwrap());
    let model = Catalogue::default().find("@cf/google/gemma-4-26b-a4b-it", Task::TextGeneration);
    let mut call = Call::new("acc", model, Endpoint::Run, "{}").unwrap();
    let affinity = Affinity::new(SessionBy::Auto).unwrap();
    let mut ask = |n: u64| {
        call.body = format!(r#"{{"messages":[{{"role":"user","content":"{n}"}}]}}"#).into();
        affinity.session(&call).unwrap()
    };
    let (first, _profiler) = (ask(0), dhat::Profiler::builder().testing().build());
    let before = dhat::HeapStats::get().curr_bytes;
    let mut sessions = 0;
    for n in 1..conversations {
        sessions += u64::from(ask(n) != first);
    }
    let left = dhat::HeapStats::get().curr_bytes.saturating_sub(before);
    println!("{conversations} conversations: {left} bytes more are allocated after them than before");
    assert_eq!(sessions, conversations - 1);
    // The last call's body.
    assert!(left < 4096, "{left} bytes");
    assert_eq!(ask(0), first, "the first conversation has its session still");
}
