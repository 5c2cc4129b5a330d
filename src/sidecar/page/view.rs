//! The page's words and figures. Each figure stands in a `data` element, whose `value` is exact.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use maud::{Markup, PreEscaped, html};

use super::books;
use super::chart::{self, COLOURS, Series};
use super::document::{document, styled};
use super::figures::{amount, clock, clock_with_seconds, percent, ratio, round, share, short, time, usd, whole};
use super::history::{History, MINUTES, Minute, Used};
use crate::amount::Currency;
use crate::books::Known;
use crate::catalogue::Catalogue;
use crate::layers::budget::{FREE, Status};
use crate::layers::cache::semantic::Standing;
use crate::neurons::Neurons;
use crate::readers::metrics::totals::Totals;
use crate::readers::recent::Brief;
use crate::readers::records::Stats;
use crate::readers::running::Speech;
use crate::receipt::Outcome;
use crate::sidecar::advice::Advice;
use crate::sidecar::outlook::Outlook;

/// All that is shown at one moment.
pub(super) struct Now<'a> {
    pub(super) at: SystemTime,
    pub(super) budgets: Vec<Status>,
    pub(super) history: &'a History,
    pub(super) calls: Vec<Brief>,
    /// Sockets that are open.
    pub(super) sockets: Vec<Speech>,
    /// What the records of the last days show to be wasted.
    pub(super) advice: Arc<Vec<Advice>>,
    /// How it goes with questions that mean the same.
    pub(super) similar: Standing,
    /// How the month will end.
    pub(super) outlook: Option<Outlook>,
    /// `None` where no records are kept.
    pub(super) records: Option<Stats>,
    pub(super) known: &'a Known,
    pub(super) catalogue: &'a Catalogue,
    /// Why the config that was read last is not in force.
    pub(super) trouble: Option<String>,
}

/// Models with a colour of their own; the last colour is for the rest.
const COLOURED: usize = COLOURS.len() - 1;
/// From here on a budget is nearly spent.
const NEARLY: f64 = 0.8;
const CALLS_SHOWN: usize = 20;

/// The whole page.
pub(super) fn page(now: &Now<'_>) -> String {
    let head = html! {
        (styled("page/style.css"))
        script src="page/script.js" defer {}
        noscript { meta http-equiv="refresh" content="5"; }
    };
    let body = html! {
        header {
            h1 { "Tollgate" }
            p.quiet { "Workers AI through this gate · version " (env!("CARGO_PKG_VERSION")) }
            p #state role="status" { "live" }
        }
        main #now { (fragment(now)) }
        footer.quiet {
            a href="metrics" { "metrics" } " · " a href="page/budgets" { "budgets" } " · " a href="page/keys" { "keys" }
            @if now.records.is_some() { " · " a href="page/log" { "log" } }
            " · " a href="page/config" { "config" }
            " · days begin at 00:00 UTC"
        }
    };
    document("Tollgate", &head, &body)
}

/// What changes.
pub(super) fn fragment(now: &Now<'_>) -> Markup {
    html! {
        (notices(now))
        (spent(now))
        (tiles(now))
        (costs(now))
        (traffic(now))
        (models(now))
        (books::verdict(now.known))
        (super::advised::section(&now.advice))
        (super::similar::section(&now.similar))
        (super::speech::open(&now.sockets))
        (calls(now))
    }
}

fn notices(now: &Now<'_>) -> Markup {
    let notices = notices_of(now);
    html! {
        section #notices aria-label="Notices" {
            @for notice in &notices { p.notice { (notice) } }
        }
    }
}

