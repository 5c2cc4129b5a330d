//! From usage to neurons, exactly.

use serde::Deserialize;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::neurons::Neurons;
use crate::usage::{Size, Usage};

/// A model's prices: neurons for each unit the vendor prices by. A unit without a price costs nothing.
///
/// Written, in the table and in the config, as on the vendor's pricing page: neurons *per million* for tokens and images,
/// neurons *per unit* for the rest; or dollars for as much, as `"2.5 USD"`, which is how third parties' models are paid. Kept as
/// micro-neurons a unit, which for the per-million columns is the same number.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prices {
    rates: [Option<Neurons>; Unit::ALL.len()],
    /// Tiles of a generated picture are counted whole (flux-2-klein-4b), not as a fraction of 512x512.
    whole_tiles: bool,
}

/// What a price is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// A token read. Written per million.
    InputToken,
    /// A token read from the vendor's prefix cache. Written per million.
    CachedInputToken,
    /// A token written. Written per million.
    OutputToken,
    /// 512x512 pixels of a generated picture.
    Tile,
    /// 512x512 pixels of a generated picture, each diffusion step.
    TileStep,
    /// 512x512 pixels of a picture given.
    InputTile,
    /// 512x512 pixels of a picture given, each diffusion step.
    InputTileStep,
    /// The first 1024x1024 pixels of a generated picture.
    FirstMegapixel,
    /// Each further 1024x1024 pixels begun.
    NextMegapixel,
    /// 1024x1024 pixels of a picture given, each begun.
    InputMegapixel,
    /// A minute of audio over HTTP.
    AudioMinute,
    /// A minute of audio over a WebSocket; where there is none, [`AudioMinute`](Self::AudioMinute) counts there too.
    AudioMinuteWebsocket,
    /// A thousand characters to be spoken.
    KiloCharacters,
    /// A picture classified. Written per million.
    Image,
}

impl Unit {
    /// Every unit, in the order of the pricing page.
    pub const ALL: [Self; 14] = [
        Self::InputToken,
        Self::CachedInputToken,
        Self::OutputToken,
        Self::Tile,
        Self::TileStep,
        Self::InputTile,
        Self::InputTileStep,
        Self::FirstMegapixel,
        Self::NextMegapixel,
        Self::InputMegapixel,
        Self::AudioMinute,
        Self::AudioMinuteWebsocket,
        Self::KiloCharacters,
        Self::Image,
    ];

    /// Its key in the table and in the config.
    pub fn key(self) -> &'static str {
        match self {
            Self::InputToken => "input_token",
            Self::CachedInputToken => "cached_input_token",
            Self::OutputToken => "output_token",
            Self::Tile => "tile",
            Self::TileStep => "tile_step",
            Self::InputTile => "input_tile",
            Self::InputTileStep => "input_tile_step",
            Self::FirstMegapixel => "first_megapixel",
            Self::NextMegapixel => "next_megapixel",
            Self::InputMegapixel => "input_megapixel",
            Self::AudioMinute => "audio_minute",
            Self::AudioMinuteWebsocket => "audio_minute_websocket",
            Self::KiloCharacters => "kilo_characters",
            Self::Image => "image",
        }
    }

    /// As people write it behind a figure: `/M in`.
    pub fn words(self) -> &'static str {
        match self {
            Self::InputToken => "/M in",
            Self::CachedInputToken => "/M cached in",
            Self::OutputToken => "/M out",
            Self::Tile => "/tile",
            Self::TileStep => "/tile and step",
            Self::InputTile => "/input tile",
            Self::InputTileStep => "/input tile and step",
            Self::FirstMegapixel => "/first MP",
            Self::NextMegapixel => "/further MP",
            Self::InputMegapixel => "/input MP",
            Self::AudioMinute => "/minute",
            Self::AudioMinuteWebsocket => "/minute over WebSocket",
            Self::KiloCharacters => "/1k characters",
            Self::Image => "/M images",
        }
    }

    /// What the published figure is divided by: the per-million columns.
    fn published_per(self) -> f64 {
        match self {
            Self::InputToken | Self::CachedInputToken | Self::OutputToken | Self::Image => 1_000_000.0,
            _ => 1.0,
        }
    }
}

