//! What the gate's own routes have that the vendor's have not: OpenAI's forms, and other names for models.

use std::ops::Range;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, request};

use super::arrived::Arrived;
use super::encoding::Content;
use super::refusal::NO_MODEL;
use super::reply::ReplyBody;
use super::route::Target;
use super::settings::Settings;
use crate::Error;
use crate::body::Body;
use crate::headers::{API_KEY, X_API_KEY};
use crate::json::BYTE_ORDER_MARK;
use crate::openai::models::{self, Wanted};
use crate::openai::object::quoted;
use crate::openai::{Answer, Form};

/// The model's name as the request tells it.
pub(super) struct NamedModel {
    pub(super) name: String,
    /// Where in the body it stands, quotes included.
    pub(super) place: Option<Range<usize>>,
    /// The body with the name in it, where it named none.
    pub(super) with_name: Option<Bytes>,
}

/// Answers `/v1/models` with the models that the caller may ask.
pub(super) async fn models(
    settings: &Settings,
    wanted: Wanted,
    head: &mut request::Parts,
) -> Result<Response<ReplyBody>, Error> {
    let client = settings.keys.admit(&mut head.headers, head.extensions.get())?;
    let method = &head.method;
    if let Some(client) = client
        && let Some(turn) = client.take_turn(settings.turns.as_deref())?
    {
        turn.await?;
    }
    if *method != Method::GET && *method != Method::HEAD {
        return Err(Error::Method { asked: method.clone(), takes: "GET" });
    }
    let may_ask = |id: &str| client.is_none_or(|client| client.may_ask(id).is_ok());
    let (catalogue, aliases) = (&settings.catalogue, &settings.aliases);
    let told = match wanted {
        Wanted::List => models::list(catalogue, aliases, may_ask),
        Wanted::One(name) => models::one(catalogue, aliases, &name, may_ask)
            .ok_or_else(|| Error::NotFound(format!("there is no model {name:?}; GET /v1/models lists all")))?,
    };
    let mut reply = Response::new(ReplyBody::unmetered(Body::from(told.to_string())));
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(reply)
}

/// What other vendors' clients send as `x-api-key` or `api-key` is the client's token, where it sends none as this vendor's do.
pub(super) fn take_api_key(headers: &mut HeaderMap) {
    if !headers.contains_key(X_API_KEY) && !headers.contains_key(API_KEY) {
        return;
    }
    let (key, other) = (headers.remove(X_API_KEY), headers.remove(API_KEY));
    let key = key.or(other).filter(|_| !headers.contains_key(header::AUTHORIZATION));
    let bearer = key.and_then(|key| HeaderValue::from_bytes(&[b"Bearer ", key.as_bytes()].concat()).ok());
    if let Some(mut bearer) = bearer {
        bearer.set_sensitive(true);
        headers.insert(header::AUTHORIZATION, bearer);
    }
}

/// Whether who comes this way expects OpenAI's forms.
pub(super) fn is_openai(settings: &Settings, arrived: &Arrived<'_>) -> bool {
    let (target, openai) = (&arrived.target, &settings.openai);
    let form = if target.account.is_none() { openai.v1 } else { openai.vendor_paths };
    arrived.route.is_some() || !target.endpoint.is_native() && form == Form::OpenAi
}

/// The body as the vendor takes it, and what the caller expects for it, where the route is the gate's own.
pub(super) fn translated(
    settings: &Settings,
    arrived: &mut Arrived<'_>,
    body: Bytes,
    content: Content,
) -> Result<(Bytes, Content, Option<Answer>), Error> {
    let Some(route) = arrived.route else { return Ok((body, content, None)) };
    let body = match content {
        Content::Plain => body,
        Content::Decoded(plain) => plain,
        Content::Broken(why) => return Err(Error::Malformed(why)),
    };
    arrived.headers.remove(header::CONTENT_ENCODING);
    let content_type = arrived.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let resolve = |name: Option<&str>| match name {
        Some(name) => Some(settings.aliases.resolve(&settings.catalogue, name).into_owned()),
        None => settings.aliases.default_model().map(str::to_owned),
    };
    let native = route.native(&body, content_type, resolve)?;
    if let Ok(content_type) = HeaderValue::from_str(&native.content_type) {
        arrived.headers.insert(header::CONTENT_TYPE, content_type);
    }
    (arrived.own, arrived.asked) = (native.model, native.asked);
    Ok((native.body, Content::Plain, Some(native.answer)))
}

/// Which model the request names; `own` is what a route of the gate's own has read. On the short routes one may be set for
/// requests that name none.
pub(super) fn told(
    settings: &Settings,
    target: &Target<'_>,
    own: Option<String>,
    named: Option<(String, Range<usize>)>,
    body: &Bytes,
) -> Result<NamedModel, Error> {
    let default = settings.aliases.default_model().filter(|_| target.account.is_none());
    let by_path = own.or_else(|| target.model.map(str::to_owned));
    let (name, place, with_name) = match (by_path, named, default) {
        (Some(name), _, _) => (name, None, None),
        (None, Some((name, place)), _) => (name, Some(place), None),
        (None, None, Some(default)) => {
            let (body, place) = with_model(body, default).ok_or(Error::ModelMissing(NO_MODEL))?;
            (default.to_owned(), Some(place), Some(body))
        }
        (None, None, None) => return Err(Error::ModelMissing(NO_MODEL)),
    };
    Ok(NamedModel { name, place, with_name })
}

/// A body that names this model, and where it does; `None` where it is no JSON object.
fn with_model(body: &Bytes, model: &str) -> Option<(Bytes, Range<usize>)> {
    let begun = if body.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
    let open = begun + body[begun..].iter().position(|byte| !byte.is_ascii_whitespace())?;
    let open = Some(open).filter(|at| body[*at] == b'{')? + 1;
    let is_empty = body[open..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'}');
    let quoted = quoted(model);
    let comma: &[u8] = if is_empty { b"" } else { b"," };
    let spliced = [&body[..open], br#""model":"#, quoted.as_bytes(), comma, &body[open..]].concat();
    let start = open + br#""model":"#.len();
    Some((spliced.into(), start..start + quoted.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_key_is_the_token_of_whoever_sends_no_other() {
        for (sent, wanted) in [
            (&[("x-api-key", "a")][..], Some("Bearer a")),
            (&[("api-key", "b")], Some("Bearer b")),
            (&[("api-key", "b"), ("x-api-key", "a")], Some("Bearer a")),
            (&[("x-api-key", "a"), ("authorization", "Bearer c")], Some("Bearer c")),
            (&[("x-auth-email", "e")], None),
        ] {
            let mut headers: HeaderMap =
                sent.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect();
            take_api_key(&mut headers);
            let token = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap());
            assert_eq!(
                (token, headers.contains_key("x-api-key"), headers.contains_key("api-key")),
                (wanted, false, false)
            );
        }
    }

    #[test]
    fn a_body_without_a_model_gets_one() {
        for (body, wanted) in [
            (r#" {"a":1}"#, r#" {"model":"@cf/a/b","a":1}"#),
            ("{ }", r#"{"model":"@cf/a/b" }"#),
            ("\u{feff}\n{}", "\u{feff}\n{\"model\":\"@cf/a/b\"}"),
        ] {
            let (with, place) = with_model(&Bytes::from(body), "@cf/a/b").unwrap();
            assert_eq!((&with[..], &with[place]), (wanted.as_bytes(), &b"\"@cf/a/b\""[..]));
        }
        for body in ["[]", "", "\u{feff}", " "] {
            assert!(with_model(&Bytes::from(body), "m").is_none());
        }
    }
}
