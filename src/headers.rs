//! The headers that are read on every call, by names that need no parsing, and those that are never handed on.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::receipt::BudgetLeft;

/// The vendor's own cost, in neurons with two decimals.
pub(crate) const CF_AI_NEURONS: HeaderName = HeaderName::from_static("cf-ai-neurons");
/// The vendor's name for an answer that reached a model.
pub(crate) const CF_AI_REQ_ID: HeaderName = HeaderName::from_static("cf-ai-req-id");
/// The vendor's name for any answer.
pub(crate) const CF_RAY: HeaderName = HeaderName::from_static("cf-ray");
/// An AI Gateway's word on its cache, and ours.
pub(crate) const CF_AIG_CACHE_STATUS: HeaderName = HeaderName::from_static("cf-aig-cache-status");
/// The models of which the vendor's router (`cloudflare/auto`) may choose one, with commas between.
pub(crate) const CF_AIG_ALLOWED_MODELS: HeaderName = HeaderName::from_static("cf-aig-allowed-models");
/// The model that the vendor's router chose.
pub(crate) const CF_AIG_ROUTED_MODEL: HeaderName = HeaderName::from_static("cf-aig-routed-model");
/// Which model of a chain answered; 0 is the one asked for.
pub(crate) const CF_AIG_STEP: HeaderName = HeaderName::from_static("cf-aig-step");
/// The receipt's name.
pub(crate) const CF_AIG_LOG_ID: HeaderName = HeaderName::from_static("cf-aig-log-id");
/// Names an AI Gateway of the client's, which the request's other `cf-aig-*` headers are then meant for.
pub(crate) const GATEWAY_ID: HeaderName = HeaderName::from_static("cf-aig-gateway-id");
/// The token for an AI Gateway itself, beside the one for the models behind it.
pub(crate) const CF_AIG_AUTHORIZATION: HeaderName = HeaderName::from_static("cf-aig-authorization");
/// Whose global key `x-auth-key` is: what vouches for a client without a token.
pub(crate) const X_AUTH_EMAIL: HeaderName = HeaderName::from_static("x-auth-email");
pub(crate) const X_AUTH_KEY: HeaderName = HeaderName::from_static("x-auth-key");
pub(crate) const X_AUTH_USER_SERVICE_KEY: HeaderName = HeaderName::from_static("x-auth-user-service-key");
/// A key as Anthropic's clients send it, and as Azure's do; without `Bearer`.
pub(crate) const X_API_KEY: HeaderName = HeaderName::from_static("x-api-key");
pub(crate) const API_KEY: HeaderName = HeaderName::from_static("api-key");
/// `shared`, where another gate had kept the answer.
pub(crate) const X_TOLLGATE_CACHE_TIER: HeaderName = HeaderName::from_static("x-tollgate-cache-tier");
/// How near the question was to the one that had this answer: 1 is the same.
pub(crate) const X_TOLLGATE_SIMILARITY: HeaderName = HeaderName::from_static("x-tollgate-similarity");
/// What it cost to look for one that is near.
pub(crate) const X_TOLLGATE_EMBEDDING_NEURONS: HeaderName = HeaderName::from_static("x-tollgate-embedding-neurons");
/// The cost, where it is known before the body starts.
pub(crate) const X_TOLLGATE_NEURONS: HeaderName = HeaderName::from_static("x-tollgate-neurons");
/// The same in US dollars.
pub(crate) const X_TOLLGATE_COST_USD: HeaderName = HeaderName::from_static("x-tollgate-cost-usd");

/// What the budget that has least left has left, in neurons.
const X_TOLLGATE_BUDGET_REMAINING: HeaderName = HeaderName::from_static("x-tollgate-budget-remaining");
/// When it will have more, in seconds.
const X_TOLLGATE_BUDGET_RESET: HeaderName = HeaderName::from_static("x-tollgate-budget-reset");

/// Tells how the tightest budget stands. A part of a second is a whole one, so that who waits for it is not early.
pub(crate) fn write_budget(headers: &mut HeaderMap, budget: BudgetLeft) {
    if let Ok(left) = HeaderValue::try_from(budget.left.decimal()) {
        headers.insert(X_TOLLGATE_BUDGET_REMAINING, left);
    }
    let seconds = budget.resets.as_millis().div_ceil(1000);
    headers.insert(X_TOLLGATE_BUDGET_RESET, u64::try_from(seconds).unwrap_or(u64::MAX).into());
}

/// Whether a content type is JSON's, or has it in its name as `application/problem+json` does.
pub(crate) fn is_json(content_type: &str) -> bool {
    let is_here = |at: usize| content_type.as_bytes()[at..at + 4].eq_ignore_ascii_case(b"json");
    content_type.starts_with("application/json") || (4..=content_type.len()).any(|end| is_here(end - 4))
}

/// Takes out the hop-by-hop headers (RFC 9110, 7.6.1), which are between two neighbours only.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    for name in listed(headers) {
        headers.remove(name);
    }
    // Few messages have any, and then one or two.
    while let Some(name) = headers.keys().find(|name| is_hop_by_hop(name)).cloned() {
        headers.remove(name);
    }
}

/// What `Connection` names besides its own words.
fn listed(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let items = values.flat_map(|value| value.split(',')).map(str::trim);
    let names = items.filter(|item| !item.eq_ignore_ascii_case("close") && !item.eq_ignore_ascii_case("keep-alive"));
    names.filter_map(|name| name.parse().ok()).collect()
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        *name,
        header::CONNECTION
            | header::PROXY_AUTHENTICATE
            | header::PROXY_AUTHORIZATION
            | header::TE
            | header::TRAILER
            | header::TRANSFER_ENCODING
            | header::UPGRADE
    ) || matches!(name.as_str(), "keep-alive" | "proxy-connection")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_neighbours_goes_and_the_rest_stays() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "keep-alive, X-Secret"),
            ("keep-alive", "timeout=5"),
            ("x-secret", "1"),
            ("transfer-encoding", "chunked"),
            ("x-kept", "2"),
        ] {
            headers.insert(HeaderName::from_static(name), value.parse().unwrap());
        }
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-kept"]);
    }
}
