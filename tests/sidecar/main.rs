//! The sidecar on real sockets, before the simulator: what the README promises.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod async_openai;
mod batches;
mod books;
mod budgets;
mod bytes;
mod cache;
mod client;
mod commands;
mod costs;
mod crowd;
mod curl;
mod departures;
mod door;
mod entrance;
mod errors;
mod estimates;
mod fair;
mod keys;
mod memory;
mod messages;
mod openai;
mod organisations;
mod page;
mod process;
mod prometheus;
mod recipes;
mod records;
mod redis;
mod refusals;
mod replicas;
mod scripted;
mod sdk;
mod series;
mod soak;
mod sounds;
mod stalls;
mod storm;
mod streams;
mod support;
mod tls;
mod universal;
mod usage;
mod webhooks;
mod wire;
