//! Figures as a person reads them.

use std::time::{Duration, SystemTime};

use crate::neurons::Neurons;

/// Neurons as a person reads them: three figures that matter, and thousands told apart.
pub(crate) fn amount(value: f64) -> String {
    match value {
        none if none <= 0.0 => "0".into(),
        tiny if tiny < 0.001 => "< 0.001".into(),
        small if small < 10.0 => format!("{small:.3}"),
        middle if middle < 1000.0 => format!("{middle:.1}"),
        large => whole(large),
    }
}

/// A figure of an axis, which has few digits.
pub(crate) fn round(value: f64) -> String {
    if value < 1000.0 { value.to_string() } else { whole(value) }
}

/// A whole number, its thousands told apart by narrow spaces.
pub(crate) fn whole(value: f64) -> String {
    let digits = format!("{:.0}", value.max(0.0));
    let mut told = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            told.push('\u{202f}');
        }
        told.push(digit);
    }
    told
}

pub(crate) fn usd(neurons: Neurons) -> String {
    match neurons.usd() {
        none if none <= 0.0 => "$0".into(),
        tiny if tiny < 0.000_1 => "< $0.0001".into(),
        small if small < 1.0 => format!("${small:.4}"),
        large => format!("${large:.2}"),
    }
}

pub(crate) fn share(part: Neurons, whole: Neurons) -> f64 {
    ratio(part.as_f64(), whole.as_f64())
}

pub(crate) fn ratio(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

pub(crate) fn percent(part: f64, whole: f64) -> String {
    format!("{:.1} %", 100.0 * ratio(part, whole))
}

pub(crate) fn time(duration: Duration) -> String {
    match duration.as_secs_f64() {
        none if none < 0.000_05 => "0 ms".into(),
        short if short < 1.0 => format!("{:.1} ms", short * 1e3),
        long => format!("{long:.2} s"),
    }
}

pub(crate) fn clock(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map_or_else(|_| "–".into(), |at| at.strftime("%H:%M").to_string())
}

pub(crate) fn clock_with_seconds(at: SystemTime) -> String {
    jiff::Timestamp::try_from(at).map_or_else(|_| "–".into(), |at| at.strftime("%H:%M:%S").to_string())
}

/// A model's name without its vendor's.
pub(crate) fn short(model: &str) -> &str {
    model.rsplit('/').next().unwrap_or(model)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_told_as_a_person_reads_them() {
        let narrow = "\u{202f}";
        for (value, told) in [(0.0, "0"), (0.000_4, "< 0.001"), (1.54791, "1.548"), (73.06, "73.1")] {
            assert_eq!(amount(value), told);
        }
        assert_eq!(amount(1_234_567.8), format!("1{narrow}234{narrow}568"));
        assert_eq!(usd(Neurons::from_whole(10_000)), "$0.1100");
        assert_eq!((time(Duration::from_micros(2_500)), time(Duration::ZERO)), ("2.5 ms".into(), "0 ms".into()));
        assert_eq!((percent(1.0, 3.0), percent(0.0, 0.0)), ("33.3 %".into(), "0.0 %".into()));
    }
}
