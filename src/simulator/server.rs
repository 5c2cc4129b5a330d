//! Connections, and the road of a request: refused, broken, or answered and charged.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use parking_lot::{Mutex, RwLock};
use serde_json::json;

use super::answers::{Job, json_reply};
use super::batch::Batches;
use super::books::Books;
use super::books_trouble::BooksTrouble;
use super::connection::Socket;
use super::encoding::{self, Undone};
use super::errors::Form;
use super::fault::{Fault, Faults, Trouble};
use super::pace::Pace;
use super::prompt::{NO_JSON, Prompt, Sent};
use super::route::{Route, Wants};
use super::seen::Requests;
use super::sockets::{self, Wanted};
use super::text::envelope;
use super::window::Windows;
use super::{Settings, dice, js, search};
use crate::body::Body;
use crate::catalogue::{Catalogue, Entry, Model};

/// What all connections share.
#[derive(Debug)]
pub(super) struct State {
    pub(super) settings: Settings,
    /// Its prices may change.
    catalogue: RwLock<Arc<Catalogue>>,
    windows: Windows,
    pub(super) books: Books,
    pub(super) batches: Batches,
    pub(super) faults: Faults,
    pub(super) books_trouble: Mutex<Option<BooksTrouble>>,
    pub(super) seen: Requests,
    /// The last prompts that were read where each `x-session-affinity` leads.
    prefixes: Mutex<HashMap<String, VecDeque<String>>>,
}

/// The request's connection is closed, with no reply.
#[derive(Debug, thiserror::Error)]
#[error("the simulated upstream closed the connection")]
struct Closed;

const MAX_BODY: usize = 128 << 20;
const MAX_PREFIXES: usize = 1000;
/// Prompts that a prefix cache keeps of a session.
const MAX_PROMPTS: usize = 16;

pub(super) async fn serve(listener: std::net::TcpListener, state: Arc<State>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        // Each token is to leave at once; a socket that refuses that is only slower.
        let _ = stream.set_nodelay(true);
        let state = state.clone();
        tokio::spawn(async move {
            let (socket, is_reset) = Socket::new(stream);
            let service = service_fn(move |request| answer(state.clone(), request, is_reset.clone()));
            // How a connection ends is the client's business.
            let _ =
                Builder::new(TokioExecutor::new()).serve_connection_with_upgrades(TokioIo::new(socket), service).await;
        });
    }
}

async fn answer(
    state: Arc<State>,
    mut request: Request<Incoming>,
    is_reset: Arc<AtomicBool>,
) -> Result<Response<Body>, Closed> {
    let upgrade = sockets::is_wanted(&request).then(|| hyper::upgrade::on(&mut request));
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await.map_err(|_| Closed)?.to_bytes();
    state.seen.note(&head, &body);
    // The same request has the same id, so that whole replies can be compared.
    let id = format!("{:016x}", dice::seed(&[&String::from_utf8_lossy(&body)]));
    let call = Received { uri: head.uri, method: head.method, headers: head.headers, body, id };
    let judged = match upgrade {
        Some(upgrade) => state.open(&call, upgrade).await,
        None => state.judge(&call).await,
    };
    let mut reply = match judged {
        Ok(reply) => reply,
        Err(Refusal::Told(reply)) => *reply,
        Err(Refusal::Closed) => {
            is_reset.store(true, Ordering::SeqCst);
            return Err(Closed);
        }
    };
    if let Ok(ray) = HeaderValue::from_str(&call.id) {
        reply.headers_mut().insert("cf-ray", ray);
    }
    Ok(reply)
}

/// A request, whole.
pub(super) struct Received {
    pub(super) uri: http::Uri,
    method: http::Method,
    headers: HeaderMap,
    body: Bytes,
    pub(super) id: String,
}

enum Refusal {
    Told(Box<Response<Body>>),
    Closed,
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        fault.reply("8700d6e7").map_or(Self::Closed, |reply| Self::Told(Box::new(reply)))
    }
}

fn error(code: u32) -> Refusal {
    Fault::new(Trouble::Error(code)).into()
}

/// The vendor's error of this code.
pub(super) fn refusal(code: u32) -> Response<Body> {
    Fault::new(Trouble::Error(code)).reply("8700d6e7").unwrap_or_default()
}

