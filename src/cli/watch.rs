//! The config's file, watched: it is read again when it has changed.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use crate::sidecar::Sidecar;

/// Watches until it is dropped.
pub(super) struct Watch {
    _watcher: RecommendedWatcher,
}

/// Editors and orchestrators change a file in several steps.
const SETTLES: Duration = Duration::from_millis(300);

impl Watch {
    /// Watches the file's folder, for editors put another file in the place of the old one, and Kubernetes another link.
    /// `as_read` is what was in it when the config was read: what was written since is a change, too.
    pub(super) fn start(file: &Path, as_read: Option<Vec<u8>>, sidecar: &Sidecar) -> Option<Self> {
        let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let (sender, changes) = channel();
        let _ = sender.send(());
        let watching = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !matches!(event.kind, EventKind::Access(_))) {
                // Nobody listens any more where the gate stops.
                let _ = sender.send(());
            }
        });
        let folder = file.parent().map_or_else(|| PathBuf::from("/"), Path::to_owned);
        let watching = watching.and_then(|mut watcher| {
            watcher.watch(&folder, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        let reload = sidecar.reloading();
        let started = match watching {
            Ok(watcher) => {
                let thread = std::thread::Builder::new().name("config-watch".into());
                thread
                    .spawn(move || follow(&file, as_read, &changes, reload))
                    .map(|_| watcher)
                    .map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match started {
            Ok(watcher) => Some(Self { _watcher: watcher }),
            Err(error) => {
                tracing::error!(folder = %folder.display(), error, "the config's file cannot be watched (watch_config)");
                None
            }
        }
    }
}

fn follow(file: &Path, mut last: Option<Vec<u8>>, changes: &Receiver<()>, reload: impl Fn()) {
    while changes.recv().is_ok() {
        loop {
            match changes.recv_timeout(SETTLES) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        let now = std::fs::read(file).ok();
        // Something else in the folder, or a file that is gone for a moment.
        if now.is_some() && now != last {
            last = now;
            reload();
        }
    }
}