fn notices_of(now: &Now<'_>) -> Vec<String> {
    let mut notices = Vec::new();
    if let Some(trouble) = &now.trouble {
        notices.push(format!("The config that was read last is wrong, and the one before is in force: {trouble}"));
    }
    for budget in &now.budgets {
        let used = 1.0 - share(budget.left, budget.limit);
        let what = if budget.name == FREE { "free allocation".into() } else { format!("budget “{}”", budget.name) };
        if used >= NEARLY {
            let percent = (used * 100.0).floor();
            notices.push(format!(
                "The {what} is {percent} % spent or reserved; it begins anew at {}.",
                clock(budget.resets_at)
            ));
        } else if let Some(end) = budget.lasts.map(|lasts| now.at + lasts).filter(|end| *end < budget.resets_at) {
            notices.push(format!("At the pace of the last minutes the {what} is used up at {}.", clock(end)));
        }
    }
    if let Some(records) = now.records {
        if records.lag > Duration::from_secs(5) {
            let seconds = records.lag.as_secs();
            notices.push(format!(
                "The records could not be written for {seconds} s: is the disk full, or the database locked?"
            ));
        }
        if records.lost > 0 {
            notices.push(format!("{} records were lost since the start: the queue was full.", records.lost));
        }
    }
    notices.extend(books::notices(now.known, now.catalogue, now.at));
    let refused: f64 = now.history.minutes().map(|minute| minute.refused_upstream).sum();
    if refused > 0.0 {
        let refused = whole(refused);
        notices.push(format!("Workers AI said 429 to {refused} attempts in the last hour: others use the account, or it is out of capacity."));
    }
    notices
}

fn spent(now: &Now<'_>) -> Markup {
    let free = now.budgets.iter().find(|budget| budget.name == FREE);
    html! {
        section #spent aria-label="Spent" {
            @if let Some(free) = free {
                div.headline {
                    h2 { "Spent today" }
                    p.figure { (figure("spent-today", free.spent)) " neurons" }
                    p.quiet {
                        data #usd-today value=(free.spent.usd_decimal()) { (usd(free.spent)) }
                        " at list price; the first " (amount(free.limit.as_f64())) " neurons of a day are free"
                    }
                    (books::elsewhere(free))
                    (gauge("Free allocation", free))
                    p.quiet { (pace(now, free)) }
                    @if let Some(outlook) = &now.outlook { p #outlook .quiet { (month(outlook)) } }
                }
            }
            div.budgets {
                h2 { "Budgets" }
                @for budget in now.budgets.iter().filter(|budget| budget.name != FREE) {
                    (gauge(&budget.name, budget))
                    p.quiet { (standing(budget)) }
                }
                @if now.budgets.iter().all(|budget| budget.name == FREE) {
                    p.quiet { "None are set. A " code { "[[budgets]]" } " in the config holds spending to a limit." }
                }
            }
        }
    }
}

fn month(outlook: &Outlook) -> String {
    let Outlook { spent, low, high, .. } = *outlook;
    format!(
        "This month {} neurons so far, {}; at the present pace it ends between {} and {}, in four of five such months.",
        amount(spent.as_f64()),
        usd(spent),
        usd(low),
        usd(high)
    )
}

/// A bar with its figures. Of a budget that is split it shows the bucket with least left.
fn gauge(name: &str, budget: &Status) -> Markup {
    let used = 1.0 - share(budget.left, budget.limit);
    let percent = format!("{:.1}", used * 100.0);
    let what = format!("{name}: {percent} % spent or reserved");
    html! {
        div.gauge {
            div.row { span { (name) } span { (percent) " %" } }
            div.bar role="meter" aria-label=(what) aria-valuemin="0" aria-valuemax="100" aria-valuenow=(percent) title=(what) {
                div.fill.nearly[used >= NEARLY] style=(format!("width:{percent}%")) {}
            }
        }
    }
}

fn pace(now: &Now<'_>, free: &Status) -> String {
    if free.left.is_zero() {
        return used_up(free);
    }
    let left = amount(free.left.as_f64());
    match free.lasts {
        Some(lasts) if now.at + lasts < free.resets_at => {
            format!("{left} neurons left, until {} at the present pace", clock(now.at + lasts))
        }
        _ => format!("{left} neurons left, enough for today at the present pace"),
    }
}

