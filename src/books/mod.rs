//! The vendor's own books: which models it lists at what price, what it counted for the whole account, and whether that is what
//! the gate counted.
//!
//! A gate sees what passes through it and prices what its table knows. [`Books::models`] reads the vendor's list, for
//! [`Catalogue::update`](crate::catalogue::Catalogue::update); [`Books::spent`] reads the account's analytics, which know also what
//! Workers spend through their binding; [`reconcile`] holds both books side by side.
//!
//! # What is promised
//! An answer is read up to a bound and for no longer than [`Books::timeout`], and a list that never ends is left: an API that is
//! down, slow or mad costs a background task some seconds, and no call anything.
//!
//! # What it does not do
//! It asks once: when to ask again, and what to do with what is learned, is its caller's business.
//!
//! # Example
//! ```no_run
//! use std::time::{Duration, SystemTime};
//! use tollgate::catalogue::Catalogue;
//! use tollgate::upstream::{API, Client};
//! use tollgate::books::Books;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let books = Books::new(Client::new()?, API, "023e105f4ecef8ad9ca31a8372d0c353", "<API token>")?;
//! let catalogue = Catalogue::default();
//! for change in catalogue.update(&books.models().await?) {
//!     println!("{change}");
//! }
//! let now = SystemTime::now();
//! for line in books.spent(now - Duration::from_secs(3600), now).await? {
//!     println!("{} by {}: {} neurons", line.model, line.source, line.sums.neurons);
//! }
//! # Ok(()) }
//! ```

mod analytics;
mod known;
pub mod reconcile;
mod search;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::Serialize;
use tower::ServiceExt;

pub use self::analytics::{Line, REST};
pub use self::known::{Account, Book, Known, News};
use crate::body::Body;
use crate::neurons::Neurons;
use crate::upstream::{Client, Target, TargetError};

/// One account's books at the vendor's API. Cloning shares the client.
#[derive(Clone)]
pub struct Books {
    client: Client,
    base_url: Arc<str>,
    account: Arc<str>,
    token: HeaderValue,
    /// For one answer, to its last byte.
    pub timeout: Duration,
}

/// What was used, by somebody's count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Sums {
    /// Calls that a model ran for.
    pub calls: u64,
    /// Tokens read, cached ones included.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Spent, in micro-neurons.
    pub neurons: Neurons,
}

/// Why the books could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BooksError {
    /// The token may not.
    #[error("the API token may not read {what}: give it the permission `{permission}` (the API says: {said})")]
    NotAllowed {
        /// What was to be read.
        what: &'static str,
        /// What it needs, as the vendor's dashboard calls it.
        permission: &'static str,
        /// In the API's words.
        said: String,
    },
    /// No answer.
    #[error("the API at {host} cannot be reached: {why}")]
    Unreachable {
        /// Who was asked.
        host: String,
        /// What happened.
        why: String,
    },
    /// No answer, or no end of it, in time.
    #[error("the API did not answer to the end within {:.1} s", .0.as_secs_f64())]
    Late(Duration),
    /// It says no.
    #[error("the API answered {status}: {said}")]
    Refused {
        /// With this status.
        status: u16,
        /// In these words.
        said: String,
    },
    /// An answer that is none.
    #[error("the API's answer is not what was asked for: {0}")]
    Garbage(String),
}

/// A larger answer is none that these routes give: a hundred models or a thousand groups are some 300 KiB. Read as JSON it may
/// take thirty times as much memory.
const MAX_ANSWER_BYTES: usize = 2 << 20;
/// As much of the API's words as a person will read.
const MAX_WORDS: usize = 300;

/// What is read, and the permission for it.
#[derive(Clone, Copy)]
struct Reading {
    what: &'static str,
    permission: &'static str,
}

// === impl Books ===

impl Books {
    /// Of an account, at the vendor's API or a stand-in.
    pub fn new(client: Client, base_url: &str, account: &str, token: &str) -> Result<Self, TargetError> {
        Target::new(base_url)?;
        let mut token = HeaderValue::from_str(&format!("Bearer {token}")).map_err(|_| TargetError::Token)?;
        token.set_sensitive(true);
        let base_url = base_url.trim_end_matches('/').into();
        Ok(Self { client, base_url, account: account.into(), token, timeout: Duration::from_secs(30) })
    }

    /// Whose books.
    pub fn account(&self) -> &str {
        &self.account
    }

