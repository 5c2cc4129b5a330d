//! A map that forgets what has become idle, a little at a time.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// By 64-bit ids, which are hashes already.
#[derive(Debug)]
pub(super) struct SweptMap<V> {
    map: ById<V>,
    /// Every id once, the one that was looked at longest ago first.
    round: VecDeque<u64>,
}

/// A map by ids that are hashes already.
pub(super) type ById<V> = HashMap<u64, V, BuildHasherDefault<Id>>;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Id(u64);

/// How many are looked at for each that comes in: more than one, so that what is idle goes faster than anything comes.
const LOOKS: usize = 2;
/// A map is made smaller when it holds less than this part of what it could.
const SPARSE: usize = 4;
const SMALL: usize = 64;

impl Hasher for Id {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, id: u64) {
        self.0 = id;
    }
}

impl<V> Default for SweptMap<V> {
    fn default() -> Self {
        Self { map: HashMap::default(), round: VecDeque::new() }
    }
}

impl<V> SweptMap<V> {
    pub(super) fn len(&self) -> usize {
        self.map.len()
    }

    pub(super) fn get(&self, id: u64) -> Option<&V> {
        self.map.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut V> {
        self.map.get_mut(&id)
    }

    /// Puts in one that is not there yet, and looks at a few others.
    pub(super) fn insert(&mut self, id: u64, value: V, is_idle: impl FnMut(&mut V) -> bool) {
        self.sweep(LOOKS, is_idle);
        self.map.insert(id, value);
        self.round.push_back(id);
    }

    /// Looks at the next so many, and forgets those that are idle.
    pub(super) fn sweep(&mut self, looks: usize, mut is_idle: impl FnMut(&mut V) -> bool) {
        for _ in 0..looks.min(self.round.len()) {
            let Some(id) = self.round.pop_front() else { break };
            if self.map.get_mut(&id).is_some_and(&mut is_idle) {
                self.map.remove(&id);
            } else {
                self.round.push_back(id);
            }
        }
        if self.map.len() < self.map.capacity() / SPARSE && self.map.capacity() > SMALL {
            self.map.shrink_to(self.map.len() * 2);
            self.round.shrink_to(self.map.len() * 2);
        }
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&u64, &mut V)> {
        self.map.iter_mut()
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.map.values_mut()
    }
}
