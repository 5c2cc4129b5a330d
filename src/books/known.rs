//! What was last learned from the vendor's books, for all who show it.

use std::collections::VecDeque;
use std::time::SystemTime;

use parking_lot::Mutex;

use super::BooksError;
use super::reconcile::Report;
use crate::catalogue::Change;
use crate::neurons::Neurons;

/// Shared by those who read the books and those who show what they say. It keeps the latest alone.
#[derive(Debug, Default)]
pub struct Known(Mutex<Latest>);

#[derive(Debug, Default)]
struct Latest {
    list: Book,
    analytics: Book,
    news: VecDeque<News>,
    price_changes: u64,
    account: Option<Account>,
}

/// How the reading of one book goes.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Book {
    /// When it was last read.
    pub read_at: Option<SystemTime>,
    /// Why it cannot be read now.
    pub trouble: Option<String>,
}

/// Something about the models is different.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct News {
    /// When it was found out.
    pub at: SystemTime,
    /// What.
    pub change: Change,
}

/// The account's day, from 00:00 UTC.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Account {
    /// Until when.
    pub until: SystemTime,
    /// What passed the gate.
    pub gate: Neurons,
    /// What did not.
    pub elsewhere: Neurons,
    /// Both books side by side, where the vendor's have settled.
    pub report: Option<Report>,
}

/// Older news are not kept.
const MAX_NEWS: usize = 100;

impl Known {
    /// The list of models was read; this is different from before.
    pub fn note_list(&self, at: SystemTime, changes: &[Change]) {
        let mut state = self.0.lock();
        state.list = Book { read_at: Some(at), trouble: None };
        for change in changes {
            state.price_changes += u64::from(matches!(change, Change::Price { .. }));
            state.news.push_back(News { at, change: change.clone() });
        }
        while state.news.len() > MAX_NEWS {
            state.news.pop_front();
        }
    }

    /// The account's analytics were read.
    pub fn note_account(&self, at: SystemTime, account: Account) {
        let mut state = self.0.lock();
        state.analytics = Book { read_at: Some(at), trouble: None };
        state.account = Some(account);
    }

    /// The list cannot be read. True where that is news.
    pub fn note_list_trouble(&self, why: &BooksError) -> bool {
        self.0.lock().list.note_trouble(why)
    }

    /// The analytics cannot be read. True where that is news.
    pub fn note_analytics_trouble(&self, why: &BooksError) -> bool {
        self.0.lock().analytics.note_trouble(why)
    }

    /// How the reading of the list goes.
    pub fn list(&self) -> Book {
        self.0.lock().list.clone()
    }

    /// How the reading of the analytics goes.
    pub fn analytics(&self) -> Book {
        self.0.lock().analytics.clone()
    }

    /// What was different of late, oldest first; at most a hundred.
    pub fn news(&self) -> Vec<News> {
        self.0.lock().news.iter().cloned().collect()
    }

    /// How often a price was set anew.
    pub fn price_changes(&self) -> u64 {
        self.0.lock().price_changes
    }

    /// The account's day as it was last read.
    pub fn account(&self) -> Option<Account> {
        self.0.lock().account.clone()
    }
}

impl Book {
    fn note_trouble(&mut self, why: &BooksError) -> bool {
        let said = why.to_string();
        let is_news = self.trouble.as_ref() != Some(&said);
        self.trouble = Some(said);
        is_news
    }
}

// === impl Account ===

impl Account {
    /// From what the gate and the vendor had until a moment.
    pub fn new(until: SystemTime, gate: Neurons, elsewhere: Neurons, report: Option<Report>) -> Self {
        Self { until, gate, elsewhere, report }
    }
}
