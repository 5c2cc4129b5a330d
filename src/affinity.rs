//! Which of the vendor's prefix caches a call goes to: `x-session-affinity`.
//!
//! The vendor keeps what a model has read where it ran, and calls with the same `x-session-affinity` run in the same place: what
//! they begin with is then read at the price of cached tokens. Here a call gets a session by what it begins with: its first
//! [`BLOCK_BYTES`] of messages or prompt, or all up to the end of its first user's message where that comes sooner. A later turn of
//! a conversation has the same beginning as the ones before, and so have calls that share a long system prompt or examples.
//!
//! A session is a keyed digest of that beginning, with the account, the model and the client's key: no text leaves by it, and no
//! two keys share one. It is worked out anew for each call, so that nothing is remembered, however many conversations there are.
//!
//! # What it does not do
//! It gives no session to a call whose client sends one, to batches, to other providers, or to a lone prompt that is shorter than a
//! block: nothing of it would be read twice.

use std::fmt;
use std::hash::{BuildHasher, RandomState};

use highway::{HighwayHash, HighwayHasher};
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use crate::call::{Call, Endpoint};
use crate::estimate::writes_tokens;
use crate::json::{Fields, Kind, Walk};
use crate::receipt::Metadatum;

/// The vendor's header.
pub(crate) const SESSION_AFFINITY: HeaderName = HeaderName::from_static("x-session-affinity");

/// So much of a beginning makes a session, in bytes: some 256 tokens, which are a few blocks of a prefix cache.
pub const BLOCK_BYTES: usize = 1024;

/// What makes calls one session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum SessionBy {
    /// Nothing: headers are the client's business.
    #[default]
    Off,
    /// What they begin with.
    Auto,
    /// An entry of their metadata.
    Metadata(String),
    /// Their client's key.
    Key,
}

/// Gives calls their sessions.
#[derive(Clone)]
pub struct Affinity {
    by: SessionBy,
    secret: [u64; 4],
}

/// The beginning of a call, piece by piece, until it is long enough.
struct Beginning {
    digest: HighwayHasher,
    left: usize,
}

// === impl Affinity ===

impl Affinity {
    /// With a secret of its own: another gate gives other sessions. `None` where there are none.
    pub fn new(by: SessionBy) -> Option<Self> {
        // Keyed from the system's randomness, once for each.
        let secret = std::array::from_fn(|n| RandomState::new().hash_one(n));
        (by != SessionBy::Off).then_some(Self { by, secret })
    }

    /// The same sessions as those of an earlier config.
    #[cfg(feature = "sidecar")]
    pub(crate) fn following(self, before: Option<&Self>) -> Self {
        Self { secret: before.map_or(self.secret, |before| before.secret), ..self }
    }

    /// The session of a call, where it gets one.
    pub fn session(&self, call: &Call) -> Option<HeaderValue> {
        let [a, b] = self.digest(call)?;
        HeaderValue::try_from(format!("{a:016x}{b:016x}")).ok()
    }

    /// The same as a number, for the records.
    pub(crate) fn beginning(&self, call: &Call) -> Option<u64> {
        self.digest(call).map(|[a, _]| a)
    }

    /// A digest of all that a call asks for, so that it is the same for the same call of the same client.
    pub(crate) fn whole(&self, call: &Call) -> u64 {
        let mut digest = HighwayHasher::new(highway::Key(self.secret));
        let (query, key) = (call.head.query.as_deref().unwrap_or(""), call.key.as_deref().unwrap_or(""));
        let stream: &[u8] = if call.stream { b"stream" } else { b"whole" };
        let names = [&*call.account, &*call.model.id, call.endpoint.label(), query, key].map(str::as_bytes);
        for part in names.into_iter().chain([stream, call.plain_body()]) {
            digest.append(&(part.len() as u64).to_le_bytes());
            digest.append(part);
        }
        digest.finalize64()
    }