    async fn ask(&self, wanted: Reading, method: Method, path: &str, body: Body) -> Result<Bytes, BooksError> {
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.base_url))
            .header(header::AUTHORIZATION, self.token.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT_ENCODING, "identity")
            .body(body)
            .map_err(|error| BooksError::Garbage(error.to_string()))?;
        let answer = tokio::time::timeout(self.timeout, self.read(request));
        let (status, body) = answer.await.map_err(|_| BooksError::Late(self.timeout))??;
        match status {
            StatusCode::OK => Ok(body),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(wanted.denied(&self.words(&body))),
            _ => Err(BooksError::Refused { status: status.as_u16(), said: self.words(&body) }),
        }
    }

    /// What an answer says for people to read; should it repeat the token, that is left out.
    fn words(&self, body: &[u8]) -> String {
        let said = words(body);
        let token = self.token.to_str().ok().and_then(|bearer| bearer.strip_prefix("Bearer "));
        token.filter(|token| !token.is_empty()).map_or(said.clone(), |token| said.replace(token, "(hidden)"))
    }

    async fn read(&self, request: Request<Body>) -> Result<(StatusCode, Bytes), BooksError> {
        let host = || request_host(&self.base_url);
        let reply = self.client.clone().oneshot(request).await;
        let reply = reply.map_err(|error| BooksError::Unreachable { host: host(), why: error.to_string() })?;
        let status = reply.status();
        let body = Limited::new(reply.into_body(), MAX_ANSWER_BYTES).collect().await;
        let too_long = || format!("it is longer than {} MiB", MAX_ANSWER_BYTES >> 20);
        let body = body.map_err(|error| {
            BooksError::Garbage(if error.is::<LengthLimitError>() { too_long() } else { error.to_string() })
        })?;
        Ok((status, body.to_bytes()))
    }
}

impl std::fmt::Debug for Books {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Books(account {} at {})", self.account, self.base_url)
    }
}

fn request_host(base_url: &str) -> String {
    base_url.split_once("://").map_or(base_url, |(_, rest)| rest).to_owned()
}

/// The messages of a Cloudflare envelope, or the beginning of whatever it is.
fn words(body: &[u8]) -> String {
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    let errors = json.as_ref().and_then(|json| json["errors"].as_array());
    let messages = errors.into_iter().flatten().filter_map(|error| error["message"].as_str());
    let said = messages.collect::<Vec<_>>().join("; ");
    let said = match said.as_str() {
        "" if body.is_empty() => "nothing".to_owned(),
        "" => String::from_utf8_lossy(body).into_owned(),
        _ => said,
    };
    said.chars().filter(|letter| !letter.is_control()).take(MAX_WORDS).collect()
}

// === impl Reading ===

impl Reading {
    fn denied(self, said: &str) -> BooksError {
        BooksError::NotAllowed { what: self.what, permission: self.permission, said: said.to_owned() }
    }
}

// === impl Sums ===

impl Sums {
    /// So many of each.
    pub fn new(calls: u64, input_tokens: u64, output_tokens: u64, neurons: Neurons) -> Self {
        Self { calls, input_tokens, output_tokens, neurons }
    }

    /// What is more than the other has; nothing of what is less.
    pub fn beyond(&self, other: &Self) -> Self {
        Self {
            calls: self.calls.saturating_sub(other.calls),
            input_tokens: self.input_tokens.saturating_sub(other.input_tokens),
            output_tokens: self.output_tokens.saturating_sub(other.output_tokens),
            neurons: self.neurons.saturating_sub(other.neurons),
        }
    }
}

impl std::ops::AddAssign for Sums {
    fn add_assign(&mut self, other: Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.input_tokens = self.input_tokens.saturating_add(other.input_tokens);
        self.output_tokens = self.output_tokens.saturating_add(other.output_tokens);
        self.neurons += other.neurons;
    }
}

#[cfg(all(test, feature = "reqwest"))]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_repeats_the_token_shows_it_to_nobody() {
        let books = Books::new(Client::new().unwrap(), "http://127.0.0.1:1", "acc", "s3cret").unwrap();
        let said = books.words(br#"{"errors":[{"code":1,"message":"bad token s3cret"},{"message":"no"}]}"#);
        assert_eq!(said, "bad token (hidden); no");
        assert_eq!((&*books.words(b"<html>s3cret"), &*books.words(b"")), ("<html>(hidden)", "nothing"));
        assert!(!format!("{books:?}").contains("s3cret"));
    }
}
