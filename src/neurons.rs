//! Money: an exact, integer count of micro-neurons.
//!
//! Workers AI bills in neurons, $0.011 per 1,000 (pricing page, 2026-08-28). Its "neurons per million tokens" column is
//! exactly micro-neurons per token, so prices, costs and budgets add and compare without a float.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

use serde::{Deserialize, Serialize};

/// An amount of neurons, kept as whole micro-neurons. Arithmetic saturates: a bill never wraps around.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Neurons(u64);

const MICRO: f64 = 1_000_000.0;
/// $0.011 per 1,000 neurons is 11 pico-dollars a micro-neuron, exactly.
const PICO_USD_PER_MICRO: u64 = 11;
const PICO: f64 = 1e12;

impl Neurons {
    /// Nothing.
    pub const ZERO: Self = Self(0);
    /// More than any bill: what an unbounded limit compares against.
    pub const MAX: Self = Self(u64::MAX);

    /// From micro-neurons, the unit it is kept in.
    pub const fn from_micro(micro: u64) -> Self {
        Self(micro)
    }

    /// From whole neurons.
    pub const fn from_whole(neurons: u64) -> Self {
        Self(neurons.saturating_mul(1_000_000))
    }

    /// From the vendor's own figure, a float of neurons, to the nearest micro-neuron. Negative and NaN are zero.
    pub fn from_f64(neurons: f64) -> Self {
        // A float-to-int cast saturates and takes NaN to zero, which is what is wanted here.
        Self((neurons * MICRO).round() as u64)
    }

    /// What a sum in US dollars buys, rounded down. Negative and NaN are zero.
    pub fn from_usd(usd: f64) -> Self {
        Self((usd * PICO / PICO_USD_PER_MICRO as f64).floor() as u64)
    }

    /// In micro-neurons.
    pub const fn micro(self) -> u64 {
        self.0
    }

    /// In neurons, for showing and for Prometheus.
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / MICRO
    }

    /// In US dollars, for showing: $0.000011 a neuron.
    pub fn usd(self) -> f64 {
        (u128::from(self.0) * u128::from(PICO_USD_PER_MICRO)) as f64 / PICO
    }

    /// In neurons with up to six decimals, no trailing zeros: `172.8`, `1.772727`, `0`.
    pub fn decimal(self) -> String {
        let mut text = decimal(self.0, 6);
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
        text
    }

    /// In US dollars with nine decimals, rounded: `0.001900800`.
    pub fn usd_decimal(self) -> String {
        let pico = u128::from(self.0) * u128::from(PICO_USD_PER_MICRO);
        decimal(u64::try_from((pico + 500) / 1000).unwrap_or(u64::MAX), 9)
    }

    /// In US dollars with twelve decimals, which are all there are: `0.001900800000`. For sheets that are added up.
    pub fn usd_exact(self) -> String {
        let pico = u128::from(self.0) * u128::from(PICO_USD_PER_MICRO);
        const WHOLE: u128 = 1_000_000_000_000;
        format!("{}.{:012}", pico / WHOLE, pico % WHOLE)
    }

    /// True for no neurons at all.
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// So many millionths of it, rounded up to a whole micro-neuron.
    pub(crate) fn times_millionths(self, millionths: u64) -> Self {
        let product = u128::from(self.0) * u128::from(millionths);
        Self(u64::try_from(product.div_ceil(1_000_000)).unwrap_or(u64::MAX))
    }

    /// The difference, or zero.
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl Add for Neurons {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Neurons {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Neurons {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for Neurons {
    /// As [`decimal`](Neurons::decimal).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.decimal())
    }
}

/// A fixed-point number in decimal. Written on every reply, so it goes around the formatter.
fn decimal(value: u64, decimals: usize) -> String {
    let mut digits = [b'0'; 40];
    let (mut rest, mut begun, mut place) = (value, digits.len(), 0);
    while rest > 0 || place <= decimals {
        begun -= 1;
        if place == decimals && decimals > 0 {
            digits[begun] = b'.';
            begun -= 1;
        }
        digits[begun] = b'0' + (rest % 10) as u8;
        (rest, place) = (rest / 10, place + 1);
    }
    String::from_utf8_lossy(&digits[begun..]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_as_people_write_it() {
        assert_eq!(Neurons::from_micro(172_800_000).to_string(), "172.8");
        assert_eq!(Neurons::from_micro(1_772_727).to_string(), "1.772727");
        assert_eq!(Neurons::from_micro(30).to_string(), "0.00003");
        assert_eq!(Neurons::ZERO.to_string(), "0");
    }

    #[test]
    fn the_vendors_float_comes_out_to_the_micro_neuron() {
        assert_eq!(Neurons::from_f64(1.772_727_251_052_856_4).micro(), 1_772_727);
        assert_eq!(Neurons::from_f64(f64::NAN), Neurons::ZERO);
        assert_eq!(Neurons::from_f64(-3.0), Neurons::ZERO);
    }

    #[test]
    fn dollars_have_nine_decimals() {
        assert_eq!(Neurons::from_micro(172_800_000).usd_decimal(), "0.001900800");
        assert_eq!(Neurons::from_whole(1_000_000_000).usd_decimal(), "11000.000000000");
        assert_eq!(Neurons::ZERO.usd_decimal(), "0.000000000");
        assert_eq!(Neurons::MAX.decimal(), "18446744073709.551615");
        assert_eq!(Neurons::from_micro(1).usd_exact(), "0.000000000011");
        assert_eq!(Neurons::MAX.usd_exact(), "202914184.810805067765");
    }

    proptest::proptest! {
        #[test]
        fn usd_is_eleven_millionths_a_neuron(micro in 0u64..10_000_000_000_000) {
            let neurons = Neurons::from_micro(micro);
            let want = micro as f64 / 1e6 * 0.000_011;
            proptest::prop_assert!((neurons.usd() - want).abs() < 1e-9, "{} != {want}", neurons.usd());
        }

        #[test]
        fn dollars_never_buy_more_than_they_pay_for(micro in 0u64..10_000_000_000_000) {
            let usd = Neurons::from_micro(micro).usd();
            let back = Neurons::from_usd(usd).micro();
            proptest::prop_assert!(back <= micro && micro - back <= 1, "{micro} -> {usd} -> {back}");
        }
    }
}
