//! The layers as a tower user meets them: with layers of tower's own between, around a client of one's own, set from outside of
//! the crate.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tollgate::body::{Body, BoxError};
use tollgate::call::{Call, Endpoint};
use tollgate::catalogue::{Catalogue, Entry, Limit, Task};
use tollgate::gateway::{BuildError, Gateway};
use tollgate::layers::budget::{self, BudgetLayer, Budgets, Period, Rule};
use tollgate::layers::meter::MeterLayer;
use tollgate::layers::rate_limit::{self, RateLimitLayer};
use tollgate::layers::retry::{self, RetryLayer};
use tollgate::neurons::Neurons;
use tollgate::receipt::{Facts, Reader};
use tollgate::upstream::{Around, Target, Upstream};
use tower::util::BoxCloneService;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};

const MODEL: &str = "@cf/meta/llama-3.2-1b-instruct";
const REPLY: &str =
    r#"{"result":{"response":"Hi","usage":{"prompt_tokens":26,"completion_tokens":18}},"success":true}"#;
/// A thousand tokens may be written.
const BODY: &str = r#"{"prompt": "Hello", "max_tokens": 1000}"#;

fn call(catalogue: &Catalogue) -> Call {
    Call::new("023e", catalogue.find(MODEL, Task::TextGeneration), Endpoint::Run, BODY).unwrap()
}

fn reply() -> Response<Body> {
    Response::builder().header("content-type", "application/json").body(Body::from(REPLY)).unwrap()
}

fn budgets(catalogue: &Arc<Catalogue>) -> Arc<Budgets> {
    let rules = vec![Rule::new("all", Neurons::from_whole(1000), Period::Day)];
    Arc::new(Budgets::new(budget::Settings { rules, ..Default::default() }, catalogue.clone()).unwrap())
}

fn spent(budgets: &Budgets) -> (Neurons, Neurons) {
    (budgets.status()[0].spent, budgets.status()[0].reserved)
}

/// A vendor that reads what it is sent, or does not, and never answers.
#[derive(Clone, Copy)]
enum Silent {
    HasRead,
    HasNot,
}

impl Silent {
    fn client(
        self,
    ) -> impl Service<Request<Body>, Response = Response<Body>, Error = tollgate::Error, Future: Send> + Clone + Send
    {
        Around::new(service_fn(move |request: Request<Body>| async move {
            if let Self::HasRead = self {
                request.into_body().collect().await?;
            }
            std::future::pending::<Result<Response<Body>, BoxError>>().await
        }))
    }
}

/// What tower's `Timeout` stands below.
#[derive(Clone, Copy, Debug)]
enum Below {
    Budget,
    Retry,
    Limit,
    Meter,
}

/// The service, with a `Timeout` upon it or none.
fn timed<S>(service: S, is_here: bool) -> BoxCloneService<Call, Response<Body>, BoxError>
where
    S: Service<Call, Response = Response<Body>, Error: Into<BoxError>, Future: Send + 'static> + Clone + Send + 'static,
{
    if is_here {
        return BoxCloneService::new(tower::timeout::Timeout::new(service, Duration::from_secs(3)));
    }
    BoxCloneService::new(service.map_err(Into::into))
}

async fn given_up(place: Below, vendor: Silent) -> (tollgate::Error, Facts, Arc<Budgets>) {
    let catalogue = Arc::new(Catalogue::default());
    let budgets = budgets(&catalogue);
    let retry = RetryLayer::new(retry::Settings { max_attempts: 1, ..Default::default() });
    let upstream = Upstream::new(vendor.client(), Target::new("http://vendor").unwrap());
    let below_meter = timed(upstream, matches!(place, Below::Meter));
    let below_limit = timed(MeterLayer::new(catalogue.clone()).layer(below_meter), matches!(place, Below::Limit));
    let below_retry = timed(RateLimitLayer::default().layer(below_limit), matches!(place, Below::Retry));
    let below_budget = timed(retry.layer(below_retry), matches!(place, Below::Budget));
    let stack = BudgetLayer::new(budgets.clone()).layer(below_budget);
    let call = call(&catalogue);
    let receipt = call.receipt.clone();
    let error = stack.oneshot(call).await.unwrap_err();
    let facts = receipt.read(Clone::clone);
    drop(receipt);
    (error, facts, budgets)
}

