//! Replays calls of the past through the gate's own layers.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use http_body_util::BodyExt;
use tokio::time::Instant;
use tower::{Layer, ServiceExt};

use super::answers::Vendor;
use super::comparison::{Comparison, Lived};
use super::{ask, clock};
use crate::Error;
use crate::call::{Ask, Call, Deadline, Endpoint, Options};
use crate::catalogue::Catalogue;
use crate::cli::Failure;
use crate::cli::usage::failed;
use crate::layers::budget::{OnExceeded, Period, Rule};
use crate::layers::fallback::FallbackLayer;
use crate::layers::identify;
use crate::layers::meter::MeterLayer;
use crate::readers::records::{Archive, Past, Usual};
use crate::receipt::{CacheStatus, Facts, Metadatum, Outcome, Receipt, Source};
use crate::sidecar::config::Config;
use crate::sidecar::replayed::Layers;

/// A time of the records.
pub(super) struct Replay<'a> {
    pub(super) archive: &'a Archive,
    /// In milliseconds since 1970.
    pub(super) from_ms: u64,
    /// In milliseconds since 1970.
    pub(super) until_ms: u64,
    /// The labels of keys, by their names.
    pub(super) labels: BTreeMap<String, BTreeMap<String, String>>,
}

/// What it is replayed through.
pub(super) struct Setting<'a> {
    pub(super) config: &'a Config,
    pub(super) catalogue: Arc<Catalogue>,
    /// What was in force then.
    pub(super) was: (&'a Config, Arc<Catalogue>),
    /// Which model is asked instead of which.
    pub(super) models: BTreeMap<String, String>,
}

/// What goes on meanwhile: of one thread, as the clock is.
struct World<'a> {
    setting: &'a Setting<'a>,
    layers: Layers,
    usual: HashMap<String, Usual>,
    labels: HashMap<String, Arc<BTreeMap<String, String>>>,
    told: RefCell<Comparison>,
    /// Digests of calls that ran in the replay: what answers their repeats is known.
    ran: RefCell<HashSet<u64>>,
    from_ms: u64,
}

const DAY_MS: u64 = 24 * 3600 * 1000;

impl<'a> Setting<'a> {
    /// All as it was.
    pub(super) fn of(config: &'a Config, catalogue: Arc<Catalogue>) -> Self {
        Self { config, was: (config, catalogue.clone()), catalogue, models: BTreeMap::new() }
    }

    /// A model's price is another one than it was.
    fn reprices(&self, model: &str) -> bool {
        let prices = |catalogue: &Catalogue| catalogue.get(model).map(|model| model.prices.clone());
        !Arc::ptr_eq(&self.catalogue, &self.was.1) && prices(&self.catalogue) != prices(&self.was.1)
    }
}

impl Replay<'_> {
    /// Lives it again. It begins with what came before, as far as a window of a budget or an answer in the cache reaches back.
    pub(super) fn through(&self, setting: &Setting<'_>) -> Result<Comparison, Failure> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let runtime = runtime.map_err(|error| Failure::Failed(error.to_string()))?;
        let began_ms = self.from_ms.saturating_sub(reach_ms(setting));
        let usual = self.archive.usual(began_ms, self.until_ms).map_err(failed)?;
        let labels = self.labels.iter().map(|(key, labels)| (key.clone(), Arc::new(labels.clone()))).collect();
        runtime.block_on(async {
            let first = self.archive.past(began_ms, self.until_ms, None).map_err(failed)?;
            let began_ms = first.first().map_or(began_ms, |past| past.received_ms);
            clock::begin(SystemTime::UNIX_EPOCH + Duration::from_millis(began_ms));
            let layers = Layers::of(setting.config, &setting.catalogue, Arc::new(clock::Replayed), clock::wall);
            let layers = layers.map_err(|error| Failure::Usage(error.to_string()))?;
            let (told, ran) = (RefCell::default(), RefCell::default());
            let world = World { setting, layers, usual, labels, told, ran, from_ms: self.from_ms };
            self.live(&world, first, began_ms).await?;
            Ok(world.told.into_inner())
        })
    }

    async fn live(&self, world: &World<'_>, first: Vec<Past>, began_ms: u64) -> Result<(), Failure> {
        let began = Instant::now();
        let (mut page, mut running) = (first, FuturesUnordered::new());
        while let Some(last) = page.last().cloned() {
            for past in page {
                let at = began + Duration::from_millis(past.received_ms - began_ms);
                let mut arrival = std::pin::pin!(tokio::time::sleep_until(at));
                loop {
                    tokio::select! {
                        biased;
                        Some(()) = running.next() => {}
                        () = &mut arrival => break,
                    }
                }
                running.push(world.live(past));
            }
            page = self.archive.past(self.from_ms, self.until_ms, Some(&last)).map_err(failed)?;
        }
        while running.next().await.is_some() {}
        Ok(())
    }
}

