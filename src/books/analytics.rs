//! What the vendor counted for the whole account: `aiInferenceAdaptiveGroups` of its GraphQL analytics.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Books, BooksError, Reading, Sums};
use crate::body::Body;
use crate::neurons::Neurons;

/// The source of calls over HTTP. Workers' calls through their binding have others.
pub const REST: &str = "rest api";

/// What one model was used for, by calls that came in one way.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Line {
    /// The vendor's name for the model; empty where it gave none.
    pub model: String,
    /// [`REST`], or another way.
    pub source: String,
    /// Failed calls are not among the calls.
    pub sums: Sums,
}

const WANTED: Reading = Reading { what: "the account's analytics", permission: "Account Analytics: Read" };
/// More groups are not given at once.
const MAX_ROWS: usize = 1000;
/// No group has more of anything. One that says so would close every budget that counts it.
const MOST: f64 = 1e15;
/// A span with more groups is asked for in parts, but not in shorter ones than this.
const SHORTEST: Duration = Duration::from_secs(3600);
const QUERY: &str = "query($a: string!, $s: Time!, $e: Time!) { viewer { accounts(filter: {accountTag: $a}) { \
    aiInferenceAdaptiveGroups(limit: 1000, filter: {datetime_geq: $s, datetime_leq: $e}) { \
    count sum { totalNeurons totalInputTokens totalOutputTokens } \
    dimensions { modelId errorCode requestSource } } } } }";

#[derive(Deserialize)]
struct Answer {
    data: Option<Data>,
    #[serde(default)]
    errors: Option<Vec<Problem>>,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    message: String,
}

#[derive(Deserialize)]
struct Data {
    viewer: Viewer,
}

#[derive(Deserialize)]
struct Viewer {
    accounts: Vec<Account>,
}

#[derive(Deserialize)]
struct Account {
    #[serde(rename = "aiInferenceAdaptiveGroups")]
    groups: Vec<Group>,
}

