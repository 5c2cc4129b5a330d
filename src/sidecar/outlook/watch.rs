//! Looks at the records' sums again and again: how the month goes on, and who is out of habit.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use super::{Known, MOST_DAYS, Outlook, Unusual, unusual};
use crate::neurons::Neurons;
use crate::readers::records::{Archive, Group, RecordsError, Usage};
use crate::sidecar::webhooks::Events;

const FIRST: Duration = Duration::from_secs(3);
const EVERY: Duration = Duration::from_secs(5 * 60);
/// Names that are told of in a day.
const MOST_TOLD: usize = 256;

type Labels = BTreeMap<String, BTreeMap<String, String>>;

/// What was told of today, so that it is told once.
#[derive(Default)]
struct Announced {
    day: Option<Date>,
    names: HashSet<(String, String)>,
}

/// Never ends. `labels` tells those of the keys, by their names.
pub(in crate::sidecar) async fn watch(
    records: PathBuf,
    outlook: Arc<ArcSwapOption<Outlook>>,
    events: Arc<Events>,
    labels: impl Fn() -> Labels,
) {
    let (mut pause, mut told) = (FIRST, Announced::default());
    loop {
        tokio::time::sleep(pause).await;
        let (path, labels) = (records.clone(), labels());
        let seen = tokio::task::spawn_blocking(move || look(&path, &labels, Timestamp::now())).await;
        match seen {
            Ok(Ok((day, next, strangers))) => {
                outlook.store(next.map(Arc::new));
                told.news(day, strangers).iter().for_each(|stranger| events.unusual(stranger));
            }
            Ok(Err(why)) => tracing::debug!(%why, "nothing is foreseen"),
            Err(_) => {}
        }
        pause = (pause * 2).min(EVERY);
    }
}

impl Announced {
    fn news(&mut self, day: Date, strangers: Vec<Unusual>) -> Vec<Unusual> {
        if self.day.replace(day) != Some(day) {
            self.names.clear();
        }
        let is_news = |stranger: &Unusual| {
            self.names.len() < MOST_TOLD && self.names.insert((stranger.what.clone(), stranger.name.clone()))
        };
        strangers.into_iter().filter(is_news).collect()
    }
}

fn look(path: &Path, labels: &Labels, now: Timestamp) -> Result<(Date, Option<Outlook>, Vec<Unusual>), RecordsError> {
    let archive = Archive::open(path)?;
    let known = known(&archive, now, &TimeZone::UTC)?;
    let mut strangers = Vec::new();
    for (what, group) in [("model", Group::Model), ("key", Group::Key)] {
        let lines = lines(&archive, group, now)?;
        strangers.extend(out_of_habit(what, &lines, known.today, |name| Some(name.to_owned())));
        if group == Group::Key {
            let names: HashSet<_> = labels.values().flat_map(|labels| labels.keys()).collect();
            for label in names {
                let value = |key: &str| labels.get(key)?.get(label).cloned();
                strangers.extend(out_of_habit(&format!("label.{label}"), &lines, known.today, value));
            }
        }
    }
    Ok((known.today, Outlook::of(&known), strangers))
}

fn lines(archive: &Archive, group: Group, now: Timestamp) -> Result<Vec<Usage>, RecordsError> {
    let (from, until) = span(now, &TimeZone::UTC);
    archive.usage(from, until, &[Group::Day, group], &TimeZone::UTC)
}

/// From the first midnight that matters until a moment from now.
fn span(now: Timestamp, zone: &TimeZone) -> (u64, u64) {
    let days = i64::try_from(MOST_DAYS).unwrap_or(0);
    let first = zone.to_datetime(now).date().checked_sub(days.days()).unwrap_or(Date::ZERO);
    let from = first.to_zoned_datetime(zone.clone()).map_or(0, |first| first.timestamp().as_millisecond());
    let millis = |millis: i64| u64::try_from(millis).unwrap_or(0);
    (millis(from), millis(now.as_millisecond()) + 1)
}

/// What the records tell of the days until now.
pub(crate) fn known(archive: &Archive, now: Timestamp, zone: &TimeZone) -> Result<Known, RecordsError> {
    let (from, until) = span(now, zone);
    let local = zone.to_datetime(now);
    let today = local.date();
    let mut spent: BTreeMap<Date, Neurons> = BTreeMap::new();
    for line in archive.usage(from, until, &[Group::Day], zone)? {
        if let Some(day) = line.names.first().and_then(|name| name.parse().ok()) {
            spent.insert(day, line.neurons);
        }
    }
    let first = spent.keys().next().copied().unwrap_or(today);
    let days = std::iter::successors(Some(first), |day| day.tomorrow().ok()).take_while(|day| *day < today);
    let days = days.map(|day| (day, spent.get(&day).copied().unwrap_or_default())).collect();
    let seconds = f64::from(local.hour()) * 3600.0 + f64::from(local.minute()) * 60.0 + f64::from(local.second());
    Ok(Known { days, today, spent_today: spent.get(&today).copied().unwrap_or_default(), part: seconds / 86_400.0 })
}

fn out_of_habit(what: &str, lines: &[Usage], today: Date, name: impl Fn(&str) -> Option<String>) -> Vec<Unusual> {
    let mut spent: BTreeMap<String, BTreeMap<Date, Neurons>> = BTreeMap::new();
    for line in lines {
        let [day, of] = line.names.as_slice() else { continue };
        let (Ok(day), Some(name)) = (day.parse::<Date>(), name(of)) else { continue };
        *spent.entry(name).or_default().entry(day).or_default() += line.neurons;
    }
    let so_far = spent.iter().filter_map(|(name, days)| Some((name.clone(), *days.get(&today)?))).collect();
    // Days on which nothing was spent are days of the habit, from its first one on.
    let habit = |days: &BTreeMap<Date, Neurons>| {
        let first = days.keys().next().copied().unwrap_or(today);
        let all = std::iter::successors(Some(first), |day| day.tomorrow().ok()).take_while(|day| *day < today);
        all.map(|day| days.get(&day).map_or(0.0, |cost| cost.as_f64())).collect()
    };
    let habits = spent.iter().map(|(name, days)| (name.clone(), habit(days))).collect();
    unusual(what, &habits, &so_far)
}
