//! What a call cost, and who says so.

use serde::Serialize;

use crate::neurons::Neurons;

/// A cost with its source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Cost {
    /// The figure that counts.
    pub neurons: Neurons,
    /// Who says so.
    pub source: Source,
    /// The vendor's own figure, where it gave one.
    pub reported: Option<Neurons>,
    /// Usage times the catalogue's prices, where there are any. `neurons` differs from it where the model's own
    /// [`Learned`](crate::catalogue::Learned) ratio says that the table is off.
    pub computed: Option<Neurons>,
    /// In US dollars at the caller's own price, `cf-aig-custom-cost`: for showing. Budgets count `neurons`.
    pub custom_usd: Option<f64>,
    /// The reply was cut off: this is for what flowed until then, and upstream may have gone on.
    pub is_partial: bool,
}

/// Where a cost comes from; a later one is better and wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Source {
    /// Nothing was used.
    #[default]
    None,
    /// From what flowed.
    Estimated,
    /// From the reported usage and the catalogue.
    Computed,
    /// The vendor's own figure.
    Reported,
}

impl Source {
    /// Its metric label; `None` where nothing was used.
    pub fn label(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Estimated => Some("estimated"),
            Self::Computed => Some("computed"),
            Self::Reported => Some("reported"),
        }
    }
}

// === impl Cost ===

impl Cost {
    /// From what flowed.
    pub fn estimated(neurons: Neurons) -> Self {
        Self { neurons, source: Source::Estimated, ..Self::default() }
    }

    /// In US dollars, at the caller's own price where it named one.
    pub fn usd(&self) -> f64 {
        self.custom_usd.unwrap_or_else(|| self.neurons.usd())
    }

    /// Reported over computed, where both are there and neither is nothing: 1.0 is a table that is right.
    pub fn drift(&self) -> Option<f64> {
        let (reported, computed) = (self.reported?, self.computed?);
        (!reported.is_zero() && !computed.is_zero()).then(|| reported.micro() as f64 / computed.micro() as f64)
    }
}
