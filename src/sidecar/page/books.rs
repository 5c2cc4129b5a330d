//! The page's words on the vendor's own books.

use std::time::{Duration, SystemTime};

use maud::{Markup, html};

use super::figures::{amount, clock};
use crate::books::{Account, Book, Known};
use crate::catalogue::{Catalogue, Change};
use crate::layers::budget::Status;

/// News are told this long.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// A model that is to go is told of from so many days before.
const WEEKS: i32 = 28;

/// What an operator should know.
pub(super) fn notices(known: &Known, catalogue: &Catalogue, at: SystemTime) -> Vec<String> {
    let recent = known.news().into_iter().filter(|news| at.duration_since(news.at).is_ok_and(|age| age < DAY));
    let told = recent.filter(|news| !matches!(news.change, Change::Leaving { .. } | Change::Arrived { .. }));
    let mut notices: Vec<_> =
        told.map(|news| format!("{}, said the vendor at {}.", news.change, clock(news.at))).collect();
    notices.extend(leaving(catalogue, at));
    for (what, book) in [("models", known.list()), ("account's spend", known.analytics())] {
        if let Some(why) = book.trouble {
            let since = book.read_at.map_or_else(String::new, |at| format!(" since {}", clock(at)));
            notices.push(format!("The vendor's books of the {what} could not be read{since}: {why}."));
        }
    }
    if let Some(report) = known.account().and_then(|account| account.report).filter(|report| !report.agrees()) {
        notices.push(format!("The gate's books and the vendor's differ: {}.", report.verdict()));
    }
    notices
}

fn leaving(catalogue: &Catalogue, at: SystemTime) -> Vec<String> {
    let models = catalogue.models().into_iter();
    let soon = models.filter_map(|model| Some((model.days_left(at).filter(|days| (0..=WEEKS).contains(days))?, model)));
    let words = |(days, model): (i32, std::sync::Arc<crate::catalogue::Model>)| {
        let instead = model.replacement.as_ref().map_or_else(String::new, |id| format!("; ask {id} instead"));
        format!("{} is to go in {days} days, on {}{instead}.", model.id, model.deprecated.as_deref().unwrap_or("?"))
    };
    soon.map(words).collect()
}

/// What of a budget was spent where no gate stands.
pub(super) fn elsewhere(budget: &Status) -> Markup {
    html! {
        @if !budget.elsewhere.is_zero() {
            p.quiet {
                "and " data #elsewhere-today value=(budget.elsewhere.decimal()) { (amount(budget.elsewhere.as_f64())) }
                " neurons elsewhere on the account, by the vendor's books"
            }
        }
    }
}

/// The latest verdict, where the vendor's books are read.
pub(super) fn verdict(known: &Known) -> Markup {
    html! {
        @if known.analytics() != Book::default() {
            section #books aria-label="The vendor's books" {
                h2 { "The vendor's books" }
                p { (words(known.account())) }
            }
        }
    }
}

fn words(account: Option<Account>) -> String {
    match account {
        Some(Account { until, report: Some(report), .. }) => {
            format!("Today until {}, ours beside theirs: {}.", clock(until), report.verdict())
        }
        Some(_) => "Read, but not settled yet: the first comparison is some minutes away.".into(),
        None => "Not read yet.".into(),
    }
}
