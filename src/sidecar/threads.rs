//! Threads that end with a result.

use std::io;
use std::thread::JoinHandle;

pub(super) fn spawn(
    name: String,
    work: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> io::Result<JoinHandle<io::Result<()>>> {
    std::thread::Builder::new().name(name).spawn(work)
}

/// Until it has ended.
pub(super) fn wait(thread: JoinHandle<io::Result<()>>) -> io::Result<()> {
    thread.join().unwrap_or_else(|_| Err(io::Error::other("a worker panicked; its words are in the log")))
}
