//! The names of calls.

use std::time::SystemTime;

/// A call's name: 32 hexadecimal digits, ordered by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(u128);

const HEX: &[u8; 16] = b"0123456789abcdef";

impl CallId {
    pub(super) fn at(time: SystemTime) -> Self {
        use std::hash::{BuildHasher, RandomState};
        use std::sync::LazyLock;
        use std::sync::atomic::{AtomicU64, Ordering};
        static PROCESS: LazyLock<u64> = LazyLock::new(|| RandomState::new().hash_one(0));
        static NEXT: AtomicU64 = AtomicU64::new(0);

        let millis =
            time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() & 0xffff_ffff_ffff);
        let count = u128::from(NEXT.fetch_add(1, Ordering::Relaxed) & 0xffff_ffff);
        Self(millis << 80 | count << 48 | u128::from(*PROCESS & 0xffff_ffff_ffff))
    }

    /// Its 32 digits, in ASCII.
    pub fn digits(self) -> [u8; 32] {
        std::array::from_fn(|place| HEX[(self.0 >> (4 * (31 - place))) as usize & 0xf])
    }

    /// Its 16 bytes, in the order of its digits: sorted, they are in the order of time.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// From its 16 bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }

    /// From its 32 digits.
    pub fn parse(digits: &str) -> Option<Self> {
        (digits.len() == 32).then(|| u128::from_str_radix(digits, 16).ok()).flatten().map(Self)
    }
}

impl std::fmt::Display for CallId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&String::from_utf8_lossy(&self.digits()))
    }
}
