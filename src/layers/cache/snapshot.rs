//! What is kept, written to a file and read back: a warm cache survives a restart.
//!
//! A line for the secret that the keys were made with; then a line of JSON for each entry, and its body's bytes after it. The file is written beside the old one and takes its place,
//! so that there is always a whole one.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::key::{Key, Secret};
use super::store::{Entry, Kind, Store};
use crate::neurons::Neurons;

#[derive(Serialize, Deserialize)]
struct Head {
    secret: [u64; 4],
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

pub(super) fn save(store: &Store, path: &Path) -> io::Result<()> {
    let beside = path.with_extension("new");
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    // Answers are nobody else's to read.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = BufWriter::new(options.open(&beside)?);
    serde_json::to_writer(&mut file, &Head { secret: store.secret().0 })?;
    file.write_all(b"\n")?;
    for (key, entry) in store.all() {
        serde_json::to_writer(&mut file, &Line::of(key, &entry))?;
        file.write_all(b"\n")?;
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
    let mut count = 0;
    while let Some((key, entry)) = read(&mut file)? {
        store.keep(key, entry);
        count += 1;
    }
    Ok(count)
}

/// The next entry; `None` at the end, or where the file is none of ours.
fn read(file: &mut impl BufRead) -> io::Result<Option<(Key, Entry)>> {
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
    let length = file.take(1 << 20).read_until(b'\n', &mut line)?;
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
        let kept_at = SystemTime::UNIX_EPOCH.checked_add(self.kept_at)?;
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
    use std::path::PathBuf;

    use super::*;

    fn places() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/kept")
    }

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
    #[ignore = "writes into tests/data"]
    fn write_the_files_of_this_version() {
        let place = places().join(env!("CARGO_PKG_VERSION"));
        std::fs::create_dir_all(&place).unwrap();
        let store = Store::new(1 << 20);
        entries(100).into_iter().for_each(|(key, entry)| store.keep(key, entry));
        save(&store, &place.join("cache")).unwrap();
    }

    #[test]
    fn the_cache_of_every_earlier_version_is_read() {
        for version in std::fs::read_dir(places()).unwrap() {
            let version = version.unwrap().path();
            let store = Store::new(1 << 20);
            assert_eq!(load(&store, &version.join("cache")).unwrap(), 2, "{version:?}");
            for (key, entry) in entries(100) {
                let kept = store.get(&key).unwrap();
                assert_eq!((&kept.body, kept.cost), (&entry.body, entry.cost), "{version:?}");
            }
        }
    }
}
