//! A model's name as a request writes it.

use std::sync::Arc;

use crate::Error;
use crate::call::Call;
use crate::catalogue::{Catalogue, Model};
use crate::headers::CF_AIG_ALLOWED_MODELS;

const MAX_BYTES: usize = 256;
const WRONG_NAME: &str = "a name has at most 256 letters, digits and marks such as @ / - _ . : in segments of their own, like \
                          @cf/meta/llama-3.2-1b-instruct";
/// What the AI Gateway writes in front of the names of Workers AI's models.
const PROVIDER: &str = "workers-ai/";
/// The vendor's router.
const ROUTER: &str = "cloudflare/auto";
/// A longer list of models for it bounds nothing.
const MAX_ROUTED: usize = 64;

/// The model's own name: without the provider in front, and such that it has one reading only. Its letters' case is the
/// catalogue's business.
pub(super) fn canonical<'a>(name: &'a str) -> Result<&'a str, Error> {
    let mut id = name;
    let after_provider = |id: &'a str| {
        let (begin, rest) = id.split_at_checked(PROVIDER.len())?;
        begin.eq_ignore_ascii_case(PROVIDER).then_some(rest)
    };
    while let Some(bare) = after_provider(id) {
        id = bare;
    }
    let is_clear = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b'%' | b'?' | b'#' | b';');
    let is_segment = |part: &[u8]| !matches!(part, b"" | b"." | b"..");
    if id.len() <= MAX_BYTES && id.bytes().all(is_clear) && id.as_bytes().split(|byte| *byte == b'/').all(is_segment) {
        return Ok(id);
    }
    Err(Error::ModelMissing(WRONG_NAME))
}

/// The listed model that a body names beside the path's, by its whole name or as a sibling of it: `clef` beside
/// `@cf/cloudflare/clef-flash`.
pub(super) fn beside(catalogue: &Catalogue, model: &Model, name: &str) -> Option<Arc<Model>> {
    let name = canonical(name).ok()?;
    let sibling = || catalogue.get(&format!("{}/{name}", model.id.rsplit_once('/')?.0));
    catalogue.get(name).or_else(sibling).filter(|beside| beside.id != model.id)
}

/// The models of which the vendor's router may choose one; `None` where it is not asked, or may choose one that is not listed.
pub(super) fn routed_to(catalogue: &Catalogue, call: &Call) -> Option<Arc<[Arc<Model>]>> {
    if call.model.is_listed() || !call.model.id.eq_ignore_ascii_case(ROUTER) {
        return None;
    }
    let mut models = Vec::new();
    for value in call.head.headers.get_all(CF_AIG_ALLOWED_MODELS) {
        for name in value.to_str().ok()?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            models.push(catalogue.get(canonical(name).ok()?).filter(|_| models.len() < MAX_ROUTED)?);
        }
    }
    (!models.is_empty()).then(|| models.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_reading() {
        for (name, id) in [
            ("@cf/meta/llama-3.2-1b-instruct", "@cf/meta/llama-3.2-1b-instruct"),
            ("workers-ai/@cf/a/b", "@cf/a/b"),
            ("Workers-AI/workers-ai/@cf/a/b", "@cf/a/b"),
            ("openai/gpt-4o", "openai/gpt-4o"),
            ("custom/my_pool:1+2", "custom/my_pool:1+2"),
        ] {
            assert_eq!(canonical(name).unwrap(), id, "{name}");
        }
        let long = "a".repeat(257);
        for name in [
            "",
            "/",
            "@cf//a",
            "@cf/a/",
            "/@cf/a",
            "@cf/../a",
            "@cf/./a",
            "@cf/a b",
            " @cf/a",
            "@cf/a ",
            "@cf/a\t",
            "@cf/a\0",
            "@cf/a\u{a0}",
            "@cf/a;x",
            "@cf/a?x",
            "@cf/a#x",
            "@cf%2Fa",
            "@cf\\a",
            "@cf/\u{e4}",
            "workers-ai/",
            &long,
        ] {
            assert_eq!(canonical(name).unwrap_err().status(), 400, "{name}");
        }
    }
}
