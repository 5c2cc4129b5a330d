//! What a socket has used and cost so far, and how far that is covered.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::words::{Heard, characters};
use super::{Audio, Dialect, LEAST, Opening};
use crate::Error;
use crate::call::{Allowance, Call};
use crate::catalogue::Prices;
use crate::neurons::Neurons;
use crate::receipt::{Cost, Receipt, Source};
use crate::usage::Usage;

/// Counts one socket. Made by the layer that reads replies, when the vendor has accepted it.
#[derive(Debug)]
pub(crate) struct Meter {
    receipt: Receipt,
    opening: Arc<Opening>,
    prices: Prices,
    allowance: Option<Arc<dyn Allowance>>,
    /// What a stretch costs, and the least that is worth reserving.
    stretch: Neurons,
    least: Neurons,
    counts: Mutex<Counts>,
    /// More has to be reserved.
    is_low: Notify,
    /// More was reserved, or none can be.
    decided: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    audio_bytes: u64,
    characters: u64,
    /// Between the first and the last piece of audio.
    first_audio: Option<Instant>,
    last_audio: Option<Instant>,
    /// The first bytes, of a sound that may have a header.
    begin: Vec<u8>,
    /// What the header told, in bytes a second.
    header_rate: Option<u64>,
    /// By the vendor's word: up to here, and in all.
    heard_ms: u64,
    all_ms: Option<u64>,
    has_failed: bool,
    /// All that was reserved so far.
    covered: Neurons,
    /// What is asked for, beyond the next stretch.
    wanted: Neurons,
    exhausted: Option<Error>,
    /// What readers were told already.
    told: Usage,
}

/// What is to be passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// Bytes of audio.
    Audio(u64),
    /// Characters to be spoken.
    Characters(u64),
}

/// A WAV's head.
const HEADER_BYTES: usize = 44;
/// How soon it is tried again to reserve more, where there was none: others may have settled.
const AGAIN: Duration = Duration::from_millis(500);

impl Meter {
    /// `None` where the call is for no socket.
    pub(crate) fn of(call: &Call) -> Option<Self> {
        let opening = call.socket.clone()?;
        let prices = call.model.prices.over_socket();
        let cost = |time| prices.cost(&opening.usage(time));
        let covered = call.allowance.as_ref().map_or(Neurons::MAX, |allowance| allowance.held());
        Some(Self {
            receipt: call.receipt.clone(),
            stretch: cost(opening.settings.stretch),
            least: cost(LEAST),
            allowance: call.allowance.clone(),
            counts: Mutex::new(Counts { covered, ..Counts::default() }),
            is_low: Notify::new(),
            decided: Notify::new(),
            opening,
            prices,
        })
    }

    pub(super) fn opening(&self) -> &Opening {
        &self.opening
    }

    pub(super) fn receipt(&self) -> &Receipt {
        &self.receipt
    }

    /// Takes a load on, if it is covered.
    pub(super) fn admit(&self, load: Load) -> bool {
        let mut counts = self.counts.lock();
        let now = Instant::now();
        let after = self.prices.cost(&self.usage(&counts, Some(load), now));
        let is_covered = after <= counts.covered;
        if is_covered {
            match load {
                Load::Audio(_) => {
                    counts.first_audio.get_or_insert(now);
                    counts.last_audio = Some(now);
                }
                Load::Characters(more) => counts.characters += more,
            }
        } else {
            counts.wanted = counts.wanted.max(after);
        }
        if self.is_low(&counts, after) {
            self.is_low.notify_one();
        }
        is_covered
    }

    /// The same, once it is covered; an error where it will not be.
    pub(super) async fn cover(&self, load: Load) -> Result<(), Error> {
        loop {
            if self.admit(load) {
                return Ok(());
            }
            if let Some(error) = self.counts.lock().exhausted.clone() {
                return Err(error);
            }
            self.decided.notified().await;
        }
    }

    /// So much of the audio that was taken on has been passed on.
    pub(super) fn passed(&self, audio: &[u8]) {
        let mut counts = self.counts.lock();
        counts.audio_bytes += audio.len() as u64;
        if self.opening.audio.bytes_a_second.is_none() && counts.begin.len() < HEADER_BYTES {
            let room = HEADER_BYTES - counts.begin.len();
            counts.begin.extend_from_slice(&audio[..room.min(audio.len())]);
            counts.header_rate = Audio::told_by(&counts.begin);
        }
    }

    /// The bytes themselves are needed, for their rate is not known yet.
    pub(super) fn wants_bytes(&self) -> bool {
        self.opening.audio.bytes_a_second.is_none() && self.counts.lock().begin.len() < HEADER_BYTES
    }

    /// A client's message that may be spoken has to be known before it is passed on.
    pub(super) fn weighs_texts(&self) -> bool {
        self.opening.dialect == Dialect::Speak
    }

    pub(super) fn weigh(&self, message: &[u8]) -> Load {
        Load::Characters(characters(message))
    }

    /// A message of the vendor's.
    pub(super) fn hear(&self, message: &[u8]) {
        if self.opening.dialect == Dialect::Speak {
            return;
        }
        let heard = Heard::of(message);
        let mut counts = self.counts.lock();
        if let Some(until) = heard.until {
            counts.heard_ms = counts.heard_ms.max(millis(until));
        }
        counts.all_ms = heard.all.map(millis).or(counts.all_ms);
        counts.has_failed |= heard.is_error;
        let cost = self.prices.cost(&self.usage(&counts, None, Instant::now()));
        if self.is_low(&counts, cost) {
            self.is_low.notify_one();
        }
    }

