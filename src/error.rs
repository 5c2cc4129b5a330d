//! Why the gate itself refused a call or could not make it, and what to do about it.
//!
//! An answer of the vendor's, also one that says no, is a reply and not an error of ours.

use std::time::Duration;

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::json;

use crate::amount::Currency;
use crate::body::{Body, BoxError};
use crate::endpoint::ErrorForm;
use crate::neurons::Neurons;
use crate::receipt::Outcome;

/// What the gate says instead of an answer. [`Display`](std::fmt::Display) is a sentence for a person, with the mend.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The body is not what the route takes.
    #[error("{0}")]
    Malformed(String),
    /// A header of the gate's has a value it cannot have.
    #[error("the header {header} {why}")]
    Header {
        /// Its name.
        header: &'static str,
        /// What is wrong with it, and what it takes.
        why: String,
    },
    /// No model is named.
    #[error("no model is named: {0}")]
    ModelMissing(&'static str),
    /// The path is none the gate knows.
    #[error("{0}")]
    NotFound(String),
    /// The route takes another method.
    #[error("this route takes {takes}, not {asked}")]
    Method {
        /// What was sent.
        asked: http::Method,
        /// The one it takes.
        takes: &'static str,
    },
    /// The body is over `max_body`.
    #[error("the body is over {max_bytes} bytes; raise `max_body` in the gate's settings if it should pass")]
    BodyTooLarge {
        /// The limit.
        max_bytes: u64,
    },
    /// The body is over `max_body` once its content encoding is taken off.
    #[error(
        "the body is over {max_bytes} bytes once its content encoding is taken off; raise `max_body` in the gate's settings if it \
         should pass"
    )]
    DecodedTooLarge {
        /// The limit.
        max_bytes: u64,
    },
    /// The body has a content encoding that is not known.
    #[error(
        "the content encoding {0:?} is not known; send the body as gzip, deflate, br or zstd, or without an encoding"
    )]
    Encoding(String),
    /// The client stopped sending before the body was whole.
    #[error("the request's body ended early: {0}")]
    BodyIncomplete(String),
    /// No token or key, or a wrong one.
    #[error("{0}")]
    Unauthorized(String),
    /// The key may not do this.
    #[error("{0}")]
    Forbidden(String),
    /// Over the rate limit, and the wait for a turn would be too long.
    #[error("{what}; retry after {:.1} s", .retry_after.as_secs_f64())]
    RateLimited {
        /// Which limit, and why there is no waiting.
        what: String,
        /// When there is room again.
        retry_after: Duration,
        /// The limit, for the `ratelimit` headers.
        limit: Option<Quota>,
    },
    /// Over a budget.
    #[error(
        "the budget {budget:?} has {} of {} left, and this call may cost {}; {mend}",
        currency.figure(*left), currency.of(*limit), currency.of(*needed)
    )]
    BudgetExceeded {
        /// Its name.
        budget: String,
        /// What its limit is written in.
        currency: Currency,
        /// All it has.
        limit: Neurons,
        /// What is left of it.
        left: Neurons,
        /// What the call would reserve.
        needed: Neurons,
        /// When it resets or what else to do.
        mend: String,
        /// When it resets.
        retry_after: Option<Duration>,
    },
    /// Nothing bounds what the call may cost, and a budget that refuses counts it.
    #[error("nothing bounds what this call to {model} may cost, and the budget {budget:?} needs a bound: {mend}")]
    CostUnbounded {
        /// The budget's name.
        budget: String,
        /// The model.
        model: String,
        /// What to add to the request or to the config.
        mend: String,
    },
    /// The call's own ceiling is under what it may cost.
    #[error("{what}")]
    OverCeiling {
        /// What it may cost and what it is allowed, and the mend.
        what: String,
        /// The most it may cost; `None` where nothing bounds that.
        bound: Option<Neurons>,
    },
    /// The vendor said that the day's free neurons are used up, and nothing will change that before midnight.
    #[error(
        "Workers AI says that the account's free neurons of the day are used up; it will refuse every call until 00:00 UTC. \
         Upgrade to the Workers Paid plan to go on"
    )]
    FreeNeuronsUsedUp {
        /// Until midnight.
        retry_after: Duration,
    },
    /// Upstream could not be reached, or broke off before it answered.
    #[error("could not get an answer from {host}: {why}; check the base URL, the network and DNS")]
    Unreachable {
        /// Whom we asked.
        host: String,
        /// What happened.
        why: String,
        /// The request had gone out: it may have run, and may have cost.
        was_sent: bool,
    },
    /// Upstream did not answer in time.
    #[error("no answer from upstream within {:.1} s; raise {setting} if the model needs longer", .after.as_secs_f64())]
    Timeout {
        /// How long we waited.
        after: Duration,
        /// What sets that.
        setting: &'static str,
        /// The request had gone out: it may have run, and may have cost.
        was_sent: bool,
    },
    /// A `Timeout` of tower's, between two of the gate's layers, gave the call up.
    #[error("no answer within the time of a `Timeout` layer; raise it if the model needs longer")]
    Elapsed {
        /// The request had gone out: it may have run, and may have cost. [`Meter`](crate::layers::meter) knows; where the
        /// layer stands above it, the call's receipt tells.
        was_sent: bool,
    },
    /// The client's own deadline passed while the call waited for its turn: nothing went upstream.
    #[error(
        "the call waited in the gate's queue for all of its {:.1} s ({setting}), and upstream was not asked; raise that, or send \
         fewer calls at once",
        .after.as_secs_f64()
    )]
    QueueTimeout {
        /// How long the client wanted to wait.
        after: Duration,
        /// What sets that.
        setting: &'static str,
    },
    /// The gate has no room for the call now.
    #[error("{what}; retry after {:.1} s", .retry_after.as_secs_f64())]
    Overloaded {
        /// What is full, and what sets that.
        what: String,
        /// When there may be room again.
        retry_after: Duration,
    },
    /// The leader of a shared flight ended without an answer, or the gate is stopping.
    #[error("{0}")]
    Unavailable(String),
}

