//! What a call used, in the vendor's units.

use serde::Serialize;

/// Everything Workers AI prices by. A call fills in what its task has; the rest stays zero.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens read, cached ones included.
    pub input_tokens: u64,
    /// The part of `input_tokens` that the vendor had in its prefix cache.
    pub cached_input_tokens: u64,
    /// Tokens written, reasoning included.
    pub output_tokens: u64,
    /// The picture that was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageUsage>,
    /// Pictures that were read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub input_images: Vec<Size>,
    /// Milliseconds of audio heard or spoken.
    pub audio_ms: u64,
    /// Characters (Unicode scalar values) to be spoken.
    pub characters: u64,
}

/// A picture's size in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Size {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
}

/// A generated picture, as it is priced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ImageUsage {
    /// Its size in pixels.
    #[serde(flatten)]
    pub size: Size,
    /// Diffusion steps.
    pub steps: u32,
}

impl Usage {
    /// Tokens only: the usage of most calls.
    pub fn tokens(input: u64, cached: u64, output: u64) -> Self {
        Self { input_tokens: input, cached_input_tokens: cached.min(input), output_tokens: output, ..Self::default() }
    }
}

impl Size {
    /// In pixels.
    pub fn area(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }
}
