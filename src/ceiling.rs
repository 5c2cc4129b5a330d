//! The most that one call may cost, by its caller's own word.

use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::neurons::Neurons;

/// What a call may cost in all its attempts, on whatever models it is tried.
#[derive(Debug)]
pub struct Ceiling {
    /// As the caller set it.
    pub most: Neurons,
    /// The header that set it.
    pub header: &'static str,
    /// What attempts may have cost that were never heard of again, in micro-neurons.
    lost: AtomicU64,
}

/// The header that sets it in neurons.
pub const MAX_NEURONS: &str = "x-tollgate-max-neurons";
/// The header that sets it in US dollars.
pub const MAX_USD: &str = "x-tollgate-max-usd";

/// Longer figures are no amounts of money.
const MAX_LENGTH: usize = 64;
/// Micro-neurons have six decimals, pico-dollars twelve.
const NEURON_DECIMALS: i64 = 6;
const USD_DECIMALS: i64 = 12;
const PICO_USD_PER_MICRO: u128 = 11;

impl Ceiling {
    /// So much, set by this header.
    pub fn new(most: Neurons, header: &'static str) -> Self {
        Self { most, header, lost: AtomicU64::new(0) }
    }

    /// What another attempt may cost.
    pub fn left(&self) -> Neurons {
        self.most.saturating_sub(Neurons::from_micro(self.lost.load(Ordering::Acquire)))
    }

    /// An attempt may have cost this much, and nobody will say.
    pub(crate) fn lose(&self, neurons: Neurons) {
        self.lost.fetch_add(neurons.micro(), Ordering::AcqRel);
    }
}

/// Neurons from a decimal number of them, rounded down; why not, otherwise.
pub(crate) fn neurons(text: &str) -> Result<Neurons, &'static str> {
    scaled(text, NEURON_DECIMALS).and_then(micro)
}

/// Neurons from a decimal number of US dollars, rounded down; why not, otherwise.
pub(crate) fn usd(text: &str) -> Result<Neurons, &'static str> {
    micro(scaled(text, USD_DECIMALS)? / PICO_USD_PER_MICRO)
}

const NO_NUMBER: &str = "is no amount: give a number that is not negative, such as 12.5";
const TOO_LARGE: &str = "is more than any call can cost: give a number such as 12.5, or leave the header out";

fn micro(micro: u128) -> Result<Neurons, &'static str> {
    u64::try_from(micro).map(Neurons::from_micro).map_err(|_| TOO_LARGE)
}

/// A decimal number, with or without an exponent, times ten to the power of `decimals`, rounded down. No float is in between: a
/// bound that was told is a ceiling that its call fits under.
fn scaled(text: &str, decimals: i64) -> Result<u128, &'static str> {
    if text.len() > MAX_LENGTH {
        return Err(NO_NUMBER);
    }
    let (number, exponent) = match text.split_once(['e', 'E']) {
        Some((number, exponent)) => (number, i64::from_str(exponent).map_err(|_| NO_NUMBER)?),
        None => (text, 0),
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() && part.is_empty() || !is_digits(whole) || !is_digits(part) {
        return Err(NO_NUMBER);
    }
    let digits = format!("{whole}{part}");
    let digits = digits.trim_start_matches('0');
    // How many of the digits stand before the point once it is moved.
    let shift = exponent.saturating_sub(part.len() as i64).saturating_add(decimals);
    let length = (digits.len() as i64).saturating_add(shift);
    match (digits.is_empty(), length) {
        (true, _) | (_, ..=0) => Ok(0),
        (false, 39..) => Err(TOO_LARGE),
        (false, length) => {
            let length = length as usize;
            let kept = &digits[..digits.len().min(length)];
            format!("{kept:0<length$}").parse().map_err(|_| TOO_LARGE)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn amounts_are_read_to_the_last_micro_neuron_and_what_is_none_is_told() {
        for (text, micro) in [
            ("0", 0),
            ("0.000", 0),
            ("12.5", 12_500_000),
            (".5", 500_000),
            ("7.", 7_000_000),
            ("1.772727", 1_772_727),
            ("1.7727279", 1_772_727),
            ("1e-5", 10),
            ("1E+2", 100_000_000),
            ("0e999", 0),
            ("1e-999", 0),
            ("000000000000000000000000000000000000000000000000000000000001", 1_000_000),
        ] {
            assert_eq!(neurons(text), Ok(Neurons::from_micro(micro)), "{text}");
        }
        assert_eq!(usd("0.011"), Ok(Neurons::from_whole(1_000)));
        assert_eq!(usd("0.000000000010"), Ok(Neurons::ZERO));
        assert_eq!(usd("0.000000000022"), Ok(Neurons::from_micro(2)));
        for text in [
            "",
            "-1",
            "-0",
            "+1",
            "NaN",
            "inf",
            "Infinity",
            "1e999",
            "1e9223372036854775808",
            "99999999999999999",
            "1,5",
            "1 2",
            "0x10",
            "1e",
            "e5",
            ".",
            "1.2.3",
            "١",
            "1_000",
            "5 USD",
            "true",
        ] {
            assert!(neurons(text).is_err(), "{text}");
        }
        assert!(neurons(&"9".repeat(65)).is_err());
    }

    proptest! {
        #[test]
        fn what_is_told_of_a_bound_is_a_ceiling_that_the_bound_fits_under(micro: u64) {
            let bound = Neurons::from_micro(micro);
            prop_assert_eq!(neurons(&bound.decimal()), Ok(bound));
            prop_assert_eq!(usd(&bound.usd_exact()), Ok(bound));
        }

        #[test]
        fn no_text_is_read_as_more_than_it_says(text in "[-+0-9.eE]{0,20}") {
            if let Ok(read) = neurons(&text) {
                let said: f64 = text.parse().unwrap_or(f64::NAN);
                prop_assert!(read.as_f64() <= said * (1.0 + 1e-12), "{text}: {read}");
            }
        }
    }
}
