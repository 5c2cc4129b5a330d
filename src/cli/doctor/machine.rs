//! What the gate has on this machine: files, room on the disk, descriptors.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::statvfs;

use super::Finding;
use crate::sidecar::config::Config;
use crate::sidecar::machine;

/// Under so much room, SQLite's log and the records' own growth may fill the disk within the day.
const LITTLE: u64 = 1 << 30;
/// Under so much, nothing more can be written soon.
const NEXT_TO_NOTHING: u64 = 64 << 20;

/// Files that the gate writes: may it, and may others read them?
pub(super) fn files(config: &Config, file: Option<&Path>, findings: &mut Vec<Finding>) {
    if let Some(file) = file {
        let says_secrets = std::fs::read_to_string(file).is_ok_and(|text| {
            let has = |line: &str, key: &str| {
                line.trim_start().strip_prefix(key).is_some_and(|rest| rest.trim_start().starts_with('='))
            };
            text.lines()
                .any(|line| has(line, "admin_token") || has(line, "secret") || has(line, "store") && line.contains('@'))
        });
        if says_secrets && is_open(file) {
            let found = format!("{} has a secret and may be read by others", file.display());
            findings.push(Finding::warning("files", found, format!("chmod 600 {}", file.display())));
        }
    }
    for (setting, tls) in [("[tls] key", &config.tls), ("[admin_tls] key", &config.admin_tls)] {
        if let Some(key) = tls.key.as_ref().filter(|key| is_open(key)) {
            let found = format!("{} ({setting}) may be read by others", key.display());
            findings.push(Finding::warning("files", found, format!("chmod 600 {}", key.display())));
        }
    }
    let before = findings.len();
    for (setting, path) in written(config) {
        if let Err(why) = may_be_written(&path) {
            let found = format!("{} ({setting}) cannot be written: {why}", path.display());
            let mend = "let the gate's user write it and its directory, or name another path";
            findings.push(Finding::wrong("files", found, mend));
        } else if path.exists() && is_open(&path) {
            let found = format!("{} ({setting}) may be read by others", path.display());
            findings.push(Finding::warning("files", found, format!("chmod 600 {}", path.display())));
        }
    }
    if findings.len() == before {
        findings.push(Finding::ok("files", "the gate may write what it keeps, and others may not read it"));
    }
}

/// The files that the gate keeps, by the settings that name them.
fn written(config: &Config) -> Vec<(&'static str, PathBuf)> {
    let all = [
        ("[records] path", config.records.path().cloned()),
        ("keys_path", config.keys_path().map(Path::to_owned)),
        ("[cache] path", config.cache.path.clone()),
        ("[catalogue] path", config.catalogue.path.clone()),
    ];
    let named = all.into_iter().filter_map(|(setting, path)| Some((setting, path?)));
    named.filter(|(_, path)| !path.as_os_str().is_empty()).collect()
}

/// Changes nothing: a file that is there is opened and closed, and for one that is not a nameless one is made beside its place.
fn may_be_written(path: &Path) -> std::io::Result<()> {
    if path.exists() {
        return OpenOptions::new().append(true).open(path).map(drop);
    }
    let probe = directory(path).join(format!(".tollgate-doctor-{:016x}", fastrand::u64(..)));
    File::create_new(&probe)?;
    std::fs::remove_file(&probe)
}

fn directory(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn is_open(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o044 != 0)
}

/// How much room there is where the gate writes.
pub(super) fn disk(config: &Config, findings: &mut Vec<Finding>) {
    let mut seen = Vec::new();
    for (_, path) in written(config) {
        let place = directory(&path).to_owned();
        let Ok(room) = statvfs(&place) else { continue };
        if seen.contains(&room.f_fsid) {
            continue;
        }
        seen.push(room.f_fsid);
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        let found = format!("{} are free at {}", bytesize::ByteSize::b(free), place.display());
        findings.push(if free < NEXT_TO_NOTHING {
            Finding::wrong("disk", found, "make room: where no lease can be written, budgets refuse calls")
        } else if free < LITTLE {
            Finding::warning("disk", found, "make room, or lower [records] retention and max_size")
        } else {
            Finding::ok("disk", found)
        });
    }
}

/// Whether as many connections may be open as the config has.
pub(super) fn descriptors(config: &Config) -> Finding {
    let limit = machine::raise_open_files();
    let clients = machine::client_connections(limit);
    let found = format!("{limit} files may be open, which is {clients} clients' connections");
    if clients < config.max_connections {
        let mend = format!(
            "raise the limit of open files (LimitNOFILE=, ulimit -n), or set max_connections = {clients}: {} will not be had",
            config.max_connections
        );
        return Finding::warning("descriptors", found, mend);
    }
    Finding::ok("descriptors", found)
}
