//! Where a value stands in a reply, and what is kept of it.

/// Where a container is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// The outermost object.
    Root,
    /// The object that the vendor wraps around an answer.
    Wrap,
    Choices,
    /// `is_first`: of several, the one whose usage is that of the call.
    Choice {
        is_first: bool,
    },
    /// A choice's `message` or `delta`.
    Message,
    Output,
    /// An item of `output`.
    Item,
    WithinItem,
    Batch,
    BatchItem,
    BatchResult,
    /// Part of what was asked for.
    Answer,
    /// Anything else.
    Aside,
}

/// What a value is, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Literal,
    Object,
    List,
}

/// A value that is kept to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    Usage,
    Metrics,
    Sound,
    Speech,
    Error,
    Errors,
    Success,
    Type,
    Status,
    Object,
    Model,
    FinishReason,
    Code,
    Message,
    ItemType,
    ItemUsage,
}

impl Kept {
    pub(super) fn is_of_error(self) -> bool {
        matches!(self, Self::Error | Self::Errors | Self::Message)
    }
}

impl Place {
    /// This place for an object; what is no object there is an answer's own.
    pub(super) fn of_object(self, kind: Kind) -> Self {
        if kind == Kind::Object { self } else { Self::Answer }
    }

    pub(super) fn of_list(self, kind: Kind) -> Self {
        if kind == Kind::List { self } else { Self::Answer }
    }
}
