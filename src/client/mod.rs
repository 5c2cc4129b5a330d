//! A typed client for Workers AI on the gate's own stack.
//!
//! [`WorkersAi::run`] asks a model and gives its answer with the receipt: what it used, what it cost, who says so.
//! [`WorkersAi::run_stream`] gives the answer in parsed pieces as it is written; [`WorkersAi::embed`] gives vectors. Whatever
//! goes wrong is a [`Failure`], whose [`kind`](Failure::kind) tells what can be done about it.
//!
//! # What it does not do
//! It checks no inputs against a model's schema: they go to the vendor as they are, and its complaint comes back. Retries,
//! waits and limits are the gate's: by the time a call fails here, they have been tried.
//!
//! # Example
//! ```no_run
//! use futures_util::StreamExt;
//! use serde_json::json;
//! use tollgate::client::{Kind, WorkersAi};
//! use tollgate::gateway::Gateway;
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let gate = Gateway::builder().account("023e105f4ecef8ad9ca31a8372d0c353").token("<Workers AI API token>").build()?;
//! let ai = WorkersAi::new(gate);
//! match ai.run("@cf/meta/llama-3.2-1b-instruct", &json!({"prompt": "Why is the sky blue?"})).await {
//!     Ok(answer) => println!("{} ({} neurons)", answer.text().unwrap_or_default(), answer.receipt.cost.neurons),
//!     Err(failure) => match failure.kind {
//!         Kind::RateLimited { retry_after } => println!("not before {retry_after:?}"),
//!         Kind::BudgetExceeded { ref budget, .. } => println!("no more from {budget}"),
//!         _ => return Err(failure.into()),
//!     },
//! }
//! let mut chunks = ai.run_stream("@cf/meta/llama-3.2-1b-instruct", &json!({"prompt": "A poem"})).await?;
//! while let Some(chunk) = chunks.next().await {
//!     print!("{}", chunk?.text);
//! }
//! # Ok(()) }
//! ```

mod answer;
mod chunks;
mod events;
mod failure;
mod options;

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

use self::answer::Envelope;
pub use self::answer::{Answer, Embeddings};
pub use self::chunks::{Chunk, Chunks};
pub use self::failure::{Failure, Kind};
pub use self::options::Options;
use crate::body::Body;
use crate::gateway::Gateway;
use crate::layers::identify::ReplyBody;
use crate::receipt::{Facts, ReadBy, Reader};

/// Asks models through a gate: see the [module](self). Cloning shares the gate.
#[derive(Clone, Debug)]
pub struct WorkersAi<S = Gateway> {
    gate: S,
    options: Options,
}

/// Hands one call's sealed receipt to who waits for it.
struct Slot(Mutex<Option<oneshot::Sender<Facts>>>);

/// Where a call's receipt will be.
type Pending = oneshot::Receiver<Facts>;

/// A [`WorkersAi`] of one type, whatever gate it asks: a real one, or a stand-in in a test.
pub type BoxedWorkersAi = WorkersAi<BoxCloneSyncService<Request<Body>, Response<ReplyBody>, Infallible>>;

impl<S> WorkersAi<S>
where
    S: Service<Request<Body>, Response = Response<ReplyBody>, Error = Infallible> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    /// The same as a type that does not name the gate, for a program's state.
    ///
    /// ```
    /// use tollgate::client::{BoxedWorkersAi, WorkersAi};
    /// use tollgate::gateway::Gateway;
    ///
    /// struct App {
    ///     ai: BoxedWorkersAi,
    /// }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let gate = Gateway::builder().account("023e").token("t").build()?;
    /// let app = App { ai: WorkersAi::new(gate).boxed() };
    /// # Ok(()) }
    /// ```
    pub fn boxed(self) -> BoxedWorkersAi {
        WorkersAi { gate: BoxCloneSyncService::new(self.gate), options: self.options }
    }
}

