//! The models Workers AI hosts: task, rate limit, prices.
//!
//! The catalogue is data. A table is built in (`models.json`: pricing page of 2026-08-28 with the changes up to 2026-10-09,
//! limits page of 2026-09-17; windows, defaults and maxima from the vendor's schemas of 2026-10, and from the model's own
//! configuration where there is no schema: the two fp8-fast Llamas' windows, flux-2's largest picture), and
//! entries given to [`Catalogue::with`] override or add models, so that a new model needs no new code. What the vendor lists
//! is laid between the two by [`Catalogue::update`], while calls go on: a call keeps the model it was identified with.
//!
//! A model that is in no table is still served: see [`Catalogue::find`].

mod aliases;
mod learned;
mod live;
mod model;
mod price;
mod tokens;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;

pub use aliases::{AliasError, Aliases};
pub use learned::Learned;
pub use live::Change;
pub use model::{Entry, ImageEntry, ImageLimits, Limit, Model, Slot, StepsField, Task};
pub use price::{Prices, Unit};
pub use tokens::{Text, TokenRatio};

/// Every model the gate knows.
#[derive(Debug)]
pub struct Catalogue {
    listed: ArcSwap<Listed>,
    /// The config's entries, which beat all others. Held while a new listing is made of the last one.
    own: Mutex<BTreeMap<String, Entry>>,
    /// Stand-ins for models in no table, one a task: they share what is learned about tokens.
    unlisted: Vec<Arc<Model>>,
    warned: Mutex<Vec<Box<str>>>,
}

/// The models at one time.
#[derive(Debug, Default)]
struct Listed {
    /// What the table and the vendor say, without the config's entries.
    entries: BTreeMap<String, Entry>,
    models: HashMap<Arc<str>, Arc<Model>>,
    /// Models by their names without `@cf/` and author; none where several have the same.
    short_names: HashMap<Box<str>, Option<Arc<str>>>,
    /// Models that the vendor lists no more.
    vanished: BTreeSet<String>,
    /// The place of every model that was ever listed: one that leaves and comes back has its own again, and no other gets it.
    slots: HashMap<Arc<str>, Slot>,
}

/// No more than have a place of their own: what the vendor listed once stays, so a list of ever other names would fill the memory.
const MAX_ENTRIES: usize = Slot::COUNT - 1;
/// How many unlisted models are warned of by name; past that the log would be the caller's to fill.
const MAX_WARNINGS: usize = 100;
/// A name longer than this is no model's.
const MAX_NAME_BYTES: usize = 256;

const TABLE: &str = include_str!("models.json");

impl Default for Catalogue {
    fn default() -> Self {
        Self::with(&BTreeMap::new())
    }
}

impl Catalogue {
    /// The built-in table, with these entries over it.
    pub fn with(entries: &BTreeMap<String, Entry>) -> Self {
        let listed = Listed::default().followed_by(built_in(), entries, BTreeSet::new());
        Self {
            listed: ArcSwap::from_pointee(listed),
            own: Mutex::new(entries.clone()),
            unlisted: unlisted(),
            warned: Mutex::default(),
        }
    }

    /// Takes up what the vendor lists now, and tells what is different from before: see [`Change`] for what counts as one.
    /// The config's entries stay above it. Models that are not in `live` stay, for a list may be short; each is told once. There
    /// are at most 1,023: further ones are served as models in no table.
    pub fn update(&self, live: &BTreeMap<String, Entry>) -> Vec<Change> {
        let own = self.own.lock();
        let before = self.listed.load_full();
        let mut entries = before.entries.clone();
        let mut changes = Vec::new();
        for (id, entry) in live {
            let merged = match entries.get(id) {
                Some(known) => live::merge(id, known, entry, &mut changes),
                None if entries.len() < MAX_ENTRIES => live::arrival(id, entry, &mut changes),
                // Served as a model in no table.
                None => continue,
            };
            entries.insert(id.clone(), merged);
        }
        // What the config says is in force whatever the vendor says, so it is no news.
        changes.retain(|change| !own.get(change.model()).is_some_and(|own| change.is_overridden(own)));
        let is_missed = |(id, entry): &(&String, &Entry)| {
            !live.contains_key(*id) && entry.deprecated.is_none() && !own.contains_key(*id)
        };
        let vanished: BTreeSet<_> = entries.iter().filter(is_missed).map(|(id, _)| id.clone()).collect();
        let news = vanished.difference(&before.vanished);
        changes.extend(news.map(|id| Change::Vanished { model: id.as_str().into() }));
        self.listed.store(Arc::new(before.followed_by(entries, &own, vanished)));
        changes
    }

