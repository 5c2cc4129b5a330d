//! A reply that is told in a stream.

use super::answer::Answer;
use super::route::Wants;
use super::usage::{UsageStyle, Words};
use crate::catalogue::Model;

/// Everything that is told in a stream.
pub(super) struct Streamed<'a> {
    pub(super) wants: Wants,
    pub(super) model: &'a Model,
    pub(super) id: &'a str,
    pub(super) answer: &'a Answer,
    pub(super) style: UsageStyle,
    pub(super) words: Words,
    /// `stream_options.include_usage`, or nothing said.
    pub(super) may_tell_usage: bool,
}
