//! How an exchange is told to the scripts: packed as `packed.lua` says, for JSON would cost the store more than the step itself.

use redis::Script;

use super::store::{AGAIN_MS, Exchange, FORGET_MS, FRESH_MS, JUMP_MS, LEARN_MS};
use crate::layers::budget::Register;
use crate::layers::rate_limit::Word;
use crate::neurons::Neurons;

const LAYOUT: &str = include_str!("packed.lua");

/// A script that reads what is packed.
pub(super) fn script(text: &str) -> Script {
    Script::new(&format!(
        "local JUMP, LEARN, FORGET, AGAIN, FRESH = {JUMP_MS}, {LEARN_MS}, {FORGET_MS}, {AGAIN_MS}, {FRESH_MS}\n{LAYOUT}\n{text}"
    ))
}

/// Who asks, over a connection to this run of a server. The time and the run are told by tests; otherwise 0 and nothing.
pub(super) fn asked(exchange: &Exchange, connected: &str, (now, run): (u64, &str)) -> Vec<u8> {
    let mut packed = Packed::default();
    packed.number(now).name(run).number(exchange.keep_ms).number(exchange.since_ms).flag(exchange.is_leaving);
    packed.number(exchange.words.len() as u64);
    packed.name(connected).name(&exchange.id).name(&exchange.who).name(&exchange.fleet);
    packed.0
}

pub(super) fn word(word: &Word) -> Vec<u8> {
    let mut packed = Packed::default();
    packed.number(word.limit.into()).number(word.window_ms).number(word.number).number(word.held.into());
    for part in word.parts {
        packed.number(part.into());
    }
    packed.number(word.ask.into()).number(word.first.into()).number(word.waiting.into()).number(word.had);
    packed.flag(word.refused).number(word.hold_ms).flag(word.is_unpaced);
    packed.0
}

pub(super) fn register((number, register): &(u64, Register)) -> Vec<u8> {
    let mut packed = Packed::default();
    packed.number(most(register.limit)).number(register.now_ms).number(*number).flag(register.is_restored);
    let slots = register.slots.iter().take(usize::from(u16::MAX));
    packed.0.extend_from_slice(&(slots.len() as u16).to_le_bytes());
    for slot in slots {
        packed.number(slot.expires_ms);
        for neurons in [slot.spent, slot.used, slot.upto, slot.held] {
            packed.number(most(neurons));
        }
    }
    packed.0
}

/// The scripts reckon in doubles, which are exact up to 2^53: nine thousand million neurons.
pub(super) fn most(neurons: Neurons) -> u64 {
    neurons.micro().min(1 << 53)
}

#[derive(Default)]
struct Packed(Vec<u8>);

impl Packed {
    fn number(&mut self, number: u64) -> &mut Self {
        self.0.extend_from_slice(&(number as f64).to_le_bytes());
        self
    }

    fn flag(&mut self, flag: bool) -> &mut Self {
        self.0.push(u8::from(flag));
        self
    }

    /// It ends with a zero, so it has none.
    fn name(&mut self, name: &str) -> &mut Self {
        self.0.extend(name.bytes().filter(|byte| *byte != 0).chain([0]));
        self
    }
}
