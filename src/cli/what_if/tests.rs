//! A week of calls through a whole gate, on record, and then replayed.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::json;
use tokio::time::Instant;
use tower::{ServiceExt, service_fn};

use super::changes::Changes;
use super::clock;
use super::comparison::Comparison;
use super::replay::{Replay, Setting};
use crate::affinity::{Affinity, SessionBy};
use crate::amount::Currency;
use crate::body::Body;
use crate::catalogue::Catalogue;
use crate::gateway::{Settings, stack};
use crate::layers::budget::{Period, Rule, Split};
use crate::layers::identify;
use crate::neurons::Neurons;
use crate::readers::records::{Archive, Records};
use crate::receipt::{CallId, Facts, Reader};
use crate::sidecar::config::{Config, Variables};
use crate::sidecar::replayed::Layers;
use crate::upstream::Target;
use crate::usage::Usage;

const STEADY: &str = "@cf/meta/llama-3.2-1b-instruct";
const BURSTS: &str = "@cf/meta/llama-3.2-3b-instruct";
const DEAR: &str = "@cf/mistralai/mistral-small-3.1-24b-instruct";
const CHEAP: &str = "@cf/meta/llama-3.1-8b-instruct-fp8-fast";
const WEEK_MS: u64 = 7 * 24 * 3600 * 1000;
/// A Monday, 00:00 UTC.
const BEGAN_MS: u64 = 1_795_392_000_000;

/// Puts receipts on record as of the moment that the clock of the week tells.
struct OnRecord {
    records: Arc<Records>,
    began: Instant,
}

impl Reader for OnRecord {
    fn sealed(&self, facts: &Facts) {
        let mut facts = facts.clone();
        let at = Duration::from_millis(BEGAN_MS) + facts.opened_at.duration_since(self.began);
        facts.received_at = SystemTime::UNIX_EPOCH + at;
        let order = u128::from_be_bytes(facts.id.to_bytes()) & ((1 << 80) - 1);
        facts.id = CallId::from_bytes((at.as_millis() << 80 | order).to_be_bytes());
        self.records.sealed(&facts);
    }
}

/// One request of the week.
struct Asked {
    at_ms: u64,
    model: &'static str,
    team: &'static str,
    body: String,
    /// The client leaves.
    leaves_after: Option<Duration>,
}

fn week() -> Vec<Asked> {
    let mut all = Vec::new();
    let ask = |at_ms, model, team, body: serde_json::Value| Asked {
        at_ms,
        model,
        team,
        body: body.to_string(),
        leaves_after: None,
    };
    // A call every ten minutes; some are asked anew a minute later, with a seed, and some clients leave.
    for n in 0..WEEK_MS / 600_000 {
        let at_ms = n * 600_000 + n * 37 % 1000;
        let body = json!({"prompt": format!("What is {n}?"), "max_tokens": 100 + n % 80, "seed": 1});
        all.push(ask(at_ms, STEADY, "search", body.clone()));
        match n % 20 {
            5 | 15 => all.push(ask(at_ms + 60_000, STEADY, "search", body)),
            10 => all.push(Asked {
                leaves_after: Some(Duration::from_millis(90)),
                ..ask(at_ms + 10, STEADY, "search", json!({"prompt": format!("Slowly, {n}"), "max_tokens": 40}))
            }),
            _ => {}
        }
    }
    // Forty at once, twice a day, of a model that takes twenty a minute.
    for burst in 0..14 {
        for n in 0..40 {
            let body = json!({"prompt": format!("Burst {burst} {n}"), "max_tokens": 50});
            all.push(ask(burst * WEEK_MS / 14 + 3_600_000 + n / 8, BURSTS, "batch", body));
        }
    }
    // A dear model, whose budget is spent before the day is.
    for n in 0..WEEK_MS / 1_200_000 {
        let body = json!({"prompt": format!("Essay {n}"), "max_tokens": 600, "fails": n % 50 == 3});
        all.push(ask(n * 1_200_000 + 77, DEAR, "essays", body));
    }
    all.sort_by_key(|asked| asked.at_ms);
    all
}

