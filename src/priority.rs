//! How a thread gives way to those that answer calls.

/// Lowers the priority of the thread that asks, for good: where the cores are busy, it gets a third of what one that answers calls
/// gets.
pub(crate) fn give_way() {
    #[cfg(target_os = "linux")]
    const NICE: i32 = 5;
    // On Linux a thread has a priority of its own; elsewhere it would be the whole process's.
    #[cfg(target_os = "linux")]
    if let Err(why) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%why, "a thread in the background keeps its priority");
    }
}
