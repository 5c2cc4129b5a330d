//! How far a gate has read, and what it told of itself.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::prices::KnownPrices;
use super::subjects::{Came, Subjects, digest};
use super::{Board, Fact, LATEST, MARK, Told, time};
use crate::replicas::{FIRST, Link, Tags};

/// How far a gate has read.
pub(super) struct Reader {
    after: String,
    /// When it had read to the end.
    read_at: Option<Instant>,
    signatures: HashSet<String>,
    in_order: VecDeque<String>,
    own: Own,
    /// When gates are compared next.
    compare_at: Option<Instant>,
    /// The store's ACL lets it say nothing, which was told.
    is_barred: bool,
    /// The other gates' configs, as they were told last.
    configs: HashMap<String, String>,
    /// The accounts whose free neurons are used up, as the others know them.
    held: HashMap<Arc<str>, SystemTime>,
    prices: KnownPrices,
}

/// What this gate has, and how that is told from what it had.
#[derive(Debug, Default)]
struct Own {
    reloads: Option<u64>,
    config: String,
    mark: Option<(i64, i64)>,
    keys: Option<String>,
}

/// Signatures that are remembered, so that none is taken twice: more than the stream holds.
const REMEMBERED: usize = 8192;
/// Gates are compared so often, and at once where this one has changed.
const COMPARE_EVERY: Duration = Duration::from_secs(5);
/// No answer is kept for longer where nobody asks for it, so a purge of before has nothing left to purge.
const PURGED_FOR: Duration = Duration::from_secs(24 * 3600);
const DAY_MS: u64 = 24 * 3600 * 1000;

impl Default for Reader {
    fn default() -> Self {
        Self {
            after: FIRST.into(),
            read_at: None,
            signatures: HashSet::new(),
            in_order: VecDeque::new(),
            own: Own::default(),
            compare_at: None,
            is_barred: false,
            configs: HashMap::new(),
            held: HashMap::new(),
            prices: KnownPrices::default(),
        }
    }
}

impl Reader {
    /// Takes what is new, and says whether the store has lost what it had.
    pub(super) async fn read(&mut self, board: &Arc<Board>, link: &Link, subjects: &Arc<Subjects>) -> bool {
        let mut has_lost = false;
        loop {
            // Whether the store is there is told by the limits, which ask it all the time.
            let Ok(read) = link.notices(&self.after).await else { return has_lost };
            if read.has_gap {
                // What is read twice has its signature remembered.
                self.after = FIRST.into();
                self.held.clear();
                self.prices.tell_again();
                has_lost = true;
                continue;
            }
            if read.notices.is_empty() {
                self.read_at = Some(Instant::now());
                return has_lost;
            }
            let came = if self.read_at.is_some_and(|at| at.elapsed() < LATEST) { Came::Now } else { Came::Late };
            for notice in read.notices {
                self.after = notice.id;
                if !self.is_new(&notice.signature) {
                    continue;
                }
                let Some(told) = board.read(&notice.body, &notice.signature) else {
                    board.seen.refuse();
                    continue;
                };
                if told.run == board.run {
                    continue;
                }
                board.seen.take();
                self.take(board, subjects, told, came).await;
            }
        }
    }

    async fn take(&mut self, board: &Arc<Board>, subjects: &Arc<Subjects>, told: Told, came: Came) {
        let (now, at) = (SystemTime::now(), time(told.at_ms));
        match &told.fact {
            // An allocation is a day's.
            Fact::Free { .. } if super::millis(now) / DAY_MS != told.at_ms / DAY_MS => {}
            Fact::Free { account, is_used_up } => self.learn_free(subjects, account, *is_used_up),
            Fact::Price { model, ratio, prices } => self.prices.take(&subjects.catalogue, model, *ratio, prices),
            Fact::Purge { .. } if came == Came::Late && at + PURGED_FOR < now => {}
            _ => {
                let (subjects, board) = (subjects.clone(), board.clone());
                drop(tokio::task::spawn_blocking(move || subjects.take(&board, told, came)).await);
            }
        }
    }

    fn is_new(&mut self, signature: &str) -> bool {
        if !self.signatures.insert(signature.to_owned()) {
            return false;
        }
        self.in_order.push_back(signature.to_owned());
        if self.in_order.len() > REMEMBERED
            && let Some(oldest) = self.in_order.pop_front()
        {
            self.signatures.remove(&oldest);
        }
        true
    }

