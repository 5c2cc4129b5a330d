//! When a budget begins anew.

use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Serialize};

/// Where the time comes from, so that a test can own it.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock, which may be set forth and back.
    fn now(&self) -> SystemTime;

    /// The time since some fixed moment, by a clock that nobody sets. It tells a wall clock that was set from time that passed.
    fn steady(&self) -> Duration {
        static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
        BEGAN.elapsed()
    }
}

/// The system's own.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// How long a budget lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Period {
    /// 60 seconds.
    Minute,
    /// 60 minutes.
    Hour,
    /// From 00:00 UTC, as the vendor's free allocation.
    #[default]
    Day,
    /// From Monday, 00:00 UTC; or from another day, by [`Rule::starts`](super::Rule::starts).
    Week,
    /// From the first of the month, 00:00 UTC, or from another day, by [`Rule::day`](super::Rule::day); 30 days where the window
    /// slides.
    Month,
}

/// Milliseconds since 1970, UTC: what windows are reckoned in.
pub(super) type Millis = u64;

/// When it is, by both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// By the wall clock: this alone says which window is now.
    pub(super) wall: Millis,
    /// By the steady clock: how much time has passed.
    pub(super) steady: Millis,
}

/// What is counted together: all of an aligned window, or a sixtieth of a sliding one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// Its first millisecond.
    pub(super) start: Millis,
    /// The first one after it: what is reserved from here on belongs to the next span.
    pub(super) end: Millis,
    /// From here on it counts no more.
    pub(super) expires: Millis,
}

/// A sliding window moves by so small a part of itself.
const SLICES: Millis = 60;
const MINUTE: Millis = 60_000;
const HOUR: Millis = 60 * MINUTE;
const DAY: Millis = 24 * HOUR;

impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }
}

impl Moment {
    pub(super) fn of(clock: &dyn Clock) -> Self {
        Self { wall: millis(clock.now()), steady: clock.steady().as_millis() as Millis }
    }
}

/// A time before 1970 is 1970.
pub(super) fn millis(time: SystemTime) -> Millis {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as Millis)
}

/// The moment that so many milliseconds have led to.
pub(super) fn time(millis: Millis) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

impl Period {
    /// Its name in the config.
    pub fn label(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// How long it is; a month counts as 30 days.
    pub fn length(self) -> Duration {
        Duration::from_millis(self.length_millis())
    }

    fn length_millis(self) -> Millis {
        match self {
            Self::Minute => MINUTE,
            Self::Hour => HOUR,
            Self::Day => DAY,
            Self::Week => 7 * DAY,
            Self::Month => 30 * DAY,
        }
    }

    /// The span that a moment belongs to, in UTC; of weeks, Mondays begin one.
    pub(super) fn span(self, now: Millis, sliding: bool) -> Span {
        if sliding {
            let slice = self.length_millis() / SLICES;
            let start = now - now % slice;
            // A slice counts until the last of its moments has left the window: the limit holds in every window.
            let end = start.saturating_add(slice);
            return Span { start, end, expires: end.saturating_add(self.length_millis()) };
        }
        let fixed = |length: Millis| (now - now % length, (now - now % length).saturating_add(length));
        let (start, end) = match self {
            Self::Month => month(now).unwrap_or(fixed(DAY)),
            // 1970 began on a Thursday.
            Self::Week => {
                let start = (now + 3 * DAY) / (7 * DAY) * (7 * DAY);
                (start.saturating_sub(3 * DAY), start.saturating_add(4 * DAY))
            }
            other => fixed(other.length_millis()),
        };
        Span { start, end, expires: end }
    }
}

/// The month around a moment; `None` beyond the year 9999.
fn month(now: Millis) -> Option<(Millis, Millis)> {
    let date = Timestamp::from_millisecond(now.try_into().ok()?).ok()?.to_zoned_datetime(TimeZone::UTC).date();
    let first = date.first_of_month();
    Some((midnight(first)?, midnight(first.checked_add(1.month()).ok()?)?))
}

fn midnight(date: Date) -> Option<Millis> {
    date.to_zoned_datetime(TimeZone::UTC).ok()?.timestamp().as_millisecond().try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Millis {
        text.parse::<Timestamp>().unwrap().as_millisecond() as Millis
    }

    #[test]
    fn months_begin_on_the_first_also_in_leap_years() {
        let span = Period::Month.span(at("2028-02-29T23:59:59.999Z"), false);
        assert_eq!((span.start, span.end), (at("2028-02-01T00:00:00Z"), at("2028-03-01T00:00:00Z")));
        let span = Period::Month.span(at("2026-12-31T23:59:59.999Z"), false);
        assert_eq!((span.start, span.end), (at("2026-12-01T00:00:00Z"), at("2027-01-01T00:00:00Z")));
    }

    proptest::proptest! {
        #[test]
        fn every_moment_is_in_its_span_and_spans_join(now in 0u64..4_000_000_000_000, sliding: bool) {
            for period in [Period::Minute, Period::Hour, Period::Day, Period::Week, Period::Month] {
                let span = period.span(now, sliding);
                proptest::prop_assert!(span.start <= now && now < span.end && span.end <= span.expires);
                proptest::prop_assert_eq!(period.span(span.start, sliding), span);
                proptest::prop_assert_eq!(period.span(span.end - 1, sliding), span);
                proptest::prop_assert_eq!(period.span(span.end, sliding).start, span.end);
                if sliding {
                    // What is spent at its first moment counts for a whole window and at most a sixtieth more.
                    proptest::prop_assert!(span.expires - now > period.length_millis());
                    proptest::prop_assert!(span.expires - span.start <= period.length_millis() / 60 * 61);
                }
            }
        }
    }
}
