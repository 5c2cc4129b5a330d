//! Keys as gates that share tell each other of them, and what becomes of two accounts of one key.
//!
//! Two rows of one name are joined, and the order in which rows are joined makes no difference: so gates that have heard of the same
//! rows, in whatever order and however often, keep the same keys. A key that was made later takes the place of one that was made
//! earlier. Of one key the latest change holds, and a key that was revoked anywhere stays revoked.

use std::collections::BTreeMap;
use std::num::NonZeroU32;

use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::key_store::{COLUMNS, KeyStore, KeyStoreError, Stored, Wish, json, stored};

/// All that is kept of a key: its hash, and never the key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Row {
    pub(super) name: String,
    created_ms: i64,
    changed_ms: i64,
    sha256: String,
    owner: String,
    labels: BTreeMap<String, String>,
    models: Vec<String>,
    requests_per_minute: Option<u32>,
    expires_ms: Option<i64>,
    revoked_ms: Option<i64>,
    old_sha256: Option<String>,
    old_until_ms: Option<i64>,
}

/// Bytes of a digest that is shown.
const SHOWN: usize = 6;
const HEX: usize = 64;

// === impl Row ===

impl Row {
    fn of(key: Stored) -> Self {
        let millis = |at: Option<jiff::Timestamp>| at.map(jiff::Timestamp::as_millisecond);
        Self {
            created_ms: key.created_at.as_millisecond(),
            changed_ms: key.changed_ms,
            expires_ms: millis(key.expires_at),
            revoked_ms: millis(key.revoked_at),
            old_until_ms: millis(key.old_holds_until),
            requests_per_minute: key.requests_per_minute.map(NonZeroU32::get),
            name: key.name,
            sha256: key.sha256,
            owner: key.owner,
            labels: key.labels,
            models: key.models,
            old_sha256: key.old_sha256,
        }
    }

    /// What follows from both, whichever was heard of first.
    fn join(self, other: Self) -> Self {
        let (earlier, later) = if self < other { (self, other) } else { (other, self) };
        if earlier.created_ms != later.created_ms {
            return later;
        }
        let revoked = [earlier.revoked_ms, later.revoked_ms].into_iter().flatten().min();
        match revoked {
            Some(_) => Self { revoked_ms: revoked, old_sha256: None, old_until_ms: None, ..later },
            None => later,
        }
    }

    fn check(&self) -> Result<(), KeyStoreError> {
        let wish = Wish {
            owner: Some(self.owner.clone()),
            labels: Some(self.labels.clone()),
            models: Some(self.models.clone()),
            ..Wish::default()
        };
        let is_hash = |hash: &str| hash.len() == HEX && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_hash(&self.sha256) || self.old_sha256.as_ref().is_some_and(|hash| !is_hash(hash)) {
            return Err(KeyStoreError::Wrong("a key's hash has 64 hexadecimal digits".into()));
        }
        wish.check(&self.name)
    }
}

// === impl KeyStore ===

impl KeyStore {
    /// A key, for the other gates.
    pub(super) fn row(&self, name: &str) -> Result<Row, KeyStoreError> {
        Ok(Row::of(self.get(name)?))
    }

    /// All of them, by name.
    pub(super) fn rows(&self) -> Result<Vec<Row>, KeyStoreError> {
        Ok(self.all()?.into_iter().map(Row::of).collect())
    }

    /// Joins what another gate has of a key to what is kept of it. Says whether that changes anything.
    pub(super) fn adopt(&self, row: Row) -> Result<bool, KeyStoreError> {
        row.check()?;
        let mut connection = self.connection.lock();
        let joined = (|| {
            let work = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let sql = format!("SELECT {COLUMNS} FROM keys WHERE name = ?1");
            let known = work.query_row(&sql, [&row.name], stored).optional()?.map(Row::of);
            let joined = match &known {
                Some(known) => known.clone().join(row),
                None => row,
            };
            if known.as_ref() == Some(&joined) {
                return Ok(false);
            }
            let sql = "INSERT OR REPLACE INTO keys (name, sha256, owner, labels, models, requests_per_minute, created_ms, \
                expires_ms, revoked_ms, old_sha256, old_until_ms, changed_ms) \
                VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
            let values = params![
                joined.name,
                joined.sha256,
                joined.owner,
                json(&joined.labels),
                json(&joined.models),
                joined.requests_per_minute,
                joined.created_ms,
                joined.expires_ms,
                joined.revoked_ms,
                joined.old_sha256,
                joined.old_until_ms,
                joined.changed_ms,
            ];
            work.execute(sql, values)?;
            work.commit()?;
            Ok(true)
        })();
        drop(connection);
        self.told(joined)
    }