    pub(super) fn has_failed(&self) -> bool {
        self.counts.lock().has_failed
    }

    /// Reserves more whenever it runs low. Ends where more was used than is covered, and no more can be.
    pub(super) async fn renew(&self) -> Error {
        let Some(allowance) = &self.allowance else { return std::future::pending().await };
        loop {
            let (spent, more) = {
                let counts = self.counts.lock();
                let spent = self.prices.cost(&self.usage(&counts, None, Instant::now()));
                let wanted = counts.wanted.saturating_sub(counts.covered);
                let more = self.is_low(&counts, spent.max(counts.wanted)).then(|| self.stretch.max(wanted));
                (spent, more)
            };
            let Some(more) = more else {
                self.is_low.notified().await;
                continue;
            };
            let extended = allowance.extend(spent, more, self.least).await;
            let is_exhausted = extended.is_err();
            let over = self.extended(extended, spent);
            self.decided.notify_one();
            if let Some(error) = over {
                return error;
            }
            if is_exhausted {
                tokio::time::sleep(AGAIN).await;
            }
        }
    }

    /// An error where more was spent than is covered, and no more can be.
    fn extended(&self, extended: Result<Neurons, Error>, spent: Neurons) -> Option<Error> {
        let mut counts = self.counts.lock();
        match extended {
            Ok(granted) => {
                counts.covered += granted;
                counts.exhausted = None;
            }
            Err(error) => counts.exhausted = Some(error),
        }
        let is_over = spent > counts.covered;
        counts.exhausted.clone().filter(|_| is_over)
    }

    /// Less than half a stretch is covered beyond this.
    fn is_low(&self, counts: &Counts, cost: Neurons) -> bool {
        let half = Neurons::from_micro(self.stretch.micro() / 2);
        self.allowance.is_some() && !self.stretch.is_zero() && counts.covered.saturating_sub(cost) < half
    }

    fn usage(&self, counts: &Counts, load: Option<Load>, now: Instant) -> Usage {
        let (more_bytes, more_characters) = match load {
            Some(Load::Audio(bytes)) => (bytes, 0),
            Some(Load::Characters(characters)) => (0, characters),
            None => (0, 0),
        };
        let sent_ms = self.sent_ms(counts, more_bytes, now);
        let audio_ms = counts.all_ms.unwrap_or(counts.heard_ms.max(sent_ms));
        Usage {
            audio_ms: audio_ms.saturating_mul(self.opening.audio.channels.into()),
            characters: counts.characters.saturating_add(more_characters),
            ..Usage::default()
        }
    }

    /// Of the audio that was sent: by its bytes, or by the time in which it came where they do not tell.
    fn sent_ms(&self, counts: &Counts, more_bytes: u64, now: Instant) -> u64 {
        if self.opening.dialect == Dialect::Speak {
            return 0;
        }
        if let Some(rate) = self.opening.audio.bytes_a_second.or(counts.header_rate) {
            let bytes = u128::from(counts.audio_bytes) + u128::from(more_bytes);
            return u64::try_from((bytes * 1000).div_ceil(u128::from(rate.max(1)))).unwrap_or(u64::MAX);
        }
        let last = if more_bytes > 0 { Some(now) } else { counts.last_audio };
        let span = counts.first_audio.zip(last).map_or(Duration::ZERO, |(first, last)| last.duration_since(first));
        u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
    }

    /// Writes on the receipt how it stands, and lets the readers know what is new.
    pub(super) fn tell(&self) {
        let (usage, new, source) = {
            let mut counts = self.counts.lock();
            let usage = self.usage(&counts, None, Instant::now());
            let new = Usage {
                audio_ms: usage.audio_ms.saturating_sub(counts.told.audio_ms),
                characters: usage.characters.saturating_sub(counts.told.characters),
                ..Usage::default()
            };
            let sent_ms = self.sent_ms(&counts, 0, Instant::now());
            counts.told.audio_ms = counts.told.audio_ms.max(usage.audio_ms);
            counts.told.characters = counts.told.characters.max(usage.characters);
            (usage, new, source(&counts, sent_ms))
        };
        let neurons = self.prices.cost(&usage);
        let source = if usage == Usage::default() || self.prices.is_empty() { Source::None } else { source };
        let computed = (source == Source::Computed).then_some(neurons);
        self.receipt.flow(&new, |facts| {
            facts.cost = Cost { neurons, source, computed, custom_usd: facts.cost.custom_usd, ..Cost::default() };
            facts.usage = usage;
        });
    }
}

/// Who says so: the vendor's words and the client's own are counted, bytes are reckoned.
fn source(counts: &Counts, sent_ms: u64) -> Source {
    let is_said = counts.all_ms.is_some() || counts.heard_ms >= sent_ms && counts.heard_ms > 0;
    if is_said || counts.characters > 0 { Source::Computed } else { Source::Estimated }
}

fn millis(seconds: f64) -> u64 {
    (seconds * 1000.0).round() as u64
}
