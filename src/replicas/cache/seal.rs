//! How an answer lies at a store that others may read, and may write to.
//!
//! A value is `version, mark, nonce, ciphertext, tag`: AES-256-GCM under a key of its own, which HKDF derives from the gates' secret
//! and the value's name. Name and mark are authenticated with it, so a value under another name or another mark cannot be opened.
//! A name is an HMAC of the call's digest: whoever reads the store cannot tell whether it holds the answer to a question that he
//! guesses. Lengths and times are not hidden.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{hkdf, hmac};

/// Names, seals and opens for all gates that have one secret.
pub(super) struct Sealer {
    root: hkdf::Prk,
    names: hmac::Key,
    digests: [u8; 32],
    random: SystemRandom,
}

/// Why a value says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// It was purged: it is right, and from before.
    Purged,
    /// Another version wrote it, or nobody who has the secret did, or it is not as it was written.
    Foreign,
}

/// Random, and new with each purge.
pub(super) const MARK_BYTES: usize = 16;
/// Of everything, and of the model.
pub(super) type Marks = [u8; 2 * MARK_BYTES];

const VERSION: u8 = 1;
const MARKS_END: usize = 1 + 2 * MARK_BYTES;
const HEAD: usize = MARKS_END + NONCE_LEN;
const TAG: usize = 16;

struct Length(usize);

impl hkdf::KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

impl Sealer {
    /// `None` only where the library refuses a length, and these are right.
    pub(super) fn new(secret: &[u8], fleet: &str) -> Option<Self> {
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"tollgate shared cache 1").extract(secret);
        let names = root.expand(&[b"names", fleet.as_bytes()], hmac::HMAC_SHA256).ok()?.into();
        let mut digests = [0; 32];
        root.expand(&[b"digests", fleet.as_bytes()], Length(32)).ok()?.fill(&mut digests).ok()?;
        Some(Self { root, names, digests, random: SystemRandom::new() })
    }

    /// What digests of calls are keyed with.
    pub(super) fn digests(&self) -> [u8; 32] {
        self.digests
    }

    /// What an answer is called at the store.
    pub(super) fn name(&self, key: &[u8; 32]) -> String {
        URL_SAFE_NO_PAD.encode(hmac::sign(&self.names, &[b"answer", &key[..]].concat()))
    }

    /// What a model is called there.
    pub(super) fn model(&self, model: &str) -> String {
        let tag = hmac::sign(&self.names, &[b"model ", model.as_bytes()].concat());
        URL_SAFE_NO_PAD.encode(&tag.as_ref()[..12])
    }

    /// A new mark.
    pub(super) fn mark(&self) -> Option<[u8; MARK_BYTES]> {
        let mut mark = [0; MARK_BYTES];
        self.random.fill(&mut mark).ok()?;
        Some(mark)
    }

    pub(super) fn seal(&self, name: &str, marks: &Marks, mut plain: Vec<u8>) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let aad = Aad::from(authenticated(name, marks));
        self.key(name)?.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut plain).ok()?;
        Some([&[VERSION], &marks[..], &nonce, &plain].concat())
    }

    pub(super) fn open(&self, name: &str, marks: &Marks, sealed: &[u8]) -> Result<Vec<u8>, Unread> {
        if sealed.len() < HEAD + TAG || sealed[0] != VERSION {
            return Err(Unread::Foreign);
        }
        let nonce = sealed[MARKS_END..].first_chunk().copied().ok_or(Unread::Foreign)?;
        let under: Marks = sealed[1..].first_chunk().copied().ok_or(Unread::Foreign)?;
        let mut text = sealed[HEAD..].to_vec();
        let key = self.key(name).ok_or(Unread::Foreign)?;
        let aad = Aad::from(authenticated(name, &under));
        let plain = key.open_in_place(Nonce::assume_unique_for_key(nonce), aad, &mut text);
        let length = plain.map_err(|_| Unread::Foreign)?.len();
        if under != *marks {
            return Err(Unread::Purged);
        }
        text.truncate(length);
        Ok(text)
    }

    /// Each name has a key of its own, so nonces need to differ among the few values of one name alone.
    fn key(&self, name: &str) -> Option<LessSafeKey> {
        let of = [b"value", name.as_bytes()];
        let key = self.root.expand(&of, &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(key)))
    }
}