impl<S> WorkersAi<S>
where
    S: Service<Request<Body>, Response = Response<ReplyBody>, Error = Infallible> + Clone,
{
    /// Through this gate, which has to have an account.
    pub fn new(gate: S) -> Self {
        Self { gate, options: Options::default() }
    }

    /// The same with other options for each of its calls.
    pub fn with(&self, options: Options) -> Self {
        Self { gate: self.gate.clone(), options }
    }

    /// Asks a model by the vendor's native route. `inputs` is the JSON object that its page describes.
    pub async fn run(&self, model: &str, inputs: &impl Serialize) -> Result<Answer, Failure> {
        let body =
            serde_json::to_vec(inputs).map_err(|why| Failure::invalid(format!("the inputs make no JSON: {why}")))?;
        let (reply, pending) = self.send(model, body.into()).await?;
        let (head, body) = whole(reply, pending).await?;
        let content_type =
            head.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        Ok(Answer { content_type: content_type.to_owned(), body: body.0, receipt: body.1 })
    }

    /// Asks for the answer in pieces. `inputs` is an object; its `stream` is set here.
    pub async fn run_stream(&self, model: &str, inputs: &impl Serialize) -> Result<Chunks, Failure> {
        let inputs = serde_json::to_value(inputs);
        let mut inputs = inputs.map_err(|why| Failure::invalid(format!("the inputs make no JSON: {why}")))?;
        let Value::Object(fields) = &mut inputs else {
            return Err(Failure::invalid("the inputs of a stream are a JSON object".into()));
        };
        fields.insert("stream".into(), Value::Bool(true));
        let (reply, pending) = self.send(model, inputs.to_string().into()).await?;
        if Failure::is_one(&reply) {
            let (head, body) = (Failure::of(&reply), reply.into_body());
            drop(body);
            return Err(head.with(pending.await.ok()));
        }
        Ok(Chunks::new(reply, pending))
    }

    /// The vectors of these texts, in their order.
    pub async fn embed<T: AsRef<str>>(&self, model: &str, texts: &[T]) -> Result<Embeddings, Failure> {
        let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        let answer = self.run(model, &json!({ "text": texts })).await?;
        let read: Result<Envelope, _> = serde_json::from_slice(&answer.body);
        match read {
            Ok(Envelope { result }) if result.data.len() == texts.len() => {
                Ok(Embeddings { vectors: result.data, receipt: answer.receipt })
            }
            Ok(Envelope { result }) => {
                let why = format!("{} vectors for {} texts", result.data.len(), texts.len());
                Err(Failure::unexpected(why, Some(answer.receipt)))
            }
            Err(why) => Err(Failure::unexpected(format!("no embeddings: {why}"), Some(answer.receipt))),
        }
    }

    async fn send(&self, model: &str, body: Bytes) -> Result<(Response<ReplyBody>, Pending), Failure> {
        let mut request = Request::new(Body::from(body));
        *request.method_mut() = http::Method::POST;
        *request.uri_mut() =
            format!("/run/{model}").parse().map_err(|_| Failure::invalid(format!("{model:?} is no model's name")))?;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        self.options.write(headers)?;
        let (sender, pending) = oneshot::channel();
        request.extensions_mut().insert(ReadBy(Arc::new(Slot(Mutex::new(Some(sender))))));
        let Ok(reply) = self.gate.clone().oneshot(request).await;
        Ok((reply, pending))
    }
}

impl Reader for Slot {
    fn sealed(&self, receipt: &Facts) {
        if let Some(sender) = self.0.lock().take() {
            // Whoever asked may have gone.
            let _ = sender.send(receipt.clone());
        }
    }
}

/// The whole body, with the receipt that is sealed behind it.
async fn whole(
    reply: Response<ReplyBody>,
    pending: Pending,
) -> Result<(http::response::Parts, (Bytes, Facts)), Failure> {
    if Failure::is_one(&reply) {
        let failure = Failure::of(&reply);
        // Its body has nothing that the failure has not; dropping it seals the receipt.
        drop(reply);
        return Err(failure.with(pending.await.ok()));
    }
    let (head, body) = reply.into_parts();
    let body = body.collect().await;
    match (body, pending.await) {
        (Ok(body), Ok(receipt)) => Ok((head, (body.to_bytes(), receipt))),
        (Err(why), receipt) => Err(Failure::broken(why.to_string(), receipt.ok())),
        (Ok(_), Err(_)) => Err(Failure::unexpected("the gate has written no receipt".into(), None)),
    }
}
