//! Money is spent only by what left: any sequence of attempts against a plain reckoning.

use std::collections::VecDeque;
use std::future::{pending, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::{Body as _, Frame};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use proptest::prelude::*;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

use super::*;
use crate::body::{Body, BoxError};
use crate::call::Options;
use crate::catalogue::Catalogue;
use crate::layers::meter::MeterLayer;
use crate::layers::retry::RetryLayer;
use crate::layers::testing::{LLAMA, call};
use crate::neurons::Neurons;
use crate::receipt::Estimate;
use crate::upstream::{Around, Target, Upstream};

/// How far an attempt comes, and what happens there.
#[derive(Clone, Copy, Debug)]
enum Phase {
    /// The connection never stands.
    Connecting,
    /// It is refused.
    Refused,
    /// It stands, and breaks before anything is written.
    BrokenBeforeWriting,
    /// The request is written, and no answer comes.
    Written,
    /// The request is written, and the connection breaks.
    Reset,
    /// A stream's first event, and then nothing.
    Silent,
    /// A stream's first event, and then the end of the connection.
    Cut,
    /// A refusal of the vendor's.
    VendorError,
    /// An answer that tells its tokens.
    Tokens,
    /// An answer that tells its neurons, which are more than anyone expected.
    Neurons,
}

const PHASES: [Phase; 10] = [
    Phase::Connecting,
    Phase::Refused,
    Phase::BrokenBeforeWriting,
    Phase::Written,
    Phase::Reset,
    Phase::Silent,
    Phase::Cut,
    Phase::VendorError,
    Phase::Tokens,
    Phase::Neurons,
];

const TOKENS: &str = r#"{"result":{"response":"x","usage":{"prompt_tokens":26,"completion_tokens":18}}}"#;
/// 26 x 2,457 + 18 x 18,252 micro-neurons.
const TOKENS_COST: u64 = 392_418;
const NEURONS: &str =
    r#"{"result":{"response":"x","usage":{"prompt_tokens":26,"completion_tokens":18,"neurons":5000}}}"#;

/// What this attempt adds to the bill, where `reserved` was put aside for it.
fn reckoned(phase: Phase, reserved: Neurons) -> Neurons {
    match phase {
        Phase::Connecting | Phase::Refused | Phase::BrokenBeforeWriting | Phase::VendorError => Neurons::ZERO,
        Phase::Written | Phase::Reset | Phase::Silent | Phase::Cut => reserved,
        Phase::Tokens => Neurons::from_micro(TOKENS_COST),
        Phase::Neurons => Neurons::from_whole(5000),
    }
}

fn stream(rest: impl futures_util::Stream<Item = Result<Frame<Bytes>, BoxError>> + Send + 'static) -> Response<Body> {
    let first = Bytes::from_static(b"data: {\"response\":\"some words\"}\n\n");
    let first = futures_util::stream::once(async { Ok(Frame::data(first)) });
    let body = http_body_util::StreamBody::new(futures_util::StreamExt::chain(first, rest));
    Response::builder().header(header::CONTENT_TYPE, "text/event-stream").body(Body::stream(body)).unwrap()
}

fn json(status: u16, body: &'static str) -> Response<Body> {
    Response::builder().status(status).header(header::CONTENT_TYPE, "application/json").body(Body::from(body)).unwrap()
}

async fn act(phase: Phase, mut request: Request<Body>) -> Result<Response<Body>, std::io::Error> {
    match phase {
        Phase::Connecting => return pending().await,
        Phase::Refused => return Err(std::io::ErrorKind::ConnectionRefused.into()),
        Phase::BrokenBeforeWriting => return Err(std::io::ErrorKind::ConnectionReset.into()),
        _ => {}
    }
    // As a client does once it has a connection.
    while poll_fn(|cx| Pin::new(request.body_mut()).poll_frame(cx)).await.is_some() {}
    match phase {
        Phase::Reset => Err(std::io::ErrorKind::ConnectionReset.into()),
        Phase::Silent => Ok(stream(futures_util::stream::pending())),
        Phase::Cut => Ok(stream(futures_util::stream::once(async { Err("cut".into()) }))),
        Phase::VendorError => Ok(json(503, r#"{"success":false,"errors":[{"code":3040,"message":"busy"}]}"#)),
        Phase::Tokens => Ok(json(200, TOKENS)),
        Phase::Neurons => Ok(json(200, NEURONS)),
        _ => pending().await,
    }
}

/// Makes a call whose attempts go so, and leaves when nothing more happens. Gives the phases that were come to, what was
/// reserved for each attempt, and what the budget has then.
fn make(phases: &[Phase], deadline: Option<Duration>) -> (Vec<Phase>, Neurons, Status) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut settings = Settings::default();
        settings.rules.push(Rule::new("everyone", Neurons::from_whole(1_000_000), Period::Day));
        let budgets = Arc::new(Budgets::new(settings, Catalogue::default()).unwrap());
        let script = Arc::new(Mutex::new((VecDeque::from(phases.to_vec()), Vec::new())));
        let scripted = script.clone();
        let client = service_fn(move |request: Request<Body>| {
            let mut script = scripted.lock();
            let phase = script.0.pop_front().unwrap_or(Phase::Tokens);
            script.1.push(phase);
            act(phase, request)
        });
        let mut stack = ServiceBuilder::new()
            .layer(BudgetLayer::new(budgets.clone()))
            .layer(RetryLayer::default())
            .layer(MeterLayer::default())
            .service(Upstream::new(Around::new(client), Target::default()));
        let mut call = call(LLAMA, r#"{"prompt":"x","stream":true}"#);
        let options = Options { request_timeout: deadline, max_attempts: Some(10), ..Options::default() };
        call.options = Arc::new(options);
        let reserved = Estimate::of(&call).upper.unwrap();
        let talk = async {
            let reply = stack.ready().await?.call(call).await?;
            let _ = reply.into_body().collect().await;
            Ok::<_, Error>(())
        };
        // Shorter than what upstream is given for its first byte, so that it is the client who leaves.
        let _ = tokio::time::timeout(Duration::from_secs(100), talk).await;
        let tried = std::mem::take(&mut script.lock().1);
        (tried, reserved, budgets.status().remove(0))
    })
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("TOLLGATE_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(200);
    ProptestConfig::with_cases(cases)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn nothing_is_charged_that_did_not_leave_and_nothing_beyond_what_was_reserved(
        phases in prop::collection::vec(prop::sample::select(&PHASES[..]), 1..6),
        deadline in prop::option::of(0u64..20_000),
    ) {
        let (tried, reserved, status) = make(&phases, deadline.map(Duration::from_millis));
        let expected: Neurons = tried.iter().map(|phase| reckoned(*phase, reserved)).sum();
        prop_assert_eq!(status.spent, expected, "{:?}", tried);
        prop_assert_eq!(status.reserved, Neurons::ZERO);
    }
}

#[test]
fn a_call_whose_time_is_up_before_it_begins_costs_nothing() {
    let (tried, _, status) = make(&[Phase::Connecting], Some(Duration::ZERO));
    assert_eq!((tried.len(), status.spent), (1, Neurons::ZERO));
}
