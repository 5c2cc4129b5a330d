//! From an HTTP request to a [`Call`]: which account, model and task; stream or not.
//!
//! The only door from HTTP. It knows every form in which Workers AI and the AI Gateway take a call, and the short forms for
//! the configured account; it reads the body once, at most [`Settings::max_body`] bytes, and measures what it asks for, so
//! that no layer below parses it again. It opens the call's [receipt](crate::receipt), and it is where errors become
//! replies, in the form of the route: Cloudflare's envelope on native routes, OpenAI's error object on `/v1` ones.
//!
//! What is not inference but lies under an account goes to a second service, unread: see [`PassThrough`] for what of it leaves
//! with the gate's own token.
//!
//! # What it does not do
//! It does not check that a model exists or that a body fits its schema: the vendor knows best, and says so.
//!
//! # Example
//! ```
//! use http::{Request, Response};
//! use tollgate::body::Body;
//! use tollgate::call::Call;
//! use tollgate::layers::identify::{Identify, Settings};
//! use tower::{ServiceExt, service_fn};
//!
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let model = service_fn(|call: Call| async move {
//!     Ok::<_, tollgate::Error>(Response::new(Body::from(format!("asked {}", call.model.id))))
//! });
//! let rest = service_fn(|_: Request<Body>| async { Ok::<_, tollgate::Error>(Response::new(Body::empty())) });
//! let mut settings = Settings::default();
//! settings.account = Some("023e".into());
//! let door = Identify::new(settings, model, rest);
//!
//! let request = Request::post("/v1/chat/completions")
//!     .header("authorization", "Bearer token")
//!     .body(Body::from(r#"{"model": "@cf/meta/llama-3.2-1b-instruct", "messages": []}"#)).unwrap();
//! let reply = door.oneshot(request).await.unwrap();
//! assert!(reply.headers().contains_key("cf-aig-log-id"));
//! # });
//! ```

mod arrived;
mod by_hand;
mod calls;
mod complaints;
mod count;
#[cfg(feature = "sockets")]
mod deepgram;
mod dry;
mod elsewhere;
mod encoding;
mod form;
mod gate_headers;
mod identified;
mod intake;
mod json;
mod keepalive;
pub mod keys;
mod make;
mod media;
mod model;
mod options;
mod outcome;
mod paced;
mod pass;
mod pass_through;
mod path;
mod read;
mod reading;
mod refusal;
mod reply;
mod route;
mod scope;
mod settings;
mod short;
#[cfg(feature = "sockets")]
mod sockets;
mod span;
mod universal;
#[cfg(feature = "sockets")]
mod universal_socket;

use std::convert::Infallible;
use std::future::poll_fn;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

#[cfg(feature = "sockets")]
use http::Method;
use http::uri::{PathAndQuery, Uri};
use http::{Request, Response, request};
use http_body::Body as HttpBody;
use tower::{Layer, Service};

use self::arrived::Arrived;
use self::calls::answer_call;
pub use self::complaints::Complaints;
use self::dry::Estimated;
use self::gate_headers::GateHeaders;
pub(crate) use self::outcome::outcome;
use self::paced::Paced;
pub use self::pass_through::{PassThrough, PassThroughError};
use self::path::CanonicalPath;
pub use self::read::measure;
use self::refusal::{refuse, unknown_path};
pub use self::reply::ReplyBody;
use self::route::{Other, Route, Target};
pub use self::settings::Settings;
#[cfg(feature = "otel")]
pub(crate) use self::span::{PROVIDER, operation};
use super::Reply;
use super::inner::Inner;
use crate::Error;
use crate::body::{Body, BoxError};
use crate::call::{Call, Elsewhere};
use crate::endpoint::ErrorForm;
use crate::openai;

/// Applies [`Identify`].
#[derive(Clone)]
pub struct IdentifyLayer<P> {
    settings: Arc<Settings>,
    through: P,
}

/// The door: see the [module](self).
#[derive(Clone)]
pub struct Identify<S, P> {
    settings: Arc<Settings>,
    inner: Inner<S>,
    through: P,
}

// === impl IdentifyLayer ===

impl<P> IdentifyLayer<P> {
    /// `through` gets what is no call to a model.
    pub fn new(settings: Settings, through: P) -> Self {
        Self { settings: Arc::new(settings), through }
    }
}

impl<S, P: Clone> Layer<S> for IdentifyLayer<P> {
    type Service = Identify<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Identify { settings: self.settings.clone(), inner: Inner(inner), through: self.through.clone() }
    }
}

// === impl Identify ===

impl<S, P> Identify<S, P> {
    /// `inner` gets calls, `through` the rest.
    pub fn new(settings: Settings, inner: S, through: P) -> Self {
        Self { settings: Arc::new(settings), inner: Inner(inner), through }
    }

    /// The service of calls.
    pub fn get_ref(&self) -> &S {
        &self.inner.0
    }

    /// The service of calls.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner.0
    }

    /// The service of calls, without this door.
    pub fn into_inner(self) -> S {
        self.inner.0
    }
}

