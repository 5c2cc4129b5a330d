//! How the month ends at the present pace, and how sure that is; and who spends far from a habit.
//!
//! A day is expected to cost the level of the days before it, the later the more, times what its weekday usually makes of it.
//! Weekdays are told apart from three weeks of records on. What days differ from that by is what the end may differ by: the band
//! holds in four of five months, if days go on to differ as they did.
//!
//! # What it does not do
//! It knows no holidays, no plans and no hours: what is left of today is its share by the clock.

mod habits;
#[cfg(test)]
mod tests;
mod watch;

use jiff::civil::Date;

pub(crate) use self::habits::{Unusual, unusual};
pub(crate) use self::watch::known;
pub(super) use self::watch::watch;
use crate::neurons::Neurons;

/// What is known at a moment of a month.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    /// What each day before today cost, in order and without a gap; the first one is the first with a call.
    pub(crate) days: Vec<(Date, Neurons)>,
    pub(crate) today: Date,
    pub(crate) spent_today: Neurons,
    /// How much of today is over, from 0 to 1.
    pub(crate) part: f64,
}

/// How the month ends.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Outlook {
    /// Since the month's first day.
    pub(crate) spent: Neurons,
    pub(crate) low: Neurons,
    pub(crate) likely: Neurons,
    pub(crate) high: Neurons,
}

/// With fewer days before today nothing is foreseen.
pub(crate) const LEAST_DAYS: usize = 3;
/// From here on weekdays are told apart.
const WEEKDAYS_FROM: usize = 21;
/// No more days are looked at.
pub(crate) const MOST_DAYS: usize = 56;
/// The weight of the newest day in the level.
const NEWEST: f64 = 0.12;
/// So much of it a level moves in a day: by this the bands of generated months hold as often as they say.
const DRIFT: f64 = 0.006;
/// Standard deviations to either side that hold four of five.
const BAND: f64 = 1.2816;

impl Outlook {
    /// `None` where too few days are known, or nothing was spent on them.
    pub(crate) fn of(known: &Known) -> Option<Self> {
        let Known { days, today, spent_today, part } = known;
        let days = &days[days.len().saturating_sub(MOST_DAYS)..];
        if days.len() < LEAST_DAYS || days.iter().all(|(_, cost)| cost.is_zero()) {
            return None;
        }
        let weekdays = weekdays(days);
        let factor = |day: Date| weekdays[usize::from(day.weekday().to_monday_zero_offset().unsigned_abs())];
        let even = |(day, cost): &(Date, Neurons)| cost.as_f64() / factor(*day);
        let level = level(days.iter().map(even));
        let spread = (days.iter().map(|day| (even(day) - level).powi(2)).sum::<f64>() / (days.len() - 1) as f64).sqrt();
        let this_month: Neurons =
            days.iter().filter(|(day, _)| day.first_of_month() == today.first_of_month()).map(|(_, cost)| *cost).sum();
        let spent = this_month + *spent_today;
        let rest = std::iter::successors(today.tomorrow().ok(), |day| day.tomorrow().ok());
        let rest = rest.take_while(|day| day.first_of_month() == today.first_of_month()).map(factor);
        let weights: Vec<f64> = std::iter::once(factor(*today) * (1.0 - part.clamp(0.0, 1.0))).chain(rest).collect();
        let expected = level * weights.iter().sum::<f64>();
        // Days differ each for itself; that the level is not known well is common to them all.
        let apart = weights.iter().map(|weight| (weight * spread).powi(2)).sum::<f64>();
        let together =
            (weights.iter().sum::<f64>() * spread).powi(2) * (NEWEST / (2.0 - NEWEST)).max(1.0 / days.len() as f64);
        // And it moves on, the farther the later the end is, from where it was when the days were that it is known by.
        let ahead = weights.len() as f64 / 2.0 + 1.0 / NEWEST;
        let moved = (expected * DRIFT * ahead).powi(2);
        let band = BAND * (apart + together + moved).sqrt();
        let end = |more: f64| spent + Neurons::from_f64(more);
        Some(Self { spent, low: end(expected - band), likely: end(expected), high: end(expected + band) })
    }
}

/// What each weekday makes of the level, Monday first.
fn weekdays(days: &[(Date, Neurons)]) -> [f64; 7] {
    let mut weekdays = [1.0; 7];
    if days.len() < WEEKDAYS_FROM {
        return weekdays;
    }
    // Whole weeks alone, so that each weekday counts as often.
    let days = &days[days.len() % 7..];
    let mean = days.iter().map(|(_, cost)| cost.as_f64()).sum::<f64>() / days.len() as f64;
    for (place, factor) in weekdays.iter_mut().enumerate() {
        let is_his =
            |(day, _): &&(Date, Neurons)| usize::from(day.weekday().to_monday_zero_offset().unsigned_abs()) == place;
        let own = days.iter().filter(is_his).map(|(_, cost)| cost.as_f64()).sum::<f64>() * 7.0 / days.len() as f64;
        // A weekday on which nothing happens is still no division by zero.
        *factor = (own / mean.max(f64::MIN_POSITIVE)).clamp(0.02, 7.0);
    }
    weekdays
}

/// The level that the days have come to, the newest counting most.
fn level(days: impl DoubleEndedIterator<Item = f64>) -> f64 {
    let (mut sum, mut weights, mut weight) = (0.0, 0.0, 1.0);
    for day in days.rev() {
        sum += weight * day;
        weights += weight;
        weight *= 1.0 - NEWEST;
    }
    sum / weights
}
