//! What was read of a body, whatever its form.

use std::ops::Range;

use super::scope::Totals;
use crate::call::Ask;
use crate::json::Broken;

/// What was read of a body.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) ask: Ask,
    pub(super) stream: bool,
    /// The model's name and where it stands, quotes included.
    pub(super) model: Option<(String, Range<usize>)>,
    /// Where it is no JSON any more.
    pub(super) broken: Option<Broken>,
    /// Something stands behind the object, so that `JSON.parse` refuses all of it.
    pub(super) has_more: bool,
}

impl Reading {
    /// Takes the dearest readings of all that there is.
    pub(super) fn set(&mut self, totals: Totals) {
        let ask = &mut self.ask;
        (ask.reach.output, ask.reach.image, ask.reach.requests) = (totals.output, totals.image, totals.requests);
    }

    /// The vendor may read it as it was read here, or not at all.
    pub(super) fn or_unread(&mut self) {
        let Ask { reach, .. } = &self.ask;
        let read = Totals { output: reach.output, image: reach.image, requests: reach.requests };
        self.set(read.or(Totals::UNREAD));
        self.ask.reach.is_unread = true;
    }
}
