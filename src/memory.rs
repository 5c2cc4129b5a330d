//! One bound for the memory that bodies take, whoever sent them.
//!
//! A [`Memory`] is a number of bytes. Who is about to hold a large body takes a [`Share`] of it first, and gives it back by
//! dropping it. Where too little is left, a request's body waits for its turn, first come first served, and a reply is
//! passed on piece by piece instead of being taken in.
//!
//! # What it does not do
//! It counts no body up to [`SMALL_BYTES`]: those are bounded by the number of connections, and cost a call nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Bodies up to this size, in bytes, are not counted.
pub const SMALL_BYTES: u64 = 64 * 1024;

/// How many bytes all large bodies together may hold. Clones share it.
#[derive(Clone, Debug)]
pub struct Memory {
    free: Arc<Semaphore>,
    max_bytes: u64,
}

/// A part of a [`Memory`], given back when it is dropped.
#[derive(Debug)]
pub struct Share(OwnedSemaphorePermit);

/// What is counted. A semaphore's permits are taken by the `u32`, so bytes would end at 4 GiB.
const UNIT_BYTES: u64 = 1024;

impl Default for Memory {
    /// Without a bound.
    fn default() -> Self {
        Self::new(u64::MAX)
    }
}

impl Memory {
    /// So many bytes, rounded up to a KiB.
    pub fn new(max_bytes: u64) -> Self {
        let units = max_bytes.div_ceil(UNIT_BYTES).min(Semaphore::MAX_PERMITS as u64);
        Self { free: Arc::new(Semaphore::new(units as usize)), max_bytes }
    }

    /// All there is, taken or not, in bytes.
    pub fn max_bytes(&self) -> u64 {
        self.max_bytes
    }

    /// What is taken now, in bytes.
    pub fn taken_bytes(&self) -> u64 {
        let all = self.max_bytes.div_ceil(UNIT_BYTES).min(Semaphore::MAX_PERMITS as u64);
        all.saturating_sub(self.free.available_permits() as u64) * UNIT_BYTES
    }

    /// So many bytes, if they are free now.
    pub fn try_take(&self, bytes: u64) -> Option<Share> {
        self.free.clone().try_acquire_many_owned(units(bytes)?).ok().map(Share)
    }

    /// So many bytes, as soon as they are free, if that is within `patience`.
    pub async fn take(&self, bytes: u64, patience: Duration) -> Option<Share> {
        if bytes > self.max_bytes {
            return None;
        }
        let taking = self.free.clone().acquire_many_owned(units(bytes)?);
        tokio::time::timeout(patience, taking).await.ok()?.ok().map(Share)
    }
}

fn units(bytes: u64) -> Option<u32> {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).ok()
}

// === impl Share ===

impl Share {
    /// Adds another share of the same memory.
    pub fn merge(&mut self, other: Self) {
        self.0.merge(other.0);
    }

    /// Gives back what is more than so many bytes.
    pub fn shrink(&mut self, bytes: u64) {
        let kept = usize::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(usize::MAX);
        drop(self.0.split(self.0.num_permits().saturating_sub(kept)));
    }

    /// Bytes that give the share back when the last of their clones is dropped.
    pub fn hold(self, bytes: Bytes) -> Bytes {
        Bytes::from_owner(Held { bytes, _share: self })
    }
}

struct Held {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_held_comes_back_with_the_last_clone() {
        let memory = Memory::new(100 * 1024);
        let share = memory.try_take(90 * 1024).unwrap();
        assert!(memory.try_take(20 * 1024).is_none());
        let bytes = share.hold(Bytes::from(vec![1; 90 * 1024]));
        let clone = bytes.slice(10..20);
        drop(bytes);
        assert_eq!(memory.taken_bytes(), 90 * 1024);
        drop(clone);
        assert_eq!(memory.taken_bytes(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_comes_in_order_or_not_at_all() {
        let memory = Memory::new(100 * 1024);
        let all = memory.try_take(100 * 1024).unwrap();
        let patience = Duration::from_secs(5);
        let first = tokio::spawn({
            let memory = memory.clone();
            async move { memory.take(100 * 1024, patience).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(all);
        let first = first.await.unwrap().unwrap();
        assert!(memory.take(1024, patience).await.is_none(), "the wait is bounded");
        drop(first);
        assert!(memory.take(200 * 1024, patience).await.is_none(), "more than there is never comes");
        assert!(memory.take(1024, patience).await.is_some());
    }

    #[test]
    fn without_a_bound_everything_is_given() {
        assert!(Memory::default().try_take(u32::MAX.into()).is_some());
    }
}