impl<S, P, B> Service<Request<B>> for Identify<S, P>
where
    S: Service<Call, Response = Reply> + Clone + Send + 'static,
    S::Error: Into<Error>,
    S::Future: Send,
    P: Service<Request<Body>, Response = Reply, Error = Error> + Clone + Send + 'static,
    P::Future: Send,
    B: HttpBody + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<ReplyBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Which of the two services is needed is known only with the request, so readiness is awaited there.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let mut this = self.clone();
        let (mut head, body) = request.into_parts();
        Box::pin(async move { Ok(this.answer(&mut head, body).await) })
    }
}

impl<S, P> Identify<S, P>
where
    S: Service<Call, Response = Reply> + Clone + Send + 'static,
    S::Error: Into<Error>,
    S::Future: Send,
    P: Service<Request<Body>, Response = Reply, Error = Error>,
{
    /// What is large is borrowed all the way down: a future that takes it moves it, and keeps room for it twice.
    async fn answer<B>(&mut self, head: &mut request::Parts, body: B) -> Response<ReplyBody>
    where
        B: HttpBody + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let uri = mem::take(&mut head.uri);
        let path = match CanonicalPath::read(uri.path()) {
            Ok(path) => path,
            Err(error) => return refuse(error, ErrorForm::of_path(uri.path())),
        };
        #[cfg(feature = "sockets")]
        if matches!(head.method, Method::GET | Method::CONNECT) && crate::socket::is_upgrade(head) {
            return Box::pin(sockets::answer(&self.settings, &mut self.inner, head, &uri, &path)).await;
        }
        if let Some(wanted) = openai::models::Wanted::of(path.decoded()) {
            let answer = short::models(&self.settings, wanted, head).await;
            return answer.unwrap_or_else(|error| refuse(error, ErrorForm::OpenAi));
        }
        let short = openai::Route::of(path.decoded());
        let target = short.map(|route| Target { account: None, endpoint: route.endpoint(), model: None });
        match target.map_or_else(|| Route::of(path.decoded()), Route::Call) {
            Route::Call(target) => {
                let arrived = Arrived::of(target, short, &uri, head);
                answer_call(&self.settings, &mut self.inner, arrived, body).await
            }
            Route::Other(other) => {
                if let Some(elsewhere) = Elsewhere::counted(&self.settings, &head.method, &other, &path) {
                    let target = elsewhere.target(other.account);
                    let elsewhere = Some(elsewhere);
                    let arrived = Arrived { elsewhere, ..Arrived::of(target, None, &uri, head) };
                    return Box::pin(answer_call(&self.settings, &mut self.inner, arrived, body)).await;
                }
                let form = ErrorForm::of_path(path.decoded());
                match admitted(&self.settings, head, &uri, &path, &other).await {
                    Ok(head) => {
                        let body = Body::stream(Paced::new(body, self.settings.body_pace));
                        pass(&mut self.through, Request::from_parts(head, body), form).await
                    }
                    Err(error) => refuse(error, form),
                }
            }
            Route::Universal(universal) if universal.is_known(&self.settings) => {
                // Few requests are so, and their future is large.
                Box::pin(universal.answer(&self.settings, &mut self.inner, head, body)).await
            }
            Route::Universal(_) | Route::Unknown => match Estimated::of(path.decoded()) {
                Some(Estimated { target, route }) => {
                    let arrived = Arrived { is_dry: true, ..Arrived::of(target, route, &uri, head) };
                    answer_call(&self.settings, &mut self.inner, arrived, body).await
                }
                None => refuse(unknown_path(path.decoded()), ErrorForm::of_path(path.decoded())),
            },
        }
    }
}

/// The head of what is no call, as it leaves: with its path in canonical form, and with whose authorisation it passes, if it may.
async fn admitted(
    settings: &Settings,
    head: &mut request::Parts,
    uri: &Uri,
    path: &CanonicalPath<'_>,
    other: &Other<'_>,
) -> Result<request::Parts, Error> {
    if let Some(client) = settings.keys.admit(&mut head.headers, head.extensions.get())?
        && let Some(turn) = client.take_turn(settings.turns.as_deref())?
    {
        turn.await?;
    }
    GateHeaders::refuse_any(&head.headers)?;
    let credentials = pass::credentials(settings, &head.method, path, other, &head.headers)?;
    let no_url = |error| Error::Malformed(format!("the path makes no URL: {error}"));
    let uri =
        if path.encoded() == uri.path() { uri.clone() } else { with_path(uri, path.encoded()).map_err(no_url)? };
    let (nothing, ()) = Request::new(()).into_parts();
    let mut head = mem::replace(head, nothing);
    head.uri = uri;
    head.extensions.insert(credentials);
    Ok(head)
}

async fn pass<P>(through: &mut P, request: Request<Body>, form: ErrorForm) -> Response<ReplyBody>
where
    P: Service<Request<Body>, Response = Reply, Error = Error>,
{
    let reply = match poll_fn(|cx| through.poll_ready(cx)).await {
        Ok(()) => through.call(request).await,
        Err(error) => Err(error),
    };
    match reply {
        Ok(reply) => reply.map(ReplyBody::unmetered),
        Err(error) => refuse(error, form),
    }
}

fn with_path(uri: &Uri, path: &str) -> Result<Uri, http::Error> {
    let mut parts = uri.clone().into_parts();
    let query = uri.query().map_or_else(String::new, |query| format!("?{query}"));
    parts.path_and_query = Some(PathAndQuery::try_from(format!("{path}{query}"))?);
    Ok(Uri::from_parts(parts)?)
}
