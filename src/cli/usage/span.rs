//! From when until when: calendar days and months in any time zone, or so far back.

use std::time::Duration;

use clap::Args;
use jiff::civil::{self, Date};
use jiff::tz::TimeZone;
use jiff::{Span as Calendar, Timestamp};

use crate::cli::Failure;

#[derive(Args, Debug)]
pub(in crate::cli) struct SpanArgs {
    /// How far back: `30d` is thirty days of 24 hours, `12h` twelve hours; 30d where nothing is said
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, conflicts_with_all = ["from", "to", "month"])]
    since: Option<Duration>,
    /// From this day (`2026-11-01`, 00:00 in the time zone) or moment (`2026-11-01T12:00`) on
    #[arg(long, value_name = "DATE", conflicts_with = "month")]
    from: Option<String>,
    /// Until the end of this day, or until this moment
    #[arg(long, value_name = "DATE", conflicts_with = "month")]
    to: Option<String>,
    /// A calendar month: `2026-11`
    #[arg(long, value_name = "YYYY-MM")]
    month: Option<String>,
    /// Whose days and months they are: a name such as Europe/Berlin
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
}

/// Two moments, and the time zone whose days lie between them.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Span {
    /// In milliseconds since 1970; sums are kept by quarters of an hour, and this is the beginning of one.
    pub(in crate::cli) from_ms: u64,
    /// In milliseconds since 1970; the end of a quarter of an hour.
    pub(in crate::cli) until_ms: u64,
    pub(in crate::cli) zone: TimeZone,
}

const QUARTER_MS: i64 = 15 * 60 * 1000;
const USUALLY: Duration = Duration::from_secs(30 * 24 * 3600);

/// Which end of a day is meant.
#[derive(Clone, Copy, PartialEq)]
enum End {
    First,
    Last,
}

impl SpanArgs {
    pub(in crate::cli) fn resolve(&self, now: Timestamp) -> Result<Span, Failure> {
        let zone = zone(&self.time_zone)?;
        let (from, until) = match (&self.month, &self.from, &self.to) {
            (Some(month), ..) => whole_month(month, &zone)?,
            (None, None, None) => (back(now, self.since.unwrap_or(USUALLY)), now),
            (None, from, to) => {
                let until = to.as_deref().map_or(Ok(now), |to| moment("--to", to, End::Last, &zone))?;
                let from = from
                    .as_deref()
                    .map_or_else(|| Ok(back(until, USUALLY)), |from| moment("--from", from, End::First, &zone))?;
                (from, until)
            }
        };
        if from >= until {
            return Err(Failure::Usage(format!("the time ends before it begins: {from} to {until}")));
        }
        let (from, until) = (from.as_millisecond(), until.as_millisecond());
        let ms = |ms: i64| u64::try_from(ms).unwrap_or(0);
        Ok(Span {
            from_ms: ms(from.div_euclid(QUARTER_MS) * QUARTER_MS),
            until_ms: ms((until + QUARTER_MS - 1).div_euclid(QUARTER_MS) * QUARTER_MS),
            zone,
        })
    }
}

impl Span {
    /// In words, for the last line of a table.
    pub(in crate::cli) fn words(&self) -> String {
        let at = |ms: u64| {
            let at = Timestamp::from_millisecond(i64::try_from(ms).unwrap_or(i64::MAX)).unwrap_or(Timestamp::MAX);
            at.to_zoned_datetime(self.zone.clone()).strftime("%Y-%m-%d %H:%M %Z").to_string()
        };
        format!("{} to {}", at(self.from_ms), at(self.until_ms))
    }
}

fn zone(name: &str) -> Result<TimeZone, Failure> {
    TimeZone::get(name).map_err(|_| {
        Failure::Usage(format!("--time-zone {name:?} is no time zone; write a name such as Europe/Berlin, or UTC"))
    })
}

