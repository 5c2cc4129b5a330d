//! What a hundred thousand rate limiters weigh: all that is allocated, before and after.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::{Arc, Mutex};

use http::{Request, Response};
use tollgate::body::Body;
use tollgate::call::Call;
use tollgate::layers::identify::{Identify, Settings};
use tollgate::layers::rate_limit::RateLimitLayer;
use tower::{ServiceExt, service_fn};

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

const LIMITERS: usize = 100_000;

async fn a_call() -> Call {
    let kept = Arc::new(Mutex::new(None));
    let keeper = kept.clone();
    let model = service_fn(move |call: Call| {
        *keeper.lock().unwrap() = Some(call);
        async { Ok::<_, tollgate::Error>(Response::new(Body::empty())) }
    });
    let rest = service_fn(|_: Request<Body>| async { Ok::<_, tollgate::Error>(Response::new(Body::empty())) });
    let mut settings = Settings::default();
    (settings.account, settings.has_token) = (Some("acc".into()), true);
    let request = Request::post("/run/@cf/meta/llama-3.2-1b-instruct").body(Body::from("{}")).unwrap();
    Identify::new(settings, model, rest).oneshot(request).await.unwrap();
    kept.lock().unwrap().take().unwrap()
}

#[tokio::test]
async fn a_hundred_thousand_limiters_weigh_less_than_256_bytes_each() {
    let _profiler = dhat::Profiler::builder().testing().build();
    let mut call = a_call().await;
    let mut weigh = |name: &str, ask: fn(&mut Call, String)| {
        let layer = RateLimitLayer::default();
        let before = dhat::HeapStats::get().curr_bytes;
        for n in 0..LIMITERS {
            ask(&mut call, format!("{n:032x}"));
            assert!(layer.try_take(&call));
        }
        assert_eq!(layer.len(), LIMITERS);
        let each = (dhat::HeapStats::get().curr_bytes - before) / LIMITERS;
        println!("{name}: {each} bytes each");
        assert!(each < 256, "{each} bytes");
    };
    weigh("an account each", |call, name| call.account = name.into());
    weigh("an account and a key each", |call, name| {
        call.account = name.as_str().into();
        call.key = Some(name.into());
    });
}
