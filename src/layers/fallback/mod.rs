//! Asks the next model of a chain where the one asked for cannot answer.
//!
//! A model's chain is its [`fallback`](crate::catalogue::Model::fallback) in the catalogue. The next model gets the same
//! input when this one is gone (410), out of capacity or too slow (by the vendor's word, a gateway's, or ours) after all its
//! retries, or when [a budget](crate::Error::BudgetExceeded) has no room for it. Models that the client's key is not for are
//! passed over. `cf-aig-step` on the reply and the receipt
//! tell which one answered: 0 is the one asked for. Each model pays for itself: the receipt prices the one that answered.
//!
//! Where a model is gone, nothing follows it, and the catalogue knows what replaces it, the vendor's 410 gets the header
//! `x-tollgate-replacement`.
//!
//! # What it does not do
//! It does not retry: that is done [below](super::retry), for each model. What another model of the account would fail at
//! as well (a wrong token, the day's free neurons, a request that is too large) goes to the client as it is.
//!
//! # Example
//! ```
//! use std::collections::BTreeMap;
//! use std::sync::Arc;
//!
//! use http::{Request, Response};
//! use tollgate::body::Body;
//! use tollgate::call::Call;
//! use tollgate::catalogue::Catalogue;
//! use tollgate::layers::{fallback::FallbackLayer, identify, meter::MeterLayer};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let chain = r#"{"@cf/acme/old": {"fallback": ["@cf/meta/llama-3.2-1b-instruct"]}}"#;
//! let entries: BTreeMap<_, _> = serde_json::from_str(chain).unwrap();
//! let catalogue = Arc::new(Catalogue::with(&entries));
//! let vendor = service_fn(|call: Call| async move {
//!     let status = if &*call.model.id == "@cf/acme/old" { 410 } else { 200 };
//!     Ok::<_, tollgate::Error>(Response::builder().status(status).body(Body::from("{}")).unwrap())
//! });
//! let rest = service_fn(|_: Request<Body>| async { Ok::<_, tollgate::Error>(Response::new(Body::empty())) });
//! let mut settings = identify::Settings::default();
//! (settings.account, settings.has_token, settings.catalogue) = (Some("023e".into()), true, catalogue.clone());
//! // Meter reads what the vendor's no means.
//! let stack = ServiceBuilder::new()
//!     .layer(identify::IdentifyLayer::new(settings, rest))
//!     .layer(FallbackLayer::new(catalogue))
//!     .layer(MeterLayer::default())
//!     .service(vendor);
//!
//! let reply = stack.oneshot(Request::post("/run/@cf/acme/old").body(Body::from("{}")).unwrap()).await.unwrap();
//! assert_eq!((reply.status().as_u16(), &reply.headers()["cf-aig-step"]), (200, &"1".parse().unwrap()));
//! # });
//! ```

use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderValue, StatusCode};
use tower::{Layer, Service};

use super::inner::{Inner, InnerFuture, access};
use super::{Relayed, Reply};
use crate::Error;
use crate::call::Call;
use crate::catalogue::Catalogue;
use crate::headers::CF_AIG_STEP;
use crate::vendor_error::{Meaning, VendorError};

/// Applies [`Fallback`].
#[derive(Clone, Debug)]
pub struct FallbackLayer {
    catalogue: Arc<Catalogue>,
}

/// Asks one model after the other: see the [module](self).
#[derive(Clone, Debug)]
pub struct Fallback<S> {
    inner: Inner<S>,
    catalogue: Arc<Catalogue>,
}

impl FallbackLayer {
    /// With the chains of this catalogue.
    pub fn new(catalogue: Arc<Catalogue>) -> Self {
        Self { catalogue }
    }
}

impl<S> Layer<S> for FallbackLayer {
    type Service = Fallback<S>;

    fn layer(&self, inner: S) -> Fallback<S> {
        Fallback { inner: Inner(inner), catalogue: self.catalogue.clone() }
    }
}

// === impl Fallback ===

access!(Fallback);

impl<S> Service<Call> for Fallback<S>
where
    S: Service<Call, Response = Reply> + Clone + Send + 'static,
    S::Error: Into<Error>,
    S::Future: Send + 'static,
{
    type Response = Reply;
    type Error = Error;
    type Future = Relayed<InnerFuture<S::Future>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, call: Call) -> Self::Future {
        if call.model.fallback.is_empty() && call.model.replacement.is_none() || !call.can_change_model() {
            return Relayed::inner(self.inner.call(call));
        }
        let inner = self.inner.clone();
        // What was ready is what must be called.
        let inner = std::mem::replace(&mut self.inner, inner);
        Relayed::own(down_the_chain(inner, self.catalogue.clone(), call))
    }
}

