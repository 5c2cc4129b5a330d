//! Guesses of a secret, slowed down for each address.
//!
//! Wrong secrets from one address are looked at up to a quota. Beyond it nothing new from there is looked at for a while, so that
//! an answer tells a guesser nothing. A secret that was right from that address before is still taken, so that one who guesses
//! does not lock out others behind the same address.
//!
//! # What it does not do
//! It does not slow a guesser with many addresses of IPv4, or of many sites: each has its own quota. Those of one IPv6 /64 count as one,
//! and all of one /48, which is what a site is given, have sixteen quotas together. Keys as `tollgate keys new` makes them cannot be
//! guessed at all.

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
    /// By address, or by network of 64 bits.
    near: Counted,
    /// By site, of 48 bits.
    far: Counted,
    /// Digests of secrets that were right together with the address that sent them, each in the place that it says itself. Two
    /// that want the same place forget each other.
    right: Box<[AtomicU64]>,
    hasher: RandomState,
}

/// Wrong secrets by where they came from.
struct Counted {
    wrong: RateLimiter<IpAddr, HashMapStateStore<IpAddr>, DefaultClock>,
    clock: DefaultClock,
    held: Mutex<HashMap<IpAddr, Instant>>,
    /// How many are held, so that the usual case takes no lock.
    held_count: AtomicUsize,
}

/// How many quotas a site has.
const NETWORKS: NonZeroU32 = NonZeroU32::MIN.saturating_add(15);
/// Addresses that are kept apart; further ones count as one.
const MAX_ADDRESSES: usize = 4096;
const MAX_RIGHT: usize = 1024;

impl Guesses {
    /// So many wrong secrets a minute and address.
    pub(super) fn new(a_minute: NonZeroU32) -> Self {
        Self {
            near: Counted::new(a_minute),
            far: Counted::new(a_minute.saturating_mul(NETWORKS)),
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
        if self.near.is_idle() && self.far.is_idle() {
            return None;
        }
        let left = self.near.left(network(from)).max(site(from).and_then(|site| self.far.left(site)))?;
        (!self.was_right(network(from), digest)).then_some(left)
    }

    /// A wrong one came from there.
    pub(super) fn wrong(&self, from: IpAddr) {
        self.near.add(network(from));
        if let Some(site) = site(from) {
            self.far.add(site);
        }
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
}

impl Counted {
    fn new(a_minute: NonZeroU32) -> Self {
        Self {
            wrong: RateLimiter::hashmap(Quota::per_minute(a_minute)),
            clock: DefaultClock::default(),
            held: Mutex::default(),
            held_count: AtomicUsize::new(0),
        }
    }

    fn is_idle(&self) -> bool {
        self.held_count.load(Ordering::Relaxed) == 0
    }

    fn left(&self, from: IpAddr) -> Option<Duration> {
        self.held.lock().get(&from)?.checked_duration_since(Instant::now())
    }

    fn add(&self, from: IpAddr) {
        let from = self.kept_apart(from);
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

    fn kept_apart(&self, from: IpAddr) -> IpAddr {
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

/// What a provider gives to one customer at most, usually.
fn site(address: IpAddr) -> Option<IpAddr> {
    match address.to_canonical() {
        IpAddr::V6(v6) => Some(IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 80)))),
        IpAddr::V4(_) => None,
    }
}

impl std::fmt::Debug for Guesses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let held = |counted: &Counted| counted.held_count.load(Ordering::Relaxed);
        write!(f, "Guesses({} held)", held(&self.near) + held(&self.far))
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
    fn one_site_with_all_its_networks_has_sixteen_quotas() {
        let guesses = one_a_minute();
        let of_site = |site: u128, network: u128| {
            IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) + (site << 80) + (network << 64) + 1))
        };
        guesses.right(of_site(0, 40_000), 7);
        let looked_at = (0..10_000).filter(|network| {
            let is_looked_at = guesses.hold(of_site(0, *network), 1).is_none();
            if is_looked_at {
                guesses.wrong(of_site(0, *network));
            }
            is_looked_at
        });
        // A slow machine sees some come free again.
        let count = looked_at.count();
        assert!((17..200).contains(&count), "{count} of 10,000 guesses were looked at");
        assert_eq!(guesses.hold(of_site(0, 40_000), 7), None, "one that was right before");
        assert_eq!(guesses.hold(of_site(1, 0), 1), None, "another site");
    }

    #[test]
    fn addresses_without_number_take_up_no_more_memory() {
        let guesses = one_a_minute();
        for n in 0..3 * MAX_ADDRESSES as u32 {
            guesses.wrong(address(n));
            guesses.right(address(n), 1);
        }
        assert!(guesses.near.wrong.len() <= MAX_ADDRESSES + 1, "{}", guesses.near.wrong.len());
        assert!(guesses.near.held.lock().len() <= MAX_ADDRESSES);
    }
}
