//! `tollgate reconcile`

use std::time::{Duration, SystemTime};

use clap::Args;
use jiff::ToSpan;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::settings::{Settings, variables};
use super::usage::{Files, failed};
use super::{Failure, block_on, print};
use crate::books::Sums;
use crate::books::reconcile::{Report, Row};
use crate::sidecar::books::books;

/// Ours beside theirs.
#[derive(Args, Debug)]
pub(super) struct Reconcile {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    files: Files,
    /// One day by UTC, such as 2026-11-24; yesterday, where nothing is said
    #[arg(long, value_name = "DATE", conflicts_with_all = ["from", "to"])]
    day: Option<Date>,
    /// The first day
    #[arg(long, value_name = "DATE")]
    from: Option<Date>,
    /// The last day; today, where only the first is said
    #[arg(long, value_name = "DATE", requires = "from")]
    to: Option<Date>,
    /// How much a model may be off
    #[arg(long, value_name = "PERCENT", default_value = "1%", value_parser = percent)]
    tolerance: f64,
    /// As JSON
    #[arg(long)]
    json: bool,
}

/// More days are not asked for at once.
const MAX_DAYS: i32 = 92;
/// Said where the span ends within [account] analytics_lag.
const UNSETTLED: &str = "; the vendor's books lag, and may lack the last calls";

impl Reconcile {
    pub(super) fn run(self) -> Result<(), Failure> {
        let variables = variables();
        let config = self.settings.load(&variables)?;
        let (from, until) = self.span(SystemTime::now())?;
        let catalogue = self.settings.catalogue(&config);
        let books = books(&config, &variables, "reconcile").map_err(|error| Failure::Usage(error.to_string()))?;
        let ours = self.files.open(&config)?.ran(millis(from), millis(until), books.account()).map_err(failed)?;
        let theirs = block_on(books.spent(from, until))?.map_err(failed)?;
        let report = Report::new(&ours, &theirs, &catalogue, self.tolerance);
        let has_settled = SystemTime::now().duration_since(until).is_ok_and(|age| age >= config.account.analytics_lag);
        print(&match self.json {
            true => format!("{:#}\n", to_json(&report, from, until, has_settled)),
            false => table(&report, from, until, has_settled),
        })?;
        match report.agrees() {
            true => Ok(()),
            false => Err(Failure::Differs("the books differ".into())),
        }
    }

    /// From the first moment of a day until before the first of another, and no further than now.
    fn span(&self, now: SystemTime) -> Result<(SystemTime, SystemTime), Failure> {
        let today = jiff::Timestamp::try_from(now).map_err(failed)?.to_zoned_datetime(TimeZone::UTC).date();
        let yesterday = today.checked_sub(1.day()).map_err(failed)?;
        let (first, last) = match (self.day, self.from) {
            (Some(day), _) => (day, day),
            (None, Some(from)) => (from, self.to.unwrap_or(today)),
            (None, None) => (yesterday, yesterday),
        };
        let days = first.until(last).map_err(failed)?.get_days();
        if first > today {
            return Err(Failure::Usage(format!("{first} is yet to come")));
        }
        if !(0..MAX_DAYS).contains(&days) {
            return Err(Failure::Usage(format!("from {first} to {last} is no span of 1 to {MAX_DAYS} days")));
        }
        let until = start(last.checked_add(1.day()).map_err(failed)?)?;
        Ok((start(first)?, until.min(now)))
    }
}

fn start(day: Date) -> Result<SystemTime, Failure> {
    let midnight = day.to_zoned_datetime(TimeZone::UTC).map_err(failed)?.timestamp();
    let seconds = u64::try_from(midnight.as_second()).map_err(|_| Failure::Usage(format!("{day} is before 1970")))?;
    Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

fn millis(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}

/// `1%` or `1` as 0.01.
fn percent(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>();
    match number {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent / 100.0),
        _ => Err("write it like 1% or 0.5%".into()),
    }
}

fn moment(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map_or_else(|_| "?".into(), |at| at.strftime("%Y-%m-%d %H:%M").to_string())
}