/// How far back what comes before still matters, in milliseconds.
fn reach_ms(setting: &Setting<'_>) -> u64 {
    let config = setting.config;
    let may_refuse = |rule: &&Rule| rule.on_exceeded != OnExceeded::Allow;
    let plan = config.account.plan.rule();
    let windows = config.budgets.iter().chain([&plan]).filter(may_refuse).map(|rule| match rule.window {
        Period::Month => Duration::from_millis(31 * DAY_MS),
        window => window.length(),
    });
    let kept = config.cache.models.values().map(|model| model.ttl).chain([config.cache.ttl]);
    let longest = windows.chain(kept).max().unwrap_or_default().min(Duration::from_millis(400 * DAY_MS));
    u64::try_from(longest.as_millis()).unwrap_or(0)
}

/// Nothing that a setting changes decides how these end, or their records do not tell what did.
fn is_beyond(past: &Past) -> bool {
    let by_the_door = past.attempts == 0 && matches!(&*past.outcome, "client_error" | "upstream_error");
    let by_others = matches!(past.refused.as_deref(), Some("over_ceiling" | "free_neurons_used_up" | "unavailable"));
    // What a question means is on no record.
    let by_meaning = past.cache.as_deref() == Some("SEMANTIC_HIT");
    by_the_door || by_others || by_meaning || past.route.as_deref() == Some(Endpoint::Socket.label())
}

fn endpoint(route: Option<&str>) -> Endpoint {
    let all = [Endpoint::ChatCompletions, Endpoint::Embeddings, Endpoint::Responses, Endpoint::Messages];
    all.into_iter().find(|endpoint| Some(endpoint.label()) == route).unwrap_or(Endpoint::Run)
}

