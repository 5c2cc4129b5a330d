//! What a million conversations leave in memory where each gets its session.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use tollgate::call::{Call, Endpoint};
use tollgate::catalogue::{Catalogue, Task};
use tollgate::upstream::{Affinity, SessionBy};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const CONVERSATIONS: u64 = 1_000_000;

#[test]
fn a_million_conversations_leave_nothing_behind() {
    let model = Catalogue::default().find("@cf/google/gemma-4-26b-a4b-it", Task::TextGeneration);
    let mut call = Call::new("acc", model, Endpoint::ChatCompletions, "{}").unwrap();
    let affinity = Affinity::new(SessionBy::Auto).unwrap();
    let mut ask = |n: u64| {
        call.body = format!(r#"{{"messages":[{{"role":"user","content":"{n}"}}]}}"#).into();
        affinity.session(&call).unwrap()
    };
    let (first, _profiler) = (ask(0), dhat::Profiler::builder().testing().build());
    let before = dhat::HeapStats::get().curr_bytes;
    let mut sessions = 0;
    for n in 1..CONVERSATIONS {
        sessions += u64::from(ask(n) != first);
    }
    let left = dhat::HeapStats::get().curr_bytes.saturating_sub(before);
    println!("{CONVERSATIONS} conversations: {left} bytes more are allocated after them than before");
    assert_eq!(sessions, CONVERSATIONS - 1);
    // The last call's body.
    assert!(left < 4096, "{left} bytes");
    assert_eq!(ask(0), first, "the first conversation has its session still");
}