fn table(report: &Report, from: SystemTime, until: SystemTime, has_settled: bool) -> String {
    let width = report.rows.iter().map(|row| row.model.len()).chain([7]).max().unwrap_or(7);
    let head = ["calls", "theirs", "tokens", "theirs", "neurons", "theirs", "off", "outside"].map(str::to_owned);
    let line = |name: &str, cells: [String; 8]| {
        cells.iter().fold(format!("{name:width$}"), |line, cell| format!("{line} {cell:>12}")) + "\n"
    };
    let lag = if has_settled { "" } else { UNSETTLED };
    let mut text = format!("from {} until {} UTC{lag}\n", moment(from), moment(until)) + &line("model", head);
    for row in &report.rows {
        let mark = if row.agrees { "" } else { "  <" };
        let off = format!("{:+.4}%", row.off * 100.0);
        text += line(&row.model, cells(&row.ours, &row.theirs, off, &row.outside)).trim_end();
        text += &format!("{mark}\n");
    }
    let all = cells(&report.ours, &report.theirs, String::new(), &report.outside);
    text + &line("in all", all) + &report.verdict() + "\n"
}

fn cells(ours: &Sums, theirs: &Sums, off: String, outside: &Sums) -> [String; 8] {
    let tokens = |sums: &Sums| (sums.input_tokens + sums.output_tokens).to_string();
    let neurons = |sums: &Sums| format!("{:.3}", sums.neurons.as_f64());
    [
        ours.calls.to_string(),
        theirs.calls.to_string(),
        tokens(ours),
        tokens(theirs),
        neurons(ours),
        neurons(theirs),
        off,
        neurons(outside),
    ]
}

fn to_json(report: &Report, from: SystemTime, until: SystemTime, has_settled: bool) -> Value {
    let rows: Vec<_> = report.rows.iter().map(row_json).collect();
    json!({
        "from_ms": millis(from),
        "until_ms": millis(until),
        "settled": has_settled,
        "models": rows,
        "ours": sums_json(&report.ours),
        "theirs": sums_json(&report.theirs),
        "outside": sums_json(&report.outside),
        "outside_share": report.outside_share(),
        "tolerance": report.tolerance,
        "agrees": report.agrees(),
        "verdict": report.verdict(),
    })
}

fn row_json(row: &Row) -> Value {
    json!({
        "model": row.model,
        "ours": sums_json(&row.ours),
        "theirs": sums_json(&row.theirs),
        "outside": sums_json(&row.outside),
        "off": row.off,
        "agrees": row.agrees,
    })
}

fn sums_json(sums: &Sums) -> Value {
    json!({
        "calls": sums.calls,
        "input_tokens": sums.input_tokens,
        "output_tokens": sums.output_tokens,
        "neurons": sums.neurons.as_f64(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(day: Option<&str>, from: Option<&str>, to: Option<&str>) -> Result<(String, String), String> {
        let date = |text: Option<&str>| text.map(|text| text.parse::<Date>().unwrap());
        let reconcile = Reconcile {
            files: Files::default(),
            settings: Settings::default(),
            day: date(day),
            from: date(from),
            to: date(to),
            tolerance: 0.01,
            json: false,
        };
        // 2026-11-25, 10:30 UTC.
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_602_600);
        match reconcile.span(now) {
            Ok((from, until)) => Ok((moment(from), moment(until))),
            Err(Failure::Usage(why) | Failure::Failed(why) | Failure::Differs(why)) => Err(why),
        }
    }

    #[test]
    fn days_are_whole_and_end_now() {
        let told = |from: &str, until: &str| Ok((from.to_owned(), until.to_owned()));
        assert_eq!(span(None, None, None), told("2026-11-24 00:00", "2026-11-25 00:00"));
        assert_eq!(span(Some("2026-11-25"), None, None), told("2026-11-25 00:00", "2026-11-25 10:30"));
        assert_eq!(span(None, Some("2026-11-01"), Some("2026-11-02")), told("2026-11-01 00:00", "2026-11-03 00:00"));
        assert_eq!(span(None, Some("2026-11-20"), None), told("2026-11-20 00:00", "2026-11-25 10:30"));
        assert!(span(Some("2026-11-26"), None, None).is_err_and(|why| why.contains("yet to come")));
        assert!(span(None, Some("2026-11-20"), Some("2026-11-19")).is_err());
        assert!(span(None, Some("2020-01-01"), None).is_err());
    }

    #[test]
    fn a_tolerance_is_a_percentage() {
        assert_eq!((percent("1%"), percent("0.5"), percent("0%")), (Ok(0.01), Ok(0.005), Ok(0.0)));
        assert!(percent("lots").is_err() && percent("-1%").is_err() && percent("NaN").is_err());
    }
}
