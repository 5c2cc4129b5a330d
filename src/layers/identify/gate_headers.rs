//! What a request asks of the gate itself in `x-tollgate-*` headers: what its call may cost, and whether it is to be made at all.
//!
//! Unlike the AI Gateway's headers these turn a call away where they cannot be read: a ceiling that is ignored is none.

use std::sync::Arc;

use http::HeaderMap;

use super::options::is_option;
use crate::Error;
use crate::ceiling::{self, Ceiling, MAX_NEURONS, MAX_USD};
use crate::neurons::Neurons;

/// What the headers ask for.
#[derive(Debug, Default)]
pub(super) struct GateHeaders {
    /// The lower one, where there are two.
    pub(super) ceiling: Option<Arc<Ceiling>>,
    /// It is to be told what would become of the call, and the call is not to be made.
    pub(super) is_dry: bool,
    /// There are headers for [`CallerOptions`](super::CallerOptions).
    pub(super) has_options: bool,
}

/// What begins every header of the gate's own.
pub(super) const OWN: &str = "x-tollgate-";
const DRY_RUN: &str = "x-tollgate-dry-run";
/// What a ceiling's header begins with: one that is not known is a slip of the pen, and would be no ceiling.
const CEILING: &str = "x-tollgate-max-";

impl GateHeaders {
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, Error> {
        // One look at each name, which for most requests is all.
        let (mut has_own, mut has_options) = (false, false);
        for name in headers.keys().map(|name| name.as_str()) {
            has_own |= name.starts_with(OWN);
            has_options |= is_option(name);
        }
        if !has_own {
            return Ok(Self { has_options, ..Self::default() });
        }
        let unknown = |name: &&str| name.starts_with(CEILING) && *name != MAX_NEURONS && *name != MAX_USD;
        if let Some(name) = headers.keys().map(|name| name.as_str()).find(unknown) {
            let shown: String = name.chars().take(60).collect();
            return Err(Error::Malformed(format!(
                "there is no header {shown}: a call's ceiling is {MAX_NEURONS} or {MAX_USD}"
            )));
        }
        let neurons = read(headers, MAX_NEURONS, ceiling::neurons)?;
        let usd = read(headers, MAX_USD, ceiling::usd)?;
        let made = |header: &'static str| move |most: Neurons| Ceiling::new(most, header);
        let both = neurons.map(made(MAX_NEURONS)).into_iter().chain(usd.map(made(MAX_USD)));
        let ceiling = both.min_by_key(|ceiling| ceiling.most).map(Arc::new);
        Ok(Self { ceiling, has_options, is_dry: read(headers, DRY_RUN, flag)?.unwrap_or(false) })
    }

    /// For a request that is no call, or one over a socket: what asks for a bound or for no call must not pass as if it had not asked.
    pub(super) fn refuse_any(headers: &HeaderMap) -> Result<(), Error> {
        let Self { ceiling, is_dry, .. } = Self::read(headers)?;
        let header = match ceiling {
            Some(ceiling) => ceiling.header,
            None if is_dry => DRY_RUN,
            None => return Ok(()),
        };
        let why =
            "is for calls to models of one request each, and this is none that the gate can bound: leave it out".into();
        Err(Error::Header { header, why })
    }
}

fn read<T>(
    headers: &HeaderMap,
    header: &'static str,
    read: impl Fn(&str) -> Result<T, &'static str>,
) -> Result<Option<T>, Error> {
    let mut values = headers.get_all(header).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let wrong = |why: &str| Error::Header { header, why: why.into() };
    if values.next().is_some() {
        return Err(wrong("is there more than once: give it once"));
    }
    let text = value.to_str().map_err(|_| wrong("holds more than plain text"))?.trim();
    read(text).map(Some).map_err(wrong)
}

fn flag(text: &str) -> Result<bool, &'static str> {
    match text {
        "1" => Ok(true),
        "0" => Ok(false),
        _ if text.eq_ignore_ascii_case("true") => Ok(true),
        _ if text.eq_ignore_ascii_case("false") => Ok(false),
        _ => Err("is neither true nor false"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(pairs: &[(&'static str, &str)]) -> Result<GateHeaders, Error> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        GateHeaders::read(&headers)
    }

    #[test]
    fn of_two_ceilings_the_lower_one_holds() {
        let ceiling = |pairs| read_all(pairs).unwrap().ceiling.map(|ceiling| (ceiling.most, ceiling.header));
        assert_eq!(ceiling(&[]), None);
        assert_eq!(ceiling(&[(MAX_NEURONS, " 5 ")]), Some((Neurons::from_whole(5), MAX_NEURONS)));
        let dollars = Some((Neurons::from_whole(1), MAX_USD));
        assert_eq!(ceiling(&[(MAX_NEURONS, "5"), (MAX_USD, "0.000011")]), dollars);
        assert_eq!(ceiling(&[(MAX_NEURONS, "0.5"), (MAX_USD, "1")]), Some((Neurons::from_micro(500_000), MAX_NEURONS)));
    }

    #[test]
    fn a_header_that_cannot_be_read_is_told_and_not_ignored() {
        for (pairs, told) in [
            (&[(MAX_NEURONS, "-1")][..], "x-tollgate-max-neurons is no amount"),
            (&[(MAX_NEURONS, "NaN")], "is no amount"),
            (&[(MAX_NEURONS, "")], "is no amount"),
            (&[(MAX_USD, "1e999")], "more than any call"),
            (&[(MAX_USD, "1"), (MAX_USD, "1")], "more than once"),
            (&[(MAX_NEURONS, "1"), (MAX_USD, "x")], "x-tollgate-max-usd is no amount"),
            (&[(MAX_NEURONS, "1, 2")], "is no amount"),
            (&[("x-tollgate-max-neuron", "1")], "there is no header x-tollgate-max-neuron"),
            (&[(DRY_RUN, "yes")], "neither true nor false"),
            (&[(DRY_RUN, "true"), (DRY_RUN, "true")], "more than once"),
        ] {
            let error = read_all(pairs).unwrap_err();
            assert!(error.to_string().contains(told), "{pairs:?}: {error}");
            assert_eq!(error.status(), 400);
        }
        assert!(read_all(&[(DRY_RUN, "True")]).unwrap().is_dry && !read_all(&[(DRY_RUN, "0")]).unwrap().is_dry);
        let mut bytes = HeaderMap::new();
        bytes.insert(MAX_NEURONS, http::HeaderValue::from_bytes(b"\xff").unwrap());
        assert!(GateHeaders::read(&bytes).is_err());
    }
}
