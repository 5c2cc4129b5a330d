//! What is told to the service manager that started the gate, where one did (`sd_notify`): that it is ready, that it stops, and,
//! where it asks for that (`WatchdogSec`), that every thread that serves still does.

use std::time::Duration;

use sd_notify::NotifyState;

use super::runtimes::Runtimes;

/// Both ports are open.
pub fn ready() {
    tell(NotifyState::Ready);
}

/// What runs may end.
pub fn stopping() {
    tell(NotifyState::Stopping);
}

fn tell(state: NotifyState<'_>) {
    // It fails where nobody listens any more, which changes nothing.
    let _ = sd_notify::notify(&[state]);
}

/// Tells the watchdog as often as it asks for that every runtime answers; never, where one does not.
pub(super) async fn watchdog(runtimes: Runtimes) {
    let Some(within) = sd_notify::watchdog_enabled() else { return };
    // Three times in the time that it waits: one that is late is made good.
    let every = (within / 3).max(Duration::from_millis(50));
    loop {
        if tokio::time::timeout(within / 2, runtimes.answer()).await.is_ok() {
            tell(NotifyState::Watchdog);
        }
        tokio::time::sleep(every).await;
    }
}