#[tokio::test(start_paused = true)]
async fn what_a_timeout_of_towers_gave_up_is_charged_by_whether_it_had_gone_out_wherever_the_layer_stands() {
    for place in [Below::Budget, Below::Retry, Below::Limit, Below::Meter] {
        let (error, facts, budgets) = given_up(place, Silent::HasNot).await;
        assert!(matches!(error, tollgate::Error::Elapsed { .. }), "{place:?}: {error:?}");
        assert_eq!(spent(&budgets), (Neurons::ZERO, Neurons::ZERO), "{place:?}: it never left");
        assert!(!facts.attempts[0].may_have_cost, "{place:?}");

        let (error, facts, budgets) = given_up(place, Silent::HasRead).await;
        assert_eq!(error.status(), 504, "{place:?}");
        let (charged, reserved) = spent(&budgets);
        assert!(charged > Neurons::from_whole(18) && reserved.is_zero(), "{place:?}: {charged} {reserved}");
        assert_eq!((facts.attempts.len(), facts.attempts[0].may_have_cost), (1, true), "{place:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_given_up_in_the_limits_queue_is_tried_again_and_costs_nothing() {
    let catalogue = Arc::new(Catalogue::default());
    let budgets = budgets(&catalogue);
    let limits = rate_limit::Settings {
        models: [(MODEL.to_owned(), Limit::a_minute(1).into())].into(),
        max_wait: Duration::from_secs(600),
        ..Default::default()
    };
    let stack = ServiceBuilder::new()
        .layer(BudgetLayer::new(budgets.clone()))
        .layer(RetryLayer::new(retry::Settings { max_attempts: 2, ..Default::default() }))
        .layer(tower::timeout::TimeoutLayer::new(Duration::from_secs(5)))
        .layer(RateLimitLayer::new(limits))
        .layer(MeterLayer::new(catalogue.clone()))
        .service(service_fn(|_: Call| async { Ok::<_, Infallible>(reply()) }));
    stack.clone().oneshot(call(&catalogue)).await.unwrap();
    let paid = spent(&budgets);
    let late = stack.oneshot(call(&catalogue)).await.unwrap_err();
    assert!(matches!(late, tollgate::Error::Elapsed { was_sent: false }), "{late:?}");
    assert_eq!(spent(&budgets), paid);
}

#[tokio::test]
async fn load_shed_concurrency_limit_and_buffer_stand_between_the_layers() {
    let catalogue = Arc::new(Catalogue::default());
    let vendor = service_fn(|_: Call| async {
        tokio::task::yield_now().await;
        Ok::<_, Infallible>(reply())
    });
    let stack = ServiceBuilder::new()
        .layer(BudgetLayer::new(budgets(&catalogue)))
        .layer(tower::buffer::BufferLayer::new(8))
        .layer(RetryLayer::default())
        .load_shed()
        .concurrency_limit(1)
        .layer(MeterLayer::new(catalogue.clone()))
        .service(vendor);
    let first = stack.clone().oneshot(call(&catalogue)).await.unwrap();
    assert_eq!(first.headers()["x-tollgate-neurons"], "0.392418");

    let busy = ServiceBuilder::new()
        .load_shed()
        .concurrency_limit(1)
        .service(service_fn(|_: Call| std::future::pending::<Result<Response<Body>, Infallible>>()));
    let stack = MeterLayer::new(catalogue.clone()).layer(busy);
    let waiting = tokio::spawn(stack.clone().oneshot(call(&catalogue)));
    tokio::task::yield_now().await;
    let error = stack.oneshot(call(&catalogue)).await.unwrap_err();
    assert!(matches!(error, tollgate::Error::Overloaded { .. }), "{error:?}");
    waiting.abort();
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_a_permit_below_the_meter_is_not_upstreams_time() {
    let catalogue = Arc::new(Catalogue::default());
    let models = [(MODEL.to_owned(), Limit::a_minute(60).into())].into();
    let limits = rate_limit::Settings { models, max_wait: Duration::from_secs(60), ..Default::default() };
    let stack = ServiceBuilder::new()
        .layer(MeterLayer::new(catalogue.clone()))
        .layer(RateLimitLayer::new(limits))
        .service(service_fn(|_: Call| async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok::<_, Infallible>(reply())
        }));
    let mut waits = Vec::new();
    for _ in 0..35 {
        let call = call(&catalogue);
        let receipt = call.receipt.clone();
        stack.clone().oneshot(call).await.unwrap();
        let (waited, upstream) = receipt.read(|facts| (facts.waited, facts.upstream));
        assert!((100..105).contains(&upstream.as_millis()), "{upstream:?} with a wait of {waited:?}");
        waits.push(waited);
    }
    assert!(waits.iter().any(|wait| *wait > Duration::from_millis(500)), "{waits:?}");
}

#[tokio::test]
async fn a_services_settings_are_reached_and_taken_off_again() {
    let mut meter = MeterLayer::default().layer(5);
    *meter.get_mut() += 1;
    assert_eq!((*meter.get_ref(), meter.into_inner()), (6, 6));
}

/// A client of reqwest's that the gate is given.
#[cfg(feature = "reqwest")]
mod own_client {
    use tollgate::client::{Kind, WorkersAi};

    use super::*;

    /// A server on loopback that answers after so long.
    async fn slow_server(after: Duration) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut connection, _)) = listener.accept().await {
                tokio::spawn(async move {
                    use tokio::io::{AsyncReadExt, AsyncWriteExt};
                    let mut head = [0; 4096];
                    let _ = connection.read(&mut head).await;
                    tokio::time::sleep(after).await;
                    let head = format!(
                        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{REPLY}",
                        REPLY.len()
                    );
                    let _ = connection.write_all(head.as_bytes()).await;
                });
            }
        });
        format!("http://{address}")
    }

    fn own_client() -> reqwest::ClientBuilder {
        // This build's reqwest has no provider of its own; see `upstream::client`.
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none())
    }

    #[tokio::test]
    async fn a_reqwest_client_of_ones_own_goes_in() {
        let url = slow_server(Duration::ZERO).await;
        let client = own_client().build().unwrap();
        let gate = Gateway::builder().account("023e").token("t").base_url(&url);
        let ai = WorkersAi::new(gate.build_around(Around::reqwest(client)).unwrap()).boxed();
        let answer = ai.run(MODEL, &serde_json::json!({"prompt": "Hello"})).await.unwrap();
        assert_eq!(answer.receipt.cost.neurons.decimal(), "0.392418");
    }

    #[tokio::test]
    async fn its_time_out_is_told_as_one() {
        let url = slow_server(Duration::from_secs(3600)).await;
        let client = own_client().timeout(Duration::from_millis(200)).build().unwrap();
        let retry = retry::Settings { max_attempts: 1, ..Default::default() };
        let gate = Gateway::builder().account("023e").token("t").base_url(&url).retry(retry);
        let ai = WorkersAi::new(gate.build_around(Around::reqwest(client)).unwrap());
        let failure = ai.run(MODEL, &serde_json::json!({"prompt": "Hello"})).await.unwrap_err();
        assert!(matches!(failure.kind, Kind::Timeout { after: Some(_) }), "{failure:?}");
        assert!(failure.message.contains("the HTTP client's own timeout"), "{failure}");
    }
}

