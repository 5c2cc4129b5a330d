//! Windows of time zones, against a slow and plain reckoning: the clock on the wall, read minute by minute.

use jiff::civil::{Date, date};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use proptest::prelude::*;

use super::calendar::Windows;
use super::window::Millis;
use super::*;
use crate::neurons::Neurons;

const MINUTE: Millis = 60_000;

fn rule(window: Period, zone: &str) -> Rule {
    let timezone = Some(Zone::try_from(zone.to_owned()).unwrap());
    Rule { timezone, ..Rule::new("everyone", Neurons::from_whole(1), window) }
}

fn at(text: &str) -> Millis {
    text.parse::<Timestamp>().unwrap().as_millisecond() as Millis
}

fn hours(rule: &Rule, moment: &str) -> f64 {
    let span = Windows::of(rule).span(at(moment));
    (span.end - span.start) as f64 / 3_600_000.0
}

#[test]
fn a_day_on_which_clocks_change_has_23_or_25_hours() {
    let berlin = rule(Period::Day, "Europe/Berlin");
    assert_eq!(hours(&berlin, "2026-03-28T12:00:00Z"), 24.0);
    assert_eq!(hours(&berlin, "2026-03-29T12:00:00Z"), 23.0);
    assert_eq!(hours(&berlin, "2026-10-25T12:00:00Z"), 25.0);
    let span = Windows::of(&berlin).span(at("2026-10-25T12:00:00Z"));
    assert_eq!((span.start, span.end), (at("2026-10-24T22:00:00Z"), at("2026-10-25T23:00:00Z")));
    // Where clocks change at midnight itself, forth in Cairo and back in Havana; and by half an hour on Lord Howe.
    assert_eq!(hours(&rule(Period::Day, "Africa/Cairo"), "2026-04-24T12:00:00Z"), 23.0);
    assert_eq!(hours(&rule(Period::Day, "America/Havana"), "2026-11-01T16:00:00Z"), 25.0);
    assert_eq!(hours(&rule(Period::Day, "Australia/Lord_Howe"), "2026-04-05T00:00:00Z"), 24.5);
}

#[test]
fn a_week_and_a_month_have_the_hours_that_their_days_have() {
    assert_eq!(hours(&rule(Period::Week, "Europe/Berlin"), "2026-03-25T12:00:00Z"), 7.0 * 24.0 - 1.0);
    assert_eq!(hours(&rule(Period::Month, "Europe/Berlin"), "2026-10-05T12:00:00Z"), 31.0 * 24.0 + 1.0);
    assert_eq!(hours(&rule(Period::Month, "UTC"), "2028-02-29T23:59:59Z"), 29.0 * 24.0);
}

#[test]
fn a_day_that_its_month_does_not_have_is_the_months_last() {
    let payday = Rule { day: Some(31), ..rule(Period::Month, "UTC") };
    let span = |moment| Windows::of(&payday).span(at(moment));
    assert_eq!(span("2027-02-28T00:00:00Z").start, at("2027-02-28T00:00:00Z"));
    assert_eq!(span("2028-02-28T12:00:00Z").start, at("2028-01-31T00:00:00Z"), "in a leap year there is one day more");
    assert_eq!(span("2028-02-29T12:00:00Z").end, at("2028-03-31T00:00:00Z"));
    assert_eq!(span("2026-04-30T00:00:00Z").end, at("2026-05-31T00:00:00Z"));
}

/// Whether a window begins on this date, by its own words.
fn begins_on(rule: &Rule, today: Date) -> bool {
    match rule.window {
        Period::Week => {
            today.weekday()
                == [
                    jiff::civil::Weekday::Monday,
                    jiff::civil::Weekday::Tuesday,
                    jiff::civil::Weekday::Wednesday,
                    jiff::civil::Weekday::Thursday,
                    jiff::civil::Weekday::Friday,
                    jiff::civil::Weekday::Saturday,
                    jiff::civil::Weekday::Sunday,
                ][rule.starts.unwrap_or_default() as usize]
        }
        Period::Month => {
            let day = rule.day.unwrap_or(1) as i8;
            today.day() == day || today.day() < day && today.tomorrow().unwrap().day() == 1
        }
        _ => true,
    }
}