async fn down_the_chain<S>(mut inner: S, catalogue: Arc<Catalogue>, asked: Call) -> Result<Reply, Error>
where
    S: Service<Call, Response = Reply, Error = Error>,
{
    let mut reply = inner.call(asked.clone()).await;
    let mut step = 0;
    for id in asked.model.fallback.iter() {
        if !another_may_serve(&reply) || asked.ask.is_submit() && may_have_begun(&reply) {
            break;
        }
        if !asked.may_ask(id) {
            continue;
        }
        tracing::debug!(asked = %asked.model.id, next = %id, "falling back");
        step += 1;
        let call = asked.with_model(catalogue.find(id, asked.model.task));
        call.receipt.note(|facts| {
            facts.step = step;
            facts.model = call.model.clone();
        });
        std::future::poll_fn(|cx| inner.poll_ready(cx)).await?;
        reply = inner.call(call).await;
    }
    let mut reply = reply?;
    if !asked.model.fallback.is_empty() {
        let step = asked.receipt.read(|facts| facts.step);
        reply.headers_mut().insert(CF_AIG_STEP, HeaderValue::from(u16::from(step)));
    }
    if let Some(replacement) = &asked.model.replacement
        && reply.status() == StatusCode::GONE
        && let Ok(value) = HeaderValue::from_str(replacement)
    {
        reply.headers_mut().insert("x-tollgate-replacement", value);
    }
    Ok(reply)
}

/// The model may be at it.
fn may_have_begun(reply: &Result<Reply, Error>) -> bool {
    match reply {
        Err(error) => error.may_have_cost(),
        Ok(reply) => reply.extensions().get::<VendorError>().is_some_and(|error| !error.meaning.is_surely_refused()),
    }
}

