//! `tollgate report`

mod figures;
mod page;

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use clap::Args;

use self::figures::Figures;
use super::settings::{Settings, variables};
use super::usage::by::{By, Lines};
use super::usage::format::Format;
use super::usage::span::{Span, SpanArgs};
use super::usage::{Files, failed};
use super::{Failure, block_on, print};
use crate::books::reconcile;
use crate::readers::records::Archive;
use crate::sidecar::books::books;
use crate::sidecar::config::{Config, Variables};

#[derive(Args, Debug)]
pub(super) struct Report {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    span: SpanArgs,
    /// Who is charged, a section for each: key, model, account, day, month, or a label of keys, as label.team
    #[arg(long, value_name = "NAME", default_value = "key")]
    by: By,
    /// Ask the vendor for its own books of the same time, and show them beside
    #[arg(long)]
    books: bool,
    /// The lines alone, for spreadsheets: a line for each of --by, day and model
    #[arg(long, conflicts_with = "books")]
    csv: bool,
    /// The same lines as JSON
    #[arg(long, conflicts_with_all = ["books", "csv"])]
    json: bool,
    /// Where it is written; standard output where nothing is said
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// How much a model may be off before the report says so.
const TOLERANCE: f64 = 0.01;

impl Report {
    pub(super) fn run(self) -> Result<(), Failure> {
        let variables = variables();
        let config = self.settings.load(&variables)?;
        let span = self.span.resolve(jiff::Timestamp::now())?;
        let archive = self.files.open(&config)?;
        let text = match (self.csv, self.json) {
            (true, _) => self.lines(&archive, &span, &config, Format::Csv)?,
            (_, true) => self.lines(&archive, &span, &config, Format::Json)?,
            _ => self.page(&archive, &span, &config, &variables)?,
        };
        match &self.output {
            None => print(&text),
            Some(path) => std::fs::write(path, text)
                .map_err(|error| Failure::Failed(format!("{} cannot be written: {error}", path.display()))),
        }
    }

    fn lines(&self, archive: &Archive, span: &Span, config: &Config, format: Format) -> Result<String, Failure> {
        let mut by = vec![self.by.clone()];
        by.extend([By::Day, By::Model].into_iter().filter(|by| *by != self.by));
        let names: Vec<_> = by.iter().map(By::name).collect();
        let names: Vec<_> = names.iter().map(|name| &**name).collect();
        let lines = Lines::of(archive, config, span, &by)?.read(&by)?;
        format.write(&names, &lines, span)
    }

    fn page(&self, archive: &Archive, span: &Span, config: &Config, variables: &Variables) -> Result<String, Failure> {
        let figures = Figures::read(&Lines::of(archive, config, span, std::slice::from_ref(&self.by))?, &self.by)?;
        let books = if self.books { Some(self.ask_the_vendor(archive, span, config, variables)?) } else { None };
        Ok(page::page(&figures, span, &self.by.name(), books.as_ref()))
    }

    fn ask_the_vendor(
        &self,
        archive: &Archive,
        span: &Span,
        config: &Config,
        variables: &Variables,
    ) -> Result<reconcile::Report, Failure> {
        let catalogue = self.settings.catalogue(config);
        let books = books(config, variables, "report --books").map_err(|error| Failure::Usage(error.to_string()))?;
        let ours = archive.ran(span.from_ms, span.until_ms, books.account()).map_err(failed)?;
        let at = |ms: u64| SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        let theirs = block_on(books.spent(at(span.from_ms), at(span.until_ms).min(SystemTime::now())))?;
        Ok(reconcile::Report::new(&ours, &theirs.map_err(failed)?, &catalogue, TOLERANCE))
    }
}