const TILE_PIXELS: u64 = 512 * 512;
const MEGAPIXEL: u64 = 1024 * 1024;

// === impl Prices ===

impl Prices {
    /// The same prices with one set, in micro-neurons a unit.
    pub fn with(mut self, unit: Unit, price: Neurons) -> Self {
        self.rates[unit as usize] = Some(price);
        self
    }

    /// The same prices with one set as it is published: neurons per million for tokens and images, neurons a unit for the rest.
    pub fn with_published(self, unit: Unit, figure: f64) -> Self {
        self.with(unit, Neurons::from_f64(figure / unit.published_per()))
    }

    /// Whether both have the same figures.
    pub fn same_figures(&self, other: &Self) -> bool {
        self.rates == other.rates
    }

    pub(super) fn in_whole_tiles(self, whole_tiles: bool) -> Self {
        Self { whole_tiles, ..self }
    }

    /// The price of a unit, where one is published.
    pub fn get(&self, unit: Unit) -> Option<Neurons> {
        self.rates[unit as usize]
    }

    /// The published figure of a unit: neurons per million for tokens and images, neurons a unit for the rest.
    pub fn published(&self, unit: Unit) -> Option<f64> {
        self.get(unit).map(|price| price.as_f64() * unit.published_per())
    }

    /// What the model costs over a WebSocket: the minute of audio is that one's.
    pub fn over_socket(&self) -> Self {
        match self.get(Unit::AudioMinuteWebsocket) {
            Some(price) => self.clone().with(Unit::AudioMinute, price),
            None => self.clone(),
        }
    }

    /// True where the vendor publishes no price at all.
    pub fn is_empty(&self) -> bool {
        self.rates.iter().all(Option::is_none)
    }

    /// What this usage costs: exact, rounded once, half up, to the micro-neuron.
    ///
    /// Cached input tokens without a price of their own cost what others do.
    pub fn cost(&self, usage: &Usage) -> Neurons {
        let mut bill = Bill::default();
        self.add_tokens(&mut bill, usage);
        self.add_pictures(&mut bill, usage);
        bill.add(self.rate(Unit::AudioMinute), usage.audio_ms, 60_000);
        bill.add(self.rate(Unit::KiloCharacters), usage.characters, 1000);
        bill.total()
    }

    fn add_tokens(&self, bill: &mut Bill, usage: &Usage) {
        let cached = usage.cached_input_tokens.min(usage.input_tokens);
        let input = self.rate(Unit::InputToken);
        bill.add(input, usage.input_tokens - cached, 1);
        bill.add(self.get(Unit::CachedInputToken).map_or(input, Neurons::micro), cached, 1);
        bill.add(self.rate(Unit::OutputToken), usage.output_tokens, 1);
    }

    fn add_pictures(&self, bill: &mut Bill, usage: &Usage) {
        let steps = usage.image.map_or(0, |image| u64::from(image.steps));
        if let Some(image) = usage.image {
            let (pixels, per) = self.tiles(image.size);
            let tile = self.rate(Unit::Tile).saturating_add(self.rate(Unit::TileStep).saturating_mul(steps));
            bill.add(tile, pixels, per);
            bill.add(self.rate(Unit::FirstMegapixel), 1, 1);
            bill.add(self.rate(Unit::NextMegapixel), image.size.area().div_ceil(MEGAPIXEL).saturating_sub(1), 1);
        }
        for size in &usage.input_images {
            let (pixels, per) = self.tiles(*size);
            let tile = self.rate(Unit::InputTile).saturating_add(self.rate(Unit::InputTileStep).saturating_mul(steps));
            bill.add(tile, pixels, per);
            bill.add(self.rate(Unit::InputMegapixel), size.area().div_ceil(MEGAPIXEL), 1);
            bill.add(self.rate(Unit::Image), 1, 1);
        }
    }

