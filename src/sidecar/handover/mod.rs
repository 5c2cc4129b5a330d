//! One gate after the other on the same sockets, so that no connection finds nobody.
//!
//! A listening socket outlives its gate as a descriptor that somebody else has, too: a service manager, which hands it to each gate
//! that it starts (systemd's socket activation: `LISTEN_FDS`, `LISTEN_PID`, `LISTEN_FDNAMES`), or the next gate, which asks the one
//! before for it on a Unix socket (`handover_path`). What connects between two gates waits in the socket's queue. Only one may
//! write the books, whoever holds the lock on the records' file, and the next one waits for that before it accepts anything.
//!
//! # What it does not do
//! It hands on sockets and no calls: what the gate before has begun, it ends. A socket whose last descriptor is closed loses what waits
//! in its queue, whoever else listens on the port.

mod handed;
mod offer;
mod pass;

pub use self::handed::Handed;
pub(super) use self::offer::Offer;
