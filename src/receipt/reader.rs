//! Who reads receipts.

use std::sync::Arc;

use super::facts::Facts;
use crate::usage::Usage;

/// Reads sealed receipts: metrics, records, a budget that settles, or your own.
///
/// Runs where the last handle is dropped, on the request's path: it must be quick, must not block and must not panic.
///
/// A reader is tested by a call through a gate around a vendor that is a function:
///
/// ```
/// use std::convert::Infallible;
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use http::{Request, Response};
/// use tollgate::body::Body;
/// use tollgate::receipt::{Facts, Reader};
/// use tollgate::upstream::Around;
/// use tollgate::{Gateway, WorkersAi};
/// use tower::service_fn;
///
/// #[derive(Default)]
/// struct Spent(AtomicU64);
///
/// impl Reader for Spent {
///     fn sealed(&self, receipt: &Facts) {
///         self.0.fetch_add(receipt.cost.neurons.micro(), Ordering::Relaxed);
///     }
/// }
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let vendor = service_fn(|_: Request<Body>| async {
///     let reply = r#"{"result": {"response": "Hi", "usage": {"prompt_tokens": 26, "completion_tokens": 18}}}"#;
///     Ok::<_, Infallible>(Response::builder().header("content-type", "application/json").body(Body::from(reply)).unwrap())
/// });
/// let spent = Arc::new(Spent::default());
/// let gate = Gateway::builder().account("023e").token("t").reader(spent.clone()).build_around(Around::new(vendor)).unwrap();
/// let inputs = serde_json::json!({"prompt": "Hello"});
/// WorkersAi::new(gate).run("@cf/meta/llama-3.2-1b-instruct", &inputs).await.unwrap();
/// assert_eq!(spent.0.load(Ordering::Relaxed), 392_418);
/// # });
/// ```
pub trait Reader: Send + Sync + 'static {
    /// A call is over.
    fn sealed(&self, receipt: &Facts);

    /// A call has begun.
    fn opened(&self) {}

    /// It is known what is asked: account, model, stream or not. Not every call comes so far.
    fn identified(&self, _: &Facts) {}

    /// Its WebSocket is open.
    fn upgraded(&self, _: &Facts) {}

    /// Its WebSocket goes on: what it used since it was told last. The receipt has what it used and cost so far.
    fn flowed(&self, _: &Facts, _: &Usage) {}
}

impl<R: Reader + ?Sized> Reader for Arc<R> {
    fn sealed(&self, receipt: &Facts) {
        (**self).sealed(receipt);
    }

    fn opened(&self) {
        (**self).opened();
    }

    fn identified(&self, receipt: &Facts) {
        (**self).identified(receipt);
    }

    fn upgraded(&self, receipt: &Facts) {
        R::upgraded(self, receipt);
    }

    fn flowed(&self, receipt: &Facts, new: &Usage) {
        R::flowed(self, receipt, new);
    }
}

/// Who reads.
pub type Readers = Arc<[Arc<dyn Reader>]>;

/// Reads the receipt of one call: put it into its request's [extensions](http::Request::extensions_mut).
#[derive(Clone)]
pub struct ReadBy(pub Arc<dyn Reader>);
