//! Clients' keys that are made while the gate runs: a SQLite file of their hashes, beside the config's own `[[keys]]`.
//!
//! The gate and `tollgate keys` write the same file; the gate looks several times a second whether somebody else has. A key that
//! was revoked stays in the file, so that a gate which once asked for keys goes on to ask: revoking the last one locks it.

use std::collections::BTreeMap;
use std::io::Read;
use std::num::NonZeroU32;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};

use super::config::Config;
use crate::layers::identify::keys::{Key, sha256};

/// The keys of one file.
pub struct KeyStore {
    pub(super) connection: Mutex<Connection>,
    path: PathBuf,
}

/// What a key is to be. Absent parts of a change stay as they are.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[non_exhaustive]
pub struct Wish {
    /// Who answers for it.
    pub owner: Option<String>,
    /// What budgets may be split by, such as `team`.
    pub labels: Option<BTreeMap<String, String>>,
    /// Only these models; empty is all.
    pub models: Option<Vec<String>>,
    /// In any minute; 0 is no limit.
    pub requests_per_minute: Option<u32>,
    /// From then on it opens nothing. RFC 3339.
    pub expires_at: Option<jiff::Timestamp>,
    /// Takes an expiry off again.
    pub never_expires: bool,
}

/// A key as it is kept: all but the key itself.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Stored {
    /// Names it in records, budgets and refusals.
    pub name: String,
    /// Who answers for it.
    pub owner: String,
    /// What budgets may be split by.
    pub labels: BTreeMap<String, String>,
    /// Only these models; empty is all.
    pub models: Vec<String>,
    /// In any minute.
    pub requests_per_minute: Option<NonZeroU32>,
    /// When it was made.
    pub created_at: jiff::Timestamp,
    /// From then on it opens nothing.
    pub expires_at: Option<jiff::Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<jiff::Timestamp>,
    /// Until when the key holds as well that was rotated last.
    pub old_holds_until: Option<jiff::Timestamp>,
    #[serde(skip)]
    pub(super) sha256: String,
    #[serde(skip)]
    pub(super) old_sha256: Option<String>,
    /// When any of this was changed last; later than the change before, whatever the clock does.
    #[serde(skip)]
    pub(super) changed_ms: i64,
}

/// Why a key cannot be kept or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyStoreError {
    /// There is none of that name.
    #[error("there is no key {0:?} that was made at run time")]
    NotFound(String),
    /// There is one of that name.
    #[error("there is a key {0:?} already: rotate it, or choose another name")]
    Exists(String),
    /// It cannot be so.
    #[error("{0}")]
    Wrong(String),
    /// The file.
    #[error("{path}: {why}")]
    File {
        /// Which.
        path: String,
        /// What the system or SQLite says.
        why: Box<dyn std::error::Error + Send + Sync>,
    },
}

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS keys (
  name TEXT PRIMARY KEY, sha256 TEXT NOT NULL, owner TEXT NOT NULL, labels TEXT NOT NULL, models TEXT NOT NULL,
  requests_per_minute INTEGER, created_ms INTEGER NOT NULL, expires_ms INTEGER, revoked_ms INTEGER,
  old_sha256 TEXT, old_until_ms INTEGER, changed_ms INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
PRAGMA user_version = 2;
";
/// Files of before had no column for when a key was changed last.
const MIGRATE: &str = "ALTER TABLE keys ADD COLUMN changed_ms INTEGER NOT NULL DEFAULT 0; PRAGMA user_version = 2;";
pub(super) const COLUMNS: &str = "name, owner, labels, models, requests_per_minute, created_ms, expires_ms, revoked_ms, old_until_ms, \
    sha256, old_sha256, changed_ms";
/// 192 bits: nobody guesses it, and its SHA-256 needs no salt.
const KEY_BYTES: usize = 24;
/// Keys in all, revoked ones among them.
const MAX_KEYS: i64 = 1_000_000;
const MAX_NAME_BYTES: usize = 64;
const MAX_LABELS: usize = 16;
const MAX_WORD_BYTES: usize = 128;
const MAX_MODELS: usize = 256;
const BUSY: Duration = Duration::from_secs(5);

/// A new key, and the SHA-256 that is kept of it.
pub fn fresh() -> std::io::Result<(String, String)> {
    let mut random = [0; KEY_BYTES];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut random)?;
    let key = format!("tg_{}", URL_SAFE_NO_PAD.encode(random));
    let hash = sha256(&key);
    Ok((key, hash))
}

