//! One page that stands by itself: no script, nothing loaded, made to be printed.

use maud::{Markup, PreEscaped, html};

use super::figures::{Charged, Figures};
use crate::books::reconcile;
use crate::cli::usage::span::Span;
use crate::readers::records::Usage;
use crate::sidecar::page::chart::{self, COLOURS, Series};
use crate::sidecar::page::document::document;
use crate::sidecar::page::figures::{amount, short, whole};

const STYLE: &str = include_str!("style.css");

pub(super) fn page(figures: &Figures, span: &Span, by: &str, books: Option<&reconcile::Report>) -> String {
    let title = format!("Workers AI, {}", span.words());
    let head = html! { style { (PreEscaped(STYLE)) } };
    let body = html! {
        header {
            h1 { "Workers AI" }
            p { (span.words()) }
        }
        main {
            (sums(&figures.all))
            (days(figures))
            section aria-labelledby="charged" {
                h2 id="charged" { "By " (by) }
                (table(by, figures.charged.iter().map(|one| (name(one), &one.sum)), Some(&figures.all)))
            }
            @for one in &figures.charged { (detail(one)) }
            @if let Some(report) = books { (vendors_books(report)) }
        }
        footer {
            p {
                "Neurons at $0.011 a thousand, the vendor's list price, before the 10,000 that an account has free each \
                 day: those belong to no call. Saved is what the cache answered and would have cost. Refused are calls \
                 that a limit or a budget turned away."
            }
        }
    };
    document(&title, &head, &body)
}

fn sums(all: &Usage) -> Markup {
    let figure = |name: &str, value: String| {
        html! { div { dt { (name) } dd { (value) } } }
    };
    html! {
        dl.sums {
            (figure("spent", format!("${:.2}", all.neurons.usd())))
            (figure("neurons", amount(all.neurons.as_f64())))
            (figure("saved", format!("${:.2}", all.saved.usd())))
            (figure("calls", whole(all.calls as f64)))
            (figure("refused", whole(all.refused as f64)))
        }
    }
}

fn days(figures: &Figures) -> Markup {
    let series: Vec<_> = figures
        .by_day
        .iter()
        .zip(COLOURS)
        .map(|((name, values), colour)| Series { name: name.clone(), colour, values: values.clone() })
        .collect();
    let (svg, top) = chart::draw(&series);
    html! {
        section aria-labelledby="days" {
            h2 id="days" { "Neurons a day, by model" }
            ul.legend {
                @for one in &series {
                    li { span.swatch style=(format!("background:{}", one.colour)) {} (short(&one.name)) " " (amount(one.values.iter().sum())) }
                }
                @if series.is_empty() { li { "nothing was spent" } }
            }
            div.plot { div.axis aria-hidden="true" { span { (amount(top)) } span { "0" } } div.bars { (PreEscaped(svg)) } }
            (table("day", figures.days.iter().map(|day| (day.names.concat(), day)), Some(&figures.all)))
        }
    }
}

fn detail(one: &Charged) -> Markup {
    html! {
        section.detail {
            h3 { (name(one)) }
            (table("model", one.models.iter().map(|line| (line.names.last().cloned().unwrap_or_default(), line)), Some(&one.sum)))
        }
    }
}

fn name(one: &Charged) -> String {
    if one.name.is_empty() { "without a name".into() } else { one.name.clone() }
}

fn table<'a>(head: &str, lines: impl Iterator<Item = (String, &'a Usage)>, all: Option<&Usage>) -> Markup {
    let cells = |usage: &Usage| {
        html! {
            td { (whole(usage.calls as f64)) }
            td { (whole(usage.refused as f64)) }
            td { (whole(usage.input_tokens as f64)) }
            td { (whole(usage.output_tokens as f64)) }
            td { (usage.neurons.decimal()) }
            td { (format!("{:.4}", usage.neurons.usd())) }
            td { (format!("{:.4}", usage.saved.usd())) }
        }
    };
    html! {
        table {
            thead {
                tr {
                    th scope="col" { (head) }
                    @for name in ["calls", "refused", "tokens in", "tokens out", "neurons", "USD", "saved USD"] { th scope="col" { (name) } }
                }
            }
            tbody { @for (name, usage) in lines { tr { th scope="row" { (name) } (cells(usage)) } } }
            @if let Some(all) = all { tfoot { tr { th scope="row" { "in all" } (cells(all)) } } }
        }
    }
}

fn vendors_books(report: &reconcile::Report) -> Markup {
    let figure = |neurons: crate::neurons::Neurons| format!("{:.3}", neurons.as_f64());
    html! {
        section aria-labelledby="books" {
            h2 id="books" { "Beside the vendor's own books" }
            p { (report.verdict()) "." }
            p {
                "Outside is what the account spent around this gate, such as by a Worker's binding. A model is marked where the \
                 gate's figure and the vendor's differ by more than " (report.tolerance * 100.0) " %: by a price that has \
                 changed, or by calls that stand in one of the books and not yet in the other."
            }
            table {
                thead { tr { @for name in ["model", "calls", "theirs", "neurons", "theirs", "off", "outside"] { th scope="col" { (name) } } } }
                tbody {
                    @for row in &report.rows {
                        tr {
                            th scope="row" { (row.model) }
                            td { (row.ours.calls) } td { (row.theirs.calls) }
                            td { (figure(row.ours.neurons)) } td { (figure(row.theirs.neurons)) }
                            td { (format!("{:+.4} %", row.off * 100.0)) @if !row.agrees { " differs" } }
                            td { (figure(row.outside.neurons)) }
                        }
                    }
                }
            }
        }
    }
}
