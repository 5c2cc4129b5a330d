//! wip
#![allow(dead_code)]
mod window;