/// Any field of GraphQL's may be null, and so may what holds it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Group {
    count: Option<f64>,
    sum: Option<Summed>,
    dimensions: Option<Dimensions>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Summed {
    total_neurons: Option<f64>,
    total_input_tokens: Option<f64>,
    total_output_tokens: Option<f64>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Dimensions {
    model_id: Option<String>,
    error_code: Value,
    request_source: Option<String>,
}

impl Books {
    /// What the account used from one moment on and until before another, in whole seconds. It lags by some minutes, and settles.
    pub async fn spent(&self, from: SystemTime, until: SystemTime) -> Result<Vec<Line>, BooksError> {
        let mut lines = BTreeMap::new();
        // The later half of a span that has too many groups waits here; there are as many as an hour goes into it.
        let mut spans = vec![(from, until)];
        while let Some((from, until)) = spans.pop() {
            let groups = self.groups(from, until).await?;
            let length = until.duration_since(from).unwrap_or_default();
            if groups.len() < MAX_ROWS {
                groups.into_iter().try_for_each(|group| add(&mut lines, group))?;
            } else if length / 2 < SHORTEST {
                return Err(BooksError::Garbage(format!("an hour has {MAX_ROWS} groups and more")));
            } else {
                let middle = from + Duration::from_secs(length.as_secs() / 2);
                spans.extend([(middle, until), (from, middle)]);
            }
        }
        Ok(lines.into_iter().map(|((model, source), sums)| Line { model, source, sums }).collect())
    }

    async fn groups(&self, from: SystemTime, until: SystemTime) -> Result<Vec<Group>, BooksError> {
        // Both ends are taken in.
        let last = until - Duration::from_secs(1);
        if last < from {
            return Ok(Vec::new());
        }
        let variables = json!({"a": self.account(), "s": moment(from)?, "e": moment(last)?});
        let body = json!({"query": QUERY, "variables": variables}).to_string();
        let answer = self.ask(WANTED, Method::POST, "/client/v4/graphql", Body::from(body)).await?;
        read(&answer)
    }
}

fn read(answer: &[u8]) -> Result<Vec<Group>, BooksError> {
    let answer: Answer = serde_json::from_slice(answer).map_err(|error| BooksError::Garbage(error.to_string()))?;
    let errors = answer.errors.unwrap_or_default();
    if !errors.is_empty() {
        let said = errors.iter().map(|error| error.message.as_str()).collect::<Vec<_>>().join("; ");
        let said: String = said.chars().take(super::MAX_WORDS).collect();
        let is_denial = said.contains("authoriz") || said.contains("permission") || said.contains("access");
        return Err(if is_denial { WANTED.denied(&said) } else { BooksError::Refused { status: 200, said } });
    }
    let data = answer.data.ok_or_else(|| BooksError::Garbage("it has no data".into()))?;
    // An account that the token does not know is not there at all.
    let account = data.viewer.accounts.into_iter().next();
    account.map(|account| account.groups).ok_or_else(|| WANTED.denied("the account is not in the answer"))
}

fn moment(at: SystemTime) -> Result<String, BooksError> {
    let at = Timestamp::try_from(at).map_err(|error| BooksError::Garbage(error.to_string()))?;
    Ok(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn add(lines: &mut BTreeMap<(String, String), Sums>, group: Group) -> Result<(), BooksError> {
    let (sum, dimensions) = (group.sum.unwrap_or_default(), group.dimensions.unwrap_or_default());
    let calls = figure(group.count)?.round() as u64;
    let calls = if has_failed(&dimensions.error_code) { 0 } else { calls };
    let (input, output) =
        (figure(sum.total_input_tokens)?.round() as u64, figure(sum.total_output_tokens)?.round() as u64);
    let neurons = Neurons::from_f64(figure(sum.total_neurons)?);
    let place = (dimensions.model_id.unwrap_or_default(), dimensions.request_source.unwrap_or_default().to_lowercase());
    *lines.entry(place).or_default() += Sums::new(calls, input, output, neurons);
    Ok(())
}

/// What is not there is nothing.
fn figure(told: Option<f64>) -> Result<f64, BooksError> {
    let figure = told.unwrap_or(0.0);
    if (0.0..=MOST).contains(&figure) {
        Ok(figure)
    } else {
        Err(BooksError::Garbage(format!("it counts {figure:e} of something")))
    }
}

/// Success is 0, and may be nothing at all.
fn has_failed(code: &Value) -> bool {
    match code {
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty() && text != "0",
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_summed_up_by_model_and_source_and_failed_calls_are_none() {
        let groups = read(
            br#"{"data":{"viewer":{"accounts":[{"aiInferenceAdaptiveGroups":[
                {"count":3,"sum":{"totalNeurons":1.5,"totalInputTokens":30,"totalOutputTokens":9},
                 "dimensions":{"modelId":"@cf/a/b","errorCode":0,"requestSource":"rest api","datetimeHour":"2026-11-25T01:00:00Z"}},
                {"count":2,"sum":{"totalNeurons":0.5,"totalInputTokens":10,"totalOutputTokens":1},
                 "dimensions":{"modelId":"@cf/a/b","errorCode":"","requestSource":"Rest API"}},
                {"count":9,"sum":{"totalNeurons":0},"dimensions":{"modelId":"@cf/a/b","errorCode":3040,"requestSource":"rest api"}},
                {"count":1,"sum":{"totalNeurons":7},"dimensions":{"modelId":"@cf/a/b","errorCode":null,"requestSource":null}}
            ]}]}},"errors":null}"#,
        )
        .unwrap();
        let mut lines = BTreeMap::new();
        groups.into_iter().try_for_each(|group| add(&mut lines, group)).unwrap();
        let of = |source: &str| lines[&("@cf/a/b".to_owned(), source.to_owned())];
        assert_eq!(of(REST), Sums::new(5, 40, 10, Neurons::from_whole(2)));
        assert_eq!(of(""), Sums::new(1, 0, 0, Neurons::from_whole(7)));
    }

    fn lines(groups: &str) -> Result<BTreeMap<(String, String), Sums>, BooksError> {
        let answer = format!(r#"{{"data":{{"viewer":{{"accounts":[{{"aiInferenceAdaptiveGroups":[{groups}]}}]}}}}}}"#);
        let mut lines = BTreeMap::new();
        read(answer.as_bytes())?.into_iter().try_for_each(|group| add(&mut lines, group))?;
        Ok(lines)
    }

    #[test]
    fn what_is_null_is_nothing_and_neurons_without_a_model_count() {
        let lines = lines(
            r#"{"count":null,"sum":null,"dimensions":null}, {},
               {"count":1,"sum":{"totalNeurons":3,"totalInputTokens":null},"dimensions":{"modelId":null}}"#,
        );
        let nameless = (String::new(), String::new());
        assert_eq!(lines.unwrap(), BTreeMap::from([(nameless, Sums::new(1, 0, 0, Neurons::from_whole(3)))]));
    }

    #[test]
    fn figures_that_nobody_can_have_spent_are_not_believed() {
        for wrong in ["-5", "1e308", "1e16"] {
            let said = lines(&format!(r#"{{"count":1,"sum":{{"totalNeurons":{wrong}}}}}"#));
            assert!(matches!(said, Err(BooksError::Garbage(_))), "{wrong}: {said:?}");
        }
        let most = lines(&[r#"{"count":1e15,"sum":{"totalNeurons":1e15}}"#; 3].join(",")).unwrap();
        assert_eq!(most.values().next().unwrap().calls, 3_000_000_000_000_000);
    }

    #[test]
    fn a_token_that_may_not_is_told_which_permission_it_lacks() {
        for denied in [
            r#"{"data":null,"errors":[{"message":"not authorized for that account","path":null}]}"#,
            r#"{"data":{"viewer":{"accounts":[]}},"errors":null}"#,
        ] {
            let error = read(denied.as_bytes()).err().unwrap().to_string();
            assert!(error.contains("`Account Analytics: Read`"), "{error}");
        }
        let other = read(br#"{"data":null,"errors":[{"message":"quota exceeded"}]}"#).err().unwrap();
        assert_eq!(other, BooksError::Refused { status: 200, said: "quota exceeded".into() });
        for garbage in ["", "<html>", "{}", "[]", r#"{"data":{"viewer":7}}"#] {
            assert!(matches!(read(garbage.as_bytes()), Err(BooksError::Garbage(_))), "{garbage}");
        }
    }
}
