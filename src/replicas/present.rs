//! Who is at a store, and what they hold: for people to look at.

use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::link::Link;
use super::packed;
use super::store::Away;
use crate::neurons::Neurons;

/// What stands at a store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Present {
    /// The gates by name, and when each was last heard of.
    pub gates: Vec<(String, Duration)>,
    /// Limits, by name.
    pub limits: Vec<(String, Vec<Held>)>,
    /// Budgets and their buckets, by name.
    pub budgets: Vec<(String, Vec<Registered>)>,
    /// Which config each gate has in force, by name: those of one digest have the same.
    pub configs: Vec<(String, String)>,
    /// There are more limits and buckets than were looked at, or the store does not let them be listed.
    pub is_partial: bool,
}

/// What one gate has of a limit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Held {
    /// The gate's name.
    pub gate: String,
    /// Calls that its window holds, as it last said.
    pub held: u64,
    /// Calls that wait there.
    pub waiting: u64,
}

/// What one gate has of a budget.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Registered {
    /// The gate's name.
    pub gate: String,
    /// What it has spent, as it last said.
    pub spent: Neurons,
    /// What it may spend without asking.
    pub upto: Neurons,
}

/// A record's parts: whose, and two figures.
type Parts = Vec<(String, u64, u64)>;

const SCRIPT: &str = include_str!("present.lua");
/// Records that are looked at.
const MOST: usize = 1000;
/// Records in one step.
const AT_ONCE: usize = 50;
/// Looks into a store that others use, too.
const LOOKS: usize = 1000;

impl Link {
    /// Who is there, and what they hold; of a thousand limits and buckets at most. It changes nothing.
    pub async fn present(&self) -> Result<Present, Away> {
        let (mut keys, is_partial) = self.keys().await?;
        keys.sort_unstable();
        let mut present = Present { is_partial, ..Present::default() };
        let script = packed::script(SCRIPT);
        let mut chunks: Vec<_> = keys.chunks(AT_ONCE).collect();
        if chunks.is_empty() {
            chunks.push(&[]);
        }
        for keys in chunks {
            let mut call = script.key(self.named("fleet"));
            for key in keys {
                call.key(self.named(key)).arg(key.split(':').next());
            }
            let mut connection = self.connection().await?;
            let (gates, all): (Vec<(String, u64)>, Vec<Parts>) = self.ask(call.invoke_async(&mut connection)).await?;
            present.gates = gates.into_iter().map(|(who, silent)| (who, Duration::from_millis(silent))).collect();
            for (key, parts) in keys.iter().zip(all) {
                match key.split_once(':') {
                    Some(("limit", name)) => {
                        let held = |(gate, held, waiting)| Held { gate, held, waiting };
                        present.limits.push((name.to_owned(), sorted(parts).map(held).collect()));
                    }
                    Some((_, name)) => {
                        let registered = |(gate, spent, upto)| {
                            let [spent, upto] = [spent, upto].map(Neurons::from_micro);
                            Registered { gate, spent, upto }
                        };
                        let name = name.trim_end_matches([':', '/']);
                        present.budgets.push((name.to_owned(), sorted(parts).map(registered).collect()));
                    }
                    None => {}
                }
            }
        }
        present.gates.sort_unstable();
        // An ACL user may lack the right, and gates of an earlier version say nothing.
        let tags = self.tags(None).await.unwrap_or_default();
        present.configs = tags.into_iter().map(|tags| (tags.gate, tags.config)).collect();
        Ok(present)
    }

    /// What there is, without the prefix; and whether that may not be all.
    async fn keys(&self) -> Result<(Vec<String>, bool), Away> {
        let prefix = self.named("");
        let escaped: String = prefix.chars().flat_map(escape).collect();
        let (mut keys, mut cursor) = (Vec::new(), 0_u64);
        for _ in 0..LOOKS {
            let mut scan = redis::cmd("SCAN");
            scan.arg(cursor).arg("MATCH").arg(format!("{escaped}*")).arg("COUNT").arg(500);
            let mut connection = self.connection().await?;
            let mut is_refused = false;
            let asking = async {
                let answer: Result<(u64, Vec<String>), RedisError> = scan.query_async(&mut connection).await;
                is_refused =
                    answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Server(ServerErrorKind::NoPerm));
                if is_refused { Ok((0, Vec::new())) } else { answer }
            };
            let (next, found) = self.ask(asking).await?;
            if is_refused {
                return Ok((keys, true));
            }
            let found = found
                .iter()
                .filter_map(|key| key.strip_prefix(&*prefix))
                .filter(|key| key.starts_with("limit:") || key.starts_with("budget:"));
            for key in found {
                if keys.len() == MOST {
                    return Ok((keys, true));
                }
                // A scan may tell of one twice.
                if !keys.iter().any(|known| known == key) {
                    keys.push(key.to_owned());
                }
            }
            cursor = next;
            if cursor == 0 {
                return Ok((keys, false));
            }
        }
        Ok((keys, true))
    }
}

fn sorted(mut parts: Parts) -> impl Iterator<Item = (String, u64, u64)> {
    parts.sort_unstable();
    parts.into_iter()
}

/// A letter as a pattern of SCAN has it that means itself.
fn escape(letter: char) -> impl Iterator<Item = char> {
    let is_special = matches!(letter, '*' | '?' | '[' | ']' | '\\' | '^');
    is_special.then_some('\\').into_iter().chain([letter])
}
