//! One model: its task, limit and prices.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::learned::Learned;
use super::price::Prices;
use super::tokens::TokenRatio;
use crate::socket::Dialect;
use crate::usage::{ImageUsage, Size};

/// A model as the gate knows it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Model {
    /// The vendor's name: `@cf/meta/llama-3.2-1b-instruct`.
    pub id: Arc<str>,
    /// What it does.
    pub task: Task,
    /// How often one account may call it.
    pub limit: Limit,
    /// What it costs.
    pub prices: Prices,
    /// What a picture is when the request does not say.
    pub image: Option<ImageUsage>,
    /// What a request may say of a picture, and how.
    pub image_limits: ImageLimits,
    /// The longest input plus output, in tokens, where known.
    pub context: Option<u32>,
    /// The tokens that an answer has at most where the request sets no limit; `None` where the vendor sets none either.
    pub max_tokens_default: Option<u32>,
    /// That default holds on the native route alone, not for OpenAI's chat form (gpt-oss).
    pub default_on_run_only: bool,
    /// What it reports as its cost may have the input in it twice, as moondream's streams do.
    pub bills_input_twice: bool,
    /// The tokens that an answer has at most, whatever is asked, where known.
    pub max_output_tokens: Option<u32>,
    /// The tokens that a picture of any size is read as, at most, where known.
    pub picture_tokens: Option<u32>,
    /// Seconds of the longest sound that it makes, or hears by reference, in a call, where known.
    pub max_audio_seconds: Option<u32>,
    /// What is said on its WebSocket, where it has one.
    pub socket: Option<Dialect>,
    /// A free account gets 403, code 5035.
    pub paid_plan_only: bool,
    /// The day from which it answers 410, past or to come: `2026-05-30`.
    pub deprecated: Option<String>,
    /// The model to ask instead.
    pub replacement: Option<String>,
    /// The models to ask in turn where this one cannot answer.
    pub fallback: Vec<String>,
    /// Where its metrics are counted.
    pub slot: Slot,
    /// How many bytes make a token, learned as replies come in.
    pub tokens: TokenRatio,
    /// What the vendor reports over what its prices come to, learned in the same way.
    pub learned: Learned,
}

/// A model's place in tables that keep something for each model: listed models have one each, all others share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot(pub(super) u16);

/// What a model takes of a picture's size and steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ImageLimits {
    /// Pixels of the longest side, where known.
    pub max_side: Option<u32>,
    /// The most diffusion steps, where known.
    pub max_steps: Option<u32>,
    /// Which field of a request sets the steps.
    pub steps_field: StepsField,
    /// A request cannot set the size (flux-1-schnell).
    pub fixed_size: bool,
}

/// The field that sets a picture's steps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StepsField {
    /// Either of the two.
    #[default]
    Either,
    /// `steps`.
    Steps,
    /// `num_steps`.
    NumSteps,
}

/// Requests a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    /// How many.
    pub requests: NonZeroU32,
    /// In how long.
    pub per: Duration,
}

/// What a model does: the vendor's own names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Task {
    /// Chat and completion.
    #[serde(rename = "Text Generation")]
    TextGeneration,
    /// Vectors of texts.
    #[serde(rename = "Text Embeddings")]
    TextEmbeddings,
    /// Labels of texts, and reranking.
    #[serde(rename = "Text Classification")]
    TextClassification,
    /// Pictures from text.
    #[serde(rename = "Text-to-Image")]
    TextToImage,
    /// Text about pictures.
    #[serde(rename = "Image-to-Text")]
    ImageToText,
    /// Labels of pictures.
    #[serde(rename = "Image Classification")]
    ImageClassification,
    /// Things in pictures.
    #[serde(rename = "Object Detection")]
    ObjectDetection,
    /// Text from speech.
    #[serde(rename = "Automatic Speech Recognition")]
    SpeechRecognition,
    /// Speech from text.
    #[serde(rename = "Text-to-Speech")]
    TextToSpeech,
    /// Whether someone speaks.
    #[serde(rename = "Voice Activity Detection")]
    VoiceActivityDetection,
    /// From language to language.
    #[serde(rename = "Translation")]
    Translation,
    /// Shorter texts.
    #[serde(rename = "Summarization")]
    Summarization,
    /// A model that is in no table, asked by a route that does not tell.
    #[serde(rename = "Unknown")]
    Unknown,
}

