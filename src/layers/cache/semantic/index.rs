//! Vectors of messages that were answered, group by group, and bounded: those of one group are all compared.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::super::key::{Key, Taken};
use super::vector::cosine;

/// The messages of one group that are compared at most; the oldest go first. A thousand of 1,024 dimensions are a million products.
const MOST_COMPARED: usize = 1000;
/// Nobody looks at more of those that are near.
const MOST_NEAR: usize = 8;

/// A message that was answered.
#[derive(Debug)]
pub(super) struct Slot {
    /// What it was asked with, and by whom.
    pub(super) group: Key,
    /// Where its answer is kept.
    pub(super) answer: Key,
    pub(super) model: Arc<str>,
    pub(super) vector: Arc<[f32]>,
    pub(super) text: Arc<str>,
}

/// One that is near to another.
#[derive(Debug)]
pub(super) struct Near {
    pub(super) similarity: f32,
    pub(super) answer: Key,
    pub(super) text: Arc<str>,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Index {
    slots: Vec<Slot>,
    /// The slot that goes next where all are taken.
    next: usize,
    /// Slots of each group, the oldest first.
    groups: HashMap<Key, VecDeque<usize>, Taken>,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Those of a group from a similarity on, the nearest first.
    pub(super) fn nearest(&self, group: &Key, vector: &[f32], threshold: f32) -> Vec<Near> {
        let places = self.groups.get(group).into_iter().flatten();
        let slots = places.filter_map(|place| self.slots.get(*place));
        let mut near: Vec<_> = slots
            .map(|slot| (cosine(&slot.vector, vector), slot))
            .filter(|(similarity, _)| *similarity >= threshold)
            .collect();
        near.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        let near = near.into_iter().take(MOST_NEAR);
        near.map(|(similarity, slot)| Near { similarity, answer: slot.answer, text: slot.text.clone() }).collect()
    }

    /// Keeps it, in the place of the oldest where `most` are kept, or as many of its group as are compared.
    pub(super) fn put(&mut self, slot: Slot, most: usize) {
        if most == 0 {
            return;
        }
        if self.slots.len() > most {
            *self = Self::default();
        }
        let own = self.groups.entry(slot.group).or_default();
        let again =
            own.iter().copied().find(|place| self.slots.get(*place).is_some_and(|old| old.answer == slot.answer));
        if let Some(old) = again.and_then(|place| self.slots.get_mut(place)) {
            *old = slot;
            return;
        }
        let place = match own.len() >= MOST_COMPARED {
            true => own.pop_front(),
            false if self.slots.len() < most => None,
            false => {
                let place = self.next % self.slots.len();
                self.next = place + 1;
                Some(place)
            }
        };
        let group = slot.group;
        let place = match place {
            None => {
                self.slots.push(slot);
                self.slots.len() - 1
            }
            Some(place) => {
                if let Some(old) = self.slots.get_mut(place) {
                    let before = std::mem::replace(old, slot).group;
                    self.leave(before, place);
                }
                place
            }
        };
        self.groups.entry(group).or_default().push_back(place);
    }

    fn leave(&mut self, group: Key, place: usize) {
        if let Some(own) = self.groups.get_mut(&group) {
            own.retain(|other| *other != place);
            if own.is_empty() {
                self.groups.remove(&group);
            }
        }
    }

    /// Forgets what was asked of a model, or all.
    pub(super) fn forget(&mut self, model: Option<&str>) {
        let kept: Vec<_> = match model {
            None => Vec::new(),
            Some(model) => self.slots.drain(..).filter(|slot| *slot.model != *model).collect(),
        };
        let most = kept.len();
        *self = Self::default();
        kept.into_iter().for_each(|slot| self.put(slot, most));
    }
}

#[cfg(test)]
mod tests {
    use super::super::vector::unit;
    use super::*;

    fn key(n: usize) -> Key {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        Key(bytes)
    }

    /// The `n`-th of a group of messages that lie apart like points of a quarter of a circle.
    fn slot(group: usize, n: usize) -> Slot {
        let angle = n as f32 * 1e-3;
        Slot {
            group: key(group),
            answer: key(n + 1_000_000 * group),
            model: if group.is_multiple_of(2) { "even" } else { "odd" }.into(),
            vector: unit(vec![angle.cos(), angle.sin()]).unwrap(),
            text: format!("{n}").as_str().into(),
        }
    }

    #[test]
    fn the_nearest_of_the_same_group_comes_first_and_others_are_not_compared() {
        let mut index = Index::default();
        (0..50).for_each(|n| index.put(slot(1, n), 1000));
        let near = index.nearest(&key(1), &slot(1, 20).vector, 0.9);
        assert_eq!((&*near[0].text, near.len()), ("20", MOST_NEAR));
        assert!(near.windows(2).all(|two| two[0].similarity >= two[1].similarity));
        assert!(index.nearest(&key(2), &slot(1, 20).vector, 0.0).is_empty());
        assert!(index.nearest(&key(1), &unit(vec![-1.0, 0.0]).unwrap(), 0.1).is_empty());
        index.put(slot(1, 20), 1000);
        assert_eq!(index.len(), 50, "the same answer has one place");
    }

    #[test]
    fn its_bounds_are_reached_and_held_and_the_oldest_go() {
        let mut index = Index::default();
        (0..5 * 300).for_each(|n| index.put(slot(n % 5, n), 400));
        assert_eq!((index.len(), index.groups.values().map(VecDeque::len).sum::<usize>()), (400, 400));
        assert!(index.slots.iter().all(|slot| slot.text.parse::<usize>().unwrap() >= 1100));
        (0..2 * MOST_COMPARED).for_each(|n| index.put(slot(7, n), 10_000));
        assert_eq!(index.groups[&key(7)].len(), MOST_COMPARED);
        assert_eq!(index.len(), 400 + MOST_COMPARED);
        index.forget(Some("odd"));
        assert!(!index.groups.contains_key(&key(7)) && index.groups.contains_key(&key(2)));
        assert_eq!(index.len(), index.groups.values().map(VecDeque::len).sum::<usize>());
        // A smaller bound begins anew.
        index.put(slot(2, 1), 3);
        assert_eq!(index.len(), 1);
        index.put(slot(2, 2), 0);
        index.forget(None);
        assert_eq!((index.len(), index.groups.len()), (0, 0));
    }
}