/// What a layer of tower's, or of one's own, between two of the gate's says: an [`Error`] stays what it is, also where others
/// stand around it, `Timeout` and `LoadShed` are known, and anything else is [`Error::Unavailable`].
impl From<BoxError> for Error {
    fn from(error: BoxError) -> Self {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&*error);
        while let Some(known) = cause {
            if let Some(ours) = known.downcast_ref::<Self>() {
                return ours.clone();
            }
            if known.is::<tower::timeout::error::Elapsed>() {
                return Self::Elapsed { was_sent: false };
            }
            if known.is::<tower::load_shed::error::Overloaded>() {
                let what = "a `LoadShed` layer found the service below it not ready".into();
                return Self::Overloaded { what, retry_after: Duration::from_secs(1) };
            }
            cause = known.source();
        }
        Self::Unavailable(format!("a layer gave the call up: {error}"))
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

/// A limit and what is left of it, for the `ratelimit` headers (draft-ietf-httpapi-ratelimit-headers-10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Quota {
    /// What is limited: `model` and `key` in requests, `model-tokens` and `key-tokens` in tokens.
    pub policy: &'static str,
    /// The units of a window.
    pub units: u32,
    /// How long the window is.
    pub per: Duration,
    /// Units that nothing has taken.
    pub left: u32,
}