impl Task {
    /// Every task.
    pub const ALL: [Self; 13] = [
        Self::TextGeneration,
        Self::TextEmbeddings,
        Self::TextClassification,
        Self::TextToImage,
        Self::ImageToText,
        Self::ImageClassification,
        Self::ObjectDetection,
        Self::SpeechRecognition,
        Self::TextToSpeech,
        Self::VoiceActivityDetection,
        Self::Translation,
        Self::Summarization,
        Self::Unknown,
    ];

    /// Its metric label: `text-generation`.
    pub fn label(self) -> &'static str {
        match self {
            Self::TextGeneration => "text-generation",
            Self::TextEmbeddings => "text-embeddings",
            Self::TextClassification => "text-classification",
            Self::TextToImage => "text-to-image",
            Self::ImageToText => "image-to-text",
            Self::ImageClassification => "image-classification",
            Self::ObjectDetection => "object-detection",
            Self::SpeechRecognition => "speech-recognition",
            Self::TextToSpeech => "text-to-speech",
            Self::VoiceActivityDetection => "voice-activity-detection",
            Self::Translation => "translation",
            Self::Summarization => "summarization",
            Self::Unknown => "unknown",
        }
    }

    /// The vendor's limit for models of this task (limits page, 2026-09-17), for models that have none of their own.
    pub fn limit(self) -> Limit {
        Limit::a_minute(match self {
            Self::TextEmbeddings | Self::ImageClassification | Self::ObjectDetection => 3000,
            Self::TextClassification => 2000,
            Self::Summarization => 1500,
            Self::TextToImage
            | Self::ImageToText
            | Self::SpeechRecognition
            | Self::TextToSpeech
            | Self::VoiceActivityDetection
            | Self::Translation => 720,
            Self::TextGeneration | Self::Unknown => 300,
        })
    }
}

impl Limit {
    /// So many requests a minute; zero counts as one.
    pub fn a_minute(requests: u32) -> Self {
        Self { requests: NonZeroU32::new(requests).unwrap_or(NonZeroU32::MIN), per: Duration::from_secs(60) }
    }
}

impl Slot {
    /// The place of every model that is in no table.
    pub const OTHER: Self = Self(0);
    /// One more than the highest place there can be.
    pub const COUNT: usize = 1024;

    /// Its number.
    pub(crate) fn number(self) -> u16 {
        self.0
    }

    /// The place with this number.
    pub(crate) fn numbered(number: u16) -> Self {
        Self(number)
    }

    /// As an index, less than [`Slot::COUNT`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

impl Model {
    /// The name for a metric: the model's own where it is in the table, else `other`, so that junk names make no series.
    pub fn label(&self) -> &str {
        if self.slot == Slot::OTHER { "other" } else { &self.id }
    }

    /// True where the catalogue has the model.
    pub fn is_listed(&self) -> bool {
        self.slot != Slot::OTHER
    }

    /// The moment from which it answers 410, past or to come: 00:00 UTC of its day. `None` where it is to stay.
    pub fn leaves_at(&self) -> Option<SystemTime> {
        let last: Date = self.deprecated.as_ref()?.parse().ok()?;
        let midnight = last.to_zoned_datetime(TimeZone::UTC).ok()?.timestamp().as_second();
        Some(SystemTime::UNIX_EPOCH + Duration::from_secs(midnight.try_into().ok()?))
    }

    /// Days by UTC from a moment until it answers 410, which are less than one where it does already; `None` where it is to
    /// stay.
    pub fn days_left(&self, at: SystemTime) -> Option<i32> {
        let last: Date = self.deprecated.as_ref()?.parse().ok()?;
        let today = Timestamp::try_from(at).ok()?.to_zoned_datetime(TimeZone::UTC).date();
        today.until(last).ok().map(|span| span.get_days())
    }

