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
    /// The units whose price is over zero, a bit each: most models have few, and a call is priced several times.
    charged: u16,
    /// Tiles of a generated picture are counted whole (flux-2-klein-4b), not as a fraction of 512x512.
    whole_tiles: bool,
}

/// The units, one a row: its key in the table and in the config, how people write it behind a figure, and what the published
/// figure is divided by. [`Prices::cost`] has to say what each of them counts, or nothing compiles.
macro_rules! units {
    ($($(#[$doc:meta])* $unit:ident: $key:literal, $words:literal, $per:literal;)+) => {
        /// What a price is for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Unit { $($(#[$doc])* $unit,)+ }

        impl Unit {
            /// Every unit, in the order of the pricing page.
            pub const ALL: [Self; [$($key),+].len()] = [$(Self::$unit),+];

            /// Its key in the table and in the config.
            pub fn key(self) -> &'static str {
                match self { $(Self::$unit => $key,)+ }
            }

            /// As people write it behind a figure: `/M in`.
            pub fn words(self) -> &'static str {
                match self { $(Self::$unit => $words,)+ }
            }

            /// What the published figure is divided by: the per-million columns.
            fn published_per(self) -> f64 {
                match self { $(Self::$unit => $per,)+ }
            }
        }
    };
}

units! {
    /// A token read. Written per million.
    InputToken: "input_token", "/M in", 1_000_000.0;
    /// A token read from the vendor's prefix cache. Written per million.
    CachedInputToken: "cached_input_token", "/M cached in", 1_000_000.0;
    /// A token written. Written per million.
    OutputToken: "output_token", "/M out", 1_000_000.0;
    /// 512x512 pixels of a generated picture.
    Tile: "tile", "/tile", 1.0;
    /// 512x512 pixels of a generated picture, each diffusion step.
    TileStep: "tile_step", "/tile and step", 1.0;
    /// 512x512 pixels of a picture given.
    InputTile: "input_tile", "/input tile", 1.0;
    /// 512x512 pixels of a picture given, each diffusion step.
    InputTileStep: "input_tile_step", "/input tile and step", 1.0;
    /// The first 1024x1024 pixels of a generated picture.
    FirstMegapixel: "first_megapixel", "/first MP", 1.0;
    /// Each further 1024x1024 pixels begun.
    NextMegapixel: "next_megapixel", "/further MP", 1.0;
    /// 1024x1024 pixels of a picture given, each begun.
    InputMegapixel: "input_megapixel", "/input MP", 1.0;
    /// A minute of audio over HTTP.
    AudioMinute: "audio_minute", "/minute", 1.0;
    /// A minute of audio over a WebSocket; where there is none, [`AudioMinute`](Self::AudioMinute) counts there too.
    AudioMinuteWebsocket: "audio_minute_websocket", "/minute over WebSocket", 1.0;
    /// A thousand characters to be spoken.
    KiloCharacters: "kilo_characters", "/1k characters", 1.0;
    /// A picture classified. Written per million.
    Image: "image", "/M images", 1_000_000.0;
}

const TILE_PIXELS: u64 = 512 * 512;
const MEGAPIXEL: u64 = 1024 * 1024;

// === impl Prices ===

impl Prices {
    /// The same prices with one set, in micro-neurons a unit.
    pub fn with(mut self, unit: Unit, price: Neurons) -> Self {
        self.rates[unit as usize] = Some(price);
        let bit = 1 << unit as usize;
        self.charged = if price.is_zero() { self.charged & !bit } else { self.charged | bit };
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
        let mut charged = self.charged;
        while charged != 0 {
            let unit = Unit::ALL[charged.trailing_zeros() as usize];
            charged &= charged - 1;
            if let Some(price) = self.get(unit) {
                self.charge(&mut bill, unit, price.micro(), usage);
            }
        }
        bill.total()
    }