impl Error {
    /// The reply's status.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::Header { .. } | Self::ModelMissing(_) => StatusCode::BAD_REQUEST,
            Self::NotFound(_) => StatusCode::NOT_FOUND,
            Self::Method { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::BodyTooLarge { .. } | Self::DecodedTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Encoding(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::BodyIncomplete(_) => StatusCode::REQUEST_TIMEOUT,
            Self::Unauthorized(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden(_) => StatusCode::FORBIDDEN,
            Self::RateLimited { .. }
            | Self::BudgetExceeded { .. }
            | Self::CostUnbounded { .. }
            | Self::FreeNeuronsUsedUp { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::OverCeiling { .. } => StatusCode::PAYMENT_REQUIRED,
            Self::Unreachable { .. } => StatusCode::BAD_GATEWAY,
            Self::Timeout { .. } | Self::Elapsed { .. } | Self::QueueTimeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::Overloaded { .. } | Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The request had gone out when this happened: upstream may have run it, and nobody will say what it cost.
    pub fn may_have_cost(&self) -> bool {
        matches!(
            self,
            Self::Timeout { was_sent: true, .. }
                | Self::Unreachable { was_sent: true, .. }
                | Self::Elapsed { was_sent: true }
        )
    }

    /// A name for programs, the same for good.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed_request",
            Self::Header { .. } => "invalid_header",
            Self::ModelMissing(_) => "model_missing",
            Self::NotFound(_) => "not_found",
            Self::Method { .. } => "method_not_allowed",
            Self::BodyTooLarge { .. } | Self::DecodedTooLarge { .. } => "body_too_large",
            Self::Encoding(_) => "unsupported_encoding",
            Self::BodyIncomplete(_) => "body_incomplete",
            Self::Unauthorized(_) => "unauthorized",
            Self::Forbidden(_) => "forbidden",
            Self::RateLimited { .. } => "rate_limited",
            Self::BudgetExceeded { .. } => "budget_exceeded",
            Self::CostUnbounded { .. } => "cost_unbounded",
            Self::OverCeiling { .. } => "over_ceiling",
            Self::FreeNeuronsUsedUp { .. } => "free_neurons_used_up",
            Self::Unreachable { .. } => "upstream_unreachable",
            Self::Timeout { .. } | Self::Elapsed { .. } => "upstream_timeout",
            Self::QueueTimeout { .. } => "queue_timeout",
            Self::Overloaded { .. } => "overloaded",
            Self::Unavailable(_) => "unavailable",
        }
    }

    /// The vendor's number for the same thing, for clients that look at that (errors page, 2026-09-17). What the vendor has no
    /// number for, because it was not asked, has its status: none of the vendor's numbers is as short.
    fn vendor_code(&self) -> u32 {
        match self {
            Self::Malformed(_) | Self::Header { .. } | Self::BodyIncomplete(_) | Self::Encoding(_) => 5004,
            Self::ModelMissing(_) => 5007,
            Self::NotFound(_) | Self::Method { .. } => 7003,
            Self::BodyTooLarge { .. } | Self::DecodedTooLarge { .. } => 3006,
            Self::Unauthorized(_) => 10000,
            Self::Forbidden(_) => 5018,
            Self::RateLimited { .. } | Self::BudgetExceeded { .. } | Self::CostUnbounded { .. } => 3021,
            Self::FreeNeuronsUsedUp { .. } => 3036,
            Self::OverCeiling { .. }
            | Self::Unreachable { .. }
            | Self::Overloaded { .. }
            | Self::Unavailable(_)
            | Self::QueueTimeout { .. } => self.status().as_u16().into(),
            Self::Timeout { .. } | Self::Elapsed { .. } => 3007,
        }
    }

    /// When the same call may succeed.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. }
            | Self::FreeNeuronsUsedUp { retry_after }
            | Self::Overloaded { retry_after, .. } => Some(*retry_after),
            Self::BudgetExceeded { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether a client should try the same call again by itself; `None` leaves it to the status.
    fn should_retry(&self) -> Option<bool> {
        match self {
            Self::RateLimited { .. } | Self::Overloaded { .. } => Some(true),
            Self::BudgetExceeded { .. }
            | Self::CostUnbounded { .. }
            | Self::OverCeiling { .. }
            | Self::FreeNeuronsUsedUp { .. } => Some(false),
            _ => None,
        }
    }

    /// How a call ends that is refused so.
    pub fn outcome(&self) -> Outcome {
        match self {
            Self::RateLimited { .. } | Self::QueueTimeout { .. } => Outcome::RateLimited,
            Self::BudgetExceeded { .. }
            | Self::CostUnbounded { .. }
            | Self::OverCeiling { .. }
            | Self::FreeNeuronsUsedUp { .. } => Outcome::BudgetExceeded,
            Self::Unreachable { .. } | Self::Overloaded { .. } | Self::Unavailable(_) => Outcome::UpstreamError,
            Self::Timeout { .. } | Self::Elapsed { .. } => Outcome::Timeout,
            _ => Outcome::ClientError,
        }
    }

    /// The reply in the form of the route: [`Endpoint::error_form`](crate::endpoint::Endpoint::error_form).
    pub fn response(&self, form: ErrorForm) -> Response<Body> {
        let message = format!("tollgate: {self}");
        let body = match form {
            ErrorForm::Cloudflare => {
                let error = json!({"code": self.vendor_code(), "message": message, "type": self.code()});
                json!({"result": null, "success": false, "errors": [error], "messages": []})
            }
            ErrorForm::OpenAi => {
                json!({"error": {"message": message, "type": self.kind(), "param": null, "code": self.code()}})
            }
            ErrorForm::Anthropic => {
                json!({"type": "error", "error": {"type": self.anthropic_kind(), "message": message, "code": self.code()}})
            }
        };
        let mut reply = Response::new(Body::from(body.to_string()));
        *reply.status_mut() = self.status();
        self.write_headers(reply.headers_mut());
        reply
    }

    /// OpenAI's class of error.
    fn kind(&self) -> &'static str {
        match self.outcome() {
            Outcome::RateLimited => "rate_limit_exceeded",
            Outcome::BudgetExceeded => "insufficient_quota",
            Outcome::ClientError => "invalid_request_error",
            _ => "server_error",
        }
    }

    /// Anthropic's class of error.
    fn anthropic_kind(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "not_found_error",
            Self::BodyTooLarge { .. } | Self::DecodedTooLarge { .. } => "request_too_large",
            Self::Unauthorized(_) => "authentication_error",
            Self::Forbidden(_) => "permission_error",
            Self::RateLimited { .. } => "rate_limit_error",
            Self::BudgetExceeded { .. }
            | Self::CostUnbounded { .. }
            | Self::OverCeiling { .. }
            | Self::FreeNeuronsUsedUp { .. } => "billing_error",
            Self::Timeout { .. } | Self::Elapsed { .. } => "timeout_error",
            Self::Overloaded { .. } | Self::Unavailable(_) => "overloaded_error",
            Self::Unreachable { .. } => "api_error",
            _ => "invalid_request_error",
        }
    }

    fn write_headers(&self, headers: &mut http::HeaderMap) {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(after) = self.retry_after() {
            // Rounded up: a call that comes a part of a millisecond too early is refused again.
            let millis = u64::try_from(after.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(millis.div_ceil(1000)));
            headers.insert("retry-after-ms", HeaderValue::from(millis));
        }
        if matches!(self, Self::BodyTooLarge { .. } | Self::BodyIncomplete(_) | Self::Overloaded { .. }) {
            // What was not read of the body stands in the way of the next request.
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Self::Method { takes, .. } = self {
            headers.insert(header::ALLOW, HeaderValue::from_static(takes));
        }
        if let Self::OverCeiling { bound: Some(bound), .. } = self
            && let Ok(bound) = HeaderValue::try_from(bound.decimal())
        {
            headers.insert("x-tollgate-bound-neurons", bound);
        }
        if let Some(should) = self.should_retry() {
            headers.insert("x-should-retry", HeaderValue::from_static(if should { "true" } else { "false" }));
        }
        if let Self::RateLimited { limit: Some(Quota { policy, units, per, left }), retry_after, .. } = self {
            let (window, reset) = (per.as_secs_f64().ceil(), retry_after.as_secs_f64().ceil());
            for (name, value) in [
                ("ratelimit-policy", format!("\"{policy}\";q={units};w={window}")),
                ("ratelimit", format!("\"{policy}\";r={left};t={reset}")),
            ] {
                if let Ok(value) = HeaderValue::from_str(&value) {
                    headers.insert(name, value);
                }
            }
        }
    }
}
