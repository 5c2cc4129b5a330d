//! What JavaScript may make of a field that should hold a count.
//!
//! Only a positive safe integer, written as a number, is surely read as what it is. Of anything else the vendor's code may make
//! the number that it coerces to, the model's default, or `NaN`, with which every comparison is false, so that nothing is bounded.

use crate::json::{Broken, Kind, Walk};

/// One value, as a count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// `null`: as if the field were not there.
    Absent,
    /// A positive safe integer.
    Plain(u64),
    /// Something else that may be coerced to this much at most, or taken for nothing.
    Odd(u64),
    /// Negative, infinite, `NaN`, or larger than any safe integer.
    Boundless,
}

/// All values that one field was given, the dearest of which counts.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Given {
    pub(super) most: u64,
    is_plain: bool,
    pub(super) is_odd: bool,
    is_absent: bool,
    pub(super) is_boundless: bool,
}

/// `Number.MAX_SAFE_INTEGER`
const MAX_SAFE: f64 = 9_007_199_254_740_991.0;

impl Count {
    /// Takes a value of any kind.
    pub(super) fn take(walk: &mut Walk<'_>) -> Result<Self, Broken> {
        Ok(match walk.peek()? {
            Kind::Number => Self::of_number(walk.literal()?),
            Kind::String => Self::of_text(&walk.string()?.text()),
            Kind::Null => walk.literal().map(|_| Self::Absent)?,
            Kind::True => walk.literal().map(|_| Self::Odd(1))?,
            Kind::False => walk.literal().map(|_| Self::Odd(0))?,
            Kind::Object => walk.skip().map(|_| Self::Boundless)?,
            Kind::Array => {
                let place = walk.skip()?;
                Self::of_list(walk.written(place))
            }
        })
    }

    fn of_number(literal: &[u8]) -> Self {
        // Most counts are a few digits.
        if literal.len() < 16 && literal[0] != b'0' && literal.iter().all(u8::is_ascii_digit) {
            return Self::Plain(literal.iter().fold(0, |number, digit| number * 10 + u64::from(digit - b'0')));
        }
        let number = std::str::from_utf8(literal).ok().and_then(|text| text.parse().ok());
        match Self::of_float(number.unwrap_or(f64::NAN)) {
            Self::Odd(whole) if whole > 0 && number.is_some_and(|number| number.fract() == 0.0) => Self::Plain(whole),
            other => other,
        }
    }

    fn of_float(number: f64) -> Self {
        if (0.0..=MAX_SAFE).contains(&number) { Self::Odd(number.ceil() as u64) } else { Self::Boundless }
    }

    /// A string, as `Number` reads it.
    pub(super) fn of_text(text: &[u8]) -> Self {
        number(text).map_or(Self::Boundless, Self::of_float)
    }

    /// A form's field, where digits alone are a number's usual spelling.
    pub(super) fn of_form(text: &[u8]) -> Self {
        let trimmed = text.trim_ascii();
        if !trimmed.is_empty() && trimmed.len() < 16 && trimmed[0] != b'0' && trimmed.iter().all(u8::is_ascii_digit) {
            return Self::of_number(trimmed);
        }
        Self::of_text(text)
    }

    /// `Number([])` is 0, and `Number([x])` is that of `x`.
    fn of_list(written: &[u8]) -> Self {
        let mut walk = Walk::from(written, 1);
        let inner = match walk.peek() {
            Ok(Kind::Number) => walk.literal().map(Self::of_number),
            Ok(Kind::String) => walk.string().map(|text| Self::of_text(&text.text())),
            _ => return Self::Boundless,
        };
        match (inner, walk.element(&mut false)) {
            (Ok(Self::Plain(number) | Self::Odd(number)), Ok(false)) => Self::Odd(number),
            _ => Self::Boundless,
        }
    }
}

/// What `Number` makes of a string; `None` is `NaN`. An empty one is 0 to `Number` and `NaN` to `parseInt`.
fn number(text: &[u8]) -> Option<f64> {
    let text = std::str::from_utf8(text).ok()?.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    let radix = match text.get(..2) {
        Some("0x" | "0X") => Some(16),
        Some("0o" | "0O") => Some(8),
        Some("0b" | "0B") => Some(2),
        _ => None,
    };
    if let Some(radix) = radix {
        return u64::from_str_radix(&text[2..], radix).ok().map(|number| number as f64);
    }
    let is_decimal = text.bytes().all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte));
    text.parse().ok().filter(|_| is_decimal)
}

// === impl Given ===

impl Given {
    pub(super) fn add(&mut self, count: Count) {
        match count {
            Count::Absent => self.is_absent = true,
            Count::Plain(number) => (self.is_plain, self.most) = (true, self.most.max(number)),
            Count::Odd(number) => (self.is_odd, self.most) = (true, self.most.max(number)),
            Count::Boundless => self.is_boundless = true,
        }
    }

    /// Every value of it is a count, so that the vendor surely reads one of them.
    pub(super) fn is_sure(self) -> bool {
        self.is_plain && !self.is_odd && !self.is_absent && !self.is_boundless
    }

    /// There is a value that is not null.
    pub(super) fn is_given(self) -> bool {
        self.is_plain || self.is_odd || self.is_boundless
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(json: &str) -> Count {
        Count::take(&mut Walk::new(json.as_bytes())).unwrap()
    }

    #[test]
    fn only_a_positive_safe_integer_is_a_count() {
        for (json, want) in [
            ("7", Count::Plain(7)),
            ("7.0", Count::Plain(7)),
            ("1e3", Count::Plain(1000)),
            ("9007199254740991", Count::Plain(9_007_199_254_740_991)),
            ("9007199254740993", Count::Boundless),
            ("1e21", Count::Boundless),
            ("1e999", Count::Boundless),
            ("-1", Count::Boundless),
            ("0", Count::Odd(0)),
            ("-0", Count::Odd(0)),
            ("50.9", Count::Odd(51)),
            ("null", Count::Absent),
            ("true", Count::Odd(1)),
            ("false", Count::Odd(0)),
            (r#""4096""#, Count::Odd(4096)),
            (r#"" 0x10 ""#, Count::Odd(16)),
            (r#""1e9""#, Count::Odd(1_000_000_000)),
            (r#""4096abc""#, Count::Boundless),
            (r#""Infinity""#, Count::Boundless),
            (r#""nan""#, Count::Boundless),
            (r#""""#, Count::Boundless),
            ("[4096]", Count::Odd(4096)),
            (r#"["50"]"#, Count::Odd(50)),
            ("[1,2]", Count::Boundless),
            ("[]", Count::Boundless),
            ("{}", Count::Boundless),
        ] {
            assert_eq!(count(json), want, "{json}");
        }
        assert_eq!(Count::of_form(b" 1024\r\n"), Count::Plain(1024));
        assert_eq!(Count::of_form(b"1e3"), Count::Odd(1000));
        assert_eq!(Count::of_form(b"0"), Count::Odd(0));
    }
}