    /// Other entries of the config's, in the place of those before.
    pub fn override_with(&self, entries: &BTreeMap<String, Entry>) {
        let mut own = self.own.lock();
        if *own == *entries {
            return;
        }
        let before = self.listed.load_full();
        self.listed.store(Arc::new(before.followed_by(before.entries.clone(), entries, before.vanished.clone())));
        *own = entries.clone();
    }

    /// Models that the vendor listed no more when it was last asked, by name.
    pub fn vanished(&self) -> Vec<String> {
        self.listed.load().vanished.iter().cloned().collect()
    }

    /// A model by the vendor's name, where the catalogue has it.
    pub fn get(&self, id: &str) -> Option<Arc<Model>> {
        self.listed.load().models.get(id).cloned()
    }

    /// The vendor's name of the one model whose name ends so: without `@cf/`, or without the author, too.
    pub fn by_short_name(&self, name: &str) -> Option<Arc<str>> {
        let listed = self.listed.load();
        if name.contains('/') {
            return listed.models.get(&*format!("@cf/{name}")).map(|model| model.id.clone());
        }
        listed.short_names.get(name).cloned().flatten()
    }

    /// A model by name in whatever case, or for a name in no table a stand-in with the limit of its guessed task and no prices,
    /// so that it costs what the vendor reports. The first time a name is met it is warned of in the log.
    pub fn find(&self, id: &str, guess: Task) -> Arc<Model> {
        if let Some(model) = self.get(id).or_else(|| self.get_in_any_case(id)) {
            return model;
        }
        self.warn_once(id);
        let entry = Entry { task: Some(guess), ..Entry::default() };
        let nameless = self.nameless(guess);
        let tokens = nameless.tokens.clone();
        Arc::new(Model { tokens, ..entry.model(id, Slot::OTHER) })
    }

    /// Whether the vendor tells `@CF/…` from `@cf/…` is not known, so it is priced as the model that it may be.
    fn get_in_any_case(&self, id: &str) -> Option<Arc<Model>> {
        self.listed.load().models.values().find(|model| model.id.eq_ignore_ascii_case(id)).cloned()
    }

    /// The stand-in for a call whose model is not known, such as one that named none.
    pub fn nameless(&self, guess: Task) -> Arc<Model> {
        self.unlisted[guess as usize].clone()
    }

    /// Every listed model, by name.
    pub fn models(&self) -> Vec<Arc<Model>> {
        let mut models: Vec<_> = self.listed.load().models.values().cloned().collect();
        models.sort_by(|a, b| a.id.cmp(&b.id));
        models
    }

    fn warn_once(&self, id: &str) {
        let mut warned = self.warned.lock();
        if id.len() > MAX_NAME_BYTES || warned.len() >= MAX_WARNINGS || warned.iter().any(|w| **w == *id) {
            return;
        }
        warned.push(id.into());
        tracing::warn!(model = ?id, "a model in no table: it passes, at its task's limit and the vendor's reported cost; \
             add [models.\"…\"] to the config to price it");
    }
}

