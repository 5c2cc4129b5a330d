//! A stream of server-sent events, taken apart into the data of each.

use bytes::{Buf, Bytes, BytesMut};

/// The bytes that are here and not taken yet.
#[derive(Debug, Default)]
pub(super) struct Events(BytesMut);

/// A line that is longer is no event of a model's.
pub(super) const MAX_LINE_BYTES: usize = 16 << 20;

impl Events {
    /// Takes more in; false where a line has become too long.
    pub(super) fn push(&mut self, bytes: &Bytes) -> bool {
        self.0.extend_from_slice(bytes);
        self.0.len() <= MAX_LINE_BYTES
    }

    /// The data of the next line that has some.
    pub(super) fn next(&mut self) -> Option<Bytes> {
        while let Some(length) = memchr::memchr(b'\n', &self.0) {
            let line = self.0.split_to(length + 1).freeze();
            if let Some(data) = data(line) {
                return Some(data);
            }
        }
        None
    }

    /// All that is here, where it is no event stream.
    pub(super) fn all(&mut self) -> Option<Bytes> {
        Some(self.0.split().freeze()).filter(|bytes| !bytes.is_empty())
    }

    /// What stands behind the last line's end, when no more comes.
    pub(super) fn rest(&mut self) -> Option<Bytes> {
        data(self.0.split().freeze())
    }
}

fn data(mut line: Bytes) -> Option<Bytes> {
    if !line.starts_with(b"data:") {
        return None;
    }
    line.advance(b"data:".len());
    let data = line.trim_ascii();
    (!data.is_empty()).then(|| line.slice_ref(data))
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