fn used_up(free: &Status) -> String {
    let (over, anew) = ((free.spent + free.elsewhere).saturating_sub(free.limit), clock(free.resets_at));
    match over {
        none if none.is_zero() => format!("all of it is spent or reserved; anew at {anew}"),
        over => {
            format!("used up; {} neurons beyond it, {} at list price; anew at {anew}", amount(over.as_f64()), usd(over))
        }
    }
}

fn standing(budget: &Status) -> String {
    let (spent, limit, reserved) = match budget.currency {
        Currency::Usd => (usd(budget.spent), usd(budget.limit), usd(budget.reserved)),
        Currency::Neurons => {
            let figure = |neurons: Neurons| amount(neurons.as_f64());
            (figure(budget.spent), figure(budget.limit) + " neurons", figure(budget.reserved))
        }
    };
    let each = if budget.buckets > 1 { " in all its buckets, each of" } else { " of" };
    let refused = match budget.rejected {
        0 => String::new(),
        calls => format!(", {} calls refused", whole(calls as f64)),
    };
    let reserved = if budget.reserved.is_zero() { String::new() } else { format!(", {reserved} reserved") };
    format!("{spent} spent{each} {limit}{reserved}{refused}; anew at {}", clock(budget.resets_at))
}

fn tiles(now: &Now<'_>) -> Markup {
    let totals = now.history.totals();
    let (calls, hits, failed) = now
        .history
        .minutes()
        .fold((0.0, 0.0, 0.0), |sums, minute| (sums.0 + minute.calls, sums.1 + minute.hits, sums.2 + minute.failed));
    let saved: f64 = now.history.today.values().map(|used| used.saved).sum();
    let prefix: f64 = totals.models.values().map(|model| model.prefix_saved).sum();
    let shared: f64 = totals.models.values().map(|model| model.shared_hits).sum();
    let waiting: f64 = totals.models.values().map(|model| model.waiting).sum();
    let tile = |id: &str, name: &str, value: f64, shown: String, of: &str| {
        html! {
            div.tile { dt { (name) } dd { data id=(id) value=(value) { (shown) } span.quiet { (of) } } }
        }
    };
    let rate = now.history.calls_a_second();
    let own = own_micros(totals);
    html! {
        dl #tiles aria-label="Right now" {
            (tile("rate", "Calls a second", rate, format!("{rate:.1}"), ""))
            (tile("in-flight", "Running now", totals.in_flight, whole(totals.in_flight), ""))
            (tile("waiting", "Waiting now", waiting, whole(waiting), ""))
            (tile("cache-share", "From the cache", ratio(hits, calls), percent(hits, calls), " of the last hour"))
            @if shared > 0.0 {
                (tile("cache-shared", "Kept by other gates", shared, whole(shared), " answers since the start"))
            }
            (tile("saved", "Saved today", saved, amount(saved), " neurons"))
            (tile("prefix-saved", "Saved by the vendor's prefix cache", prefix, amount(prefix), " neurons since the start"))
            (tile("failed", "Not answered", ratio(failed, calls), percent(failed, calls), " of the last hour"))
            (tile("overhead", "Gate's own time", own, format!("{own:.0} µs"), " a call"))
        }
    }
}

fn own_micros(totals: &Totals) -> f64 {
    1e6 * ratio(totals.overhead_seconds, totals.overhead_calls)
}

/// The last hour's neurons, by model.
fn costs(now: &Now<'_>) -> Markup {
    let names = coloured(now);
    let coloured = names.iter().zip(COLOURS);
    let mut series: Vec<_> =
        coloured.map(|(name, colour)| Series { name: short(name).to_owned(), colour, values: Vec::new() }).collect();
    let mut rest = Vec::new();
    for minute in now.history.minutes() {
        for (one, name) in series.iter_mut().zip(&names) {
            one.values.push(minute.neurons.get(*name).copied().unwrap_or(0.0));
        }
        let others = minute.neurons.iter().filter(|(name, _)| !names.contains(&name.as_str()));
        rest.push(others.map(|(_, neurons)| neurons).sum());
    }
    if rest.iter().any(|value| *value > 0.0) {
        series.push(Series { name: "all others".into(), colour: COLOURS[COLOURED], values: rest });
    }
    graph(now, "costs", "Neurons a minute, by model", &series, amount)
}

