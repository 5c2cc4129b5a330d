//! What all connections to the stand-in share.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};

use super::batch::Batches;
use super::books::Books;
use super::books_trouble::BooksTrouble;
use super::fault::Faults;
use super::prompt::Prompt;
use super::received::Received;
use super::seen::Requests;
use super::settings::Settings;
use super::window::Windows;
use crate::catalogue::{Catalogue, Entry};

/// What all connections share.
#[derive(Debug)]
pub(super) struct State {
    pub(super) settings: Settings,
    /// Its prices may change.
    catalogue: RwLock<Arc<Catalogue>>,
    pub(super) windows: Windows,
    pub(super) books: Books,
    pub(super) batches: Batches,
    pub(super) faults: Faults,
    pub(super) books_trouble: Mutex<Option<BooksTrouble>>,
    pub(super) seen: Requests,
    /// The last prompts that were read where each `x-session-affinity` leads.
    prefixes: Mutex<HashMap<String, VecDeque<String>>>,
}

const MAX_PREFIXES: usize = 1000;
/// Prompts that a prefix cache keeps of a session.
const MAX_PROMPTS: usize = 16;

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

    pub(super) fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.read().clone()
    }

    /// From now on these models are as this says, and all others as they were when it started.
    pub(super) fn revise(&self, models: &BTreeMap<String, Entry>) {
        let mut all = self.settings.models.clone();
        all.extend(models.clone());
        *self.catalogue.write() = Arc::new(Catalogue::with(&all));
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
