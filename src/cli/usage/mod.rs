//! `tollgate usage`

pub(super) mod by;
mod files;
mod focus;
pub(super) mod format;
#[cfg(feature = "parquet")]
mod parquet;
pub(super) mod span;

use clap::Args;

use self::by::{By, Lines};
pub(super) use self::files::{Files, failed};
use self::format::Format;
use self::span::{Span, SpanArgs};
use super::settings::{Settings, variables};
use super::{Failure, print};
use crate::readers::records::Archive;
use crate::sidecar::outlook::{self, Outlook};

#[derive(Args, Debug)]
pub(super) struct Usage {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    files: Files,
    /// What to sum up by: day, month, model, key, account, or a label of keys, as label.team; several at once, as in `key,day`
    #[arg(long, value_name = "NAMES", value_delimiter = ',', default_value = "day")]
    by: Vec<By>,
    #[command(flatten)]
    span: SpanArgs,
    /// How it is written
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
    /// With --format focus: write it to this file, as Parquet
    #[cfg(feature = "parquet")]
    #[arg(long, value_name = "FILE", conflicts_with_all = ["json", "csv", "markdown"])]
    parquet: Option<std::path::PathBuf>,
    /// The same as --format json
    #[arg(long, conflicts_with_all = ["format", "csv", "markdown"])]
    json: bool,
    /// The same as --format csv
    #[arg(long, conflicts_with_all = ["format", "markdown"])]
    csv: bool,
    /// The same as --format markdown
    #[arg(long, conflicts_with = "format")]
    markdown: bool,
}

impl Usage {
    pub(super) fn run(self) -> Result<(), Failure> {
        let by = self.groups()?;
        let span = self.span.resolve(jiff::Timestamp::now())?;
        let config = self.settings.load(&variables())?;
        let archive = self.files.open(&config)?;
        #[cfg(feature = "parquet")]
        if let Some(path) = &self.parquet {
            if self.format != Format::Focus {
                return Err(Failure::Usage(
                    "--parquet goes with --format focus: the columns of others have no types".into(),
                ));
            }
            let table = focus::parquet(&archive, &span, &by::named(&config)?)?;
            return std::fs::write(path, table)
                .map_err(|error| Failure::Failed(format!("{} cannot be written: {error}", path.display())));
        }
        if self.format == Format::Focus {
            return print(&focus::csv(&archive, &span, &by::named(&config)?)?);
        }
        let lines = Lines::of(&archive, &config, &span, &by)?.read(&by)?;
        let names: Vec<_> = by.iter().map(By::name).collect();
        let names: Vec<_> = names.iter().map(|name| &**name).collect();
        let text = self.format().write(&names, &lines, &span)?;
        match self.format() {
            Format::Table => print(&(text + &foreseen(&archive, &span)?)),
            _ => print(&text),
        }
    }

    fn groups(&self) -> Result<Vec<By>, Failure> {
        let is_twice = |place: usize| self.by[..place].contains(&self.by[place]);
        match (0..self.by.len()).find(|place| is_twice(*place)) {
            Some(place) => Err(Failure::Usage(format!("--by names {} twice", self.by[place].name()))),
            None => Ok(self.by.clone()),
        }
    }

    fn format(&self) -> Format {
        match self {
            Self { json: true, .. } => Format::Json,
            Self { csv: true, .. } => Format::Csv,
            Self { markdown: true, .. } => Format::Markdown,
            _ => self.format,
        }
    }
}

/// How the month that is running will end, where the time that was asked for reaches into it.
fn foreseen(archive: &Archive, span: &Span) -> Result<String, Failure> {
    let now = jiff::Timestamp::now();
    if i64::try_from(span.until_ms).unwrap_or(i64::MAX) < now.as_millisecond() {
        return Ok(String::new());
    }
    let known = outlook::known(archive, now, &span.zone).map_err(failed)?;
    let words = |Outlook { spent, low, high, .. }| {
        format!(
            "this month  {spent} neurons so far; at the present pace it ends between {:.0} and {:.0} (${:.2} and ${:.2}), in four of \
             five such months\n",
            low.as_f64(),
            high.as_f64(),
            low.usd(),
            high.usd()
        )
    };
    Ok(Outlook::of(&known).map_or_else(String::new, words))
}
