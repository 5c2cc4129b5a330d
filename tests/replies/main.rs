//! What a reply used, how it ended and whether it is kept: the gate's reading of generated replies, cut anywhere, beside a slow and
//! plain one.
//!
//! `TOLLGATE_CASES=100000 cargo test --test replies` tries as many; by default it is some hundreds.

#![allow(missing_docs, clippy::unwrap_used)]

mod corpus;
mod gate;
mod generate;
mod reckon;

use proptest::prelude::*;

use self::gate::answer;
use self::generate::replies;
use self::reckon::reckon;

fn cases() -> u32 {
    std::env::var("TOLLGATE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 2000, ..ProptestConfig::default() })]
    #[test]
    fn the_gate_reads_a_reply_as_a_slow_and_plain_reading_does(
        reply in replies(), share in prop_oneof![2 => Just(1.0), 3 => 0.0..1.0f64], resets in any::<bool>(), piece in 1usize..400
    ) {
        let length = (reply.text.len() as f64 * share).round() as usize;
        let whole = length == reply.text.len();
        let sent = &reply.text.as_bytes()[..length];
        let found = answer(&reply, sent, resets && !whole, piece);
        let wanted = reckon(&reply, sent, resets && !whole);
        prop_assert_eq!(&found.told, &wanted.told, "{}\n{:?}", String::from_utf8_lossy(sent), found.facts.cost);
    }
}

/// The same reply at each of its cuts, and in pieces of each size, has one reading.
#[test]
fn every_cut_and_every_piece_of_the_corpus_reads_as_the_plain_reading_does() {
    for (name, reply) in corpus::replies() {
        for length in 0..=reply.text.len() {
            let sent = &reply.text.as_bytes()[..length];
            let resets = length % 2 == 1 && length < reply.text.len();
            let found = answer(&reply, sent, resets, 1 + length % 7);
            let wanted = reckon(&reply, sent, resets);
            assert_eq!(found.told, wanted.told, "{name}, {length} bytes of {}\n{:?}", reply.text, found.facts.cost);
        }
    }
}
