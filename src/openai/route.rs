//! The routes of OpenAI's that the vendor has none of: the request becomes the model's own.

use bytes::Bytes;

use super::native::Native;
use super::object::Object;
use super::{completions, images, moderations, rerank, speech, transcriptions};
use crate::Error;
use crate::endpoint::Endpoint;

/// A route of the gate's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Completions,
    Images,
    Speech,
    Transcriptions,
    Translations,
    Rerank,
    Moderations,
}

impl Route {
    /// The route of a path, if it is one of these.
    pub(crate) fn of(path: &str) -> Option<Self> {
        Some(match path.strip_prefix("/v1/")? {
            "completions" => Self::Completions,
            "images/generations" => Self::Images,
            "audio/speech" => Self::Speech,
            "audio/transcriptions" => Self::Transcriptions,
            "audio/translations" => Self::Translations,
            "rerank" => Self::Rerank,
            "moderations" => Self::Moderations,
            _ => return None,
        })
    }

    /// Where its request goes.
    pub(crate) fn endpoint(self) -> Endpoint {
        if self == Self::Completions { Endpoint::ChatCompletions } else { Endpoint::Run }
    }

    /// The request as the vendor takes it. `resolve` tells the vendor's name of a model by the caller's; of `None`, of the
    /// one that a request without a model means.
    pub(crate) fn native(
        self,
        body: &Bytes,
        content_type: &str,
        resolve: impl Fn(Option<&str>) -> Option<String>,
    ) -> Result<Native, Error> {
        let no_model = || Error::ModelMissing("give the name of one, as \"model\" in the body");
        if matches!(self, Self::Transcriptions | Self::Translations) {
            let form = transcriptions::Form::read(body, content_type)?;
            let asked = form.text("model");
            let model = resolve(asked.as_deref()).ok_or_else(no_model)?;
            let native = transcriptions::native(&form, model, self == Self::Translations)?;
            return Ok(Native { asked, ..native });
        }
        let fields = Object::read(body)
            .ok_or_else(|| Error::Malformed("the body is not the JSON object that this route takes".into()))?;
        let asked = fields.text("model");
        let model = match self {
            Self::Moderations => moderations::model(asked.as_deref(), resolve),
            _ => resolve(asked.as_deref()).ok_or_else(no_model)?,
        };
        let native = match self {
            Self::Completions => completions::native(fields, &model),
            Self::Images => images::native(fields, model),
            Self::Speech => speech::native(&fields, model),
            Self::Moderations => moderations::native(&fields, model),
            _ => rerank::native(&fields, model),
        };
        Ok(Native { asked, ..native? })
    }
}