fn back(from: Timestamp, length: Duration) -> Timestamp {
    let length = i64::try_from(length.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(from.as_millisecond().saturating_sub(length).max(0)).unwrap_or(Timestamp::UNIX_EPOCH)
}

fn whole_month(month: &str, zone: &TimeZone) -> Result<(Timestamp, Timestamp), Failure> {
    let wrong = || Failure::Usage(format!("--month {month:?} is no month; write it like 2026-11"));
    let first: Date = format!("{month}-01").parse().map_err(|_| wrong())?;
    let next = first.checked_add(Calendar::new().months(1)).map_err(|_| wrong())?;
    Ok((midnight(first, zone).ok_or_else(wrong)?, midnight(next, zone).ok_or_else(wrong)?))
}

fn midnight(day: Date, zone: &TimeZone) -> Option<Timestamp> {
    day.to_zoned_datetime(zone.clone()).ok().map(|day| day.timestamp())
}

/// A day, a moment of the time zone's, or a moment that names its own offset.
fn moment(option: &str, text: &str, end: End, zone: &TimeZone) -> Result<Timestamp, Failure> {
    let wrong = || {
        Failure::Usage(format!(
            "{option} {text:?} is no time; write a day like 2026-11-01 or a moment like 2026-11-01T12:00"
        ))
    };
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at);
    }
    // A date and a time parse as a date too, so a time is looked for first.
    if text.contains(['T', 't', ' ']) {
        let at: civil::DateTime = text.parse().map_err(|_| wrong())?;
        return zone.to_timestamp(at).map_err(|_| wrong());
    }
    let day: Date = text.parse().map_err(|_| wrong())?;
    let day = if end == End::Last { day.tomorrow().map_err(|_| wrong())? } else { day };
    midnight(day, zone).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(arguments: &[&str]) -> Result<(String, String), String> {
        #[derive(clap::Parser, Debug)]
        struct Line {
            #[command(flatten)]
            span: SpanArgs,
        }
        let now = "2026-11-27T17:53:20Z".parse().unwrap();
        let line =
            <Line as clap::Parser>::try_parse_from([&["usage"], arguments].concat()).map_err(|e| e.to_string())?;
        let span = line.span.resolve(now).map_err(|failure| format!("{failure:?}"))?;
        let at = |ms: u64| Timestamp::from_millisecond(ms as i64).unwrap().to_string();
        Ok((at(span.from_ms), at(span.until_ms)))
    }

    #[test]
    fn a_span_is_what_its_words_say() {
        for (arguments, from, until) in [
            (&[][..], "2026-10-28T17:45:00Z", "2026-11-27T18:00:00Z"),
            (&["--since", "12h"], "2026-11-27T05:45:00Z", "2026-11-27T18:00:00Z"),
            (&["--month", "2026-02"], "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"),
            (&["--month", "2026-12", "--time-zone", "Europe/Berlin"], "2026-11-30T23:00:00Z", "2026-12-31T23:00:00Z"),
            // A month with a change to summer time is an hour short.
            (&["--month", "2026-03", "--time-zone", "Europe/Berlin"], "2026-02-28T23:00:00Z", "2026-03-31T22:00:00Z"),
            (&["--from", "2026-11-01", "--to", "2026-11-02"], "2026-11-01T00:00:00Z", "2026-11-03T00:00:00Z"),
            (
                &["--from", "2026-11-01", "--to", "2026-11-01", "--time-zone", "Asia/Kolkata"],
                "2026-10-31T18:30:00Z",
                "2026-11-01T18:30:00Z",
            ),
            (
                &["--from", "2026-11-01T12:00", "--to", "2026-11-01T13:00Z"],
                "2026-11-01T12:00:00Z",
                "2026-11-01T13:00:00Z",
            ),
        ] {
            assert_eq!(span(arguments), Ok((from.to_owned(), until.to_owned())), "{arguments:?}");
        }
    }

    #[test]
    fn what_is_no_time_is_told_with_the_mend() {
        for (arguments, word) in [
            (&["--month", "2026-13"][..], "2026-11"),
            (&["--month", "november"], "2026-11"),
            (&["--from", "yesterday"], "--from"),
            (&["--from", "2026-11-02", "--to", "2026-11-01"], "ends before it begins"),
            (&["--time-zone", "Mars/Olympus"], "Europe/Berlin"),
            (&["--month", "2026-11", "--since", "1d"], "--since"),
        ] {
            let told = span(arguments).unwrap_err();
            assert!(told.contains(word), "{arguments:?}: {told}");
        }
    }
}
