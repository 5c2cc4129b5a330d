//! Every shape that once got past the numbers, with what is to be made of it: `tests/corpus/*.json`.

use std::sync::{Arc, Mutex};

use base64::Engine;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use serde::Deserialize;
use tollgate::body::Body;
use tollgate::gateway::Gateway;
use tollgate::layers::retry;
use tollgate::neurons::Neurons;
use tollgate::receipt::{CacheStatus, Facts, Outcome, Reader};
use tollgate::simulator::{Coercion, Writes};
use tollgate::upstream::Around;
use tower::{ServiceExt, service_fn};

use crate::bounds;
use crate::requests::Asked;
use crate::world::World;

/// A file of the corpus.
#[derive(Deserialize)]
struct Shapes {
    shapes: Vec<Shape>,
}

/// A request, and what is to be made of it.
#[derive(Deserialize)]
struct Shape {
    name: String,
    path: String,
    #[serde(default)]
    content_type: Option<String>,
    #[serde(default)]
    content_encoding: Option<String>,
    /// As text, or as base64 where it is none.
    #[serde(default)]
    body: Option<String>,
    #[serde(default)]
    body_base64: Option<String>,
    /// The vendor takes it.
    taken: bool,
    /// What the vendor charges at the worst, in neurons, at least.
    #[serde(default)]
    costs_neurons: f64,
}

impl Shape {
    fn asked(&self) -> Asked {
        let body = match (&self.body, &self.body_base64) {
            (Some(text), None) => text.clone().into_bytes(),
            (None, Some(base64)) => base64::engine::general_purpose::STANDARD.decode(base64).unwrap(),
            _ => panic!("{}: a shape has one body", self.name),
        };
        let coding = self.content_encoding.clone().map(|coding| &*coding.leak());
        Asked { path: self.path.clone(), content_type: self.content_type.clone(), content_encoding: coding, body }
    }
}

fn shapes() -> Vec<Shape> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let of_file = |path: std::path::PathBuf| {
        let text = std::fs::read_to_string(&path).unwrap();
        let file: Shapes = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        file.shapes
    };
    files.into_iter().filter(|path| path.extension().is_some_and(|kind| kind == "json")).flat_map(of_file).collect()
}

#[test]
fn every_shape_of_the_corpus_is_bounded_and_passes_as_it_is() {
    let world = World::new(Writes::ToTheLimit, Coercion::Dear);
    let mut wrong = String::new();
    for shape in shapes() {
        let asked = shape.asked();
        let taken = world.ask_vendor(&asked, &[]).0.is_success();
        if taken != shape.taken {
            wrong += &format!("\n{}: taken by the vendor: {taken}", shape.name);
        }
        let came = world.ask(&asked, &[]);
        if came.arrived.is_some() && came.charged < Neurons::from_f64(shape.costs_neurons) {
            wrong += &format!("\n{}: the vendor charges {}", shape.name, came.charged);
        }
        if let Err((kind, figures)) = bounds::judge(&world, &asked, &came) {
            wrong += &format!("\n{}: {kind}: {figures}", shape.name);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// A file of replies.
#[derive(Deserialize)]
struct Replies {
    replies: Vec<Reply>,
}

/// A reply, and what is to be made of it.
#[derive(Clone, Deserialize)]
struct Reply {
    name: String,
    path: String,
    model: String,
    status: u16,
    content_type: String,
    body: String,
    /// It is an answer; absent where both may be said.
    ok: Option<bool>,
    /// Tokens read and written.
    tokens: Option<(u64, u64)>,
    /// It is kept for whoever asks the same.
    kept: bool,
}

#[derive(Default)]
struct Sealed(Mutex<Vec<Facts>>);

impl Reader for Sealed {
    fn sealed(&self, facts: &Facts) {
        self.0.lock().unwrap().push(facts.clone());
    }
}

impl Reply {
    /// The receipts of two calls that get this reply, the second one perhaps from the cache.
    fn asked_twice(&self) -> Vec<Facts> {
        let reply = self.clone();
        let vendor = service_fn(move |_: Request<Body>| {
            let answer = Response::builder().status(reply.status).header("content-type", &reply.content_type);
            let answer = answer.body(Full::<bytes::Bytes>::from(reply.body.clone())).unwrap();
            async { Ok::<_, std::io::Error>(answer) }
        });
        let mut retries = retry::Settings::default();
        retries.max_attempts = 1;
        let sealed = Arc::new(Sealed::default());
        let builder = Gateway::builder().account("acc").token("t").base_url("http://127.0.0.1:1").retry(retries);
        let gate = builder.reader(sealed.clone()).build_around(Around::new(vendor)).unwrap();
        let stream = self.content_type == "text/event-stream";
        let body = format!(
            r#"{{"model":"{}","messages":[{{"role":"user","content":"x"}}],"input":"x","temperature":0,"stream":{stream}}}"#,
            self.model
        );
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for _ in 0..2 {
            let request = Request::post(&self.path).header("content-type", "application/json");
            let request = request.body(Body::from(body.clone())).unwrap();
            runtime.block_on(async {
                let reply = gate.clone().oneshot(request).await.unwrap();
                let _ = reply.into_body().collect().await;
            });
        }
        sealed.0.lock().unwrap().clone()
    }

    /// What is wrong with the receipts.
    fn wrong(&self) -> Option<String> {
        let facts = self.asked_twice();
        let (first, second) = (&facts[0], &facts[1]);
        let is_ok = first.outcome == Outcome::Ok;
        if self.ok.is_some_and(|ok| ok != is_ok) {
            return Some(format!("told as {:?}", first.outcome));
        }
        let told = (first.usage.input_tokens, first.usage.output_tokens);
        if self.tokens.is_some_and(|tokens| tokens != told) {
            return Some(format!("counted {told:?} tokens, for {}", first.cost.neurons));
        }
        let kept = second.cache == CacheStatus::Hit;
        (kept != self.kept).then(|| format!("kept: {kept}"))
    }
}

#[test]
fn every_reply_of_the_corpus_is_judged_by_its_end() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus/replies/replies.json");
    let replies: Replies = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let wrong = replies.replies.iter().filter_map(|reply| Some(format!("\n{}: {}", reply.name, reply.wrong()?)));
    let wrong: String = wrong.collect();
    assert!(wrong.is_empty(), "{wrong}");
}
