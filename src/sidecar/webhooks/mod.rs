//! `[[webhooks]]`: tells somebody's server what a person may want to know, when it happens.
//!
//! What has happened is an `Event`; `Events` counts it and puts it into a queue. A thread of its own takes it from there,
//! signs it and sends it to every webhook that wants it, and tries again where that fails. All queues are bounded: a server
//! that hangs loses events, which are counted, and costs calls nothing.
//!
//! # What it does not do
//! It does not outlive the process: what was not delivered when it ends is lost, and counted in the log.

mod deliver;
mod event;
mod events;
mod sending;
mod sign;
mod watch;

pub(crate) use self::deliver::Endpoint;
pub(crate) use self::event::Event;
pub(crate) use self::events::Events;
pub(super) use self::sending::Sending;
pub(crate) use self::sending::endpoints;
pub(super) use self::watch::Watcher;