impl World<'_> {
    async fn live(&self, past: Past) {
        let lived = match is_beyond(&past) || self.is_kept_from_before(&past) {
            true => as_it_was(&past),
            false => self.live_again(&past).await,
        };
        if past.received_ms >= self.from_ms {
            self.told.borrow_mut().add(&past, lived);
        }
    }

    /// The cache answered it, and from what is on no record here.
    fn is_kept_from_before(&self, past: &Past) -> bool {
        let mut ran = self.ran.borrow_mut();
        let is_hit = matches!(past.cache.as_deref(), Some("HIT" | "COALESCED" | "SHARED"));
        match past.digest {
            None => is_hit,
            Some(digest) if is_hit => !ran.contains(&digest),
            Some(digest) => {
                ran.insert(digest);
                false
            }
        }
    }

    async fn live_again(&self, past: &Past) -> Lived {
        let setting = self.setting;
        let endpoint = endpoint(past.route.as_deref());
        let find = |catalogue: &Catalogue, name: &str| catalogue.find(name, endpoint.guess());
        let asked = match past.step {
            0 => past.model.clone(),
            _ => setting.was.0.aliases.aliases().resolve(&setting.was.1, &past.asked).into_owned(),
        };
        let instead = setting.models.get(&asked);
        let model = find(&setting.catalogue, instead.unwrap_or(&asked));
        let ask = Arc::new(ask::of(past, &find(&setting.was.1, &asked)));
        let usual = self.usual.get(&past.model).copied().unwrap_or_default();
        let reprices = setting.reprices(&past.model);
        let (vendor, is_assumed) = Vendor::of(past, usual, reprices, instead.is_some());
        let is_unpriced = (reprices || instead.is_some()) && !vendor.is_priced_by_tokens() && !past.neurons.is_zero();

        let receipt = Receipt::open(Arc::new([]), model.clone());
        let (key, account): (Option<Arc<str>>, Arc<str>) =
            (past.key.as_deref().map(Into::into), past.account.as_str().into());
        receipt.identify(|facts| {
            facts.account = account.clone();
            facts.endpoint = Some(endpoint);
            facts.labels = past.key.as_ref().and_then(|key| self.labels.get(key)).cloned();
            facts.key = key.clone();
            facts.metadata = metadata(past).into();
        });
        let deadline = Deadline::after(Duration::from_micros(past.duration_us));
        let asked = Ask { seeded: is_kept_for_sure(past), ..Ask::clone(&ask) };
        let body = Bytes::from(format!(r#"{{"prompt":"{:016x}"}}"#, past.digest.unwrap_or(0)));
        let call = Call {
            key,
            options: Arc::new(Options { skip_cache: self.skips_cache(past), ..Options::default() }),
            deadline: deadline.filter(|_| past.refused.as_deref() == Some("queue_timeout")),
            ..Call::plain(receipt.clone(), account, model, endpoint, asked, body)
        };
        let ended = self.ask(call, vendor, &receipt, past).await;
        // The receipt's last handle goes with this one, and the budgets settle.
        let facts = receipt.read(Facts::clone);
        lived(past, &facts, ended, is_assumed, is_unpriced)
    }

    /// The gate's own layers, and the client's patience. `None`: the client left.
    async fn ask(
        &self,
        call: Call,
        vendor: Vendor,
        receipt: &Receipt,
        past: &Past,
    ) -> Option<(Outcome, Option<Error>)> {
        let Layers { cache, budget, retry, rate_limit } = &self.layers;
        let catalogue = &self.setting.catalogue;
        let held = budget.layer(retry.layer(rate_limit.layer(MeterLayer::new(catalogue.clone()).layer(vendor))));
        let stack = cache.layer(FallbackLayer::new(catalogue.clone()).layer(held));
        let asked = async {
            match stack.oneshot(call).await {
                Ok(reply) => {
                    let outcome = identify::outcome(&reply, receipt);
                    // Nothing that a replayed vendor says breaks off.
                    let _ = reply.into_body().collect().await;
                    (outcome, None)
                }
                Err(error) => (error.outcome(), Some(error)),
            }
        };
        match &*past.outcome {
            "aborted" => tokio::time::timeout(Duration::from_micros(past.duration_us), asked).await.ok(),
            _ => Some(asked.await),
        }
    }

    /// Whether the cache is not asked for it, by its own wish or because nobody knows what it was.
    fn skips_cache(&self, past: &Past) -> bool {
        let keeps_more = self.setting.config.cache.sampled && !self.setting.was.0.cache.sampled;
        past.digest.is_none() || past.cache.as_deref() == Some("BYPASS") && !keeps_more
    }
}

/// The cache looked for it.
fn is_kept_for_sure(past: &Past) -> bool {
    matches!(past.cache.as_deref(), Some("HIT" | "MISS" | "COALESCED" | "PARTIAL" | "SHARED"))
}

fn metadata(past: &Past) -> Vec<(String, Metadatum)> {
    let read = |text: &String| serde_json::from_str::<BTreeMap<String, serde_json::Value>>(text).ok();
    let entries = past.metadata.as_ref().and_then(read).unwrap_or_default().into_iter();
    let datum = |value| match value {
        serde_json::Value::String(text) => Metadatum::String(text),
        serde_json::Value::Number(number) => Metadatum::Number(number),
        serde_json::Value::Bool(is_so) => Metadatum::Bool(is_so),
        _ => Metadatum::Null,
    };
    entries.map(|(name, value)| (name, datum(value))).collect()
}

fn as_it_was(past: &Past) -> Lived {
    Lived {
        outcome: past.outcome.clone(),
        model: past.model.clone(),
        neurons: past.neurons,
        saved: past.saved,
        waited_us: past.waited_us,
        ..Lived::default()
    }
}

fn lived(
    past: &Past,
    facts: &Facts,
    ended: Option<(Outcome, Option<Error>)>,
    is_assumed: bool,
    is_unpriced: bool,
) -> Lived {
    let (outcome, error) = ended.map_or((Outcome::Aborted, None), |(outcome, error)| (outcome, error));
    let has_answered = outcome == Outcome::Ok && facts.cache != CacheStatus::Coalesced;
    // It began well then, too, and failed on its way.
    let failed_later = has_answered && past.attempts > 0 && past.outcome != "ok";
    let outcome = match outcome {
        Outcome::Ok if facts.cache == CacheStatus::Coalesced => Outcome::CacheHit.label(),
        Outcome::Ok if failed_later => &past.outcome,
        outcome => outcome.label(),
    };
    let ran = facts.attempts.last().is_some();
    let neurons = match facts.cost.source {
        // What a reply that failed, or that its client left, had cost.
        Source::None if ran && outcome == past.outcome => past.neurons,
        _ => facts.cost.neurons,
    };
    Lived {
        outcome: outcome.to_owned(),
        model: facts.model.id.to_string(),
        neurons,
        saved: facts.saved,
        waited_us: u64::try_from(facts.waited.as_micros()).unwrap_or(u64::MAX),
        refused_by: match error {
            Some(Error::BudgetExceeded { budget, .. } | Error::CostUnbounded { budget, .. }) => Some(budget),
            _ => None,
        },
        is_assumed: is_assumed && ran,
        is_unpriced,
    }
}