    /// Adds what was used of one unit, which has a price.
    fn charge(&self, bill: &mut Bill, unit: Unit, rate: u64, usage: &Usage) {
        let cached = usage.cached_input_tokens.min(usage.input_tokens);
        let (image, read) = (usage.image, &usage.input_images);
        let stepwise = || rate.saturating_mul(image.map_or(0, |image| u64::from(image.steps)));
        let mut tiles = |rate: u64, size: Size| {
            let (pixels, per) = self.tiles(size);
            bill.add(rate, pixels, per);
        };
        let megapixels = |size: Size| size.area().div_ceil(MEGAPIXEL);
        match unit {
            Unit::InputToken if self.get(Unit::CachedInputToken).is_none() => bill.add(rate, usage.input_tokens, 1),
            Unit::InputToken => bill.add(rate, usage.input_tokens - cached, 1),
            Unit::CachedInputToken => bill.add(rate, cached, 1),
            Unit::OutputToken => bill.add(rate, usage.output_tokens, 1),
            Unit::Tile => image.into_iter().for_each(|image| tiles(rate, image.size)),
            Unit::TileStep => image.into_iter().for_each(|image| tiles(stepwise(), image.size)),
            Unit::InputTile => read.iter().for_each(|size| tiles(rate, *size)),
            Unit::InputTileStep => read.iter().for_each(|size| tiles(stepwise(), *size)),
            Unit::FirstMegapixel => bill.add(rate, image.into_iter().count() as u64, 1),
            Unit::NextMegapixel => bill.add(rate, image.map_or(0, |image| megapixels(image.size).saturating_sub(1)), 1),
            Unit::InputMegapixel => read.iter().for_each(|size| bill.add(rate, megapixels(*size), 1)),
            Unit::AudioMinute => bill.add(rate, usage.audio_ms, 60_000),
            // `over_socket` puts it in the place of the other.
            Unit::AudioMinuteWebsocket => {}
            Unit::KiloCharacters => bill.add(rate, usage.characters, 1000),
            Unit::Image => bill.add(rate, read.len() as u64, 1),
        }
    }

    /// A picture's tiles, as a fraction.
    fn tiles(&self, size: Size) -> (u64, u64) {
        if self.whole_tiles { (size.area().div_ceil(TILE_PIXELS), 1) } else { (size.area(), TILE_PIXELS) }
    }
}

/// A sum of whole micro-neurons and of fractions, which are kept over one denominator so that it is rounded only once.
#[derive(Default)]
struct Bill {
    whole: u128,
    fractions: u128,
}

/// The least common multiple of every denominator in use: 512², 60,000, 1,000 and 1.
const DENOMINATOR: u128 = 262_144 * 1_875;

impl Bill {
    fn add(&mut self, micro_a_unit: u64, count: u64, per: u64) {
        let part = u128::from(micro_a_unit) * u128::from(count);
        if per == 1 {
            self.whole = self.whole.saturating_add(part);
            return;
        }
        self.fractions = self.fractions.saturating_add(part.saturating_mul(DENOMINATOR / u128::from(per)));
    }