    /// A picture's tiles, as a fraction.
    fn tiles(&self, size: Size) -> (u64, u64) {
        if self.whole_tiles { (size.area().div_ceil(TILE_PIXELS), 1) } else { (size.area(), TILE_PIXELS) }
    }

    fn rate(&self, unit: Unit) -> u64 {
        self.get(unit).map_or(0, Neurons::micro)
    }
}

/// A sum of fractions, kept over one denominator so that it is rounded only once.
#[derive(Default)]
struct Bill(u128);

/// The least common multiple of every denominator in use: 512², 60,000, 1,000 and 1.
const DENOMINATOR: u128 = 262_144 * 1_875;

impl Bill {
    fn add(&mut self, micro_a_unit: u64, count: u64, per: u64) {
        // Most models have a price for few of the units.
        if micro_a_unit == 0 || count == 0 {
            return;
        }
        let part = u128::from(micro_a_unit) * u128::from(count);
        self.0 = self.0.saturating_add(part.saturating_mul(DENOMINATOR / u128::from(per)));
    }

    fn total(self) -> Neurons {
        let micro = self.0.saturating_add(DENOMINATOR / 2) / DENOMINATOR;
        Neurons::from_micro(u64::try_from(micro).unwrap_or(u64::MAX))
    }
}

impl Serialize for Prices {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for unit in Unit::ALL {
            if let Some(figure) = self.published(unit) {
                map.serialize_entry(unit.key(), &figure)?;
            }
        }
        map.end()
    }
}

/// A price as it is written.
#[derive(Deserialize)]
#[serde(untagged)]
enum Figure {
    Neurons(f64),
    Text(String),
}

impl Figure {
    /// In neurons.
    fn neurons(&self) -> Option<f64> {
        match self {
            Self::Neurons(neurons) => Some(*neurons),
            Self::Text(text) => {
                let (number, unit) = text.trim().split_once(' ')?;
                let usd: f64 = number.parse().ok().filter(|_| unit.trim().eq_ignore_ascii_case("usd"))?;
                Some(usd / NEURON_USD)
            }
        }
    }
}

/// What a neuron costs.
const NEURON_USD: f64 = 0.000_011;

impl<'de> Deserialize<'de> for Prices {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let published = std::collections::BTreeMap::<String, Figure>::deserialize(deserializer)?;
        let mut prices = Self::default();
        for (key, figure) in published {
            let unit = Unit::ALL.into_iter().find(|unit| unit.key() == key).ok_or_else(|| {
                let known: Vec<_> = Unit::ALL.iter().map(|unit| unit.key()).collect();
                D::Error::custom(format!("`{key}` is no unit of price; there are {}", known.join(", ")))
            })?;
            let figure = figure.neurons().filter(|figure| figure.is_finite() && *figure >= 0.0).ok_or_else(|| {
                D::Error::custom(format!(
                    "the price of `{key}` must be a number of neurons, 0 or more, or dollars, such as \"2.5 USD\""
                ))
            })?;
            prices = prices.with_published(unit, figure);
        }
        Ok(prices)
    }
}

#[cfg(test)]
mod written_tests {
    use super::*;

    #[test]
    fn dollars_are_neurons_at_their_price() {
        let read = |json: &str| serde_json::from_str::<Prices>(json);
        let prices = read(r#"{"input_token": "2.2 USD", "output_token": "11 usd", "kilo_characters": 7}"#).unwrap();
        let micro = |unit| prices.get(unit).map(Neurons::micro);
        assert_eq!((micro(Unit::InputToken), micro(Unit::OutputToken)), (Some(200_000), Some(1_000_000)));
        assert_eq!(prices.cost(&Usage::tokens(1_000_000, 0, 0)).usd_exact().parse::<f64>().unwrap(), 2.2);
        for wrong in ["\"2.2\"", "\"2.2 EUR\"", "\"-1 USD\"", "\"NaN USD\"", "-1", "true", "\"USD\""] {
            assert!(read(&format!("{{\"input_token\": {wrong}}}")).is_err(), "{wrong}");
        }
    }
}