/// The last hour's calls, by where the answer came from.
fn traffic(now: &Now<'_>) -> Markup {
    let of = |name: &str, colour, value: fn(&Minute) -> f64| Series {
        name: name.into(),
        colour,
        values: now.history.minutes().map(value).collect(),
    };
    let series = [
        of("upstream", COLOURS[0], |minute| (minute.calls - minute.hits - minute.failed).max(0.0)),
        of("not answered", COLOURS[5], |minute| minute.failed),
        of("from the cache", COLOURS[2], |minute| minute.hits),
    ];
    graph(now, "traffic", "Calls a minute", &series, whole)
}

/// The models that cost most in the last hour, dearest first.
fn coloured<'a>(now: &Now<'a>) -> Vec<&'a str> {
    let mut sums = std::collections::BTreeMap::<&str, f64>::new();
    for (name, neurons) in now.history.minutes().flat_map(|minute| &minute.neurons) {
        *sums.entry(name).or_default() += neurons;
    }
    let mut names: Vec<_> = sums.into_iter().collect();
    names.sort_by(|a, b| b.1.total_cmp(&a.1));
    names.into_iter().take(COLOURED).map(|(name, _)| name).collect()
}

fn graph(now: &Now<'_>, id: &str, title: &str, series: &[Series], shown: fn(f64) -> String) -> Markup {
    let (svg, top) = chart::draw(series);
    let minute = |column: usize| {
        let minute = now.history.last_minute().saturating_sub((MINUTES - 1 - column) as u64);
        clock(SystemTime::UNIX_EPOCH + Duration::from_secs(60 * minute))
    };
    let sum = |one: &Series| one.values.iter().sum::<f64>();
    html! {
        section id=(id) aria-labelledby=(format!("{id}-title")) {
            h2 id=(format!("{id}-title")) { (title) }
            ul.legend {
                @for one in series {
                    li { span.swatch style=(format!("background:{}", one.colour)) {} (one.name) " " span.quiet { (shown(sum(one))) } }
                }
                @if series.is_empty() { li.quiet { "nothing in the last hour" } }
            }
            div.plot id=(format!("{id}-plot")) tabindex="0" role="group"
                aria-label=(format!("{title}, the last hour. Left and right arrows go from minute to minute; the table below has the same figures.")) {
                div.axis aria-hidden="true" { span { (round(top)) } span { (round(top / 2.0)) } span { "0" } }
                div.bars { (PreEscaped(svg)) div.cursor {} }
                p.tip role="status" {}
            }
            div.times aria-hidden="true" {
                @for column in [0, MINUTES / 4, MINUTES / 2, MINUTES * 3 / 4, MINUTES - 1] { span { (minute(column)) } }
            }
            details id=(format!("{id}-table")) {
                summary { "The same as a table" }
                div.scroll tabindex="0" role="region" aria-label=(format!("{title}, as a table")) {
                    table {
                        thead { tr { th scope="col" { "minute (UTC)" } @for one in series { th scope="col" { (one.name) } } } }
                        tbody {
                            @for column in 0..MINUTES {
                                tr {
                                    th scope="row" { (minute(column)) }
                                    @for one in series {
                                        @let value = one.values.get(column).copied().unwrap_or(0.0);
                                        td data-value=(value) { (shown(value)) }
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn models(now: &Now<'_>) -> Markup {
    let mut today: Vec<_> = now.history.today.iter().collect();
    today.sort_by(|a, b| b.1.neurons.total_cmp(&a.1.neurons).then(b.1.calls.total_cmp(&a.1.calls)));
    let all: f64 = today.iter().map(|(_, used)| used.neurons).sum();
    html! {
        section #models aria-labelledby="models-title" {
            h2 #models-title { "Models today" }
            div.scroll tabindex="0" role="group" aria-labelledby="models-title" {
                table {
                    thead { tr {
                        th scope="col" { "model" } th scope="col" { "neurons" } th scope="col" { "USD" }
                        th scope="col" { "share" } th scope="col" { "calls" } th scope="col" { "from the cache" }
                        th scope="col" { "left of its limit" } th scope="col" { "waiting" }
                    } }
                    tbody {
                        @for (name, used) in &today { (model(now.history.totals(), name, used, all)) }
                        @if today.is_empty() { tr { td.quiet colspan="8" { "no call yet today" } } }
                    }
                }
            }
        }
    }
}

fn model(totals: &Totals, name: &str, used: &Used, all: f64) -> Markup {
    let figures = totals.models.get(name).copied().unwrap_or_default();
    let neurons = Neurons::from_f64(used.neurons);
    html! {
        tr {
            th scope="row" title=(name) { (short(name)) }
            td { data.neurons data-model=(name) value=(neurons.decimal()) { (amount(used.neurons)) } }
            td { (usd(neurons)) }
            td { (percent(used.neurons, all)) }
            td { (whole(used.calls)) }
            td { (percent(figures.hits, figures.looked_up)) }
            td {
                @if let (Some(left), Some(limit)) = (figures.remaining, figures.limit) {
                    meter min="0" max=(limit) low=(limit * 0.2) optimum=(limit) value=(left) { (whole(left)) }
                    span.left { (whole(left)) " of " (whole(limit)) }
                } @else { span.quiet { "–" } }
            }
            td { (whole(figures.waiting)) }
        }
    }
}

fn calls(now: &Now<'_>) -> Markup {
    html! {
        section #calls aria-labelledby="calls-title" {
            h2 #calls-title { "The last calls" }
            div.scroll tabindex="0" role="group" aria-labelledby="calls-title" {
                table {
                    thead { tr {
                        th scope="col" { "time (UTC)" } th scope="col" { "model" } th scope="col" { "how it ended" }
                        th scope="col" { "neurons" } th scope="col" { "says who" } th scope="col" { "tokens in / out" }
                        th scope="col" { "cache" } th scope="col" { "attempts" } th scope="col" { "waited" }
                        th scope="col" { "took" } th scope="col" { "key" } th scope="col" { "receipt" }
                    } }
                    tbody {
                        @for call in now.calls.iter().take(CALLS_SHOWN) { (one_call(call, now.records.is_some())) }
                        @if now.calls.is_empty() { tr { td.quiet colspan="12" { "no call yet" } } }
                    }
                }
            }
        }
    }
}

fn one_call(call: &Brief, has_record: bool) -> Markup {
    let is_bad = !matches!(call.outcome, Outcome::Ok | Outcome::CacheHit);
    let why = call.refused.unwrap_or(call.outcome.label()).replace('_', " ");
    let id = call.id.to_string();
    // An id is the time, the call's number and the process: the number tells it apart from its neighbours.
    let number = &id[14..20];
    html! {
        tr {
            td { (clock_with_seconds(call.received_at)) }
            td title=(call.model.id) { (short(&call.model.id)) }
            td.bad[is_bad] { (why) @if let Some(status) = call.status { " " span.quiet { (status) } } }
            td { (amount(call.cost.neurons.as_f64())) }
            td { (call.cost.source.label().unwrap_or("–")) }
            td { (whole(call.tokens.0 as f64)) " / " (whole(call.tokens.1 as f64)) }
            td { (call.cache.label().unwrap_or("–").to_lowercase()) }
            td { (call.attempts) }
            td { (time(call.waited)) }
            td { (time(call.duration)) }
            td { (call.key.as_deref().unwrap_or("–")) }
            td {
                @if has_record { a href=(format!("page/log/{id}")) title=(id) aria-label=(format!("Receipt {number}")) { (number) } }
                @else { span title=(id) { (number) } }
            }
        }
    }
}

fn figure(id: &str, neurons: Neurons) -> Markup {
    html! { data id=(id) value=(neurons.decimal()) { (amount(neurons.as_f64())) } }
}
