//! What came of an answer so far: to be kept when it is whole, and for those who read it more slowly than others.
//!
//! It grows up to the size of an answer that may be kept, and only as far as [memory](crate::memory) goes round. Beyond that
//! its beginning is let go of: the answer will not be kept, and who is far behind has lost it.

use crate::memory::{Memory, SMALL_BYTES, Share};

/// See the [module](self).
pub(super) struct Record {
    bytes: Vec<u8>,
    /// How much of the beginning is gone, in bytes.
    let_go: u64,
    max_bytes: usize,
    /// How much it may hold without asking for more.
    granted: u64,
    memory: Memory,
    share: Option<Share>,
}

/// A place in an answer.
pub(super) enum Piece<'a> {
    Gone,
    Here(&'a [u8]),
    ToCome,
}

impl Record {
    pub(super) fn new(max_bytes: usize, memory: Memory) -> Self {
        Self { bytes: Vec::new(), let_go: 0, max_bytes, granted: SMALL_BYTES, memory, share: None }
    }

    /// Adds what came.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        let length = self.bytes.len() + bytes.len();
        if length as u64 > self.granted && !self.grow(length as u64) {
            self.max_bytes = self.max_bytes.min(self.granted as usize);
        }
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() > self.max_bytes {
            // Too much to keep: only as much stays as the slower ones may be behind.
            let gone = self.bytes.len() - self.max_bytes / 2;
            self.bytes.drain(..gone);
            self.let_go += gone as u64;
        }
    }

    /// It doubles, as the bytes themselves do.
    fn grow(&mut self, length: u64) -> bool {
        let wanted = (self.granted * 2).max(length);
        let taken = if self.share.is_some() { self.granted } else { 0 };
        let Some(share) = self.memory.try_take(wanted - taken) else { return false };
        match &mut self.share {
            Some(held) => held.merge(share),
            none => *none = Some(share),
        }
        self.granted = wanted;
        true
    }

    /// What stands at `at`, at most so much of it.
    pub(super) fn piece(&self, at: u64, most_bytes: usize) -> Piece<'_> {
        let Some(begun) = at.checked_sub(self.let_go) else { return Piece::Gone };
        let begun = (begun as usize).min(self.bytes.len());
        match &self.bytes[begun..self.bytes.len().min(begun + most_bytes)] {
            [] => Piece::ToCome,
            bytes => Piece::Here(bytes),
        }
    }

    /// Nothing is gone.
    pub(super) fn is_whole(&self) -> bool {
        self.let_go == 0
    }

    /// All of it, if nothing is gone.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        self.is_whole().then_some(&self.bytes)
    }

    /// Where the next piece will stand.
    pub(super) fn end(&self) -> u64 {
        self.let_go + self.bytes.len() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_grows_only_as_far_as_memory_goes_round() {
        let memory = Memory::new(1 << 20);
        let mut record = Record::new(8 << 20, memory.clone());
        (0..30).for_each(|_| record.push(&[1; 16 * 1024]));
        assert!(record.is_whole() && memory.taken_bytes() >= 480 * 1024);
        let others = memory.try_take(memory.max_bytes() - memory.taken_bytes()).unwrap();
        (0..100).for_each(|_| record.push(&[2; 16 * 1024]));
        assert!(!record.is_whole() && record.bytes.len() as u64 <= record.granted);
        assert_eq!(record.end(), 130 * 16 * 1024);
        assert!(matches!(record.piece(0, 1), Piece::Gone));
        assert!(matches!(record.piece(record.end() - 1, 9), Piece::Here([2])));
        assert!(matches!(record.piece(record.end(), 9), Piece::ToCome));
        drop((record, others));
        assert_eq!(memory.taken_bytes(), 0);
    }
}
