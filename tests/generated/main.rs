//! Generated calls through the whole gate to the simulator, which reads them with other code and charges what it may.
//!
//! `TOLLGATE_CASES=100000` for the full count, `TOLLGATE_SEED=7` for other cases.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audio;
mod bounds;
mod ceilings;
mod corpus;
mod encodings;
mod figures;
mod forms;
mod json;
mod models;
mod replies;
mod requests;
mod run;
mod text;
mod universal;
mod world;
