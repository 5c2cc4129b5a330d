//! The runtimes of all threads, for their own counts.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::{Handle, Runtime};

/// Cloning shares them.
#[derive(Clone, Default)]
pub(super) struct Runtimes(Arc<Mutex<Vec<Handle>>>);

impl Runtimes {
    pub(super) fn start(&self) -> io::Result<Runtime> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        self.0.lock().push(runtime.handle().clone());
        Ok(runtime)
    }

    /// Until each of them has run a task, or is no more.
    pub(super) async fn answer(&self) {
        let all: Vec<_> = self.0.lock().iter().map(|runtime| runtime.spawn(async {})).collect();
        for answer in all {
            // One that has ended drops its tasks.
            let _ = answer.await;
        }
    }

    pub(super) fn tasks(&self) -> u64 {
        self.0.lock().iter().map(|runtime| runtime.metrics().num_alive_tasks() as u64).sum()
    }
}