/// What every model answers, after a while that depends on the question.
async fn vendor(request: Request<Body>) -> Result<Response<Body>, crate::Error> {
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let n = body.iter().map(|byte| u64::from(*byte)).sum::<u64>();
    tokio::time::sleep(Duration::from_millis(120 + n % 700)).await;
    let asked: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let (status, told) = match asked["fails"].as_bool() {
        Some(true) => (400, json!({"success": false, "errors": [{"code": 5006, "message": "no"}]})),
        _ => {
            let wrote = asked["max_tokens"].as_u64().unwrap_or(100).min(20 + n % 400);
            (
                200,
                json!({"result": {"response": "Yes.", "usage": {"prompt_tokens": 20 + n % 13, "completion_tokens": wrote}}}),
            )
        }
    };
    let reply =
        Response::builder().status(StatusCode::from_u16(status).unwrap()).header("content-type", "application/json");
    Ok(reply.body(Body::from(Bytes::from(told.to_string()))).unwrap())
}

fn config() -> Config {
    let mut config = Config::default();
    let text = format!(
        "limits.max_wait = \"30s\"\nlimits.models.\"{BURSTS}\" = {{ requests = 20 }}\n\
         [[budgets]]\nname = \"teams\"\nlimit = \"700 neurons\"\nwindow = \"day\"\nsplit_by = [\"metadata.team\"]\n"
    );
    let set: toml::Table = text.parse().unwrap();
    config.limits = set["limits"].clone().try_into().unwrap();
    config.budgets = set["budgets"].clone().try_into().unwrap();
    config
}

/// Lives the week and puts it on record.
fn live(config: &Config, path: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        clock::begin(SystemTime::UNIX_EPOCH + Duration::from_millis(BEGAN_MS));
        let began = Instant::now();
        let mut settings = crate::readers::records::Settings::default();
        settings.path = path.to_owned();
        settings.retention = Duration::from_secs(3650 * 24 * 3600);
        let records = Records::open(settings).unwrap();
        let catalogue = Arc::new(Catalogue::default());
        let Layers { cache, budget, retry, rate_limit } =
            Layers::of(config, &catalogue, Arc::new(clock::Replayed), clock::wall).unwrap();
        let mut door = identify::Settings::default();
        (door.account, door.has_token, door.catalogue) = (Some("acc".into()), true, catalogue);
        door.digests = Affinity::new(SessionBy::Auto);
        door.readers = Arc::new([Arc::new(OnRecord { records: records.clone(), began }) as Arc<dyn Reader>]);
        let target = Target::new("http://vendor.test").unwrap().with_token("t").unwrap();
        let gate = stack(service_fn(vendor), target, Settings { identify: door, cache, budget, retry, rate_limit });
        let mut clients = tokio::task::JoinSet::new();
        for asked in week() {
            tokio::time::sleep_until(began + Duration::from_millis(asked.at_ms)).await;
            let request = Request::post(format!("/run/{}", asked.model))
                .header("content-type", "application/json")
                .header("cf-aig-metadata", format!(r#"{{"team":"{}"}}"#, asked.team))
                .body(Body::from(asked.body))
                .unwrap();
            let reply = gate.clone().oneshot(request);
            let whole = async move { drop(reply.await.unwrap().into_body().collect().await) };
            let stays = asked.leaves_after.unwrap_or(Duration::from_secs(3600));
            clients.spawn(async move { drop(tokio::time::timeout(stays, whole).await) });
        }
        while clients.join_next().await.is_some() {}
        drop(gate);
        records.close();
        assert_eq!(records.stats().lost, 0);
    });
}

fn replayed(archive: &Archive, config: &Config, changes: &Changes) -> Comparison {
    let (from_ms, until_ms) = (BEGAN_MS, BEGAN_MS + WEEK_MS + 3_600_000);
    let replay = Replay { archive, from_ms, until_ms, labels: BTreeMap::new() };
    let changed = changes.of(config, &Variables::new()).unwrap();
    let catalogue = |config: &Config| Arc::new(Catalogue::with(&config.models));
    let mut setting = Setting::of(&changed, catalogue(&changed));
    if changes.are_any() {
        setting.was = (config, catalogue(config));
        setting.models = changes.models().unwrap();
    }
    replay.through(&setting).unwrap()
}