    fn digest(&self, call: &Call) -> Option<[u64; 2]> {
        let is_meant = writes_tokens(call.model.task) && !call.ask.batch && call.elsewhere.is_none();
        if !is_meant || call.socket.is_some() || call.head.headers.contains_key(SESSION_AFFINITY) {
            return None;
        }
        let mut beginning = Beginning { digest: HighwayHasher::new(highway::Key(self.secret)), left: BLOCK_BYTES };
        for part in [&*call.account, &*call.model.id, call.key.as_deref().unwrap_or("")] {
            beginning.name(part.as_bytes());
        }
        match &self.by {
            SessionBy::Off => return None,
            SessionBy::Auto => beginning.read(call)?,
            SessionBy::Key => drop(call.key.as_ref()?),
            SessionBy::Metadata(name) => {
                let value = call.receipt.read(|facts| {
                    let entry = facts.metadata.iter().find(|(key, _)| key == name);
                    entry.and_then(|(_, value)| {
                        (*value != Metadatum::Null).then(|| serde_json::to_string(value).ok())?
                    })
                });
                beginning.name(value?.as_bytes());
            }
        }
        Some(beginning.digest.finalize128())
    }
}

impl fmt::Debug for Affinity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Affinity({:?})", self.by)
    }
}

// === impl Beginning ===

impl Beginning {
    /// Each name is told apart from the next by its length.
    fn name(&mut self, name: &[u8]) {
        self.digest.append(&(name.len() as u64).to_le_bytes());
        self.digest.append(name);
    }

    /// True where there is enough.
    fn take(&mut self, piece: &[u8]) -> bool {
        let piece = &piece[..piece.len().min(self.left)];
        self.digest.append(piece);
        self.left -= piece.len();
        self.left == 0
    }

    /// `None` where there is nothing that another call would begin with.
    fn read(&mut self, call: &Call) -> Option<()> {
        let body = call.plain_body();
        let mut fields = Fields::of(body)?;
        // On the native route the model's own inputs may lie within `input`.
        let inner = fields.last("input").filter(|place| call.endpoint == Endpoint::Run && body[place.start] == b'{');
        if let Some(inner) = inner {
            fields = Fields::at(body, inner.start)?;
        }
        for name in ["instructions", "system"] {
            if fields.last(name).is_some_and(|place| self.take(&body[place])) {
                return Some(());
            }
        }
        let said = ["messages", "input", "prompt"].into_iter().find_map(|name| fields.last(name))?;
        let mut walk = Walk::from(body, said.start);
        if walk.peek().ok()? != Kind::Array {
            return self.take(&body[said]).then_some(());
        }
        walk.open();
        let mut is_first = true;
        while walk.element(&mut is_first).ok()? {
            let message = walk.skip().ok()?;
            if self.take(&body[message.clone()]) || is_users(body, message.start) {
                return Some(());
            }
        }
        None
    }
}

fn is_users(body: &[u8], message: usize) -> bool {
    let role = Fields::at(body, message).and_then(|fields| fields.last("role"));
    role.is_some_and(|place| &body[place] == b"\"user\"")
}

// === impl SessionBy ===

impl TryFrom<String> for SessionBy {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match (&*text, text.strip_prefix("metadata.")) {
            ("off", _) => Ok(Self::Off),
            ("auto", _) => Ok(Self::Auto),
            ("key", _) => Ok(Self::Key),
            (_, Some(name)) if !name.is_empty() => Ok(Self::Metadata(name.to_owned())),
            _ => Err(format!("{text:?} makes no sessions: write \"off\", \"auto\", \"key\" or \"metadata.NAME\"")),
        }
    }
}

