//! What is kept, written to a file and read back: a warm cache survives a restart.
//!
//! A line for the secret that the keys were made with; then for each entry a mark, a checksum, a line of JSON, and the body's
//! bytes. The mark is random and the file's own, so what follows a broken entry is found again: that one alone is left out. The
//! file is written beside the old one and takes its place, so that there is always a whole one. Files of the first version, which
//! had neither marks nor checksums, are read up to where they break.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use highway::{HighwayHash, HighwayHasher};
use http::{HeaderName, HeaderValue};
use memchr::memmem;
use serde::{Deserialize, Serialize};

use super::key::{Key, Secret};
use super::store::{Entry, Kind, Store};
use crate::neurons::Neurons;

#[derive(Serialize, Deserialize)]
struct Head {
    secret: [u64; 4],
    /// Stands before each entry; absent in the first version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mark: Option<u128>,
    /// Of the secret and the mark.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    checksum: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    key: [u8; 32],
    model: String,
    /// Of a reply; a vector has none.
    headers: Option<Vec<(String, String)>>,
    pooling: Option<String>,
    cost: Neurons,
    kept_at: Duration,
    ttl: Duration,
    length: usize,
}

/// No entry is longer; what says so is a broken file.
const MAX_LENGTH: usize = 1 << 30;
const MAX_LINE_BYTES: usize = 1 << 20;
/// A mark and a checksum.
const PREFIX_BYTES: usize = 16 + 8;

pub(super) fn save(store: &Store, path: &Path) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    // Answers are nobody else's to read.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = BufWriter::new(options.open(&beside)?);
    let head = Head::new(store.secret().0);
    serde_json::to_writer(&mut file, &head)?;
    file.write_all(b"\n")?;
    let mark = head.mark.unwrap_or_default().to_le_bytes();
    for (key, entry) in store.all() {
        let mut line = serde_json::to_vec(&Line::of(key, &entry))?;
        line.push(b'\n');
        file.write_all(&mark)?;
        file.write_all(&checksum(&[&line, &entry.body]).to_le_bytes())?;
        file.write_all(&line)?;
        file.write_all(&entry.body)?;
    }
    file.into_inner()?.sync_all()?;
    std::fs::rename(beside, path)
}

pub(super) fn load(store: &Store, path: &Path) -> io::Result<usize> {
    let mut file = match File::open(path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    let Some(head) = line(&mut file)?.and_then(|line| serde_json::from_slice::<Head>(&line).ok()) else { return Ok(0) };
    if !store.adopt(Secret(head.secret)) {
        return Ok(0);
    }
    let entries: &mut dyn Iterator<Item = io::Result<(Key, Entry)>> = match head.mark {
        Some(mark) if head.checksum == Some(head.expected()) => &mut Marked::new(file, mark),
        Some(_) => return Ok(0),
        None => &mut std::iter::from_fn(|| read_unmarked(&mut file).transpose()),
    };
    let mut count = 0;
    for entry in entries {
        let (key, entry) = entry?;
        store.keep(key, entry);
        count += 1;
    }
    Ok(count)
}

/// One entry as bytes of its own.
pub(super) fn encode(key: Key, entry: &Entry) -> Option<Vec<u8>> {
    let mut bytes = serde_json::to_vec(&Line::of(key, entry)).ok()?;
    bytes.push(b'\n');
    bytes.extend_from_slice(&entry.body);
    Some(bytes)
}

/// What [`encode`] wrote.
pub(super) fn decode(bytes: &[u8]) -> Option<(Key, Entry)> {
    let end = memchr::memchr(b'\n', bytes)?;
    let (line, body) = (&bytes[..end], &bytes[end + 1..]);
    let line: Line = serde_json::from_slice(line).ok()?;
    (line.length == body.len()).then(|| line.entry(Bytes::copy_from_slice(body)))?
}

fn checksum(pieces: &[&[u8]]) -> u64 {
    let mut hasher = HighwayHasher::default();
    pieces.iter().for_each(|piece| hasher.append(piece));
    hasher.finalize64()
}

impl Head {
    fn new(secret: [u64; 4]) -> Self {
        let mark = Some(fastrand::u128(..));
        let head = Self { secret, mark, checksum: None };
        Self { checksum: Some(head.expected()), ..head }
    }

    fn expected(&self) -> u64 {
        let mut bytes = self.mark.unwrap_or_default().to_le_bytes().to_vec();
        self.secret.iter().for_each(|part| bytes.extend(part.to_le_bytes()));
        checksum(&[&bytes])
    }
}

/// The entries of a file with marks, less those that are not as they were written.
struct Marked<R> {
    file: R,
    mark: [u8; 16],
    /// Read, and from `begin` on not gone through yet.
    buffer: Vec<u8>,
    begin: usize,
    /// The file has no more.
    has_ended: bool,
    broken: usize,
}

impl<R: Read> Marked<R> {
    fn new(file: R, mark: u128) -> Self {
        Self { file, mark: mark.to_le_bytes(), buffer: Vec::new(), begin: 0, has_ended: false, broken: 0 }
    }

    /// Where in the buffer the next entry stands, its mark included; `None` where there is no more.
    fn piece(&mut self) -> io::Result<Option<Range<usize>>> {
        let mut searched = self.begin + self.mark.len();
        loop {
            let unsearched = self.buffer.get(searched..).unwrap_or_default();
            let end = match memmem::find(unsearched, &self.mark) {
                Some(at) => searched + at,
                None if self.has_ended => self.buffer.len(),
                None => {
                    // A mark may begin in what is here and end in what comes.
                    searched =
                        (self.buffer.len() - self.begin + 1).saturating_sub(self.mark.len()).max(self.mark.len());
                    self.read_more()?;
                    continue;
                }
            };
            let piece = std::mem::replace(&mut self.begin, end)..end;
            return Ok((!piece.is_empty()).then_some(piece));
        }
    }

    /// Reads more of the file, in the place of what has been gone through.
    fn read_more(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.begin);
        self.begin = 0;
        if self.buffer.len() > MAX_LENGTH + MAX_LINE_BYTES {
            return Err(io::Error::other("no entry is so long"));
        }
        let more = (&mut self.file).take(READ_BYTES).read_to_end(&mut self.buffer)?;
        self.has_ended = more == 0;
        Ok(())
    }
}

