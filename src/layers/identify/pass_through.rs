//! What leaves with the gate's own token besides calls.

use std::str::FromStr;

use http::Method;
use serde::{Deserialize, Serialize};

/// One reading that leaves with the gate's own token, such as `GET ai/models/search`. `[upstream] pass_through` in the config.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PassThrough {
    method: Method,
    /// Below the account, without a slash in front.
    path: String,
    /// All that is below `path`, and not `path` itself.
    is_below: bool,
}

/// Why a [`PassThrough`] cannot be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} names no request: write it like \"GET ai/models/search\", or \"GET ai/finetunes/*\" for all below, with the path \
     as it stands below the account; calls to models need not be listed"
)]
pub struct PassThroughError(String);

// === impl PassThrough ===

impl PassThrough {
    /// The reading of models, their schemas, authors and tasks (the vendor's API reference, 2026-10).
    pub fn usual() -> Vec<Self> {
        let get = |path: &str| Self { method: Method::GET, path: path.to_owned(), is_below: false };
        ["ai/models/search", "ai/models/schema", "ai/authors/search", "ai/tasks/search"].map(get).to_vec()
    }

    pub(super) fn lists(&self, method: &Method, below: &str) -> bool {
        let rest = below.strip_prefix(&*self.path);
        let is_it = |rest: &str| if self.is_below { rest.len() > 1 && rest.starts_with('/') } else { rest.is_empty() };
        self.method == *method && rest.is_some_and(is_it)
    }
}

impl FromStr for PassThrough {
    type Err = PassThroughError;

    fn from_str(text: &str) -> Result<Self, PassThroughError> {
        let wrong = || PassThroughError(text.to_owned());
        let (method, path) = text.trim().split_once(' ').ok_or_else(wrong)?;
        let (path, is_below) = path.strip_suffix("/*").map_or((path, false), |path| (path, true));
        let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
        let is_path = path.bytes().all(is_usual) && !path.split('/').any(|part| matches!(part, "" | "." | ".."));
        let method = Method::from_str(method).map_err(|_| wrong())?;
        let is_method =
            [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(&method);
        let path = path.to_owned();
        if is_path && is_method { Ok(Self { method, path, is_below }) } else { Err(wrong()) }
    }
}

impl TryFrom<String> for PassThrough {
    type Error = PassThroughError;

    fn try_from(text: String) -> Result<Self, PassThroughError> {
        text.parse()
    }
}

impl From<PassThrough> for String {
    fn from(listed: PassThrough) -> Self {
        let PassThrough { method, path, is_below } = listed;
        format!("{method} {path}{}", if is_below { "/*" } else { "" })
    }
}
