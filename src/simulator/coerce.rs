//! What JavaScript makes of a figure that is not the number it should be.
//!
//! The vendor's schemas do not say what happens to `"4096"`, 0, -1 or `{}` where a number belongs. Each of the casts that
//! its code may use has another answer, so there are two ways to reckon: see [`Coercion`].

use super::js::View;

/// How a figure of the wrong kind is taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Coercion {
    /// By `Number(…)`, and by the model's default where that gives nothing above zero.
    #[default]
    Plain,
    /// By whichever cast the caller pays most for: `Number`, `parseInt`, `x || default`, `x ?? default`, or a comparison with
    /// NaN, which no count ever passes. Text is charged a token a byte, and what may or may not be charged is.
    Dear,
}

/// A figure as it was given: in JSON, or as a form's text.
#[derive(Clone, Copy, Debug)]
pub(super) enum Given<'a> {
    Json(View<'a>),
    Text(&'a str),
}

/// What a cast makes of a figure.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Cast {
    Above(f64),
    /// Zero, which `||` takes for absent.
    Zero,
    /// NaN, Infinity or below zero: a comparison with it limits nothing.
    Useless,
}

impl Given<'_> {
    /// `Number(value)`.
    pub(super) fn number(self) -> f64 {
        match self {
            Self::Json(view) => match (view.number(), view.bool(), view.items().map(|items| items.len())) {
                (Some(number), ..) => number,
                (_, Some(is), _) => f64::from(u8::from(is)),
                (_, _, Some(2..)) => f64::NAN,
                _ if view.is_object() => f64::NAN,
                _ => number_of(&view.string()),
            },
            Self::Text(text) => number_of(text),
        }
    }

    /// `parseInt(value)`: the digits that it begins with.
    fn leading(self) -> f64 {
        let text = match self {
            Self::Json(view) => view.string(),
            Self::Text(text) => text.to_owned(),
        };
        let text = text.trim_start();
        let (digits, is_negative) = text.strip_prefix('-').map_or((text, false), |digits| (digits, true));
        let hexadecimal = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
        let (digits, radix) = hexadecimal.map_or((digits, 10), |digits| (digits, 16));
        let end = digits.find(|c: char| !c.is_digit(radix)).unwrap_or(digits.len());
        let read = match radix {
            16 => u64::from_str_radix(&digits[..end], 16).map_or(f64::NAN, |number| number as f64),
            _ => digits[..end].parse().unwrap_or(f64::NAN),
        };
        if is_negative { -read } else { read }
    }

    fn is_bool(self) -> bool {
        matches!(self, Self::Json(view) if view.bool().is_some())
    }

    fn casts(self) -> [Cast; 2] {
        // Nobody reads digits off `true`.
        let leading = if self.is_bool() { self.number() } else { self.leading() };
        [self.number(), leading].map(|number| match number {
            0.0 => Cast::Zero,
            number if number > 0.0 && number.is_finite() => Cast::Above(number),
            _ => Cast::Useless,
        })
    }
}

/// `Number(text)`: nothing is 0, and hexadecimal digits are read.
fn number_of(text: &str) -> f64 {
    let text = text.trim();
    if text.is_empty() {
        return 0.0;
    }
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return u64::from_str_radix(digits, 16).map_or(f64::NAN, |number| number as f64);
    }
    let is_number = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-'));
    match text.parse() {
        Ok(number) if is_number => number,
        _ if text.trim_start_matches(['+', '-']) == "Infinity" => f64::INFINITY,
        _ => f64::NAN,
    }
}

impl Coercion {
    /// The limit that these figures set, at most `most`; `default` where none is given. A default that is absent is `most`.
    pub(super) fn limit<'a>(self, given: impl Iterator<Item = Given<'a>>, default: Option<u64>, most: u64) -> u64 {
        let default = default.unwrap_or(most).min(most);
        let limits = given.map(|figure| match (self, figure.casts()) {
            (Self::Plain, [Cast::Above(number), _]) => number.ceil().min(most as f64) as u64,
            (Self::Plain, _) => default,
            (Self::Dear, casts) => {
                let each = casts.map(|cast| match cast {
                    Cast::Above(number) => number.ceil().min(most as f64) as u64,
                    Cast::Zero => default,
                    Cast::Useless => most,
                });
                // `true` is 1, or no limit of the caller's.
                each.into_iter().max().unwrap_or(default).max(if figure.is_bool() { default } else { 0 })
            }
        });
        match self {
            Self::Plain => limits.into_iter().next(),
            Self::Dear => limits.max(),
        }
        .unwrap_or(default)
    }
}

#[cfg(test)]
mod tests {
    use super::super::js::Document;
    use super::*;

    fn limit(coercion: Coercion, json: &str) -> u64 {
        let document = Document::parse(json.as_bytes()).unwrap();
        coercion.limit(std::iter::once(Given::Json(document.root())), Some(256), 9000)
    }

    #[test]
    fn figures_are_cast_as_javascript_casts_them() {
        for (json, plain, dear) in [
            ("100", 100, 100),
            ("50.9", 51, 51),
            ("1e21", 9000, 9000),
            ("0", 256, 256),
            ("-1", 256, 9000),
            ("\"4096\"", 4096, 4096),
            ("\" 4096 \"", 4096, 4096),
            ("\"1e3\"", 1000, 1000),
            ("\"0x10\"", 16, 16),
            ("\"4096abc\"", 256, 9000),
            ("\"\"", 256, 9000),
            ("[4096]", 4096, 4096),
            ("[1,2]", 256, 9000),
            ("{}", 256, 9000),
            ("true", 1, 256),
            ("false", 256, 256),
            ("\"inf\"", 256, 9000),
        ] {
            assert_eq!((limit(Coercion::Plain, json), limit(Coercion::Dear, json)), (plain, dear), "{json}");
        }
    }
}