impl Received {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    fn content_type(&self) -> &str {
        self.header("content-type").unwrap_or("")
    }

    fn asked_fault(&self) -> Option<Fault> {
        self.header("x-simulate")?.parse().ok()
    }

    /// The body as it was before it was made small for the way.
    fn plain_body(&self) -> Result<Bytes, Refusal> {
        match encoding::undo(self.body.clone(), self.header("content-encoding").unwrap_or(""), MAX_BODY) {
            Undone::Body(body) => Ok(body),
            Undone::Unknown => Err(error(415)),
            Undone::Broken => Err(error(NO_JSON)),
            Undone::TooLarge => Err(error(3006)),
        }
    }
}

// === impl State ===

impl State {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            windows: Windows::new(settings.window),
            catalogue: RwLock::new(Arc::new(Catalogue::with(&settings.models))),
            books: Books::new(settings.elsewhere),
            settings,
            books_trouble: Mutex::default(),
            batches: Batches::default(),
            faults: Faults::default(),
            seen: Requests::default(),
            prefixes: Mutex::default(),
        }
    }

    async fn judge(&self, call: &Received) -> Result<Response<Body>, Refusal> {
        let route = Route::of(call.uri.path()).ok_or_else(|| error(7003))?;
        self.authorize(call)?;
        match route.wants {
            Wants::Search | Wants::GraphQl => return Ok(self.read_books(call, route.wants).await),
            Wants::Other => return Ok(echo(call)),
            _ => {}
        }
        self.books.attempted();
        let is_native = route.wants == Wants::Run;
        let sent = Sent::read(call.plain_body()?, call.content_type(), is_native).await.map_err(error)?;
        let name = route.model.as_deref().or(sent.model()).ok_or_else(|| error(5007))?;
        let name = &*match &route.provider {
            Some(provider) => format!("{provider}/{name}").into(),
            None => std::borrow::Cow::Borrowed(name),
        };
        let prompt = sent.prompt(self.settings.coercion);
        let fault = call.asked_fault().or_else(|| self.faults.draw(name));
        let fault = self.strike(fault, Some(&prompt), &call.id).await?;
        let model = self.catalogue().get(name).ok_or_else(|| error(5007))?;
        if route.wants == Wants::Messages && prompt.field("max_tokens").is_none() {
            return Err(error(5006));
        }
        self.admit(&route.account, &model)?;
        let pace = Pace::of(&model.id, self.settings.latency);
        Ok(self.run(Job { call, route: &route, sent: &sent, prompt, model: &model, fault, pace }).await)
    }

    /// A WebSocket, or why there is none.
    async fn open(self: &Arc<Self>, call: &Received, upgrade: OnUpgrade) -> Result<Response<Body>, Refusal> {
        let query = sockets::query(call.uri.query().unwrap_or(""));
        let path = call.uri.path();
        let by_query = path.strip_prefix("/v1/").and_then(|rest| rest.strip_suffix("/workers-ai")?.split_once('/'));
        let (account, name) = match by_query {
            Some((account, _)) => (account.to_owned(), query.get("model").cloned()),
            None => {
                let route = Route::of(path).filter(|route| route.wants == Wants::Run).ok_or_else(|| error(7003))?;
                (route.account, route.model)
            }
        };
        self.authorize(call)?;
        self.books.attempted();
        let name = name.ok_or_else(|| error(5007))?;
        let fault = call.asked_fault().or_else(|| self.faults.draw(&name));
        let fault = self.strike(fault, None, &call.id).await?;
        let model = self.catalogue().get(&name).ok_or_else(|| error(5007))?;
        let dialect = model.socket.ok_or_else(|| error(5004))?;
        self.admit(&account, &model)?;
        let wanted = Wanted { account, model, dialect, query, fault };
        Ok(sockets::accept(self, wanted, upgrade, &call.headers))
    }

    pub(super) fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.read().clone()
    }

    /// From now on these models are as this says, and all others as they were when it started.
    pub(super) fn revise(&self, models: &BTreeMap<String, Entry>) {
        let mut all = self.settings.models.clone();
        all.extend(models.clone());
        *self.catalogue.write() = Arc::new(Catalogue::with(&all));
    }

    async fn read_books(&self, call: &Received, wants: Wants) -> Response<Body> {
        let trouble = *self.books_trouble.lock();
        if let Some(trouble) = trouble
            && let Some(reply) = trouble.reply(wants == Wants::GraphQl).await
        {
            return reply;
        }
        if wants == Wants::GraphQl {
            let question = serde_json::from_slice(&call.body).unwrap_or_default();
            return json_reply(&self.books.ledger.answer(&question, self.settings.analytics_lag));
        }
        let query = call.uri.query().unwrap_or("");
        match trouble {
            Some(BooksTrouble::EndlessPages) => json_reply(&search::endless_page(query)),
            _ => json_reply(&search::page(&self.catalogue(), query)),
        }
    }

    fn authorize(&self, call: &Received) -> Result<(), Refusal> {
        let sent = call
            .header("authorization")
            .or(call.header("cf-aig-authorization"))
            .and_then(|value| value.strip_prefix("Bearer "));
        match (&self.settings.token, sent) {
            (Some(ours), Some(theirs)) if ours == theirs => Ok(()),
            (None, Some(_)) => Ok(()),
            _ => Err(error(10000)),
        }
    }

    /// Trouble that comes before any answer; what comes within one is handed back.
    async fn strike(
        &self,
        fault: Option<Fault>,
        prompt: Option<&Prompt<'_>>,
        id: &str,
    ) -> Result<Option<Fault>, Refusal> {
        let Some(fault) = fault else { return Ok(None) };
        let told = |fault: Fault| fault.reply(id).map_or(Refusal::Closed, |reply| Refusal::Told(Box::new(reply)));
        if fault.trouble == Trouble::Busy && prompt.is_some_and(wont_wait) {
            return Err(told(fault));
        }
        tokio::time::sleep(fault.slow).await;
        match fault.trouble {
            Trouble::Reset => Err(Refusal::Closed),
            Trouble::Stall => std::future::pending().await,
            Trouble::Error(_) | Trouble::ErrorIn200(_) => Err(told(fault)),
            _ => Ok(Some(fault)),
        }
    }

    fn admit(&self, account: &str, model: &Model) -> Result<(), Refusal> {
        if search::is_gone(model) {
            return Err(error(410));
        }
        if model.paid_plan_only && self.settings.free_neurons.is_some() {
            return Err(Fault { form: Form::Bare, ..Fault::new(Trouble::Error(5035)) }.into());
        }
        if self.settings.free_neurons.is_some_and(|free| self.books.spent(account) >= free) {
            return Err(error(4006));
        }
        let limit = model.limit.requests.get();
        if self.settings.rate_limits && !self.windows.admit(account, &model.id, limit, Instant::now()) {
            self.books.rate_limited();
            return Err(error(3021));
        }
        Ok(())
    }

    /// Tokens that the prefix cache has of this conversation: whole blocks of what was said before.
    pub(super) fn cached(&self, call: &Received, prompt: &Prompt<'_>) -> u64 {
        const BLOCK_TOKENS: u64 = 64;
        let Some(session) = call.header("x-session-affinity") else { return 0 };
        let said = prompt.texts.join("\n");
        let mut prefixes = self.prefixes.lock();
        let is_known = prefixes.contains_key(session);
        let same = |before: &String| before.bytes().zip(said.bytes()).take_while(|(a, b)| a == b).count() as u64;
        let common = prefixes.get(session).into_iter().flatten().map(same).max().unwrap_or(0);
        if is_known || prefixes.len() < MAX_PREFIXES {
            let prompts = prefixes.entry(session.to_owned()).or_default();
            prompts.push_back(said);
            if prompts.len() > MAX_PROMPTS {
                prompts.pop_front();
            }
        }
        common / 5 / BLOCK_TOKENS * BLOCK_TOKENS
    }
}

/// `options.rejectIfBusy`.
fn wont_wait(prompt: &Prompt<'_>) -> bool {
    prompt.field("options").and_then(|options| options.get("rejectIfBusy")).is_some_and(js::View::is_truthy)
}

/// What lies under an account and is no inference: told back, so that a gate's passing it on can be seen.
fn echo(call: &Received) -> Response<Body> {
    let path = call.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    let echo = json!({"method": call.method.as_str(), "path": path, "body_bytes": call.body.len()});
    json_reply(&envelope(echo))
}