/// Whether any key was ever made in a config's file, as far as that is there.
pub(super) fn is_any_made(config: &Config) -> Result<bool, KeyStoreError> {
    match config.keys_path() {
        Some(path) if path.exists() => {
            let store = KeyStore::open(path)?;
            let connection = store.connection.lock();
            store.told(connection.query_row("SELECT EXISTS (SELECT 1 FROM keys)", [], |row| row.get(0)))
        }
        _ => Ok(false),
    }
}

/// The keys of a config's file, as far as it is there: whether any was ever made, and those that may hold, by name.
pub(super) fn peek(config: &Config) -> Result<(bool, Vec<Stored>), KeyStoreError> {
    match config.keys_path() {
        Some(path) if path.exists() => {
            let all = KeyStore::open(path)?.all()?;
            Ok((!all.is_empty(), all))
        }
        _ => Ok((false, Vec::new())),
    }
}

// === impl Wish ===

impl Wish {
    pub(super) fn check(&self, name: &str) -> Result<(), KeyStoreError> {
        let wrong = |why: &str| Err(KeyStoreError::Wrong(why.to_owned()));
        let is_word = |text: &str| text.len() <= MAX_WORD_BYTES && !text.chars().any(char::is_control);
        if name.is_empty() || name.len() > MAX_NAME_BYTES || !is_word(name) {
            return wrong("a key's name has 1 to 64 bytes and no control characters");
        }
        if self.owner.as_ref().is_some_and(|owner| !is_word(owner)) {
            return wrong("an owner has at most 128 bytes and no control characters");
        }
        if self.never_expires && self.expires_at.is_some() {
            return wrong("a key either expires at a moment or never: say one of both");
        }
        let labels = self.labels.iter().flatten();
        if labels.clone().count() > MAX_LABELS
            || labels.clone().any(|(name, value)| name.is_empty() || !is_word(name) || !is_word(value))
        {
            return wrong("a key has at most 16 labels, with names and values of at most 128 bytes each");
        }
        let models = self.models.iter().flatten();
        if models.clone().count() > MAX_MODELS || models.clone().any(|model| model.is_empty() || !is_word(model)) {
            return wrong("a key is for at most 256 models, with names of at most 128 bytes each");
        }
        Ok(())
    }
}

// === impl KeyStore ===

