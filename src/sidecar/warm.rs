//! The cache's file: read when the sidecar starts, written now and then and when it stops.

use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::layers::cache::CacheLayer;

/// Writes the cache to its file. Dropping it writes it a last time.
#[derive(Debug)]
pub(super) struct Warm {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

const EVERY: Duration = Duration::from_secs(300);

impl Warm {
    pub(super) fn start(cache: CacheLayer, path: PathBuf) -> io::Result<Self> {
        match cache.load(&path) {
            Ok(count) => tracing::info!(path = %path.display(), count, "the cache is warm"),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "the cache's file cannot be read; starting cold")
            }
        }
        let (stop, stopped) = channel();
        let save = move || {
            if let Err(error) = cache.save(&path) {
                tracing::warn!(path = %path.display(), %error, "the cache's file cannot be written ([cache] path)");
            }
        };
        let thread = std::thread::Builder::new().name("cache-file".into()).spawn(move || {
            while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
                save();
            }
            save();
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Warm {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so itself.
            let _ = thread.join();
        }
    }
}
