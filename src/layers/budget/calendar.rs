//! A rule's windows: where one begins and the next one does, in any time zone.
//!
//! Minutes and hours are the same everywhere. A day, a week or a month of a time zone begins with the first moment of its first
//! date there, so a day on which the clocks change has 23 or 25 hours. Where that moment comes twice, because clocks are set
//! back over midnight, the first one counts.

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use super::rule::Rule;
use super::window::{Millis, Period, Span};
use super::zone::Weekday;

/// What says in which window a moment lies.
#[derive(Clone, Debug)]
pub(super) struct Windows {
    period: Period,
    sliding: bool,
    zone: TimeZone,
    starts: Weekday,
    /// Of the month; its last one where the month is shorter.
    day: i8,
}

// === impl Windows ===

impl Windows {
    pub(super) fn of(rule: &Rule) -> Self {
        Self {
            period: rule.window,
            sliding: rule.sliding,
            zone: rule.timezone.as_ref().map_or(TimeZone::UTC, |zone| zone.0.clone()),
            starts: rule.starts.unwrap_or_default(),
            day: rule.day.and_then(|day| day.try_into().ok()).unwrap_or(1),
        }
    }

    /// The span that a moment belongs to.
    pub(super) fn span(&self, now: Millis) -> Span {
        if self.sliding || matches!(self.period, Period::Minute | Period::Hour) {
            return self.period.span(now, self.sliding);
        }
        if self.period == Period::Day && self.zone == TimeZone::UTC {
            return self.period.span(now, false);
        }
        self.dated(now).unwrap_or_else(|| Period::Day.span(now, false))
    }

    /// Whether what was told in the window, or slice of one, that began at `then` has been told in the one that begins now.
    pub(super) fn is_same(&self, then: Millis, now: Millis) -> bool {
        if self.sliding {
            let length = self.period.length().as_millis() as Millis;
            return then <= now && now < then.saturating_add(length);
        }
        then == now
    }

    /// Of a window that is a number of dates; `None` beyond the year 9999.
    fn dated(&self, now: Millis) -> Option<Span> {
        let today = Timestamp::from_millisecond(now.try_into().ok()?).ok()?.to_zoned_datetime(self.zone.clone()).date();
        let mut first = self.first_date(today)?;
        while self.begin(first)? > now {
            first = self.first_date(first.yesterday().ok()?)?;
        }
        // Clocks that are set back over midnight tell yesterday's date again when today has begun.
        loop {
            let next = self.next_date(first)?;
            let end = self.begin(next)?;
            if now < end {
                return Some(Span { start: self.begin(first)?, end, expires: end });
            }
            first = next;
        }
    }

    /// The first moment of a date. One that a zone has left out begins with the next.
    fn begin(&self, date: Date) -> Option<Millis> {
        let noon = date.at(12, 0, 0, 0).to_zoned_datetime(self.zone.clone()).ok()?;
        noon.start_of_day().ok()?.timestamp().as_millisecond().try_into().ok()
    }

    /// The first date of the window that has this one.
    fn first_date(&self, date: Date) -> Option<Date> {
        match self.period {
            Period::Week => {
                let since = date.weekday().since(self.starts.jiff());
                date.checked_sub(i64::from(since).days()).ok()
            }
            Period::Month => {
                let first = date.first_of_month();
                let this = self.in_month(first);
                if this <= date { Some(this) } else { Some(self.in_month(first.checked_sub(1.month()).ok()?)) }
            }
            Period::Day | Period::Hour | Period::Minute => Some(date),
        }
    }

    /// The first date of the next window, from the first one of this.
    fn next_date(&self, first: Date) -> Option<Date> {
        match self.period {
            Period::Week => first.checked_add(7.days()).ok(),
            Period::Month => Some(self.in_month(first.first_of_month().checked_add(1.month()).ok()?)),
            Period::Day | Period::Hour | Period::Minute => first.tomorrow().ok(),
        }
    }

    /// The date on which a window begins in the month that this one is the first of.
    fn in_month(&self, first: Date) -> Date {
        let day = self.day.clamp(1, first.days_in_month());
        first.with().day(day).build().unwrap_or(first)
    }
}