const READ_BYTES: u64 = 1 << 20;

impl<R: Read> Iterator for Marked<R> {
    type Item = io::Result<(Key, Entry)>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.piece() {
                Ok(Some(piece)) => match self.buffer.get(piece).and_then(entry_of) {
                    Some(entry) => return Some(Ok(entry)),
                    None => self.broken += 1,
                },
                Ok(None) => {
                    if self.broken > 0 {
                        tracing::warn!(left_out = self.broken, "the cache's file is broken in places");
                    }
                    return None;
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// The entry between two marks, where it is as it was written.
fn entry_of(piece: &[u8]) -> Option<(Key, Entry)> {
    let (prefix, rest) = piece.split_at_checked(PREFIX_BYTES)?;
    let written = u64::from_le_bytes(prefix[16..].try_into().ok()?);
    let line_end = memchr::memchr(b'\n', rest)? + 1;
    let (line, body) = rest.split_at(line_end);
    if checksum(&[line, body]) != written {
        return None;
    }
    let line = serde_json::from_slice::<Line>(line).ok()?;
    (line.length == body.len()).then(|| line.entry(Bytes::copy_from_slice(body)))?
}

/// The next entry of a file of the first version; `None` at the end, or where the file is none of ours.
fn read_unmarked(file: &mut impl BufRead) -> io::Result<Option<(Key, Entry)>> {
    let Some(line) = line(file)?.and_then(|line| serde_json::from_slice::<Line>(&line).ok()) else { return Ok(None) };
    if line.length > MAX_LENGTH {
        return Ok(None);
    }
    let mut body = Vec::new();
    file.take(line.length as u64).read_to_end(&mut body)?;
    Ok(if body.len() == line.length { line.entry(body.into()) } else { None })
}

fn line(file: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let length = file.take(MAX_LINE_BYTES as u64).read_until(b'\n', &mut line)?;
    Ok((length > 0).then_some(line))
}

impl Line {
    fn of(Key(key): Key, entry: &Entry) -> Self {
        let (headers, pooling) = match &entry.kind {
            Kind::Reply(headers) => (Some(texts(headers)), None),
            Kind::Vector(pooling) => (None, pooling.as_ref().map(|p| String::from_utf8_lossy(p).into_owned())),
        };
        let kept_at = entry.kept_at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (model, cost, ttl, length) = (entry.model.to_string(), entry.cost, entry.ttl, entry.body.len());
        Self { key, model, headers, pooling, cost, kept_at, ttl, length }
    }

    /// `None` where it was kept at a time that no clock tells.
    fn entry(self, body: Bytes) -> Option<(Key, Entry)> {
        let kind = match self.headers {
            Some(headers) => Kind::Reply(headers.into_iter().filter_map(header).collect()),
            None => Kind::Vector(self.pooling.map(Bytes::from)),
        };
        // One that was kept in the future, by a clock that was ahead, is kept from now on: it lasts no longer than others.
        let kept_at = SystemTime::UNIX_EPOCH.checked_add(self.kept_at)?.min(SystemTime::now());
        Some((Key(self.key), Entry { model: self.model.into(), kind, body, cost: self.cost, kept_at, ttl: self.ttl }))
    }
}

fn texts(headers: &[(HeaderName, HeaderValue)]) -> Vec<(String, String)> {
    let text = |(name, value): &(HeaderName, HeaderValue)| Some((name.to_string(), value.to_str().ok()?.to_owned()));
    headers.iter().filter_map(text).collect()
}

fn header((name, value): (String, String)) -> Option<(HeaderName, HeaderValue)> {
    Some((name.parse().ok()?, value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::testing::versions;

    /// A reply and a vector, `bytes` long each, which are kept for centuries.
    fn entries(bytes: usize) -> [(Key, Entry); 2] {
        let header = (http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let reply = Kind::Reply([header].into());
        let vector = Kind::Vector(Some(Bytes::from_static(b"\"cls\"")));
        [(1, reply), (2, vector)].map(|(key, kind)| {
            let entry = Entry {
                model: "@cf/a/b".into(),
                kind,
                body: vec![b'0' + key; bytes].into(),
                cost: Neurons::from_whole(u64::from(key)),
                kept_at: SystemTime::now(),
                ttl: Duration::from_secs(500 * 366 * 24 * 3600),
            };
            (Key([key; 32]), entry)
        })
    }

    #[test]
    fn a_broken_entry_is_left_out_and_the_others_are_read() {
        let directory = tempfile::tempdir().unwrap();
        let (whole, broken) = (directory.path().join("whole"), directory.path().join("broken"));
        let store = Store::new(1 << 20);
        let many = (0u8..20).flat_map(|n| entries(300).map(|(Key(key), entry)| (Key([key[0] + 2 * n; 32]), entry)));
        many.for_each(|(key, entry)| store.keep(key, entry));
        save(&store, &whole).unwrap();
        let bytes = std::fs::read(&whole).unwrap();
        let head = memchr::memchr(b'\n', &bytes).unwrap();
        for place in (0..bytes.len()).step_by(37) {
            let mut changed = bytes.clone();
            changed[place] ^= 1 << (place % 8);
            std::fs::write(&broken, changed).unwrap();
            let (read, count) = (Store::new(1 << 20), load(&Store::new(1 << 20), &broken).unwrap());
            // A broken mark takes the entry before it along.
            let least = if place <= head { 0 } else { 38 };
            assert!((least..=40).contains(&count), "{count} of 40 are read with byte {place} changed");
            load(&read, &broken).unwrap();
            for (key, entry) in read.all().filter(|_| place > head) {
                let kept = store.get(&key).unwrap();
                assert_eq!((&entry.body, entry.cost, &entry.model), (&kept.body, kept.cost, &kept.model), "{place}");
            }
        }
        std::fs::write(&broken, &bytes[..bytes.len() / 2]).unwrap();
        assert!((15..25).contains(&load(&Store::new(1 << 20), &broken).unwrap()));
    }

    #[test]
    fn what_was_kept_in_the_future_lasts_no_longer_than_others() {
        let [(key, mut entry), _] = entries(1);
        (entry.kept_at, entry.ttl) = (SystemTime::now() + Duration::from_secs(1 << 25), Duration::from_secs(60));
        let (_, read) = Line::of(key, &entry).entry(entry.body.clone()).unwrap();
        assert!(read.kept_at <= SystemTime::now());
    }

    #[test]
    fn the_cache_of_this_and_every_earlier_version_is_read() {
        let this = tempfile::tempdir().unwrap();
        let store = Store::new(1 << 20);
        entries(100).into_iter().for_each(|(key, entry)| store.keep(key, entry));
        save(&store, &this.path().join("cache")).unwrap();
        for version in versions(this.path()) {
            let store = Store::new(1 << 20);
            assert_eq!(load(&store, &version.join("cache")).unwrap(), 2, "{version:?}");
            for (key, entry) in entries(100) {
                let kept = store.get(&key).unwrap();
                assert_eq!((&kept.body, kept.cost), (&entry.body, entry.cost), "{version:?}");
            }
        }
    }
}
