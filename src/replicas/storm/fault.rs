//! What goes wrong in a run.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// A gate dies, and comes back under its name, knowing nothing.
    Kill,
    /// A gate is told to stop, and starts again.
    Restart,
    /// Nobody reaches the store for a while.
    Outage,
    /// One gate does not.
    Cut,
    /// The store forgets all.
    Flush,
    /// Another server takes its place, and lacks the last second.
    Failover,
    /// Messages and answers are late, lost or come twice.
    Network,
    /// The store's clock is set forth and back by 10 s, three times.
    Clock,
    /// A gate's wall clock is an hour off, and so is its steady one.
    GateClock,
}