/// This model cannot answer, and another may.
fn another_may_serve(reply: &Result<Reply, Error>) -> bool {
    match reply {
        Err(
            Error::Timeout { .. }
            | Error::Elapsed { .. }
            | Error::BudgetExceeded { .. }
            | Error::CostUnbounded { .. }
            | Error::OverCeiling { .. },
        ) => true,
        Err(_) => false,
        Ok(reply) => reply.extensions().get::<VendorError>().is_some_and(|error| {
            let meaning = error.meaning;
            !error.has_run
                && matches!(meaning, Meaning::Gone | Meaning::OutOfCapacity | Meaning::TimedOut | Meaning::Aborted)
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use tower::ServiceExt;

    use super::*;
    use crate::catalogue::Task;
    use crate::layers::meter::MeterLayer;
    use crate::layers::testing::{LLAMA, Sealed, Vendor, call_on, ok, refusal};
    use crate::neurons::Neurons;

    const SECOND: &str = "@cf/meta/llama-3.1-8b-instruct-fp8-fast";
    const THIRD: &str = "@cf/meta/llama-3.2-3b-instruct";

    fn catalogue() -> Arc<Catalogue> {
        let chain = format!(r#"{{"{LLAMA}": {{"fallback": ["{SECOND}", "{THIRD}"]}}}}"#);
        let entries: BTreeMap<_, _> = serde_json::from_str(&chain).unwrap();
        Arc::new(Catalogue::with(&entries))
    }

    async fn ask(
        sealed: &Sealed,
        answer: impl Fn(&str) -> Result<Reply, Error> + Clone + Send + 'static,
    ) -> Result<Reply, Error> {
        let catalogue = catalogue();
        let vendor = Vendor(move |call: Call| {
            let answer = answer(&call.model.id);
            async { answer }
        });
        let call = call_on(sealed.readers(), catalogue.find(LLAMA, Task::Unknown), "{}");
        FallbackLayer::new(catalogue).layer(MeterLayer::default().layer(vendor)).oneshot(call).await
    }

    fn budget() -> Error {
        let none = Neurons::ZERO;
        let (budget, mend) = (String::new(), String::new());
        Error::BudgetExceeded {
            budget,
            currency: crate::amount::Currency::default(),
            limit: none,
            left: none,
            needed: none,
            mend,
            retry_after: None,
        }
    }

    fn vendors(status: u16, body: &'static str) -> Result<Reply, Error> {
        let mut reply = ok(body);
        *reply.status_mut() = StatusCode::from_u16(status).unwrap();
        Ok(reply)
    }

    #[tokio::test]
    async fn the_next_model_answers_where_the_first_is_gone_full_late_or_too_dear() {
        let failures: [fn() -> Result<Reply, Error>; 6] = [
            || vendors(410, "{}"),
            || vendors(429, r#"{"errors":[{"code":3040}]}"#),
            || vendors(408, r#"{"errors":[{"code":3007}]}"#),
            || vendors(504, "<html>"),
            || Err(Error::Timeout { after: Duration::from_secs(1), setting: "test", was_sent: true }),
            || Err(budget()),
        ];
        for failure in failures {
            let sealed = Sealed::default();
            let usage = r#"{"result":{"usage":{"prompt_tokens":1000,"completion_tokens":0}}}"#;
            let reply =
                ask(&sealed, move |model| if model == SECOND { Ok(ok(usage)) } else { failure() }).await.unwrap();
            assert_eq!((reply.status(), &reply.headers()["cf-aig-step"]), (StatusCode::OK, &"1".parse().unwrap()));
            drop(reply);
            let facts = sealed.0.lock()[0].clone();
            assert_eq!((&*facts.asked.id, &*facts.model.id, facts.step), (LLAMA, SECOND, 1));
            let price = facts.model.prices.cost(&facts.usage);
            assert!(facts.cost.neurons == price && !price.is_zero(), "{:?}", facts.cost);
        }
    }

    #[tokio::test]
    async fn what_another_model_would_not_mend_goes_to_the_client() {
        for (status, code) in [(400, 5006), (401, 10000), (408, 3046), (429, 3021), (429, 4006), (500, 0)] {
            let sealed = Sealed::default();
            let reply = ask(&sealed, move |model| {
                assert_eq!(model, LLAMA);
                let mut reply = ok(Box::leak(format!(r#"{{"errors":[{{"code":{code}}}]}}"#).into_boxed_str()));
                *reply.status_mut() = StatusCode::from_u16(status).unwrap();
                Ok(reply)
            });
            let reply = reply.await.unwrap();
            assert_eq!((reply.status().as_u16(), &reply.headers()["cf-aig-step"]), (status, &"0".parse().unwrap()));
        }
    }

    #[tokio::test]
    async fn the_last_of_the_chain_has_the_last_word() {
        let reply = ask(&Sealed::default(), |_| vendors(410, "gone")).await.unwrap();
        assert_eq!((reply.status().as_u16(), &reply.headers()["cf-aig-step"]), (410, &"2".parse().unwrap()));
    }

    #[tokio::test]
    async fn a_key_gets_no_model_that_it_is_not_for() {
        let catalogue = catalogue();
        for (allowed, answers) in [(vec![LLAMA, THIRD], Some(THIRD)), (vec![LLAMA], None)] {
            let asked = Arc::new(parking_lot::Mutex::new(Vec::new()));
            let seen = asked.clone();
            let vendor = Vendor(move |call: Call| {
                seen.lock().push(call.model.id.to_string());
                let answer = if *call.model.id == *LLAMA { refusal(410, None) } else { ok("{}") };
                async { Ok(answer) }
            });
            let call = call_on(Arc::new([]), catalogue.find(LLAMA, Task::Unknown), "{}");
            let models = allowed.into_iter().map(str::to_owned).collect();
            let call = Call { models: Some(models), ..call };
            let stack = FallbackLayer::new(catalogue.clone()).layer(MeterLayer::default().layer(vendor));
            let reply = stack.oneshot(call).await.unwrap();
            assert_eq!(reply.status().is_success(), answers.is_some());
            assert_eq!(asked.lock().iter().skip(1).map(String::as_str).next(), answers);
        }
    }

    #[tokio::test]
    async fn a_410_names_the_replacement() {
        let entries = format!(r#"{{"@cf/a/old": {{"replacement": "{SECOND}"}}}}"#);
        let catalogue = Arc::new(Catalogue::with(&serde_json::from_str(&entries).unwrap()));
        let call = call_on(Arc::new([]), catalogue.find("@cf/a/old", Task::Unknown), "{}");
        let gone = Vendor(|_| async { Ok(refusal(410, None)) });
        let reply = FallbackLayer::new(catalogue).layer(gone).oneshot(call).await.unwrap();
        assert_eq!(reply.headers()["x-tollgate-replacement"], SECOND);
    }
}