impl KeyStore {
    /// Opens the file, made where there is none: the owner's alone.
    pub fn open(path: &Path) -> Result<Self, KeyStoreError> {
        let file = |why: Box<dyn std::error::Error + Send + Sync>| KeyStoreError::File {
            path: path.display().to_string(),
            why,
        };
        let made = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        drop(made.map_err(|why| file(why.into()))?);
        let connection = Connection::open(path).map_err(|why| file(why.into()))?;
        // A file that is as it should be is not written: whoever watches it would look for what has changed.
        let prepared = connection.busy_timeout(BUSY).and_then(|()| {
            match connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))? {
                0 => {
                    connection.pragma_update(None, "journal_mode", "wal")?;
                    connection.execute_batch(SCHEMA)
                }
                1 => connection.execute_batch(&format!("BEGIN IMMEDIATE; {MIGRATE} COMMIT;")).or_else(|why| {
                    // Another process may have been faster.
                    drop(connection.execute_batch("ROLLBACK"));
                    match connection.query_row("PRAGMA user_version", [], |row| row.get::<_, i64>(0))? {
                        1 => Err(why),
                        _ => Ok(()),
                    }
                }),
                _ => Ok(()),
            }
        });
        prepared.map_err(|why| file(why.into()))?;
        Ok(Self { connection: Mutex::new(connection), path: path.to_owned() })
    }

    pub(super) fn told<T>(&self, result: rusqlite::Result<T>) -> Result<T, KeyStoreError> {
        result.map_err(|why| KeyStoreError::File { path: self.path.display().to_string(), why: why.into() })
    }

    /// Another number each time that somebody else has written the file.
    pub(super) fn version(&self) -> Result<i64, KeyStoreError> {
        self.told(self.connection.lock().query_row("PRAGMA data_version", [], |row| row.get(0)))
    }

    /// All of them, by name, revoked ones too.
    pub fn all(&self) -> Result<Vec<Stored>, KeyStoreError> {
        let connection = self.connection.lock();
        let sql = format!("SELECT {COLUMNS} FROM keys ORDER BY name");
        let read = connection.prepare(&sql).and_then(|mut all| all.query_map([], stored)?.collect());
        self.told(read)
    }

    /// Those whose names come after this one and have these words in their name, owner or labels; at most so many, by name.
    pub fn some(&self, after: &str, words: &str, at_most: usize) -> Result<Vec<Stored>, KeyStoreError> {
        let connection = self.connection.lock();
        let sql = format!(
            "SELECT {COLUMNS} FROM keys WHERE name > ?1
             AND (?2 = '' OR instr(lower(name || ' ' || owner || ' ' || labels), lower(?2)) > 0) ORDER BY name LIMIT ?3"
        );
        let values = params![after, words, i64::try_from(at_most).unwrap_or(i64::MAX)];
        let read = connection.prepare(&sql).and_then(|mut some| some.query_map(values, stored)?.collect());
        self.told(read)
    }

    /// One of them.
    pub fn get(&self, name: &str) -> Result<Stored, KeyStoreError> {
        let sql = format!("SELECT {COLUMNS} FROM keys WHERE name = ?1");
        let found = self.told(self.connection.lock().query_row(&sql, [name], stored).optional())?;
        found.ok_or_else(|| KeyStoreError::NotFound(name.to_owned()))
    }

    /// Makes a key: it is told this once. The name of a revoked one may be used again.
    pub fn create(&self, name: &str, wish: &Wish) -> Result<String, KeyStoreError> {
        wish.check(name)?;
        let (key, hash) = self.fresh()?;
        let connection = self.connection.lock();
        let count: i64 = self.told(connection.query_row("SELECT count(*) FROM keys", [], |row| row.get(0)))?;
        if count >= MAX_KEYS {
            return Err(KeyStoreError::Wrong(format!("there are {MAX_KEYS} keys, and no room for more")));
        }
        let sql = "INSERT INTO keys (name, sha256, owner, labels, models, requests_per_minute, created_ms, expires_ms, changed_ms) \
            VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?7) ON CONFLICT (name) DO UPDATE SET sha256 = excluded.sha256, \
            owner = excluded.owner, labels = excluded.labels, models = excluded.models, \
            requests_per_minute = excluded.requests_per_minute, created_ms = max(excluded.created_ms, created_ms + 1), \
            changed_ms = max(excluded.changed_ms, changed_ms + 1), expires_ms = excluded.expires_ms, revoked_ms = NULL, old_sha256 = NULL, old_until_ms = NULL \
            WHERE revoked_ms IS NOT NULL";
        let made = connection.execute(
            sql,
            params![
                name,
                hash,
                wish.owner.as_deref().unwrap_or_default(),
                json(&wish.labels.clone().unwrap_or_default()),
                json(&wish.models.clone().unwrap_or_default()),
                wish.requests_per_minute.filter(|requests| *requests > 0),
                now_ms(),
                wish.expires_at.map(|at| at.as_millisecond()),
            ],
        );
        match self.told(made)? {
            0 => Err(KeyStoreError::Exists(name.to_owned())),
            _ => Ok(key),
        }
    }

    /// Changes what is named of a key that holds.
    pub fn change(&self, name: &str, wish: &Wish) -> Result<Stored, KeyStoreError> {
        wish.check(name)?;
        let sql = "UPDATE keys SET owner = coalesce(?2, owner), labels = coalesce(?3, labels), models = coalesce(?4, models), \
            requests_per_minute = CASE ?5 WHEN NULL THEN requests_per_minute WHEN 0 THEN NULL ELSE coalesce(?5, requests_per_minute) END, \
            expires_ms = CASE ?8 WHEN 1 THEN NULL ELSE coalesce(?6, expires_ms) END, changed_ms = max(?7, changed_ms + 1) WHERE name = ?1 AND revoked_ms IS NULL";
        let values = params![
            name,
            wish.owner,
            wish.labels.as_ref().map(json),
            wish.models.as_ref().map(json),
            wish.requests_per_minute,
            wish.expires_at.map(|at| at.as_millisecond()),
            now_ms(),
            wish.never_expires,
        ];
        self.one(name, self.connection.lock().execute(sql, values))?;
        self.get(name)
    }

    /// From now on it opens nothing, and neither does the one before it.
    pub fn revoke(&self, name: &str) -> Result<(), KeyStoreError> {
        let sql = "UPDATE keys SET revoked_ms = ?2, old_sha256 = NULL, old_until_ms = NULL, \
            changed_ms = max(?2, changed_ms + 1) WHERE name = ?1 AND revoked_ms IS NULL";
        self.one(name, self.connection.lock().execute(sql, params![name, now_ms()]))
    }

    /// Makes another key of the same name; the one before holds as well for a while.
    pub fn rotate(&self, name: &str, grace: Duration) -> Result<String, KeyStoreError> {
        let (key, hash) = self.fresh()?;
        let until = now_ms().saturating_add(i64::try_from(grace.as_millis()).unwrap_or(i64::MAX / 2));
        let sql = "UPDATE keys SET old_sha256 = sha256, old_until_ms = ?3, sha256 = ?2, changed_ms = max(?4, changed_ms + 1) \
            WHERE name = ?1 AND revoked_ms IS NULL";
        self.one(name, self.connection.lock().execute(sql, params![name, hash, until, now_ms()]))?;
        Ok(key)
    }

    fn one(&self, name: &str, changed: rusqlite::Result<usize>) -> Result<(), KeyStoreError> {
        match self.told(changed)? {
            0 => Err(KeyStoreError::NotFound(name.to_owned())),
            _ => Ok(()),
        }
    }

    fn fresh(&self) -> Result<(String, String), KeyStoreError> {
        fresh().map_err(|why| KeyStoreError::File { path: "/dev/urandom".into(), why: why.into() })
    }
}