    /// Another pair of numbers where anybody has written the file.
    pub(super) fn mark(&self) -> Result<(i64, i64), KeyStoreError> {
        let own = self.connection.lock().query_row("SELECT total_changes()", [], |row| row.get(0));
        Ok((self.version()?, self.told(own)?))
    }
}

/// The same for the same keys, whoever keeps them.
pub(super) fn digest(rows: &[Row]) -> String {
    let mut all = Sha256::new();
    for row in rows {
        all.update(json(row).as_bytes());
        all.update(b"\n");
    }
    shown(&all.finalize())
}

/// The beginning of a digest, for people to compare.
pub(super) fn shown(digest: &[u8]) -> String {
    digest.iter().take(SHOWN).fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn store() -> (tempfile::TempDir, KeyStore) {
        let place = tempfile::tempdir().unwrap();
        let store = KeyStore::open(&place.path().join("keys.db")).unwrap();
        (place, store)
    }

    #[test]
    fn gates_that_have_heard_of_the_same_rows_keep_the_same_keys_in_whatever_order() {
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..300 {
            let row = |rng: &mut fastrand::Rng| Row {
                name: "k".into(),
                created_ms: rng.i64(1..3),
                changed_ms: rng.i64(1..4),
                sha256: format!("{:064x}", rng.u8(..3)),
                owner: ["a", "b"][rng.usize(..2)].into(),
                labels: BTreeMap::new(),
                models: Vec::new(),
                requests_per_minute: None,
                expires_ms: None,
                revoked_ms: (rng.u8(..3) == 0).then(|| rng.i64(1..4)),
                old_sha256: None,
                old_until_ms: None,
            };
            let rows: Vec<_> = (0..5).map(|_| row(&mut rng)).collect();
            let joined = |rows: &[Row]| rows.iter().cloned().reduce(Row::join).unwrap();
            let one = joined(&rows);
            let mut other = [&rows[..], &rows[..]].concat();
            rng.shuffle(&mut other);
            assert_eq!(one, joined(&other), "{rows:?}");
            let made_last = rows.iter().map(|row| row.created_ms).max().unwrap();
            let revoked = rows.iter().any(|row| row.created_ms == made_last && row.revoked_ms.is_some());
            assert_eq!(one.revoked_ms.is_some(), revoked, "{rows:?}");
        }
    }

    #[test]
    fn a_key_that_was_revoked_here_and_rotated_or_changed_there_stays_revoked_until_it_is_made_anew() {
        let ((_a, here), (_b, there)) = (store(), store());
        here.create("team", &Wish::default()).unwrap();
        assert!(there.adopt(here.row("team").unwrap()).unwrap());
        assert!(!there.adopt(here.row("team").unwrap()).unwrap(), "the same once more changes nothing");
        here.revoke("team").unwrap();
        there.rotate("team", Duration::from_secs(60)).unwrap();
        there.change("team", &Wish { requests_per_minute: Some(7), ..Wish::default() }).unwrap();
        let (one, other) = (here.row("team").unwrap(), there.row("team").unwrap());
        here.adopt(other).unwrap();
        there.adopt(one).unwrap();
        assert_eq!(here.rows().unwrap(), there.rows().unwrap());
        assert_eq!(digest(&here.rows().unwrap()), digest(&there.rows().unwrap()));
        assert!(here.all().unwrap()[0].keys().next().is_none());
        // What was said before it was revoked does not bring it back, but whoever makes it anew does.
        let stale = here.row("team").unwrap();
        there.create("team", &Wish::default()).unwrap();
        assert!(!there.adopt(stale).unwrap());
        assert!(here.adopt(there.row("team").unwrap()).unwrap());
        assert!(here.all().unwrap()[0].keys().next().is_some());
    }

    #[test]
    fn a_file_of_before_is_read_on_and_a_row_that_no_key_has_is_refused() {
        let (place, store) = store();
        store.create("a", &Wish::default()).unwrap();
        let row = store.row("a").unwrap();
        drop(store);
        let path = place.path().join("keys.db");
        let file = rusqlite::Connection::open(&path).unwrap();
        file.execute_batch("ALTER TABLE keys DROP COLUMN changed_ms; PRAGMA user_version = 1;").unwrap();
        drop(file);
        let store = KeyStore::open(&path).unwrap();
        assert_eq!(store.row("a").unwrap(), Row { changed_ms: 0, ..row.clone() });
        let mark = store.mark().unwrap();
        for wrong in [
            Row { name: "x".repeat(200), ..row.clone() },
            Row { sha256: "not a hash".into(), ..row.clone() },
            Row { owner: "a\nb".into(), ..row.clone() },
        ] {
            assert!(matches!(store.adopt(wrong), Err(KeyStoreError::Wrong(_))));
        }
        assert_eq!(store.mark().unwrap(), mark);
        assert!(store.adopt(row).unwrap());
        assert_ne!(store.mark().unwrap(), mark);
    }
}
