//! Connections, and the road of a request: refused, broken, or answered and charged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use serde_json::json;

use super::answers::Job;
use super::books_trouble::BooksTrouble;
use super::connection::Socket;
use super::envelope::envelope;
use super::errors::Form;
use super::fault::{Fault, Trouble};
use super::pace::Pace;
use super::prompt::{Prompt, Sent};
use super::received::{MAX_BODY, Received, Refusal, error};
use super::reply::json_reply;
use super::route::{Route, Wants};
use super::sockets::{self, SocketRequest};
use super::state::State;
use super::{dice, js, router, search};
use crate::body::Body;
use crate::catalogue::Model;
use crate::headers::CF_AIG_ROUTED_MODEL;

/// The request's connection is closed, with no reply.
#[derive(Debug, thiserror::Error)]
#[error("the simulated upstream closed the connection")]
struct Closed;

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

// === impl State ===

impl State {
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
        let routed = router::chosen(call, name);
        let model = self.catalogue().get(routed.as_deref().unwrap_or(name)).ok_or_else(|| error(5007))?;
        if route.wants == Wants::Messages && prompt.field("max_tokens").is_none() {
            return Err(error(5006));
        }
        self.admit(&route.account, &model)?;
        let pace = Pace::of(&model.id, self.settings.latency);
        let mut reply = self.run(Job { call, route: &route, sent: &sent, prompt, model: &model, fault, pace }).await;
        if let Some(name) = routed.filter(|_| reply.status().is_success()).and_then(|name| name.parse().ok()) {
            reply.headers_mut().insert(CF_AIG_ROUTED_MODEL, name);
        }
        Ok(reply)
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
        let wanted = SocketRequest { account, model, dialect, query, fault };
        Ok(sockets::accept(self, wanted, upgrade, &call.headers))
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
