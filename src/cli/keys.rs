//! `tollgate keys`

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::json;

use super::settings::{KEYS, Settings, variables};
use super::{Failure, print};
use crate::sidecar::key_store::{self, KeyStore, KeyStoreError, Stored, Wish};

/// Clients' keys. Made, changed and revoked ones are in force within a second in a sidecar that runs.
#[derive(Args, Debug)]
pub(super) struct Keys {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make a key for a client: it is shown once, and kept as its hash
    New {
        /// Names it in records and budgets
        name: String,
        #[command(flatten)]
        wish: WishArgs,
        /// Keep it nowhere, and show the lines for the config instead
        #[arg(long)]
        for_config: bool,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show all keys that were made so, revoked ones too
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// From now on a key opens nothing. Where it was the last one, the gate opens to nobody
    Revoke {
        /// Which
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Make another key of the same name; the one before holds as well for a while
    Rotate {
        /// Which
        name: String,
        /// How long both hold
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
        grace: Duration,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args, Clone, Debug)]
struct WishArgs {
    /// Who answers for it
    #[arg(long)]
    owner: Option<String>,
    /// What budgets may be split by, such as team=search; may be given several times
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Only this model; may be given several times
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
    /// In any minute
    #[arg(long, value_name = "NUMBER")]
    requests_per_minute: Option<u32>,
    /// When it ends: a time from now such as 90d, or a moment such as 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = expiry)]
    expires: Option<jiff::Timestamp>,
}

impl Keys {
    pub(super) fn run(self) -> Result<(), Failure> {
        let Self { command, settings } = self;
        match command {
            Command::New { name, wish, for_config, json } if for_config => {
                let _ = wish;
                for_the_config(&name, json)
            }
            Command::New { name, wish, json, .. } => {
                let path = path(&settings, &name)?;
                let key = open(&path)?.create(&name, &wish.into()).map_err(failure)?;
                show_key(&name, &key, &path, json)
            }
            Command::List { json } => list(&settings, json),
            Command::Revoke { name, json } => {
                let path = path(&settings, "")?;
                open(&path)?.revoke(&name).map_err(failure)?;
                if json {
                    return print(&format!("{}\n", json!({"name": name, "revoked": true})));
                }
                print(&format!("the key {name:?} opens nothing any more, within a second where a sidecar runs\n"))
            }
            Command::Rotate { name, grace, json } => {
                let path = path(&settings, "")?;
                let key = open(&path)?.rotate(&name, grace).map_err(failure)?;
                show_key(&name, &key, &path, json)?;
                let until = humantime::format_duration(grace);
                if json { Ok(()) } else { print(&format!("The one before holds for another {until}.\n")) }
            }
        }
    }
}

/// Where the keys are. A name that the config has is its own.
fn path(settings: &Settings, name: &str) -> Result<PathBuf, Failure> {
    let config = settings.load(&variables())?;
    if config.keys.iter().any(|key| key.name == name) {
        return Err(Failure::Usage(format!("there is a key {name:?} in the config: choose another name")));
    }
    match config.keys_path {
        Some(path) if path.as_os_str().is_empty() => Err(Failure::Usage(
            "no keys are kept (keys_path is empty): set it, or use --for-config and add the lines to the config".into(),
        )),
        Some(path) => Ok(path),
        None => Ok(KEYS.into()),
    }
}

fn open(path: &Path) -> Result<KeyStore, Failure> {
    KeyStore::open(path).map_err(failure)
}

fn failure(error: KeyStoreError) -> Failure {
    match error {
        KeyStoreError::File { .. } => Failure::Failed(error.to_string()),
        _ => Failure::Usage(error.to_string()),
    }
}

fn show_key(name: &str, key: &str, path: &Path, json: bool) -> Result<(), Failure> {
    if json {
        return print(&format!("{:#}\n", json!({"name": name, "key": key})));
    }
    let path = path.display();
    print(&format!(
        "The key {name:?}, for the client. It is not shown again:\n\n    {key}\n\nIts hash is kept in {path}. A sidecar of this \
         config takes it within a second, and asks for keys from now on.\n"
    ))
}

fn for_the_config(name: &str, json: bool) -> Result<(), Failure> {
    if name.is_empty() || name.len() > 64 {
        return Err(Failure::Usage("a key's name has 1 to 64 bytes".into()));
    }
    let made = key_store::fresh();
    let (key, hash) = made.map_err(|error| Failure::Failed(format!("no random numbers from /dev/urandom: {error}")))?;
    if json {
        return print(&format!("{:#}\n", json!({"name": name, "key": key, "sha256": hash})));
    }
    let name = toml::Value::from(name);
    print(&format!(
        "The key, for the client. It is not shown again:\n\n    {key}\n\nIn the config:\n\n    [[keys]]\n    name = {name}\n    \
         sha256 = \"{hash}\"\n"
    ))
}

fn list(settings: &Settings, json: bool) -> Result<(), Failure> {
    let path = path(settings, "")?;
    let keys = if path.exists() { open(&path)?.all().map_err(failure)? } else { Vec::new() };
    if json {
        return print(&format!("{:#}\n", json!({"keys": keys})));
    }
    print(&keys.iter().map(line).collect::<String>())
}

fn line(key: &Stored) -> String {
    let state = match (key.revoked_at, key.expires_at) {
        (Some(at), _) => format!("revoked {}", at.strftime("%Y-%m-%d %H:%M UTC")),
        (None, Some(at)) if at <= jiff::Timestamp::now() => format!("expired {}", at.strftime("%Y-%m-%d %H:%M UTC")),
        (None, Some(at)) => format!("until {}", at.strftime("%Y-%m-%d %H:%M UTC")),
        (None, None) => "in force".into(),
    };
    let labels: Vec<_> = key.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let models = if key.models.is_empty() { "all models".into() } else { key.models.join(", ") };
    format!("{:32}  {state:28}  {:16}  {}  {models}\n", key.name, key.owner, labels.join(","))
}

impl From<WishArgs> for Wish {
    fn from(args: WishArgs) -> Self {
        Self {
            owner: args.owner,
            labels: Some(args.labels.into_iter().collect::<BTreeMap<_, _>>()),
            models: Some(args.models),
            requests_per_minute: args.requests_per_minute,
            expires_at: args.expires,
            never_expires: false,
        }
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it like team=search")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn expiry(text: &str) -> Result<jiff::Timestamp, String> {
    if let Ok(after) = humantime::parse_duration(text) {
        let at = jiff::Timestamp::now().checked_add(after);
        return at.map_err(|_| format!("{text} from now is beyond all clocks"));
    }
    text.parse().map_err(|_| "write it like 90d, or 2027-01-31T00:00:00Z".to_owned())
}