    fn total(self) -> Neurons {
        let rounded = match self.fractions {
            0 => 0,
            fractions => fractions.saturating_add(DENOMINATOR / 2) / DENOMINATOR,
        };
        Neurons::from_micro(u64::try_from(self.whole.saturating_add(rounded)).unwrap_or(u64::MAX))
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
mod tests {
    use super::*;
    use crate::usage::ImageUsage;

    fn prices(figures: &[(Unit, f64)]) -> Prices {
        figures.iter().fold(Prices::default(), |prices, (unit, figure)| prices.with_published(*unit, *figure))
    }

    fn made(width: u32, height: u32, steps: u32) -> Usage {
        Usage { image: Some(ImageUsage { size: Size { width, height }, steps }), ..Usage::default() }
    }

    fn read(sizes: &[(u32, u32)]) -> Usage {
        let input_images = sizes.iter().map(|(width, height)| Size { width: *width, height: *height }).collect();
        Usage { input_images, ..Usage::default() }
    }

    #[test]
    fn a_tile_is_512_by_512_pixels_and_is_paid_for_each_step() {
        // flux-1-schnell.
        let flux = prices(&[(Unit::Tile, 4.8), (Unit::TileStep, 9.6)]);
        for ((width, height, steps), neurons) in [
            ((512, 512, 1), 14.4),
            ((1024, 1024, 4), 4.0 * (4.8 + 4.0 * 9.6)),
            ((1024, 1024, 0), 19.2),
            ((256, 512, 1), 7.2),
            ((1280, 720, 4), 3.515_625 * (4.8 + 4.0 * 9.6)),
        ] {
            assert_eq!(flux.cost(&made(width, height, steps)), Neurons::from_f64(neurons), "{width}x{height}, {steps}");
        }
        assert_eq!(flux.cost(&read(&[(512, 512)])), Neurons::ZERO, "what is read has a price of its own");
    }

    #[test]
    fn a_model_that_counts_whole_tiles_rounds_them_up() {
        // flux-2-klein-4b, 1280x720: four tiles.
        let klein = prices(&[(Unit::Tile, 26.05), (Unit::InputTile, 5.37)]).in_whole_tiles(true);
        assert_eq!(klein.cost(&made(1280, 720, 4)), Neurons::from_f64(104.2));
        assert_eq!(klein.cost(&made(1, 1, 4)), Neurons::from_f64(26.05));
        assert_eq!(klein.cost(&read(&[(512, 512), (513, 512)])), Neurons::from_f64(3.0 * 5.37));
    }

    #[test]
    fn a_picture_that_is_read_is_paid_for_each_step_of_the_one_that_is_made() {
        let edit = prices(&[(Unit::InputTile, 1.0), (Unit::InputTileStep, 2.0)]);
        let usage = Usage { image: made(1024, 1024, 25).image, ..read(&[(512, 512), (1024, 512)]) };
        assert_eq!(edit.cost(&usage), Neurons::from_whole(3 * (1 + 25 * 2)));
    }

    #[test]
    fn megapixels_begun_are_paid_and_the_first_has_a_price_of_its_own() {
        // flux-2-klein-9b.
        let klein =
            prices(&[(Unit::FirstMegapixel, 1363.64), (Unit::NextMegapixel, 181.82), (Unit::InputMegapixel, 181.82)]);
        for ((width, height), neurons) in [
            ((1024, 1024), 1363.64),
            ((1, 1), 1363.64),
            ((1024, 1025), 1363.64 + 181.82),
            ((2048, 2048), 1363.64 + 3.0 * 181.82),
        ] {
            assert_eq!(klein.cost(&made(width, height, 4)), Neurons::from_f64(neurons), "{width}x{height}");
        }
        assert_eq!(klein.cost(&read(&[(1024, 1024), (1025, 1024), (1, 1)])), Neurons::from_f64(4.0 * 181.82));
    }

    #[test]
    fn each_unit_is_charged_by_itself() {
        let usage = Usage {
            audio_ms: 60_000,
            characters: 1_000,
            image: made(2048, 1024, 2).image,
            input_images: read(&[(512, 512)]).input_images,
            ..Usage::tokens(3, 1, 5)
        };
        for (unit, times) in Unit::ALL.into_iter().zip([3, 1, 5, 8, 16, 1, 2, 1, 1, 1, 1, 0, 1, 1]) {
            let prices = Prices::default().with(unit, Neurons::from_whole(1));
            assert_eq!(prices.cost(&usage), Neurons::from_whole(times), "{unit:?}");
        }
        let socket = Prices::default().with(Unit::AudioMinuteWebsocket, Neurons::from_whole(7)).over_socket();
        assert_eq!(socket.cost(&usage), Neurons::from_whole(7));
    }

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
