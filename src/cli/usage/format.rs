//! Lines of usage, written for people, spreadsheets and programs.

use clap::ValueEnum;
use serde_json::{Map, Value, json};

use super::span::Span;
use crate::cli::Failure;
use crate::neurons::Neurons;
use crate::readers::records::Usage as Line;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(in crate::cli) enum Format {
    /// For a terminal
    Table,
    /// A list of objects
    Json,
    /// For spreadsheets (RFC 4180)
    Csv,
    /// A table for a document
    Markdown,
    /// The FinOps Foundation's cost and usage columns as CSV, a row a day, account, model and key; days are UTC's
    Focus,
}

/// What the text of a cell says. An empty one is none.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Text,
    /// A number with up to twelve decimals.
    Decimal,
    /// A whole number.
    Count,
    /// RFC 3339.
    Moment,
}

/// The figures of a line, each with its column's name for people and for programs.
const FIGURES: [(&str, &str); 8] = [
    ("calls", "calls"),
    ("refused", "refused"),
    ("tokens in", "input_tokens"),
    ("cached", "cached_input_tokens"),
    ("tokens out", "output_tokens"),
    ("neurons", "neurons"),
    ("USD", "usd"),
    ("saved", "saved_neurons"),
];

impl Format {
    /// `names` are those of the groups. FOCUS has columns of its own, and is not written here.
    pub(in crate::cli) fn write(self, names: &[&str], lines: &[Line], span: &Span) -> Result<String, Failure> {
        match self {
            Self::Table | Self::Focus => Ok(table(names, lines, span)),
            Self::Json => Ok(format!("{:#}\n", Value::from_iter(lines.iter().map(|line| object(names, line))))),
            Self::Markdown => Ok(markdown(names, lines, span)),
            Self::Csv => csv(names, lines),
        }
    }
}

fn object(names: &[&str], line: &Line) -> Value {
    let mut fields: Map<String, Value> =
        names.iter().zip(&line.names).map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let figures = [
        json!(line.calls),
        json!(line.refused),
        json!(line.input_tokens),
        json!(line.cached_input_tokens),
        json!(line.output_tokens),
        json!(line.neurons.as_f64()),
        json!(line.neurons.usd()),
        json!(line.saved.as_f64()),
    ];
    fields.extend(FIGURES.iter().zip(figures).map(|((_, name), figure)| ((*name).to_owned(), figure)));
    Value::Object(fields)
}

/// Every figure in full, so that a sheet adds up to what the records have.
fn exact(line: &Line) -> [String; 8] {
    [
        line.calls.to_string(),
        line.refused.to_string(),
        line.input_tokens.to_string(),
        line.cached_input_tokens.to_string(),
        line.output_tokens.to_string(),
        line.neurons.decimal(),
        line.neurons.usd_exact(),
        line.saved.decimal(),
    ]
}

fn csv(names: &[&str], lines: &[Line]) -> Result<String, Failure> {
    let figures = FIGURES.iter().map(|(_, name)| *name);
    let head = names.iter().copied().chain(figures).map(str::to_owned);
    let rows = lines.iter().map(|line| line.names.iter().cloned().chain(exact(line)).collect());
    rows_as_csv(std::iter::once(head.collect()).chain(rows))
}

pub(super) fn rows_as_csv(rows: impl Iterator<Item = Vec<String>>) -> Result<String, Failure> {
    let failed = |why: String| Failure::Failed(format!("the table cannot be written: {why}"));
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.write_record(row).map_err(|error| failed(error.to_string()))?;
    }
    let bytes = writer.into_inner().map_err(|error| failed(error.to_string()))?;
    String::from_utf8(bytes).map_err(|error| failed(error.to_string()))
}

fn rounded(line: &Line) -> [String; 8] {
    let [calls, refused, input, cached, output, ..] = exact(line);
    [
        calls,
        refused,
        input,
        cached,
        output,
        format!("{:.2}", line.neurons.as_f64()),
        format!("{:.4}", line.neurons.usd()),
        format!("{:.2}", line.saved.as_f64()),
    ]
}

fn name(name: &str) -> &str {
    if name.is_empty() { "-" } else { name }
}

fn table(names: &[&str], lines: &[Line], span: &Span) -> String {
    let width = |place: usize| {
        let values = lines.iter().filter_map(|line| line.names.get(place)).map(|value| value.chars().count());
        values.chain([names[place].len(), 6]).max().unwrap_or(0)
    };
    let widths: Vec<_> = (0..names.len()).map(width).collect();
    let row = |values: &[&str], figures: [String; 8]| {
        let values: Vec<_> = values.iter().zip(&widths).map(|(value, width)| format!("{value:width$}")).collect();
        figures.iter().fold(values.join("  "), |row, figure| format!("{row}  {figure:>12}")) + "\n"
    };
    let mut text = row(names, FIGURES.map(|(name, _)| name.to_owned()));
    for line in lines {
        let values: Vec<_> = line.names.iter().map(|value| name(value)).collect();
        text += &row(&values, rounded(line));
    }
    text + &total(lines, span)
}

fn markdown(names: &[&str], lines: &[Line], span: &Span) -> String {
    let row = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let head = names.iter().copied().chain(FIGURES.map(|(name, _)| name)).map(str::to_owned);
    let rule = names.iter().map(|_| "---").chain(FIGURES.map(|_| "---:")).map(str::to_owned);
    let mut text = row(head.collect()) + &row(rule.collect());
    for line in lines {
        let values = line.names.iter().map(|value| name(value).replace('|', "\\|"));
        text += &row(values.chain(rounded(line)).collect());
    }
    text + "\n" + &total(lines, span)
}

fn total(lines: &[Line], span: &Span) -> String {
    let calls: u64 = lines.iter().map(|line| line.calls).sum();
    let neurons: Neurons = lines.iter().map(|line| line.neurons).sum();
    format!("in all  {calls} calls, {neurons} neurons, ${:.4}, {}\n", neurons.usd(), span.words())
}