impl Listed {
    /// The next listing. A model keeps its place and what was learned of it; of its prices only as long as they are the same.
    fn followed_by(
        &self,
        entries: BTreeMap<String, Entry>,
        own: &BTreeMap<String, Entry>,
        vanished: BTreeSet<String>,
    ) -> Self {
        let mut all = entries.clone();
        for (id, entry) in own {
            let merged = entries.get(id).map_or_else(|| entry.clone(), |listed| entry.clone().or(listed));
            all.insert(id.clone(), merged);
        }
        let mut slots = self.slots.clone();
        let taken = slots.values().map(|slot| slot.number()).max().unwrap_or(0);
        let mut free = (taken + 1..Slot::COUNT as u16).map(Slot);
        let models = all.into_iter().map(|(id, entry)| {
            let model = match self.models.get(&*id) {
                Some(before) => before.revised(entry),
                None => {
                    let slot = slots.get(&*id).copied().or_else(|| free.next()).unwrap_or(Slot::OTHER);
                    entry.model(&id, slot)
                }
            };
            slots.insert(model.id.clone(), model.slot);
            (model.id.clone(), Arc::new(model))
        });
        let models: HashMap<Arc<str>, Arc<Model>> = models.collect();
        let mut short_names: HashMap<Box<str>, Option<Arc<str>>> = HashMap::new();
        for id in models.keys() {
            let short = id.rsplit('/').next().unwrap_or(id);
            short_names.entry(short.into()).and_modify(|taken| *taken = None).or_insert_with(|| Some(id.clone()));
        }
        Self { models, short_names, entries, vanished, slots }
    }
}

fn built_in() -> BTreeMap<String, Entry> {
    // The table is part of the crate, and a test reads it; were it broken, the gate would serve every model as unlisted.
    serde_json::from_str(TABLE).unwrap_or_default()
}

fn unlisted() -> Vec<Arc<Model>> {
    let stand_in = |task| Arc::new(Entry { task: Some(task), ..Entry::default() }.model("", Slot::OTHER));
    Task::ALL.into_iter().map(stand_in).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_reads() {
        let table: BTreeMap<String, Entry> = serde_json::from_str(TABLE).unwrap();
        assert_eq!(table.len(), 81);
        assert_eq!(table.values().filter(|m| m.prices.as_ref().is_some_and(|p| !p.is_empty())).count(), 68);
        assert!(table.values().all(|m| m.task.is_some() && m.requests_per_minute.is_some()));
    }

    #[test]
    fn an_entry_overrides_what_it_names_and_keeps_the_rest() {
        let id = "@cf/meta/llama-3.2-1b-instruct";
        let entry: Entry = serde_json::from_str(r#"{"requests_per_minute": 50}"#).unwrap();
        let catalogue = Catalogue::with(&BTreeMap::from([(id.to_owned(), entry)]));
        let model = catalogue.get(id).unwrap();
        assert_eq!(model.limit, Limit::a_minute(50));
        assert_eq!(model.prices.published(Unit::InputToken), Some(2457.0));
    }

    #[test]
    fn an_unlisted_model_passes_and_is_counted_as_other() {
        let catalogue = Catalogue::default();
        let model = catalogue.find("@cf/acme/new-embedding", Task::TextEmbeddings);
        assert_eq!((model.label(), model.limit), ("other", Limit::a_minute(3000)));
        assert!(model.prices.is_empty());
    }

    #[test]
    fn a_model_is_known_by_its_name_in_any_case() {
        let model = Catalogue::default().find("@CF/Meta/LLAMA-3.2-1b-instruct", Task::Unknown);
        assert_eq!(&*model.id, "@cf/meta/llama-3.2-1b-instruct");
    }

    #[test]
    fn warnings_of_unlisted_models_are_bounded() {
        let catalogue = Catalogue::default();
        for n in 0..10_000 {
            catalogue.find(&format!("junk-{n}"), Task::Unknown);
        }
        assert_eq!(catalogue.warned.lock().len(), MAX_WARNINGS);
    }

    #[test]
    fn a_wrong_unit_of_price_is_named() {
        let error = serde_json::from_str::<Entry>(r#"{"prices": {"tokens": 1}}"#).unwrap_err().to_string();
        assert!(error.contains("`tokens` is no unit of price"), "{error}");
    }
}