fn authenticated(name: &str, marks: &Marks) -> Vec<u8> {
    [&[VERSION], &marks[..], name.as_bytes()].concat()
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sealer")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: &str = "n";
    const MARKS: Marks = [7; 32];

    fn sealer() -> Sealer {
        Sealer::new(b"a secret of the tests' own", "tollgate").unwrap()
    }

    proptest! {
        #[test]
        fn what_is_sealed_is_read_as_it_was(plain: Vec<u8>) {
            let sealed = sealer().seal(NAME, &MARKS, plain.clone()).unwrap();
            prop_assert_eq!(sealer().open(NAME, &MARKS, &sealed), Ok(plain));
        }

        #[test]
        fn any_other_bytes_say_nothing(bytes in prop::collection::vec(any::<u8>(), 0..300), is_version: bool) {
            let mut bytes = bytes;
            if let (true, Some(first)) = (is_version, bytes.first_mut()) {
                *first = VERSION;
            }
            prop_assert_eq!(sealer().open(NAME, &MARKS, &bytes), Err(Unread::Foreign));
        }

        #[test]
        fn any_cut_and_any_more_says_nothing(plain: Vec<u8>, at: prop::sample::Index, more in prop::collection::vec(any::<u8>(), 1..40)) {
            let sealed = sealer().seal(NAME, &MARKS, plain).unwrap();
            let cut = &sealed[..at.index(sealed.len())];
            prop_assert_eq!(sealer().open(NAME, &MARKS, cut), Err(Unread::Foreign));
            prop_assert_eq!(sealer().open(NAME, &MARKS, &[&sealed[..], &more].concat()), Err(Unread::Foreign));
        }

        #[test]
        fn any_flipped_bit_says_nothing(plain: Vec<u8>, at: prop::sample::Index, bit in 0..8_u8) {
            let mut sealed = sealer().seal(NAME, &MARKS, plain).unwrap();
            let at = at.index(sealed.len());
            sealed[at] ^= 1 << bit;
            prop_assert_eq!(sealer().open(NAME, &MARKS, &sealed), Err(Unread::Foreign));
        }

        #[test]
        fn under_another_name_secret_fleet_or_mark_it_says_nothing(plain: Vec<u8>, name in "[a-m]{1,9}", other in "[n-z]{1,9}", marks: [u8; 32]) {
            prop_assume!(marks != MARKS);
            let sealed = sealer().seal(&name, &MARKS, plain).unwrap();
            prop_assert_eq!(sealer().open(&other, &MARKS, &sealed), Err(Unread::Foreign));
            prop_assert_eq!(sealer().open(&name, &marks, &sealed), Err(Unread::Purged));
            let another = Sealer::new(other.as_bytes(), "tollgate").unwrap();
            prop_assert_eq!(another.open(&name, &MARKS, &sealed), Err(Unread::Foreign));
        }
    }

    #[test]
    fn a_reader_of_the_store_cannot_tell_what_was_asked() {
        let (one, other) = (sealer(), Sealer::new(b"another secret of the tests'", "tollgate").unwrap());
        let elsewhere = Sealer::new(b"a secret of the tests' own", "elsewhere").unwrap();
        for another in [other, elsewhere] {
            assert_ne!(one.digests(), another.digests());
            assert_ne!(one.name(&[1; 32]), another.name(&[1; 32]));
            assert_ne!(one.model("@cf/a/b"), another.model("@cf/a/b"));
        }
        assert_eq!(one.name(&[1; 32]), sealer().name(&[1; 32]));
        let sealed = |_| one.seal(NAME, &MARKS, b"the same".to_vec()).unwrap();
        let [first, second] = [0, 1].map(sealed);
        assert_ne!(first[HEAD..], second[HEAD..]);
        assert!(!format!("{one:?}").contains("secret"));
    }
}
