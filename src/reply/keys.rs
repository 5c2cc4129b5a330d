//! The names of fields that a reading of replies looks for, and what their values are.

/// What a field is about, by its name alone: where it stands decides what it counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Usage,
    Metrics,
    /// `transcription_info`, `metadata`: how long a sound was.
    Sound,
    /// `audio`: a sound that was made.
    Speech,
    /// `result`: the vendor's envelope.
    Result,
    /// `response`: an answer, or what a model wrote.
    Response,
    Choices,
    /// `output`: the items of a response.
    Output,
    /// `responses`, `results`: of a batch.
    Items,
    Error,
    Errors,
    Success,
    Type,
    Status,
    Object,
    /// `model`: which one answered.
    Model,
    FinishReason,
    Code,
    /// `message`: of a choice, or an error's words.
    Message,
    /// `delta`: of a choice, or a piece of text.
    Delta,
    /// Text that a model wrote.
    Written,
    /// Text that a model thought.
    Thought,
    /// `tool_calls`, `function_call`.
    Tools,
    /// `name`: of a tool that is called, or of a figure.
    Name,
    /// Bookkeeping: never what was asked for.
    Label,
    Other,
}

/// A name in JSON is this long at most where it is looked for, with every letter escaped.
pub(super) const KEY_BYTES: usize = 128;

impl Key {
    pub(super) fn of(name: &[u8]) -> Self {
        match name {
            b"usage" => Self::Usage,
            b"metrics" => Self::Metrics,
            b"transcription_info" | b"metadata" => Self::Sound,
            b"audio" => Self::Speech,
            b"result" => Self::Result,
            b"response" => Self::Response,
            b"choices" => Self::Choices,
            b"output" => Self::Output,
            b"responses" | b"results" => Self::Items,
            b"error" => Self::Error,
            b"errors" => Self::Errors,
            b"success" => Self::Success,
            b"type" => Self::Type,
            b"status" => Self::Status,
            b"object" => Self::Object,
            b"model" => Self::Model,
            b"finish_reason" => Self::FinishReason,
            b"code" => Self::Code,
            b"message" => Self::Message,
            b"delta" => Self::Delta,
            b"content" | b"text" | b"description" | b"arguments" | b"partial_json" | b"answer" | b"translated_text"
            | b"summary" | b"generated_text" | b"refusal" => Self::Written,
            b"reasoning_content" | b"reasoning" | b"thinking" => Self::Thought,
            b"tool_calls" | b"function_call" => Self::Tools,
            b"id"
            | b"created"
            | b"created_at"
            | b"messages"
            | b"p"
            | b"shape"
            | b"pooling"
            | b"system_fingerprint"
            | b"service_tier"
            | b"sequence_number"
            | b"item_id"
            | b"output_index"
            | b"content_index"
            | b"index"
            | b"role"
            | b"request_id"
            | b"logprobs"
            | b"mode"
            | b"stop_reason"
            | b"stop_sequence" => Self::Label,
            b"name" => Self::Name,
            _ => Self::Other,
        }
    }

    /// The name as it stands in the text, perhaps with escapes.
    pub(super) fn of_escaped(name: &[u8]) -> Self {
        let quoted = [b"\"", name, b"\""].concat();
        serde_json::from_slice::<String>(&quoted).map_or(Self::Other, |name| Self::of(name.as_bytes()))
    }

    /// Its text was made by a model.
    pub(super) fn is_generated(self) -> bool {
        matches!(self, Self::Written | Self::Thought | Self::Delta | Self::Response)
    }
}

/// What a document says of itself by `type` (OpenAI's Responses, Anthropic's messages), or by its event's name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum EventType {
    #[default]
    None,
    /// A stream of a response has begun, or one of its items, without a word of it.
    ResponseOpening,
    /// A piece of what a model thought before it answers.
    ResponseThought,
    /// Any other piece of a response.
    ResponsePart,
    ResponseCompleted,
    ResponseFailed,
    ResponseIncomplete,
    /// Of a stream of Anthropic's form: what has no word of the answer.
    MessageOpening,
    MessagePart,
    MessageStop,
    Error,
}

impl EventType {
    pub(super) fn of(name: &[u8]) -> Self {
        match name {
            b"response.created"
            | b"response.in_progress"
            | b"response.queued"
            | b"response.output_item.added"
            | b"response.content_part.added" => Self::ResponseOpening,
            b"response.completed" => Self::ResponseCompleted,
            b"response.failed" => Self::ResponseFailed,
            b"response.incomplete" | b"response.cancelled" => Self::ResponseIncomplete,
            b"message_start" | b"message_delta" | b"content_block_start" | b"content_block_stop" | b"ping" => {
                Self::MessageOpening
            }
            b"content_block_delta" => Self::MessagePart,
            b"message_stop" => Self::MessageStop,
            b"error" => Self::Error,
            thought if thought.starts_with(b"response.reasoning") => Self::ResponseThought,
            part if part.starts_with(b"response.") => Self::ResponsePart,
            _ => Self::None,
        }
    }

    /// A stream in which this is said is one of a response, which has an end of its own.
    pub(super) fn is_of_response(self) -> bool {
        matches!(
            self,
            Self::ResponseOpening
                | Self::ResponseThought
                | Self::ResponsePart
                | Self::ResponseCompleted
                | Self::ResponseFailed
                | Self::ResponseIncomplete
        )
    }

    pub(super) fn is_of_message(self) -> bool {
        matches!(self, Self::MessageOpening | Self::MessagePart | Self::MessageStop)
    }
}
