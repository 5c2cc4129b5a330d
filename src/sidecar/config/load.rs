//! One TOML file, and `TOLLGATE_…` variables over it.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::error::ConfigError;
use super::file::Config;
use super::variables::Variables;

const TABLES: [&str; 17] = [
    "tls",
    "admin_tls",
    "cors",
    "log",
    "timeouts",
    "upstream",
    "limits",
    "sockets",
    "retry",
    "compat",
    "cache",
    "account",
    "reservations",
    "records",
    "replicas",
    "otel",
    "catalogue",
];
const PREFIX: &str = "TOLLGATE_";

impl Config {
    /// From a file, if there is one, and the variables over it.
    pub fn load(file: Option<&Path>, variables: &Variables) -> Result<Self, ConfigError> {
        let text = match file {
            Some(path) => read(path)?,
            None => String::new(),
        };
        let name = file.map_or_else(String::new, |path| path.display().to_string());
        let mut config = Self::parse(&text, &name)?;
        let mut table: toml::Table = toml::from_str(&text).unwrap_or_default();
        for (variable, value) in variables {
            if let Some(path) = setting(variable) {
                config = override_with(&mut table, &path, value)
                    .map_err(|what| ConfigError { place: variable.clone(), what })?;
            }
        }
        Ok(config)
    }

    /// From the file's text; `name` is the file's, for errors.
    pub fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        toml::from_str(text).map_err(|error| {
            let (line, column) = position(text, error.span().map_or(0, |span| span.start));
            ConfigError { place: format!("{name}:{line}:{column}"), what: error.message().trim().replace('\n', "; ") }
        })
    }

    /// As it is in force, without secrets.
    pub fn show(&self) -> Result<String, toml::ser::Error> {
        toml::to_string_pretty(self)
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError {
        place: path.display().to_string(),
        what: format!("cannot be read: {error}; name an existing file with --config"),
    })
}

/// Line and column, from 1, of a byte.
fn position(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().map_or(0, |last| last.chars().count()) + 1;
    (line, column)
}

/// The setting that a variable stands for: `TOLLGATE_UPSTREAM_BASE_URL` is `upstream.base_url`.
fn setting(variable: &str) -> Option<Vec<String>> {
    let name = variable.strip_prefix(PREFIX)?;
    // Kubernetes sets these for a service that is called tollgate.
    if name == "PORT" || name.starts_with("PORT_") || name.starts_with("SERVICE_") || name == "CONFIG" {
        return None;
    }
    let name = name.to_ascii_lowercase();
    let table = TABLES.into_iter().find_map(|table| {
        let key = name.strip_prefix(table)?.strip_prefix('_')?;
        Some(vec![table.to_owned(), key.to_owned()])
    });
    Some(table.unwrap_or_else(|| vec![name]))
}

/// Sets one value and reads the whole again. A value is a text where the setting takes one, else it is read as TOML.
fn override_with(table: &mut toml::Table, path: &[String], value: &str) -> Result<Config, String> {
    let text = toml::Value::String(value.to_owned());
    let parsed = toml::from_str::<toml::Table>(&format!("value = {value}")).ok().and_then(|mut t| t.remove("value"));
    let mut first_error = None;
    for candidate in std::iter::once(text).chain(parsed) {
        let mut changed = table.clone();
        insert(&mut changed, path, candidate)?;
        match Config::deserialize(changed.clone()) {
            Ok(config) => {
                *table = changed;
                return Ok(config);
            }
            Err(error) => {
                first_error = Some(error.message().trim().replace('\n', "; "));
            }
        }
    }
    Err(first_error.unwrap_or_default())
}

fn insert(table: &mut toml::Table, path: &[String], value: toml::Value) -> Result<(), String> {
    match path {
        [key] => {
            table.insert(key.clone(), value);
            Ok(())
        }
        [key, rest @ ..] => {
            let inner = table.entry(key.clone()).or_insert_with(|| toml::Value::Table(toml::Table::new()));
            let inner = inner.as_table_mut().ok_or_else(|| format!("`{key}` is no table in the config file"))?;
            insert(inner, rest, value)
        }
        [] => Ok(()),
    }
}

/// The file that is read where none is named.
pub fn default_file() -> Option<PathBuf> {
    Some(PathBuf::from("tollgate.toml")).filter(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::super::upstream::BaseUrl;
    use super::*;

    fn error(text: &str) -> String {
        Config::parse(text, "t.toml").unwrap_err().to_string()
    }

    #[test]
    fn errors_tell_file_line_column_and_what() {
        let unknown = error("listen = \"127.0.0.1:1\"\n[upstream]\nbase_ulr = \"https://x\"\n");
        assert!(unknown.starts_with("t.toml:3:1: unknown field `base_ulr`, expected"), "{unknown}");
        let duration = error("shutdown_timeout = \"5 bananas\"\n");
        assert!(duration.starts_with("t.toml:1:20: ") && duration.contains("unit"), "{duration}");
        let negative = error("[upstream]\n  idle_timeout = \"-3s\"\n");
        assert!(negative.starts_with("t.toml:2:18: "), "{negative}");
        let url = error("[upstream]\nbase_url = \"api.cloudflare.com\"\n");
        assert!(url.starts_with("t.toml:2:12: ") && url.contains("is not a base URL"), "{url}");
        let limit = error("[models.\"@cf/a/b\"]\nrequests_per_minute = 0\n");
        assert!(limit.starts_with("t.toml:2:23: "), "{limit}");
        let retired = error("[compat]\nopenai_streams = true\n");
        assert!(retired.starts_with("t.toml:2:18: ") && retired.contains("v1 = \"vendor\""), "{retired}");
        let status = error("[compat]\nbudget_status = 200\n");
        assert!(status.starts_with("t.toml:2:17: ") && status.contains("400 to 499"), "{status}");
        let alias = error("[aliases]\n\"a*b*\" = \"@cf/a/b\"\n");
        assert!(alias.contains("more than one `*`"), "{alias}");
        assert!(error("listen = \n").starts_with("t.toml:1:"), "{}", error("listen = \n"));
    }

    #[test]
    fn variables_override_the_file_and_are_named_when_wrong() {
        let variables = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        let good = variables(&[
            ("TOLLGATE_WORKERS", "3"),
            ("TOLLGATE_UPSTREAM_BASE_URL", "http://127.0.0.1:9"),
            ("TOLLGATE_COMPAT_BUDGET_STATUS", "403"),
            ("TOLLGATE_SERVICE_HOST", "10.0.0.1"),
            ("TOLLGATE_PORT", "tcp://10.0.0.1:80"),
            ("PATH", "/bin"),
        ]);
        let config = Config::load(None, &good).unwrap();
        assert_eq!((config.workers, config.compat.settings().budget_status.as_u16()), (3, 403));
        assert_eq!(config.upstream.base_url, BaseUrl::try_from("http://127.0.0.1:9".to_owned()).ok());
        for (name, value) in [("TOLLGATE_MAX_BODY", "lots"), ("TOLLGATE_WORKRES", "2"), ("TOLLGATE_LISTEN", "x")] {
            let error = Config::load(None, &variables(&[(name, value)])).unwrap_err();
            assert_eq!(error.place, name);
        }
    }

    #[test]
    fn what_is_shown_reads_back_the_same() {
        let config = Config::parse("[models.\"@cf/a/b\"]\nprices = { input_token = 100.5 }\n", "").unwrap();
        assert_eq!(Config::parse(&config.show().unwrap(), "").unwrap(), config);
    }
}
