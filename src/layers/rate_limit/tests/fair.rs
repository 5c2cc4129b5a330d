//! Turns are fair between callers, whatever tells them apart.

use std::hash::RandomState;
use std::net::{Ipv4Addr, SocketAddr};

use http::HeaderMap;

use super::*;
use crate::call::Head;
use crate::layers::rate_limit::caller::caller;
use crate::layers::rate_limit::lane::Lane;
use crate::layers::rate_limit::queue::{Waiter, WaiterState};
use crate::layers::rate_limit::refusal::By;
use crate::layers::rate_limit::request::{LaneRequest, Rates, WaitLimits};
use crate::layers::rate_limit::window::Rate;
use crate::peer::Peer;
use crate::receipt::Metadatum;

fn with_headers(headers: &[(&'static str, &str)]) -> Call {
    let headers: HeaderMap =
        headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
    Call { head: Arc::new(Head { headers, ..Head::default() }), ..call() }
}

fn by_token(name: &str) -> Call {
    with_headers(&[("authorization", &format!("Bearer {name}"))])
}

fn by_api_key(name: &str) -> Call {
    with_headers(&[("x-api-key", name)])
}

fn by_address(name: &str) -> Call {
    let address = Ipv4Addr::new(10, 0, name.len() as u8, name.as_bytes()[0]);
    // Each connection has a port of its own.
    let peer = SocketAddr::from((address, fastrand::u16(1024..)));
    Call { head: Arc::new(Head { peer: Some(Peer(peer)), ..Head::default() }), ..call() }
}

fn by_user(name: &str) -> Call {
    let call = by_token("the service's");
    call.receipt.note(|facts| facts.metadata = Arc::new([("user".into(), Metadatum::String(name.into()))]));
    call
}

/// Ten callers ask for half the limit beside one that floods: their waits, and what passed in all.
async fn beside_a_flood(fair_by: FairBy, ask: fn(&str) -> Call, in_step: bool, head_start: u64) {
    let upstream = Upstream::new(300);
    let settings = |settings: &mut Settings| (settings.max_queue, settings.fair_by) = (100, fair_by.clone());
    let service = layer(300, settings).layer(upstream.service());
    let start = Instant::now();
    let until = start + Duration::from_secs(head_start) + 3 * MINUTE;
    let mut flooding = JoinSet::new();
    for _ in 0..120 {
        flooding.spawn(flood(service.clone(), move || ask("flood"), until));
    }
    sleep(Duration::from_secs(head_start)).await;
    let before = upstream.accepted.lock().len();
    let asked = ask_politely(service, ask, in_step, until).await;
    let polite = asked.waits.len();
    flooding.abort_all();
    let all = upstream.accepted.lock().iter().filter(|at| **at < until).count() - before;
    let p99 = asked.waits[polite * 99 / 100];
    println!(
        "{fair_by:?}, in step {in_step}, {head_start} s later: p99 {p99:?} of {polite}, {all} in all, {} refused",
        asked.refused
    );
    assert_eq!(asked.refused, 0);
    // In a round, each of the eleven has one of five turns a second.
    assert!(p99 < Duration::from_millis(4400), "two rounds are 4.4 s, and p99 is {p99:?}");
    assert!(all as f64 >= 0.96 * 900.0, "the rest goes to the flood: {all} in three windows");
    assert_eq!(upstream.refused.load(Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn ten_polite_keys_hardly_wait_while_one_floods() {
    for (in_step, head_start) in [(false, 0), (true, 0), (false, 100), (true, 100)] {
        beside_a_flood(FairBy::Token, keyed, in_step, head_start).await;
    }
}

#[tokio::test(start_paused = true)]
async fn ten_polite_callers_without_keys_hardly_wait_while_one_floods() {
    for (fair_by, ask) in [
        (FairBy::Token, by_token as fn(&str) -> Call),
        (FairBy::Address, by_address),
        (FairBy::Metadata("user".into()), by_user),
    ] {
        beside_a_flood(fair_by, ask, true, 0).await;
    }
}

#[test]
fn callers_are_told_apart_by_what_they_have() {
    let hasher = RandomState::new();
    let are_apart = |fair_by: &FairBy, ask: fn(&str) -> Call| {
        assert_eq!(caller(&ask("a"), fair_by, &hasher), caller(&ask("a"), fair_by, &hasher), "{fair_by:?}");
        caller(&ask("a"), fair_by, &hasher) != caller(&ask("b"), fair_by, &hasher)
    };
    let all = [FairBy::Token, FairBy::Address, FairBy::Metadata("user".into())];
    for fair_by in &all {
        // What a call lacks is made up for by what it has; a key of the gate's comes before all.
        for ask in [by_token as fn(&str) -> Call, by_api_key, by_address, keyed] {
            assert!(are_apart(fair_by, ask), "{fair_by:?}");
        }
        assert_eq!(are_apart(fair_by, by_user), *fair_by == all[2], "one service's users");
        assert_eq!(caller(&call(), fair_by, &hasher), 0, "those who have nothing are one");
    }
}

#[test]
fn a_callers_token_is_kept_nowhere() {
    let layer = layer(2, |_| {});
    for name in ["s3cret-one", "s3cret-two", "s3cret-one"] {
        layer.try_take(&by_token(name));
    }
    let state = format!("{layer:?}");
    assert!(state.contains("callers") && !state.contains("s3cret"), "{state}");
}

fn ask(caller: u64) -> LaneRequest {
    let requests_limit = Rate::new(60, MINUTE);
    LaneRequest { caller, is_keyless: true, requests_limit, tokens_limit: None, tokens: 0, own: Rates::default() }
}

const SECOND: u64 = 1_000_000_000;
const START: u64 = 1 << 52;
const HONEST: u64 = 999;

#[test]
fn a_crowd_of_made_up_callers_is_bounded_and_holds_up_no_caller_that_was_there() {
    let (mut now, bounds) = (START, WaitLimits { max_wait: 30 * SECOND, max_queue: 100 });
    let mut lane = Lane::new(MODEL.slot, By::Requests, &ask(HONEST), now);
    let (mut waiting, mut own, mut served) = (VecDeque::new(), Vec::new(), 0);
    for second in 0..300 {
        let crowd = (0..40).map(|_| fastrand::u64(1000..));
        for caller in (second % 20 == 0).then_some(HONEST).into_iter().chain(crowd) {
            match lane.ask(ask(caller), bounds, now) {
                Answer::Queued(ticket, waiter) => {
                    own.extend((caller == HONEST).then(|| waiter.clone()));
                    waiting.push_back((now, ticket, waiter));
                }
                Answer::Granted(_) => served += usize::from(caller == HONEST),
                Answer::Refused(refusal) => assert!(caller != HONEST, "{refusal:?}"),
            }
        }
        now += SECOND;
        lane.dispatch(now);
        while waiting.front().is_some_and(|(since, ..)| now - since >= bounds.max_wait) {
            let (_, ticket, waiter) = waiting.pop_front().unwrap();
            // Who has its permit keeps it.
            if waiter.take_permit().is_none() {
                lane.leave(ticket, &waiter, now);
            }
        }
        assert!(lane.callers() <= 25 + 16 + 1, "{} callers are known", lane.callers());
    }
    served += own.iter().filter(|waiter| waiter.state() == WaiterState::Granted).count();
    assert!(served >= 14, "it was served {served} of 15 times");
}

#[test]
fn the_48th_turn_goes_to_the_caller_whose_last_one_is_longest_ago() {
    let (mut now, bounds) = (START, WaitLimits { max_wait: 3600 * SECOND, max_queue: 1000 });
    let mut lane = Lane::new(MODEL.slot, By::Requests, &ask(1), now);
    let mut slowed = Vec::new();
    for _ in 0..40 {
        if let Answer::Queued(_, waiter) = lane.ask(ask(1), bounds, now) {
            slowed.push(waiter);
        }
    }
    let granted = |slowed: &[Arc<_>]| {
        slowed.iter().filter(|waiter: &&Arc<Waiter>| waiter.state() == WaiterState::Granted).count()
    };
    let before = granted(&slowed);
    // From here on there is always someone who had nothing yet, and who would go first each time.
    let (mut turns, mut turns_of_slowed) = (0, Vec::new());
    let mut newcomers: VecDeque<_> = VecDeque::new();
    for newcomer in 0..4000 {
        match lane.ask(LaneRequest { is_keyless: false, ..ask(10_000 + newcomer) }, bounds, now) {
            Answer::Queued(_, waiter) => newcomers.push_back(waiter),
            other => panic!("{other:?}"),
        }
        while newcomers.len() > 3 {
            now += SECOND / 10;
            lane.dispatch(now);
            let waiting = newcomers.len();
            newcomers.retain(|waiter| waiter.state() != WaiterState::Granted);
            let now_slowed = granted(&slowed) - before;
            let is_slowed = now_slowed > turns_of_slowed.len();
            turns += waiting - newcomers.len() + usize::from(is_slowed);
            if is_slowed {
                turns_of_slowed.push(turns);
            }
        }
        if turns_of_slowed.len() == 4 {
            break;
        }
    }
    assert_eq!(turns_of_slowed.len(), 4, "a caller that had much is starved: {turns_of_slowed:?} of {turns} turns");
    let apart: Vec<_> = turns_of_slowed[1..].windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(apart.iter().all(|turns| *turns == 48), "{apart:?}");
}
