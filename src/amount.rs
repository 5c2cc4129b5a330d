//! Money as people write it, and as they are then shown it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::neurons::Neurons;

/// An amount of money: `10000 neurons` or `5 USD`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Amount {
    /// What it is worth.
    pub neurons: Neurons,
    /// What it is written in.
    pub currency: Currency,
}

/// What amounts are written in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Currency {
    /// The vendor's neurons.
    #[default]
    Neurons,
    /// US dollars.
    Usd,
}

/// Less than what is shown of a dollar.
const LEAST_USD: f64 = 0.000_000_001;

// === impl Currency ===

impl Currency {
    /// So much, in this currency.
    pub fn of(self, neurons: Neurons) -> Amount {
        Amount { neurons, currency: self }
    }

    /// The number alone.
    pub(crate) fn figure(self, neurons: Neurons) -> String {
        match self {
            Self::Neurons => neurons.decimal(),
            Self::Usd => {
                let usd = neurons.usd_decimal();
                usd.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
        }
    }

    /// Its name, as in the config.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Neurons => "neurons",
            Self::Usd => "USD",
        }
    }
}

// === impl Amount ===

impl From<Neurons> for Amount {
    fn from(neurons: Neurons) -> Self {
        Currency::Neurons.of(neurons)
    }
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no sum of money: write it like \"10000 neurons\" or \"5 USD\"");
        let (number, unit) = text.trim().split_once(char::is_whitespace).ok_or_else(wrong)?;
        let number: f64 = number.replace('_', "").parse().map_err(|_| wrong())?;
        let amount = match unit.trim() {
            "neurons" | "neuron" => Currency::Neurons.of(Neurons::from_f64(number)),
            // What would be shown as nothing is shown in neurons.
            "USD" | "usd" if number < LEAST_USD => Currency::Neurons.of(Neurons::from_usd(number)),
            "USD" | "usd" => Currency::Usd.of(Neurons::from_usd(number)),
            _ => return Err(wrong()),
        };
        if amount.neurons.is_zero() || !number.is_finite() { Err(wrong()) } else { Ok(amount) }
    }
}

impl TryFrom<String> for Amount {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Amount> for String {
    fn from(amount: Amount) -> Self {
        amount.to_string()
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.currency.figure(self.neurons), self.currency.label())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_with_their_unit() {
        let read = |text: &str| text.parse::<Amount>().map(|amount| amount.neurons);
        assert_eq!(read("10_000 neurons"), Ok(Neurons::from_whole(10_000)));
        assert_eq!(read("0.011 USD"), Ok(Neurons::from_whole(1_000)));
        for wrong in ["5", "5 EUR", "USD", "-1 USD", "NaN neurons", "inf USD", "0 neurons", ""] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_amount_is_shown_in_what_it_was_written_in() {
        for (written, shown) in [
            ("5 USD", "5 USD"),
            ("0.02 usd", "0.02 USD"),
            ("1234.5 USD", "1234.5 USD"),
            ("1_000 neuron", "1000 neurons"),
        ] {
            let amount: Amount = written.parse().unwrap();
            assert_eq!(amount.to_string(), shown);
            assert_eq!(shown.parse(), Ok(amount), "what is shown is read as the same");
        }
        assert_eq!("0.0000000001 USD".parse::<Amount>().unwrap().to_string(), "0.000009 neurons");
        assert_eq!(Currency::Usd.figure(Neurons::ZERO), "0");
    }
}
