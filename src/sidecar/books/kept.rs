//! The file of what was learned: the last good list of models, and what was found out about prices.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::catalogue::{Catalogue, Entry, Model, Prices};

/// Keeps it. Cloning shares it.
#[derive(Clone)]
pub(super) struct Kept {
    path: Option<PathBuf>,
    catalogue: Arc<Catalogue>,
    saved: Arc<Mutex<Saved>>,
}

struct Saved {
    /// As it is on the disk, or should be.
    learned: Learned,
    /// Why it is not.
    trouble: Option<String>,
}

/// What the file has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Learned {
    /// When the list was read.
    pub(crate) read_at: Option<Timestamp>,
    /// The list, as it was read.
    pub(crate) models: BTreeMap<String, Entry>,
    /// What the vendor reports over what the table's prices come to.
    pub(crate) learned: BTreeMap<String, Ratio>,
}

/// What the vendor reports over what these prices come to; of others it says nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ratio {
    ratio: f64,
    prices: Prices,
}

const SAVE_EVERY: Duration = Duration::from_secs(60);

// === impl Learned ===

impl Learned {
    /// What is on the disk; nothing where there is no file.
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        match std::fs::read(path) {
            Ok(text) => serde_json::from_slice(&text).map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error),
        }
    }

    /// Puts it in force. What a list changes was told when it was read first.
    pub(crate) fn apply(&self, catalogue: &Catalogue, with_models: bool) {
        if with_models && !self.models.is_empty() {
            catalogue.update(&self.models);
        }
        for (id, Ratio { ratio, prices }) in &self.learned {
            if let Some(model) = catalogue.get(id).filter(|model| model.prices.same_figures(prices)) {
                model.learned.restore(*ratio);
            }
        }
    }

    /// As a whole or not at all: a reader finds the old file or the new one.
    fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_json::to_vec_pretty(self).map_err(io::Error::other)?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(".new");
        std::fs::write(&beside, text)?;
        std::fs::rename(&beside, path)
    }
}

// === impl Kept ===

impl Kept {
    pub(super) fn load(path: Option<PathBuf>, catalogue: &Arc<Catalogue>, with_models: bool) -> Self {
        let read = path.as_deref().map_or_else(|| Ok(Learned::default()), Learned::read);
        let saved = read.unwrap_or_else(|error| {
            tracing::warn!(path = ?path, %error, "what was learned of models cannot be read ([catalogue] path); starting anew");
            Learned::default()
        });
        saved.apply(catalogue, with_models);
        let saved = Saved { learned: saved, trouble: None };
        Self { path, catalogue: catalogue.clone(), saved: Arc::new(Mutex::new(saved)) }
    }

    /// A good list was read.
    pub(super) fn keep(&self, at: SystemTime, models: BTreeMap<String, Entry>) {
        let learned = Learned { read_at: Timestamp::try_from(at).ok(), models, ..self.now() };
        self.write(learned);
    }

    /// Writes what has been learned since it was written last, if anything has.
    pub(super) fn save(&self) {
        let now = self.now();
        let is_saved = {
            let saved = self.saved.lock();
            saved.trouble.is_none() && saved.learned == now
        };
        if !is_saved {
            self.write(now);
        }
    }

    /// Saves again and again.
    pub(super) async fn watch(self) {
        loop {
            tokio::time::sleep(SAVE_EVERY).await;
            let this = self.clone();
            // One that panicked has said so itself.
            let _ = tokio::task::spawn_blocking(move || this.save()).await;
        }
    }

    fn now(&self) -> Learned {
        let ratio = |model: Arc<Model>| {
            let ratio = Ratio { ratio: model.learned.ratio()?, prices: model.prices.clone() };
            Some((model.id.to_string(), ratio))
        };
        let learned = self.catalogue.models().into_iter().filter_map(ratio).collect();
        Learned { learned, ..self.saved.lock().learned.clone() }
    }

    fn write(&self, learned: Learned) {
        let mut saved = self.saved.lock();
        let trouble = self.path.as_deref().and_then(|path| learned.write(path).err()).map(|error| error.to_string());
        saved.learned = learned;
        if let Some(error) = saved.note(trouble) {
            tracing::warn!(path = ?self.path, error, "what was learned of models cannot be written ([catalogue] path)");
        }
    }
}

// === impl Saved ===

impl Saved {
    /// How writing it went. Gives what is wrong where that is news.
    fn note(&mut self, trouble: Option<String>) -> Option<&str> {
        let is_news = self.trouble != trouble;
        self.trouble = trouble;
        self.trouble.as_deref().filter(|_| is_news)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Unit;

    const LLAMA: &str = "@cf/meta/llama-3.2-1b-instruct";

    #[test]
    fn what_one_run_learned_is_in_force_in_the_next() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("models.json");
        let first = Arc::new(Catalogue::default());
        let kept = Kept::load(Some(path.clone()), &first, true);
        kept.save();
        assert!(!path.exists(), "nothing was learned yet");
        let json = format!(r#"{{"{LLAMA}": {{"prices": {{"output_token": 20077}}}}}}"#);
        let listed = serde_json::from_str(&json).unwrap();
        first.update(&listed);
        kept.keep(SystemTime::now(), listed);
        first.get(LLAMA).unwrap().learned.restore(1.05);
        kept.save();

        let second = Arc::new(Catalogue::default());
        Kept::load(Some(path.clone()), &second, true);
        let model = second.get(LLAMA).unwrap();
        assert_eq!(model.prices.published(Unit::OutputToken), Some(20_077.0));
        assert_eq!(model.learned.ratio(), Some(1.05));
        // Where the list is not to be read any more, the table is in force, and what was learned of other prices is not.
        let third = Arc::new(Catalogue::default());
        Kept::load(Some(path.clone()), &third, false);
        let model = third.get(LLAMA).unwrap();
        assert_eq!((model.prices.published(Unit::OutputToken), model.learned.ratio()), (Some(18_252.0), None));

        std::fs::write(&path, "{\"models\": [").unwrap();
        assert!(Learned::read(place.path()).is_err(), "a directory is no file");
        let fourth = Arc::new(Catalogue::default());
        Kept::load(Some(path), &fourth, true);
        assert_eq!(fourth.models().len(), 81);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_trouble_once_and_is_written_when_it_can_be() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("models.json");
        std::fs::create_dir_all(path.join("in the way")).unwrap();
        let catalogue = Arc::new(Catalogue::default());
        let kept = Kept::load(Some(path.clone()), &catalogue, true);
        let json = format!(r#"{{"{LLAMA}": {{"prices": {{"output_token": 20077}}}}}}"#);
        kept.keep(SystemTime::now(), serde_json::from_str(&json).unwrap());
        let mut saved = kept.saved.lock();
        let trouble = saved.trouble.clone();
        assert!(trouble.is_some() && saved.note(trouble).is_none(), "told again");
        drop(saved);
        std::fs::remove_dir_all(&path).unwrap();
        kept.save();
        assert!(Learned::read(&path).unwrap().models.contains_key(LLAMA));
        assert_eq!(kept.saved.lock().trouble, None);
    }
}
