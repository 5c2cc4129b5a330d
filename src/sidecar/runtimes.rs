//! The runtimes of all threads, for their own counts.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::priority::give_way;

/// Cloning shares them.
#[derive(Clone, Default)]
pub(super) struct Runtimes(Arc<Mutex<Vec<Handle>>>);

impl Runtimes {
    /// Its threads for blocking work give way to those that answer calls: what they do is read the records for people.
    pub(super) fn start(&self) -> io::Result<Runtime> {
        self.add(Builder::new_current_thread().on_thread_start(give_way))
    }

    /// The same for calls, whose blocking work a client waits for.
    pub(super) fn start_for_calls(&self) -> io::Result<Runtime> {
        self.add(&mut Builder::new_current_thread())
    }

    fn add(&self, builder: &mut Builder) -> io::Result<Runtime> {
        let runtime = builder.enable_all().build()?;
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