impl std::fmt::Debug for KeyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeyStore({})", self.path.display())
    }
}

// === impl Stored ===

impl Stored {
    /// As the door knows it: nothing where it was revoked, and twice where the one before holds as well.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        let key = |hash: &String, until: Option<jiff::Timestamp>| {
            let mut key = Key::new(self.name.clone(), hash.clone());
            key.models.clone_from(&self.models);
            key.requests_per_minute = self.requests_per_minute;
            key.labels.clone_from(&self.labels);
            key.expires_at = until;
            key
        };
        let earlier = |a: Option<jiff::Timestamp>, b: Option<jiff::Timestamp>| a.into_iter().chain(b).min();
        let old = self.old_sha256.as_ref().map(|hash| key(hash, earlier(self.old_holds_until, self.expires_at)));
        let own = self.revoked_at.is_none().then(|| key(&self.sha256, self.expires_at));
        own.into_iter().chain(old)
    }
}

pub(super) fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    let moment = |n| Ok::<_, rusqlite::Error>(row.get::<_, Option<i64>>(n)?.map(timestamp));
    let text = |n| row.get::<_, String>(n);
    Ok(Stored {
        name: text(0)?,
        owner: text(1)?,
        labels: serde_json::from_str(&text(2)?).unwrap_or_default(),
        models: models(&text(3)?)?,
        requests_per_minute: row.get::<_, Option<u32>>(4)?.and_then(NonZeroU32::new),
        created_at: timestamp(row.get(5)?),
        expires_at: moment(6)?,
        revoked_at: moment(7)?,
        old_holds_until: moment(8)?,
        sha256: text(9)?,
        old_sha256: row.get(10)?,
        changed_ms: row.get(11)?,
    })
}

/// A list that cannot be read is not one of no models, which would be all.
fn models(text: &str) -> rusqlite::Result<Vec<String>> {
    serde_json::from_str(text)
        .map_err(|why| rusqlite::Error::FromSqlConversionFailure(3, rusqlite::types::Type::Text, why.into()))
}

pub(super) fn json(value: &impl Serialize) -> String {
    // Lists and maps of texts can be written.
    serde_json::to_string(value).unwrap_or_default()
}

/// What is beyond what can be told is as far off as can be.
fn timestamp(ms: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX)
}

