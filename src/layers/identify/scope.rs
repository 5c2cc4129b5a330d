//! What one object of a body says of its answer and its picture: a body itself, its `input`, a request of a batch, a form.

use super::count::{Count, Given};
use crate::call::{ImageReach, OutputReach, Side};

/// Limits on an answer's tokens, by their fields: `max_tokens` and so on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    Tokens,
    CompletionTokens,
    OutputTokens,
    /// The summarization models' own; other models do not read it, so that it never stands for a limit of theirs.
    Length,
}

/// A measure of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Measure {
    Width,
    Height,
    Steps,
    NumSteps,
}

/// Which limits on an answer are read, and whether a model's default is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Form {
    /// The native form, and OpenAI's chat.
    #[default]
    Chat,
    /// OpenAI's Responses, in which no model has a default.
    Responses,
    /// Natively it may be either: it has an `input` that is no object.
    Either,
}

/// The counts of one object, taken in field by field.
#[derive(Debug, Default)]
pub(super) struct Scope {
    limits: [Given; 4],
    measures: [Given; 4],
    n: Given,
    best_of: Given,
    /// Rejected ones may be billed beside the answer's tokens.
    pub(super) prediction_bytes: u64,
    pub(super) form: Form,
    /// It asks for something by fields of its own, rather than by an object or a list within it.
    pub(super) asks: bool,
    /// It has messages or a prompt.
    pub(super) has_prompt: bool,
    /// It has a field beside a model's name, a `request_id` and an `input`.
    pub(super) asks_more_than_a_poll: bool,
    pub(super) inner: Option<Totals>,
    pub(super) items: Option<Totals>,
}

/// What an object comes to with all that is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) output: OutputReach,
    pub(super) image: ImageReach,
    pub(super) requests: u32,
}

/// The most answers that the vendor's schema lets one ask for.
const MOST_ANSWERS: u64 = 128;

// === impl Scope ===

impl Scope {
    pub(super) fn of(form: Form) -> Self {
        Self { form, ..Self::default() }
    }

    pub(super) fn limit(&mut self, limit: Limit, count: Count) {
        self.asks = true;
        self.limits[limit as usize].add(count);
    }

    pub(super) fn measure(&mut self, measure: Measure, count: Count) {
        self.asks = true;
        self.measures[measure as usize].add(count);
    }

    pub(super) fn answers(&mut self, count: Count) {
        self.asks = true;
        self.n.add(count);
    }

    pub(super) fn best_of(&mut self, count: Count) {
        self.asks = true;
        self.best_of.add(count);
    }

    /// Of its own fields, of what it wraps, and of its batch: the dearest. A batch's requests may be given the limits that
    /// stand beside the list.
    pub(super) fn totals(&self) -> Totals {
        let own = Totals { output: self.output(), image: self.image(), requests: 1 };
        let is_wrapper = !self.asks && (self.inner.is_some() || self.items.is_some());
        let first = if is_wrapper { None } else { Some(own) };
        let items = self.items.map(|items| match first {
            Some(own) => {
                items.with_output(items.output.and(own.output.times(u64::from(items.requests)))).or_image(own.image)
            }
            None => items,
        });
        [first, self.inner, items].into_iter().flatten().reduce(Totals::or).unwrap_or(own)
    }

    fn output(&self) -> OutputReach {
        let answers = self.number_of_answers();
        let tokens = self.limits.iter().map(|given| given.most).max().unwrap_or(0);
        let limited = tokens.saturating_add(self.prediction_bytes).saturating_mul(answers);
        let reach = OutputReach { answers, limited_tokens: limited, ..OutputReach::NONE };
        let [max, completion, output, _] = self.limits;
        let open = OutputReach { open: answers, ..reach };
        let in_chat = match () {
            () if max.is_sure() => reach,
            () if completion.is_sure() && !max.is_given() => OutputReach { by_completion_limit: answers, ..reach },
            () => OutputReach { by_default: answers, ..reach },
        };
        let in_responses = if output.is_sure() { reach } else { open };
        let plain = match self.form {
            Form::Chat => in_chat,
            Form::Responses => in_responses,
            Form::Either => in_chat.or(in_responses),
        };
        // A limit that is no count may be taken for none, and stands before one that is.
        let by_default = match self.form {
            Form::Chat => OutputReach { by_default: answers, ..reach },
            Form::Responses | Form::Either => open,
        };
        let plain = if self.limits.iter().any(|given| given.is_odd) { plain.or(by_default) } else { plain };
        if self.limits.iter().any(|given| given.is_boundless) { plain.or(open) } else { plain }
    }

    fn number_of_answers(&self) -> u64 {
        let most = self.n.most.max(self.best_of.most).max(1);
        if self.n.is_boundless || self.best_of.is_boundless { most.max(MOST_ANSWERS) } else { most }
    }

    fn image(&self) -> ImageReach {
        let [width, height, steps, num_steps] = self.measures.map(|given| Side {
            given: u32::try_from(given.most).unwrap_or(u32::MAX),
            or_default: given.is_given() && !given.is_sure(),
            or_most: given.is_boundless,
        });
        ImageReach { width, height, steps, num_steps }
    }
}

// === impl Totals ===

impl Totals {
    /// Of something that could not be read.
    pub(super) const UNREAD: Self = {
        let side = Side { given: 0, or_default: true, or_most: true };
        let image = ImageReach { width: side, height: side, steps: side, num_steps: side };
        Self { output: OutputReach::OPEN, image, requests: 1 }
    };

    /// Of a list of nothing.
    pub(super) fn none() -> Self {
        Self { output: OutputReach::NONE, image: ImageReach::default(), requests: 0 }
    }

    /// Whichever is the dearer, part by part.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            output: self.output.or(other.output),
            image: self.image.or(other.image),
            requests: self.requests.max(other.requests),
        }
    }

    /// One more request of a batch. Its picture is taken to be as large as the largest.
    pub(super) fn and(self, next: Self) -> Self {
        Self {
            output: self.output.and(next.output),
            image: if self.requests == 0 { next.image } else { self.image.or(next.image) },
            requests: self.requests.saturating_add(next.requests),
        }
    }

    fn with_output(self, output: OutputReach) -> Self {
        Self { output, ..self }
    }

    fn or_image(self, image: ImageReach) -> Self {
        Self { image: self.image.or(image), ..self }
    }
}
