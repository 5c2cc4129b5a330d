//! `tollgate doctor`
//!
//! It looks at all that a gate stands on, from the nearest to the farthest, so that what is to be mended first comes first: the
//! config, the files, the machine, the way to the vendor, the token, the store that replicas share.
//!
//! # What it does not do
//! It mends nothing, opens no database, and calls no model: the token is tried by readings alone, so that nothing is spent whoever
//! is asked.

mod machine;
mod vendor;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use super::settings::{KEYS, MODELS, Settings, variables};
use super::{Failure, block_on, print, store};
use crate::catalogue::Catalogue;
use crate::sidecar::config::{Config, ConfigError, Variables};
use crate::sidecar::{self, spending, webhooks};

#[derive(Args, Debug)]
pub(super) struct Doctor {
    #[command(flatten)]
    settings: Settings,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Exit 1 also where there are only warnings
    #[arg(long)]
    strict: bool,
    /// Ask nobody: neither the vendor nor the store of [replicas]
    #[arg(long)]
    offline: bool,
}

/// What was found at one place.
#[derive(Debug, Serialize)]
struct Finding {
    /// What was looked at.
    about: &'static str,
    grade: Grade,
    /// What is so.
    found: String,
    /// What to do about it; nothing where it is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    mend: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Grade {
    Ok,
    Warning,
    Wrong,
    /// It could not be looked at, for something before it is wrong, or was not to be.
    Skipped,
}

impl Doctor {
    pub(super) fn run(self) -> Result<(), Failure> {
        let variables = variables();
        let mut findings = Vec::new();
        let config = match self.config(&variables, &mut findings) {
            Ok(config) => Some(config),
            Err(error) => {
                findings.push(Finding::wrong("config", error.place, error.what));
                None
            }
        };
        if let Some(config) = &config {
            machine::files(config, self.settings.file().as_deref(), &mut findings);
            machine::disk(config, &mut findings);
            findings.push(machine::descriptors(config));
            if self.offline {
                findings.extend(
                    ["upstream", "token", "store"].map(|about| Finding::skipped(about, "not asked: --offline")),
                );
            } else {
                block_on(vendor::ask(config, &variables, &mut findings))?;
                block_on(ask_store(config, &mut findings))?;
                block_on(ask_cache_store(config, &mut findings))?;
            }
        }
        self.tell(&findings)?;
        let count = |grade| findings.iter().filter(|finding| finding.grade == grade).count();
        match (config.is_some(), count(Grade::Wrong), count(Grade::Warning)) {
            (false, ..) => Err(Failure::Usage("the config is wrong: mend it first".into())),
            (true, 0, warnings) if warnings == 0 || !self.strict => Ok(()),
            (true, 0, warnings) => Err(Failure::Failed(format!("{warnings} to look at"))),
            (true, wrong, _) => Err(Failure::Failed(format!("{wrong} to mend, the first one first"))),
        }
    }

    /// The config as `serve` would have it.
    fn config(&self, variables: &Variables, findings: &mut Vec<Finding>) -> Result<Config, ConfigError> {
        let mut config = self.settings.read(variables)?;
        config.records.path.get_or_insert_with(|| super::serve::RECORDS.into());
        config.records.may_be_missing = true;
        config.catalogue.path.get_or_insert_with(|| MODELS.into());
        // Where nothing was kept nothing is made.
        if config.keys_path.is_none() && std::path::Path::new(KEYS).exists() {
            config.keys_path = Some(KEYS.into());
        }
        let open = sidecar::check(&config, variables)?;
        let road = config.road(variables)?;
        config.tls.acceptor("[tls]").and(config.admin_tls.acceptor("[admin_tls]"))?;
        webhooks::endpoints(&config.webhooks, variables, &road)?;
        config.replicas.link()?;
        let file = self.settings.file();
        let place = file.map_or_else(|| "no file, so all is as built in".to_owned(), |file| file.display().to_string());
        findings.push(Finding::ok("config", place));
        let doubts = spending::doubts(&config, &Catalogue::with(&config.models));
        for doubt in open.into_iter().chain(doubts) {
            findings.push(Finding::warning("config", doubt, "change it, or leave it if it is meant so"));
        }
        Ok(config)
    }

    fn tell(&self, findings: &[Finding]) -> Result<(), Failure> {
        if self.json {
            return print(&format!("{:#}\n", json!({"findings": findings})));
        }
        let mut text = String::new();
        for Finding { about, grade, found, .. } in findings {
            text += &format!("{:<8} {about:<12} {found}\n", grade.label());
        }
        let mends = findings.iter().filter_map(|finding| Some((finding, finding.mend.as_ref()?)));
        let mut mends: Vec<_> = mends.collect();
        // What is wrong comes before what is only doubtful, else in the order in which one thing stands upon the other.
        mends.sort_by_key(|(finding, _)| finding.grade != Grade::Wrong);
        for (number, (finding, mend)) in mends.iter().enumerate() {
            let head = if number == 0 { "\nTo mend, in this order:\n" } else { "" };
            text += &format!("{head}{:>2}. {}: {mend}\n", number + 1, finding.about);
        }
        print(&text)
    }
}

/// The store of `[replicas]`, as `check --connect` asks it.
async fn ask_store(config: &Config, findings: &mut Vec<Finding>) {
    let about = "store";
    let Ok(Some(link)) = config.replicas.link() else { return };
    let server = match link.try_out().await {
        Ok(server) => server,
        Err(why) => {
            let mend = "let [replicas] store be reached; until then on_store_loss says what limits do";
            return findings.push(Finding::wrong(about, why.to_string(), mend));
        }
    };
    findings.push(Finding::ok(about, store::name(&server)));
    findings.extend(store::doubts(&server).into_iter().map(|doubt| Finding::warning(about, doubt.found, doubt.mend)));
}

/// The store of `[cache]`, where answers are shared.
async fn ask_cache_store(config: &Config, findings: &mut Vec<Finding>) {
    let about = "cache store";
    let Ok(Some(tier)) = config.shared_tier() else { return };
    let server = match tier.link.try_out().await {
        Ok(server) => server,
        Err(why) => {
            let mend = "let it be reached; until then each gate has its own answers alone";
            return findings.push(Finding::wrong(about, why.to_string(), mend));
        }
    };
    findings.push(Finding::ok(about, store::name(&server)));
    let doubts = store::cache_doubts(&server, tier.has_own_store);
    findings.extend(doubts.into_iter().map(|doubt| Finding::warning(about, doubt.found, doubt.mend)));
}

// === impl Finding ===

impl Finding {
    fn ok(about: &'static str, found: impl Into<String>) -> Self {
        Self { about, grade: Grade::Ok, found: found.into(), mend: None }
    }

    fn warning(about: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { about, grade: Grade::Warning, found: found.into(), mend: Some(mend.into()) }
    }

    fn wrong(about: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { about, grade: Grade::Wrong, found: found.into(), mend: Some(mend.into()) }
    }

    fn skipped(about: &'static str, found: impl Into<String>) -> Self {
        Self { about, grade: Grade::Skipped, found: found.into(), mend: None }
    }
}

impl Grade {
    fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Wrong => "wrong",
            Self::Skipped => "skipped",
        }
    }
}
