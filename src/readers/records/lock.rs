//! One writer for one database, by whatever name it is opened.
//!
//! Two sidecars with one ledger would spend the same neurons. A symbolic link, a hard link and a bind mount are other names of
//! one file, so the lock is on the file itself (`flock`, which SQLite does not use) and not on a name beside it.

use std::collections::BTreeSet;
use std::fs::{File, Metadata, OpenOptions, TryLockError};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use parking_lot::Mutex;

use super::error::RecordsError;

/// Nobody else writes the file while this is held.
///
/// It is to outlive the connections: the system lets go of all of a process's POSIX locks on a file, SQLite's among them, when
/// the process closes any handle of that file. For the same reason a file that this process holds already is not opened again.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
    inode: Inode,
}

type Inode = (u64, u64);

/// What this process holds.
static HELD: Mutex<BTreeSet<Inode>> = Mutex::new(BTreeSet::new());

impl Lock {
    /// Makes the file where there is none. It is the owner's alone: who called what is nobody else's business.
    pub(super) fn take(path: &Path) -> Result<Self, RecordsError> {
        let taken = || RecordsError::Taken { path: path.display().to_string() };
        let mut held = HELD.lock();
        if std::fs::metadata(path).is_ok_and(|metadata| held.contains(&inode(&metadata))) {
            return Err(taken());
        }
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
        file.try_lock().map_err(|_| taken())?;
        let inode = inode(&file.metadata()?);
        held.insert(inode);
        Ok(Self { _file: file, inode })
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        HELD.lock().remove(&self.inode);
    }
}

/// Whether another process writes this file.
pub(crate) fn is_taken(path: &Path) -> bool {
    let file = OpenOptions::new().append(true).open(path);
    file.is_ok_and(|file| matches!(file.try_lock(), Err(TryLockError::WouldBlock)))
}

fn inode(metadata: &Metadata) -> Inode {
    (metadata.dev(), metadata.ino())
}
