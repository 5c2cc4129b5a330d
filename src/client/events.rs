//! A stream of server-sent events, as the data of each.

use bytes::Bytes;

use crate::sse;

/// The bytes that are here and not taken yet.
#[derive(Debug, Default)]
pub(super) struct Events(sse::Events);

/// An event that is longer is none of a model's.
pub(super) const MAX_EVENT_BYTES: usize = 16 << 20;

impl Events {
    /// Takes more in; false where an event has become too long.
    pub(super) fn push(&mut self, bytes: &Bytes) -> bool {
        self.0.push(bytes);
        self.0.len() <= MAX_EVENT_BYTES
    }

    /// The data of the next event that has some.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        std::iter::from_fn(|| self.0.next()).find_map(|event| data(&event))
    }

    /// All that is here, where it is no event stream.
    pub(super) fn all(&mut self) -> Option<Bytes> {
        self.0.rest().map(|rest| rest.raw)
    }

    /// The data of what stands behind the last whole event, when no more comes.
    pub(super) fn rest(&mut self) -> Option<Bytes> {
        self.0.rest().and_then(|event| data(&event))
    }
}

fn data(event: &sse::Event) -> Option<Bytes> {
    let data = event.data()?;
    let data = data.trim_ascii();
    (!data.is_empty()).then(|| Bytes::copy_from_slice(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_found_however_the_bytes_are_cut() {
        let text = b": hello\nevent: x\ndata: {\"a\":1}\n\ndata:[DONE]\r\n\ndata: last";
        for cut in 1..text.len() {
            let (mut events, mut found) = (Events::default(), Vec::new());
            for piece in text.chunks(cut) {
                assert!(events.push(&Bytes::from_static(piece)));
                found.extend(std::iter::from_fn(|| events.next()));
            }
            found.extend(events.rest());
            assert_eq!(found, [&b"{\"a\":1}"[..], b"[DONE]", b"last"], "pieces of {cut}");
        }
    }
}
