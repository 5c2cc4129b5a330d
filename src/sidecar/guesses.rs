//! Guesses of a secret, slowed down for each address.
//!
//! Wrong secrets from one address are looked at up to a quota. Beyond it nothing new from there is looked at for a while, so that
//! an answer tells a guesser nothing. A secret that was right from that address before is still taken, so that one who guesses
//! does not lock out others behind the same address.
//!
//! # What it does not do
//! It does not slow a guesser with many addresses. Keys as `tollgate keys new` makes them cannot be guessed at all.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use governor::clock::{Clock, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;

/// Who guesses, and who is known.
pub(super) struct Guesses {
    wrong: RateLimiter<IpAddr, HashMapStateStore<IpAddr>, DefaultClock>,
    clock: DefaultClock,
    held: Mutex<HashMap<IpAddr, Instant>>,
    /// How many are held, so that the usual case takes no lock.
    held_count: AtomicUsize,
    /// Digests of secrets that were right together with the address that sent them, each in the place that it says itself. Two
    /// that want the same place forget each other.
    right: Box<[AtomicU64]>,
    hasher: RandomState,
}

/// Addresses that are kept apart; further ones count as one.
const MAX_ADDRESSES: usize = 4096;
const MAX_RIGHT: usize = 1024;

impl Guesses {
    /// So many wrong secrets a minute and address.
    pub(super) fn new(a_minute: NonZeroU32) -> Self {
        Self {
            wrong: RateLimiter::hashmap(Quota::per_minute(a_minute)),
            clock: DefaultClock::default(),
            held: Mutex::default(),
            held_count: AtomicUsize::new(0),
            right: (0..MAX_RIGHT).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }

    /// What stands for a secret here.
    pub(super) fn digest(&self, secret: impl Hash) -> u64 {
        self.hasher.hash_one(secret)
    }

    /// How long nothing new is looked at from this address; `None` where all is, or where this secret was right before.
    pub(super) fn hold(&self, from: IpAddr, digest: u64) -> Option<Duration> {
        if self.held_count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let from = network(from);
        let left = |until: &Instant| until.checked_duration_since(Instant::now());
        let left = self.held.lock().get(&from).and_then(left)?;
        (!self.was_right(from, digest)).then_some(left)
    }

    /// A wrong one came from there.
    pub(super) fn wrong(&self, from: IpAddr) {
        let from = self.counted(network(from));
        let Err(not_until) = self.wrong.check_key(&from) else { return };
        let wait = not_until.wait_time_from(self.clock.now());
        let now = Instant::now();
        let mut held = self.held.lock();
        held.retain(|_, until| *until > now);
        if held.len() < MAX_ADDRESSES {
            held.insert(from, now + wait);
        }
        self.held_count.store(held.len(), Ordering::Relaxed);
    }

    /// A right one came from there.
    pub(super) fn right(&self, from: IpAddr, digest: u64) {
        let (place, mark) = self.place(network(from), digest);
        // The usual case writes nothing that other threads read.
        if place.load(Ordering::Relaxed) != mark {
            place.store(mark, Ordering::Relaxed);
        }
    }

    fn was_right(&self, from: IpAddr, digest: u64) -> bool {
        let (place, mark) = self.place(from, digest);
        place.load(Ordering::Relaxed) == mark
    }

    fn place(&self, from: IpAddr, digest: u64) -> (&AtomicU64, u64) {
        let mark = self.hasher.hash_one((from, digest));
        (&self.right[mark as usize % MAX_RIGHT], mark)
    }

    fn counted(&self, from: IpAddr) -> IpAddr {
        if self.wrong.len() < MAX_ADDRESSES {
            return from;
        }
        self.wrong.retain_recent();
        if self.wrong.len() < MAX_ADDRESSES { from } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) }
    }
}

/// One who has an IPv6 address has at least its 64 bits of others.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
        v4 => v4,
    }
}

impl std::fmt::Debug for Guesses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Guesses({} held)", self.held_count.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So few that a hold outlasts the test.
    fn one_a_minute() -> Guesses {
        Guesses::new(NonZeroU32::MIN)
    }

    fn address(n: u32) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::from_bits(n))
    }

    #[test]
    fn beyond_the_quota_nothing_new_from_there_is_looked_at() {
        let guesses = one_a_minute();
        guesses.right(address(1), 7);
        assert_eq!(guesses.hold(address(1), 9), None);
        guesses.wrong(address(1));
        assert_eq!(guesses.hold(address(1), 9), None);
        guesses.wrong(address(1));
        assert!(guesses.hold(address(1), 9).is_some(), "a new secret");
        assert_eq!(guesses.hold(address(1), 7), None, "one that was right before");
        assert_eq!(guesses.hold(address(2), 9), None, "another address");
    }

    #[test]
    fn neighbours_in_one_ipv6_network_are_one() {
        let guesses = one_a_minute();
        let address = |n: u128| IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) + n));
        (0..2).for_each(|n| guesses.wrong(address(n)));
        assert!(guesses.hold(address(99), 1).is_some());
        assert_eq!(guesses.hold(address(1 << 64), 1), None);
    }

    #[test]
    fn addresses_without_number_take_up_no_more_memory() {
        let guesses = one_a_minute();
        for n in 0..3 * MAX_ADDRESSES as u32 {
            guesses.wrong(address(n));
            guesses.right(address(n), 1);
        }
        assert!(guesses.wrong.len() <= MAX_ADDRESSES + 1, "{}", guesses.wrong.len());
        assert!(guesses.held.lock().len() <= MAX_ADDRESSES);
    }
}