impl From<SessionBy> for String {
    fn from(by: SessionBy) -> Self {
        match by {
            SessionBy::Off => "off".into(),
            SessionBy::Auto => "auto".into(),
            SessionBy::Key => "key".into(),
            SessionBy::Metadata(name) => format!("metadata.{name}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::HeaderMap;

    use super::*;
    use crate::call::Head;
    use crate::layers::testing::{LLAMA, call};

    fn auto() -> Affinity {
        Affinity::new(SessionBy::Auto).unwrap()
    }

    fn chat(messages: &str) -> Call {
        call(LLAMA, &format!(r#"{{"messages":[{messages}]}}"#))
    }

    const SYSTEM: &str = r#"{"role":"system","content":"Be brief."}"#;

    fn user(text: &str) -> String {
        format!(r#"{{"role":"user","content":"{text}"}}"#)
    }

    #[test]
    fn turns_of_a_conversation_share_a_session_and_others_have_their_own() {
        let affinity = auto();
        let session = |messages: &str| affinity.session(&chat(messages));
        let first = session(&format!("{SYSTEM},{}", user("Hi")));
        let later = format!(r#"{SYSTEM},{},{{"role":"assistant","content":"Hello"}},{}"#, user("Hi"), user("And?"));
        assert!(first.is_some());
        assert_eq!(session(&later), first);
        assert_ne!(session(&format!("{SYSTEM},{}", user("Ho"))), first);
    }

    #[test]
    fn a_long_system_prompt_is_shared_by_all_that_begin_with_it() {
        let affinity = auto();
        let long = format!(r#"{{"role":"system","content":"{}"}}"#, "rule ".repeat(400));
        let session = |text: &str| affinity.session(&chat(&format!("{long},{}", user(text)))).unwrap();
        assert_eq!(session("one"), session("two"));
        let prompt = |text: &str| affinity.session(&call(LLAMA, &format!(r#"{{"prompt":"{text}"}}"#)));
        let rules = "rule ".repeat(400);
        assert_eq!(prompt(&format!("{rules}a")), prompt(&format!("{rules}b")));
        assert_eq!(prompt("short"), None);
        let nested = call(LLAMA, &format!(r#"{{"input":{{"messages":[{SYSTEM},{}]}}}}"#, user("Hi")));
        assert!(affinity.session(&nested).is_some());
    }

    #[test]
    fn keys_models_and_gates_do_not_share_sessions_and_no_text_is_in_them() {
        let (affinity, body) = (auto(), format!(r#"{{"messages":[{}]}}"#, user("Hi")));
        let mine = |key: &str| affinity.session(&Call { key: Some(key.into()), ..call(LLAMA, &body) }).unwrap();
        assert_eq!(mine("a"), mine("a"));
        assert_ne!(mine("a"), mine("b"));
        let other = call("@cf/meta/llama-3.3-70b-instruct-fp8-fast", &body);
        assert_ne!(affinity.session(&call(LLAMA, &body)), affinity.session(&other));
        assert_ne!(affinity.session(&call(LLAMA, &body)), auto().session(&call(LLAMA, &body)));
        assert!(mine("a").to_str().unwrap().bytes().all(|byte| byte.is_ascii_hexdigit()));
    }

    #[test]
    fn a_session_may_be_a_key_s_or_an_entry_of_metadata_s_and_a_client_s_own_is_left_alone() {
        let by_key = Affinity::new(SessionBy::Key).unwrap();
        assert_eq!(by_key.session(&call(LLAMA, "{}")), None);
        assert!(by_key.session(&Call { key: Some("k".into()), ..call(LLAMA, "{}") }).is_some());
        let by_chat = Affinity::new(SessionBy::Metadata("chat".into())).unwrap();
        let tagged = |value: Metadatum| {
            let call = call(LLAMA, "{}");
            call.receipt.note(|facts| facts.metadata = Arc::new([("chat".to_owned(), value)]));
            by_chat.session(&call)
        };
        assert_eq!(by_chat.session(&call(LLAMA, "{}")), None);
        assert_eq!(tagged(Metadatum::Null), None);
        assert_ne!(tagged(Metadatum::String("1".into())), tagged(Metadatum::String("2".into())));
        let mut own = chat(&user("Hi"));
        let headers = HeaderMap::from_iter([(SESSION_AFFINITY, HeaderValue::from_static("mine"))]);
        own.head = Arc::new(Head { headers, ..Head::default() });
        assert_eq!(auto().session(&own), None);
    }

    #[test]
    fn bodies_that_cannot_be_read_get_no_session() {
        for body in
            ["", "{", "[]", r#"{"messages":7}"#, r#"{"messages":[{"role":"user""#, r#"{"messages":[]}"#, "\u{feff}"]
        {
            assert_eq!(auto().session(&call(LLAMA, body)), None, "{body}");
        }
        assert!("sometimes".to_owned().try_into().map(|_: SessionBy| ()).is_err());
        assert!("metadata.".to_owned().try_into().map(|_: SessionBy| ()).is_err());
    }
}