/// The moments at which windows begin in so many days from a date on, found by reading the clock on the wall each minute: when it
/// shows a later date than ever before, that date and those it has left out begin.
fn beginnings(rule: &Rule, zone: &TimeZone, from: Date, days: i64) -> Vec<Millis> {
    let first =
        from.checked_sub(2.days()).unwrap().to_zoned_datetime(TimeZone::UTC).unwrap().timestamp().as_millisecond()
            as Millis;
    let read = |millis: Millis| zone.to_datetime(Timestamp::from_millisecond(millis as i64).unwrap()).date();
    let (mut latest, mut found) = (read(first), Vec::new());
    for minute in 0..(days + 4) as Millis * 24 * 60 {
        let now = first + minute * MINUTE;
        let today = read(now);
        let mut begins = false;
        while latest < today {
            latest = latest.tomorrow().unwrap();
            begins |= begins_on(rule, latest);
        }
        if begins {
            found.push(now);
        }
    }
    found
}

const ZONES: [&str; 14] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Sao_Paulo",
    "America/Havana",
    "America/St_Johns",
    "Africa/Cairo",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Pacific/Kiritimati",
    "America/Asuncion",
];

fn check(rule: &Rule, zone: &str, from: Date, days: i64) -> Result<(), TestCaseError> {
    let windows = Windows::of(rule);
    let begin = beginnings(rule, &TimeZone::get(zone).unwrap(), from, days);
    for pair in begin.windows(2) {
        let [start, end] = [pair[0], pair[1]];
        for now in [start, start + 1, (start + end) / 2, end - MINUTE, end - 1] {
            let span = windows.span(now);
            prop_assert_eq!((span.start, span.end, span.expires), (start, end, end), "{} at {}", zone, now);
        }
    }
    Ok(())
}

#[test]
fn days_that_zones_have_left_out_or_had_nearly_twice_are_as_the_wall_shows_them() {
    for (zone, from) in [
        // Left out on the way over the date line.
        ("Pacific/Apia", date(2011, 12, 27)),
        // Clocks that changed a minute past midnight, back into yesterday.
        ("America/St_Johns", date(2010, 11, 4)),
        // And at midnight.
        ("America/Sao_Paulo", date(2018, 2, 15)),
        ("America/Sao_Paulo", date(2018, 11, 1)),
        ("Asia/Beirut", date(2026, 3, 26)),
    ] {
        check(&rule(Period::Day, zone), zone, from, 6).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn windows_of_any_zone_begin_when_the_clock_on_the_wall_says_so(
        zone in prop::sample::select(&ZONES[..]),
        period in prop::sample::select(&[Period::Day, Period::Week, Period::Month][..]),
        starts in prop::option::of(prop::sample::select(&[Weekday::Monday, Weekday::Wednesday, Weekday::Saturday, Weekday::Sunday][..])),
        day in prop::option::of(1u8..=31),
        (year, month, first) in (2000i16..2037, 1i8..=12, 1i8..=28),
    ) {
        let starts = starts.filter(|_| period == Period::Week);
        let day = day.filter(|_| period == Period::Month);
        let rule = Rule { starts, day, ..rule(period, zone) };
        let days = if period == Period::Month { 64 } else { 16 };
        check(&rule, zone, date(year, month, first), days)?;
    }

    #[test]
    fn every_moment_is_in_its_window_and_windows_join(
        zone in prop::sample::select(&ZONES[..]),
        period in prop::sample::select(&[Period::Day, Period::Week, Period::Month][..]),
        now in 86_400_000u64..4_000_000_000_000,
    ) {
        let windows = Windows::of(&rule(period, zone));
        let span = windows.span(now);
        prop_assert!(span.start <= now && now < span.end, "{:?}", span);
        prop_assert_eq!(windows.span(span.start), span);
        prop_assert_eq!(windows.span(span.end - 1), span);
        prop_assert_eq!(windows.span(span.end).start, span.end);
    }
}