    /// Says which config and which keys are here, at once where they are new, and looks what the others have.
    pub(super) async fn compare(&mut self, board: &Arc<Board>, link: &Link, subjects: &Arc<Subjects>) {
        let is_due = self.compare_at.is_none_or(|at| Instant::now() >= at);
        if !self.look_at_own(board, subjects).await && !is_due {
            return;
        }
        let keys = self.own.keys.clone().unwrap_or_else(|| "-".into());
        let own = Tags::new(&board.from, &self.own.config, &keys);
        let all = match link.tags(Some(&own)).await {
            Ok(all) => all,
            Err(why) => {
                // That the store is away is told by those who share its limits.
                if why.to_string().contains("ACL") && !std::mem::replace(&mut self.is_barred, true) {
                    tracing::warn!(%why, "the gates that share the store of [replicas] cannot tell each other anything");
                }
                return;
            }
        };
        self.compare_at = Some(Instant::now() + COMPARE_EVERY);
        let (mut others, mut known, mut has_other_keys) = (0, HashMap::new(), false);
        // Who has another secret cannot be joined.
        let joins = |other: &str| other != keys && keys.len() > MARK && other.get(..MARK) == keys.get(..MARK);
        for tags in all.into_iter().filter(|tags| tags.gate != board.from) {
            has_other_keys |= joins(&tags.keys);
            if tags.config != self.own.config {
                others += 1;
                if self.configs.get(&tags.gate).is_none_or(|before| *before != tags.config) {
                    tracing::warn!(tags.gate, "another gate has another config in force: reload that one or this one");
                }
            }
            known.insert(tags.gate, tags.config);
        }
        self.configs = known;
        board.seen.compare(others);
        if has_other_keys {
            self.join_keys(board, link, subjects).await;
        }
    }

    /// Says whether this gate has something new.
    async fn look_at_own(&mut self, board: &Board, subjects: &Arc<Subjects>) -> bool {
        let (reloads, before) = (subjects.reloads.succeeded(), self.own.mark);
        let (is_other, has_secret) = (self.own.reloads != Some(reloads), board.secret.is_some());
        let (subjects, secret) = (subjects.clone(), board.mark());
        // It waits for the disk, and for a reload that is under way.
        let looked = tokio::task::spawn_blocking(move || {
            let config = is_other.then(|| subjects.reloads.digest());
            let mark = subjects.key_mark().filter(|_| has_secret);
            let is_same = mark == before;
            (config, mark, (!is_same).then(|| subjects.key_rows().map(|rows| format!("{secret}{}", digest(&rows)))))
        });
        let Ok((config, mark, keys)) = looked.await else { return false };
        let has_changed = config.is_some() || keys.is_some();
        if let Some(config) = config {
            (self.own.reloads, self.own.config) = (Some(reloads), config);
        }
        if let Some(keys) = keys {
            (self.own.mark, self.own.keys) = (mark, keys);
        }
        has_changed
    }

    /// Gates that keep other keys join them: by what the store keeps, each hears of all.
    async fn join_keys(&mut self, board: &Arc<Board>, link: &Link, subjects: &Arc<Subjects>) {
        let Ok(kept) = link.kept().await else { return };
        let (board, subjects) = (board.clone(), subjects.clone());
        let Ok(lacking) = tokio::task::spawn_blocking(move || subjects.join(&board, kept)).await else { return };
        // What is not taken now is told at the next look, as long as any gate lacks it.
        drop(link.keep(&lacking).await);
    }

    /// Tells of accounts that are held here since the last look, or asked the vendor again, and of those that are held no more.
    pub(super) fn free(&mut self, board: &Board, subjects: &Subjects) {
        let held: HashMap<_, _> = (subjects.allocation)().held().into_iter().collect();
        for (account, probe_at) in &held {
            if self.held.get(account).is_none_or(|known| known != probe_at) {
                board.tell(Fact::Free { account: account.to_string(), is_used_up: true });
            }
        }
        let now = SystemTime::now();
        for (account, probe_at) in &self.held {
            // At midnight each gate knows by itself.
            if !held.contains_key(account) && *probe_at > now {
                board.tell(Fact::Free { account: account.to_string(), is_used_up: false });
            }
        }
        self.held = held;
    }

    /// Tells what was learned of prices here since the last look. It is asked after reading: who has just started knows less than the others.
    pub(super) fn prices(&mut self, board: &Board, subjects: &Subjects) {
        self.prices.news(&subjects.catalogue).into_iter().for_each(|fact| board.tell(fact));
    }

    fn learn_free(&mut self, subjects: &Subjects, account: &str, is_used_up: bool) {
        let (allocation, account): (_, Arc<str>) = ((subjects.allocation)(), account.into());
        if is_used_up {
            allocation.heard(&account, SystemTime::now());
        } else {
            allocation.works(&account);
        }
        // What was heard is not told again.
        match allocation.held().into_iter().find(|(held, _)| *held == account) {
            Some((account, probe_at)) => drop(self.held.insert(account, probe_at)),
            None => drop(self.held.remove(&account)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_are_remembered_up_to_a_bound_that_is_more_than_the_stream_holds() {
        let mut reader = Reader::default();
        for n in 0..2 * REMEMBERED {
            assert!(reader.is_new(&n.to_string()));
        }
        assert_eq!((reader.signatures.len(), reader.in_order.len()), (REMEMBERED, REMEMBERED));
        assert!(!reader.is_new(&(REMEMBERED + 1).to_string()));
        assert!(reader.is_new("0"));
    }
}
