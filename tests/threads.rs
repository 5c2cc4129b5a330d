//! Layers that threads share, each with a runtime of its own, as the sidecar's workers do.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use http::Response;
use http_body_util::BodyExt;
use tokio::sync::{Notify, oneshot};
use tollgate::body::Body;
use tollgate::call::{Call, Endpoint};
use tollgate::catalogue::{Catalogue, Limit, Task};
use tollgate::layers::cache::{self, CacheLayer};
use tollgate::layers::rate_limit::{self, RateLimitLayer};
use tower::{Layer, ServiceExt, service_fn};

const MODEL: &str = "@cf/meta/llama-3.2-1b-instruct";
const THREADS: usize = 8;

fn call(prompt: &str) -> Call {
    let model = Catalogue::default().find(MODEL, Task::TextGeneration);
    Call::new("023e", model, Endpoint::Run, format!(r#"{{"prompt": "{prompt}", "temperature": 0}}"#)).unwrap()
}

fn answer(text: &str) -> Response<Body> {
    let body = format!(r#"{{"result":{{"response":"{text}"}},"success":true}}"#);
    Response::builder().header("content-type", "application/json").body(Body::from(body)).unwrap()
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(work)
}

/// Does the same on all threads at once.
fn on_all<T: Send>(work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let (together, work) = (Barrier::new(THREADS), &work);
    thread::scope(|scope| {
        let begin = |number| {
            let together = &together;
            scope.spawn(move || {
                together.wait();
                work(number)
            })
        };
        let threads: Vec<_> = (0..THREADS).map(begin).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn a_limit_holds_over_all_threads_together_and_loses_none_of_its_permits() {
    const LIMIT: u32 = 300;
    let layer = || {
        let models = [(MODEL.to_owned(), Limit::a_minute(LIMIT).into())].into();
        RateLimitLayer::new(rate_limit::Settings { models, ..Default::default() })
    };
    let (shared, alone) = (layer(), layer());
    let at_once = (0..2 * LIMIT).filter(|_| alone.try_take(&call("x"))).count();
    let taken: usize = on_all(|_| (0..2 * LIMIT).filter(|_| shared.try_take(&call("x"))).count()).iter().sum();
    // More of the window's permits may come free while the threads go on.
    assert!((at_once..=LIMIT as usize).contains(&taken), "{taken} of {LIMIT}, {at_once} by one thread");
    assert_eq!(shared.snapshot()[0].remaining as usize, LIMIT as usize - taken);
}

#[test]
fn a_question_that_all_threads_ask_at_once_is_asked_upstream_once() {
    const QUESTIONS: usize = 50;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let upstream = service_fn(move |call: Call| {
        let number = counted.fetch_add(1, Ordering::SeqCst);
        async move {
            tokio::task::yield_now().await;
            drop(call);
            Ok::<_, Infallible>(answer(&format!("the {number}th")))
        }
    });
    let layer = CacheLayer::new(cache::Settings::default());
    let stack = layer.layer(upstream);
    for question in 0..QUESTIONS {
        let answers: BTreeSet<_> = on_all(|_| {
            run(async {
                let reply = stack.clone().oneshot(call(&format!("question {question}"))).await.unwrap();
                reply.into_body().collect().await.unwrap().to_bytes()
            })
        })
        .into_iter()
        .collect();
        assert_eq!(answers.len(), 1, "all are told the same: {answers:?}");
        assert_eq!(asked.load(Ordering::SeqCst), question + 1, "once each");
    }
    assert_eq!(layer.flights(), 0, "nothing is left of it");
}

#[test]
fn who_began_a_call_and_leaves_with_his_thread_strands_nobody() {
    for _ in 0..20 {
        let (reply, replied) = oneshot::channel::<Response<Body>>();
        let replied = Arc::new(std::sync::Mutex::new(Some(replied)));
        let upstream = service_fn(move |_: Call| {
            let replied = replied.lock().unwrap().take();
            async move { Ok::<_, Infallible>(replied.unwrap().await.unwrap()) }
        });
        let layer = CacheLayer::new(cache::Settings::default());
        let stack = layer.layer(upstream);
        let (waits, waiting) = mpsc::channel();
        let leave = Notify::new();
        thread::scope(|scope| {
            let first = scope.spawn(|| {
                run(async {
                    let mut asking = pin!(stack.clone().oneshot(call("x")));
                    let begun = poll_fn(|cx| Poll::Ready(asking.as_mut().poll(cx).is_pending())).await;
                    waits.send(begun).unwrap();
                    leave.notified().await;
                });
            });
            assert!(waiting.recv().unwrap(), "it waits for upstream");
            let others: Vec<_> = (0..THREADS)
                .map(|_| {
                    let waits = waits.clone();
                    let stack = &stack;
                    scope.spawn(move || {
                        run(async {
                            let mut asking = pin!(stack.clone().oneshot(call("x")));
                            let mut is_new = true;
                            let asking = poll_fn(|cx| {
                                let polled = asking.as_mut().poll(cx);
                                if std::mem::take(&mut is_new) {
                                    waits.send(polled.is_pending()).unwrap();
                                }
                                polled
                            });
                            let reply = tokio::time::timeout(Duration::from_secs(60), asking).await;
                            let reply = reply.expect("somebody drives the call").unwrap();
                            reply.into_body().collect().await.unwrap().to_bytes()
                        })
                    })
                })
                .collect();
            for _ in 0..THREADS {
                assert!(waiting.recv().unwrap(), "they wait for the same");
            }
            leave.notify_one();
            first.join().unwrap();
            reply.send(answer("at last")).unwrap();
            for other in others {
                assert!(other.join().unwrap().starts_with(br#"{"result":{"response":"at last"#));
            }
        });
        assert_eq!(layer.flights(), 0);
    }
}