fn now_ms() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, KeyStore) {
        let place = tempfile::tempdir().unwrap();
        let store = KeyStore::open(&place.path().join("keys.db")).unwrap();
        (place, store)
    }

    fn holds(store: &KeyStore) -> Vec<(String, String)> {
        store.all().unwrap().iter().flat_map(Stored::keys).map(|key| (key.name, key.sha256)).collect()
    }

    #[test]
    fn a_key_is_made_changed_rotated_and_revoked_and_kept_as_its_hash_alone() {
        let (place, store) = store();
        let labels = BTreeMap::from([("team".to_owned(), "search".to_owned())]);
        let wish = Wish { owner: Some("ops".into()), labels: Some(labels.clone()), ..Wish::default() };
        let key = store.create("a", &wish).unwrap();
        assert!(matches!(store.create("a", &wish), Err(KeyStoreError::Exists(_))));
        assert_eq!(holds(&store), [("a".to_owned(), sha256(&key))]);
        let wish = Wish { requests_per_minute: Some(7), ..Wish::default() };
        let changed = store.change("a", &wish).unwrap();
        assert_eq!((changed.requests_per_minute.map(NonZeroU32::get), changed.labels), (Some(7), labels));
        let at = jiff::Timestamp::from_second(2_000_000_000).unwrap();
        assert_eq!(store.change("a", &Wish { expires_at: Some(at), ..Wish::default() }).unwrap().expires_at, Some(at));
        assert_eq!(store.change("a", &Wish { never_expires: true, ..Wish::default() }).unwrap().expires_at, None);
        let unlimited = store.change("a", &Wish { requests_per_minute: Some(0), ..Wish::default() }).unwrap();
        assert_eq!(unlimited.requests_per_minute, None);
        let next = store.rotate("a", Duration::from_secs(60)).unwrap();
        assert_eq!(holds(&store), [("a".to_owned(), sha256(&next)), ("a".to_owned(), sha256(&key))]);
        store.revoke("a").unwrap();
        assert!(holds(&store).is_empty() && store.all().unwrap().len() == 1, "a revoked one is remembered");
        for error in [store.revoke("a").err(), store.rotate("b", Duration::ZERO).err()] {
            assert!(matches!(error, Some(KeyStoreError::NotFound(_))), "{error:?}");
        }
        store.create("a", &Wish::default()).unwrap();
        for file in std::fs::read_dir(place.path()).unwrap() {
            let bytes = std::fs::read(file.unwrap().path()).unwrap();
            assert!(!bytes.windows(key.len()).any(|window| window == key.as_bytes()), "the key itself is on the disk");
        }
    }

    #[test]
    fn keys_are_found_by_words_a_page_at_a_time() {
        let (_place, store) = store();
        for n in 0..25 {
            let owner = Some(if n % 5 == 0 { "Ops" } else { "research" }.to_owned());
            store.create(&format!("key {n:02}"), &Wish { owner, ..Wish::default() }).unwrap();
        }
        let names = |after: &str, words: &str| -> Vec<_> {
            store.some(after, words, 10).unwrap().into_iter().map(|stored| stored.name).collect()
        };
        assert_eq!(names("", "ops"), ["key 00", "key 05", "key 10", "key 15", "key 20"]);
        let pages = [names("", ""), names("key 09", ""), names("key 19", "")].concat();
        assert_eq!((pages.len(), &*pages[24]), (25, "key 24"));
        assert!(names("", "'; DROP TABLE keys; --").is_empty());
    }

    #[test]
    fn what_cannot_be_a_key_is_refused() {
        let (_place, store) = store();
        let long = "x".repeat(200);
        for (name, wish) in [
            ("", Wish::default()),
            (&*long, Wish::default()),
            ("a\nb", Wish::default()),
            ("a", Wish { owner: Some(long.clone()), ..Wish::default() }),
            ("a", Wish { models: Some(vec![String::new()]), ..Wish::default() }),
            ("a", Wish { labels: Some((0..17).map(|n| (n.to_string(), String::new())).collect()), ..Wish::default() }),
        ] {
            assert!(matches!(store.create(name, &wish), Err(KeyStoreError::Wrong(_))), "{name:?} {wish:?}");
        }
        assert!(store.all().unwrap().is_empty());
    }
}