/// Counts calls, and has no `Arc` around it.
struct Counter(Arc<AtomicU32>);

impl Reader for Counter {
    fn sealed(&self, _: &Facts) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_gate_is_set_rule_by_rule_and_shows_its_budgets() {
    let (counted, seen) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(Vec::new())));
    let asked = seen.clone();
    let vendor = service_fn(move |request: Request<Body>| {
        asked.lock().push(request.uri().path().rsplit('/').next().unwrap_or_default().to_owned());
        let is_first = asked.lock().len() == 1;
        async move {
            let reply =
                if is_first { Response::builder().status(410).body(Body::from("{}")).unwrap() } else { reply() };
            Ok::<_, Infallible>(reply)
        }
    });
    let entry = Entry { fallback: Some(vec![MODEL.to_owned()]), ..Entry::default() };
    let gate = Gateway::builder()
        .account("023e")
        .token("t")
        .budget(Rule::new("all", Neurons::from_whole(1000), Period::Day))
        .limit(MODEL, Limit::a_minute(60))
        .model("@cf/meta/llama-3.1-8b-instruct-fp8", entry)
        .first_byte_timeout(Duration::from_secs(5))
        .idle_timeout(Duration::from_secs(5))
        .reader(Counter(counted.clone()));
    let mut gate = gate.build_around(Around::new(vendor)).unwrap();
    let request = Request::post("/run/@cf/meta/llama-3.1-8b-instruct-fp8").body(Body::from(BODY)).unwrap();
    let reply = gate.ready().await.unwrap().call(request).await.unwrap();
    assert_eq!(reply.headers()["cf-aig-step"], "1");
    reply.into_body().collect().await.unwrap();
    assert_eq!(gate.budgets().status()[0].spent.decimal(), "0.392418");
    assert_eq!((counted.load(Ordering::Relaxed), seen.lock().len()), (1, 2));
}

#[tokio::test]
async fn budgets_are_shared_by_gates_or_a_gates_own() {
    let catalogue = Arc::new(Catalogue::default());
    let shared = budgets(&catalogue);
    let vendor = || Around::new(service_fn(|_: Request<Body>| async { Ok::<_, Infallible>(reply()) }));
    let gate = || Gateway::builder().account("023e").token("t").shared_budgets(shared.clone());
    for n in 1..=2 {
        let request = Request::post(format!("/run/{MODEL}")).body(Body::from(BODY)).unwrap();
        let reply = gate().build_around(vendor()).unwrap().oneshot(request).await.unwrap();
        reply.into_body().collect().await.unwrap();
        assert_eq!(shared.status()[0].spent.micro(), n * 392_418);
    }
    let both = gate().budget(Rule::new("own", Neurons::from_whole(1), Period::Day)).build_around(vendor());
    assert!(matches!(both, Err(BuildError::SharedBudgets)));
    let both = Gateway::builder().catalogue(catalogue).model(MODEL, Entry::default()).build_around(vendor());
    assert!(matches!(both, Err(BuildError::Models)));
}

#[test]
fn a_call_by_hand_goes_to_the_model_that_it_is_for() {
    let model = Catalogue::default().find(MODEL, Task::TextGeneration);
    let body = r#"{"model": "gpt-4o", "messages": []}"#;
    let call = Call::new("023e", model.clone(), Endpoint::ChatCompletions, body).unwrap();
    assert_eq!(call.body, format!(r#"{{"model": "{MODEL}", "messages": []}}"#));
    let nameless = Call::new("023e", model.clone(), Endpoint::ChatCompletions, "{}");
    assert!(matches!(nameless, Err(tollgate::Error::ModelMissing(_))));
    assert!(matches!(Call::new("023e", model, Endpoint::Run, "{"), Err(tollgate::Error::Malformed(_))));
}
