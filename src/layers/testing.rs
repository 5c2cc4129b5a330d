//! What the layers' tests share: calls that came by no wire, and a vendor that is a function.

#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Response, StatusCode};
use parking_lot::Mutex;
use tower::Service;

use super::{Reply, ReplyFuture, identify};
use crate::Error;
use crate::body::Body;
use crate::call::{Ask, Call, Endpoint};
use crate::catalogue::{Catalogue, Model, Task, Text};
use crate::receipt::{Facts, Reader, Readers, Receipt};
use crate::vendor_error::VendorError;

/// Keeps sealed receipts.
#[derive(Clone, Default)]
pub(crate) struct Sealed(pub(crate) Arc<Mutex<Vec<Facts>>>);

impl Reader for Sealed {
    fn sealed(&self, receipt: &Facts) {
        self.0.lock().push(receipt.clone());
    }
}

impl Sealed {
    pub(crate) fn readers(&self) -> Readers {
        Arc::new([Arc::new(self.clone()) as Arc<dyn Reader>])
    }
}

pub(crate) const LLAMA: &str = "@cf/meta/llama-3.2-1b-instruct";

/// A call that nobody reads the receipt of.
pub(crate) fn call(model: &str, body: &str) -> Call {
    call_read_by(Arc::new([]), model, body)
}

/// A native call with this body, as JSON text, for account `acc`.
pub(crate) fn call_read_by(readers: Readers, model: &str, body: &str) -> Call {
    call_on(readers, Catalogue::default().find(model, Task::TextGeneration), body)
}

/// The same for a model that is at hand.
pub(crate) fn call_on(readers: Readers, model: Arc<Model>, body: &str) -> Call {
    let receipt = Receipt::open(readers, model.clone());
    let (account, body_bytes) = ("acc".into(), Bytes::copy_from_slice(body.as_bytes()));
    let stream = body.contains("\"stream\":true");
    Call { stream, ..Call::plain(receipt, account, model, Endpoint::Run, measured(body), body_bytes) }
}

/// What JSON asks for; what is none is a text.
fn measured(body: &str) -> Ask {
    let text = || Ask { text: Text::of(body), ..Ask::default() };
    identify::measure(body.as_bytes(), "application/json", Endpoint::Run).unwrap_or_else(|_| text())
}

/// A service that answers with what a function makes of each call.
#[derive(Clone)]
pub(crate) struct Vendor<F>(pub(crate) F);

impl<F, Fut> Service<Call> for Vendor<F>
where
    F: FnMut(Call) -> Fut,
    Fut: Future<Output = Result<Reply, Error>> + Send + 'static,
{
    type Response = Reply;
    type Error = Error;
    type Future = ReplyFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, call: Call) -> ReplyFuture {
        Box::pin((self.0)(call))
    }
}

/// A good answer.
pub(crate) fn ok(body: &'static str) -> Reply {
    Response::new(Body::from(body))
}

/// The vendor's no, as the meter hands it on.
pub(crate) fn refusal(status: u16, code: Option<u32>) -> Reply {
    let status = StatusCode::from_u16(status).unwrap();
    let error = VendorError::new(status, code, "");
    let mut reply = Response::new(Body::from("{}"));
    *reply.status_mut() = status;
    reply.extensions_mut().insert(error);
    reply
}

/// Where each version's files are: those that releases left in `tests/data/kept/VERSION`, and `this` one's, which are kept there
/// too where `TOLLGATE_KEEP` is set.
pub(crate) fn versions(this: &Path) -> Vec<PathBuf> {
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/kept");
    let files = |place: &Path| std::fs::read_dir(place).unwrap().map(|file| file.unwrap().path()).collect::<Vec<_>>();
    if std::env::var_os("TOLLGATE_KEEP").is_some() {
        let place = kept.join(env!("CARGO_PKG_VERSION"));
        std::fs::create_dir_all(&place).unwrap();
        for file in files(this) {
            std::fs::copy(&file, place.join(file.file_name().unwrap())).unwrap();
        }
    }
    files(&kept).into_iter().chain([this.to_owned()]).collect()
}