    /// The same model as a new entry has it.
    pub(super) fn revised(&self, entry: Entry) -> Self {
        let model = entry.model(&self.id, self.slot);
        let learned = if model.prices == self.prices { self.learned.clone() } else { Learned::default() };
        Self { id: self.id.clone(), tokens: self.tokens.clone(), learned, ..model }
    }
}

/// A model as the table and the config write it. Every field but the name may be left out: a listed model keeps its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// What it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// How often one account may call it in a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests_per_minute: Option<NonZeroU32>,
    /// What it costs; replaces the whole list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prices: Option<Prices>,
    /// What a picture is by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageEntry>,
    /// The longest input plus output, in tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<u32>,
    /// The tokens that an answer has at most where a request sets no limit. Absent: as many as the window has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens_default: Option<u32>,
    /// That default holds on the native route alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_on_run_only: Option<bool>,
    /// What it reports as its cost may have the input in it twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bills_input_twice: Option<bool>,
    /// The tokens that an answer has at most, whatever is asked. For translations, which nothing else bounds, of each text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u32>,
    /// The tokens that a picture of any size is read as, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picture_tokens: Option<u32>,
    /// Seconds of the longest sound that it makes, or hears by reference, in a call: for what nothing else bounds, such as
    /// melotts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_audio_seconds: Option<u32>,
    /// What is said on its WebSocket: `listen`, `turns`, `speak` or `audio`. Absent: it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<Dialect>,
    /// Needs the paid plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paid_plan_only: Option<bool>,
    /// The day from which it answers 410.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deprecated: Option<String>,
    /// The model to ask instead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<String>,
    /// The models to ask in turn where this one cannot answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Vec<String>>,
}

/// Picture defaults as the table writes them.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageEntry {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Diffusion steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// Tiles are counted whole.
    #[serde(default)]
    pub whole_tiles: bool,
    /// Pixels of the longest side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_side: Option<u32>,
    /// The most diffusion steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u32>,
    /// Which field of a request sets the steps.
    #[serde(default)]
    pub steps_field: StepsField,
    /// A request cannot set the size.
    #[serde(default)]
    pub fixed_size: bool,
}

impl Entry {
    /// This entry's fields, and the other's where this one has none.
    pub(super) fn or(self, other: &Self) -> Self {
        Self {
            task: self.task.or(other.task),
            requests_per_minute: self.requests_per_minute.or(other.requests_per_minute),
            prices: self.prices.or_else(|| other.prices.clone()),
            image: self.image.or(other.image),
            context: self.context.or(other.context),
            max_tokens_default: self.max_tokens_default.or(other.max_tokens_default),
            default_on_run_only: self.default_on_run_only.or(other.default_on_run_only),
            bills_input_twice: self.bills_input_twice.or(other.bills_input_twice),
            max_output_tokens: self.max_output_tokens.or(other.max_output_tokens),
            picture_tokens: self.picture_tokens.or(other.picture_tokens),
            max_audio_seconds: self.max_audio_seconds.or(other.max_audio_seconds),
            socket: self.socket.or(other.socket),
            paid_plan_only: self.paid_plan_only.or(other.paid_plan_only),
            deprecated: self.deprecated.or_else(|| other.deprecated.clone()),
            replacement: self.replacement.or_else(|| other.replacement.clone()),
            fallback: self.fallback.or_else(|| other.fallback.clone()),
        }
    }

    pub(super) fn model(self, id: &str, slot: Slot) -> Model {
        let task = self.task.unwrap_or(Task::Unknown);
        let image = self.image;
        Model {
            id: id.into(),
            task,
            limit: self.requests_per_minute.map_or_else(|| task.limit(), |n| Limit::a_minute(n.get())),
            prices: self.prices.unwrap_or_default().in_whole_tiles(image.is_some_and(|i| i.whole_tiles)),
            image: image.map(|i| ImageUsage {
                size: Size { width: i.width, height: i.height },
                steps: i.steps.unwrap_or(DEFAULT_STEPS),
            }),
            image_limits: image.map_or_else(ImageLimits::default, |i| ImageLimits {
                max_side: i.max_side,
                max_steps: i.max_steps,
                steps_field: i.steps_field,
                fixed_size: i.fixed_size,
            }),
            context: self.context,
            max_tokens_default: self.max_tokens_default,
            default_on_run_only: self.default_on_run_only.unwrap_or(false),
            bills_input_twice: self.bills_input_twice.unwrap_or(false),
            max_output_tokens: self.max_output_tokens,
            picture_tokens: self.picture_tokens,
            max_audio_seconds: self.max_audio_seconds,
            socket: self.socket,
            paid_plan_only: self.paid_plan_only.unwrap_or(false),
            deprecated: self.deprecated,
            replacement: self.replacement,
            fallback: self.fallback.unwrap_or_default(),
            slot,
            tokens: TokenRatio::default(),
            learned: Learned::default(),
        }
    }
}

/// flux-1-schnell's; the models that differ say so in the table.
const DEFAULT_STEPS: u32 = 4;