#[test]
fn a_week_that_is_replayed_unchanged_is_the_week_that_was_and_changes_have_the_gates_own_arithmetic() {
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("tollgate.db");
    let config = config();
    live(&config, &path);
    let archive = Archive::open(&path).unwrap();

    let told = replayed(&archive, &config, &Changes::default());
    let (was, is) = (&told.recorded, &told.replayed);
    println!("{:?}\n{:?}\nthe same: {} of {}", was.outcomes, is.outcomes, told.same, was.calls);
    println!("neurons {} and {}; waited {} and {} us", was.neurons, is.neurons, was.waited_us, is.waited_us);
    for outcome in ["ok", "cache_hit", "rate_limited", "budget_exceeded", "client_error", "aborted"] {
        assert!(was.outcome(outcome) > 0, "the week has no {outcome}");
    }
    assert_eq!(was.neurons, is.neurons);
    assert!(told.same * 1000 >= was.calls * 999, "{} of {}", told.same, was.calls);
    assert!(was.waited_us > 1_000_000_000, "{}", was.waited_us);
    assert!(is.waited_us.abs_diff(was.waited_us) * 50 <= was.waited_us, "{} and {}", is.waited_us, was.waited_us);
    assert_eq!((told.assumed.0, told.unpriced, told.unbounded), (0, 0, 0));

    // Without a cache each hit is paid for once more.
    let changes = Changes { cache_ttl: Some(Duration::ZERO), ..Changes::default() };
    let uncached = replayed(&archive, &config, &changes);
    println!("uncached: {:?}, {:?}", uncached.replayed.outcomes, uncached.refused_by);
    assert_eq!(uncached.replayed.outcome("cache_hit"), 0);
    assert_eq!(uncached.replayed.neurons, was.neurons + was.saved);

    // Another model's price, by the tokens that were counted.
    let changes = Changes { models: vec![format!("{BURSTS}={CHEAP}")], ..Changes::default() };
    let moved = replayed(&archive, &config, &changes);
    let cheap = Catalogue::default().get(CHEAP).unwrap();
    let mut expected = Neurons::ZERO;
    let mut after = None;
    loop {
        let page = archive.past(BEGAN_MS, BEGAN_MS + 2 * WEEK_MS, after.as_ref()).unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.clone());
        for past in page.iter().filter(|past| past.model == BURSTS && past.outcome == "ok") {
            expected += cheap.prices.cost(&Usage::tokens(past.input_tokens, 0, past.output_tokens));
        }
    }
    // That model takes more calls a minute, so what was refused is answered.
    assert_eq!(moved.replayed.outcome("rate_limited"), 0);
    assert_eq!(moved.replayed.models[CHEAP].1.saturating_sub(moved.assumed.1), expected);

    // Half of the budget: no bucket of no day spends more than that.
    let changes = Changes { budgets: vec!["teams=350 neurons".into()], ..Changes::default() };
    let halved = replayed(&archive, &config, &changes);
    assert!(halved.replayed.outcome("budget_exceeded") > was.outcome("budget_exceeded"));
    let dear = halved.replayed.models[DEAR].1;
    assert!(dear <= Neurons::from_whole(7 * 350), "{dear}");
    assert_eq!(halved.refused_by.keys().collect::<Vec<_>>(), ["teams"]);

    // Room for all that come at once: nobody waits.
    let changes = Changes { limits: vec![format!("{BURSTS}=400/1m")], ..Changes::default() };
    let roomy = replayed(&archive, &config, &changes);
    assert_eq!((roomy.replayed.waited_us, roomy.replayed.outcome("rate_limited")), (0, 0));
    assert_eq!(roomy.assumed.0, was.outcome("rate_limited"));
}

#[test]
fn what_is_to_be_changed_is_read_or_told_to_be_wrong() {
    let change = |changes: Changes| changes.of(&config(), &Variables::new());
    let wrong = |changes: Changes| match change(changes) {
        Err(crate::cli::Failure::Usage(why)) => why,
        _ => panic!("was taken"),
    };
    for budget in ["teams", "teams=5", "teams=5 USD/fortnight", "=x"] {
        let why = wrong(Changes { budgets: vec![budget.into()], ..Changes::default() });
        assert!(why.contains("write it like"), "{why}");
    }
    for limit in [BURSTS, "m=0", "m=3/0s", "m=x/1m"] {
        assert!(wrong(Changes { limits: vec![limit.into()], ..Changes::default() }).contains("write it like"));
    }
    assert!(Changes { models: vec!["A".into()], ..Changes::default() }.models().is_err());
    let changed = change(Changes { budgets: vec!["new=2 USD/week".into()], ..Changes::default() }).ok().unwrap();
    assert_eq!(changed.budgets[1], Rule::new("new", Currency::Usd.of(Neurons::from_usd(2.0)), Period::Week));
    assert_eq!(changed.budgets[0].split_by, [Split::Metadata("team".into())]);
}
