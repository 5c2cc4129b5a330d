//! A call's place in a trace, as W3C's Trace Context (`traceparent`) tells it from one program to the next.
//!
//! The door takes it from the client or begins a trace of its own, and each attempt upstream carries it on as a span of its own.
//! What is made of it is up to a [`Reader`](crate::receipt::Reader): it stands on the receipt.

use std::fmt::Write;

use http::header::{HeaderMap, HeaderName, HeaderValue};

pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// A call's place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TraceContext {
    /// The trace's name: the client's, or the call's own, which then is its `cf-aig-log-id`.
    pub trace: u128,
    /// The span that this one is part of; `None` where the trace begins here.
    pub parent: Option<u64>,
    /// This span.
    pub span: u64,
    /// It is to be kept: the client says so, or chance does where the trace begins here.
    pub is_sampled: bool,
}

impl TraceContext {
    /// Of a call that came with these headers; `share` of the calls that came without a trace are kept. `own` is the call's name.
    pub(crate) fn of(headers: &HeaderMap, own: [u8; 16], share: f64) -> Self {
        let own = u128::from_be_bytes(own);
        let span = mixed(own as u64 ^ (own >> 64) as u64);
        let told = headers.get(TRACEPARENT).and_then(|value| read(value.as_bytes()));
        match told {
            Some((trace, parent, is_sampled)) => Self { trace, parent: Some(parent), span, is_sampled },
            None => Self { trace: own, parent: None, span, is_sampled: share >= 1.0 || fastrand::f64() < share },
        }
    }

    /// The span of one of its attempts upstream, from 0.
    pub fn attempt(self, number: usize) -> Self {
        let span = mixed(self.span.wrapping_add(number as u64 + 1));
        Self { parent: Some(self.span), span, ..self }
    }

    /// As `traceparent` tells it.
    pub(crate) fn header(self) -> Option<HeaderValue> {
        let mut text = String::with_capacity(LENGTH);
        let flags = u8::from(self.is_sampled);
        write!(text, "00-{:032x}-{:016x}-{flags:02x}", self.trace, self.span).ok()?;
        HeaderValue::try_from(text).ok()
    }
}

/// `00-` trace `-` span `-` flags.
const LENGTH: usize = 55;

/// A later version may have more after a dash, and is read by its first four fields.
fn read(value: &[u8]) -> Option<(u128, u64, bool)> {
    let (known, rest) = value.split_at_checked(LENGTH)?;
    let [v1, v2, b'-', fields @ ..] = known else { return None };
    let version = hex([*v1, *v2].as_slice())?;
    let is_whole = rest.is_empty() || version > 0 && rest[0] == b'-';
    let (trace, fields) = fields.split_at_checked(32)?;
    let (span, fields) = fields.strip_prefix(b"-")?.split_at_checked(16)?;
    let (trace, span, flags) = (hex(trace)?, hex(span)? as u64, hex(fields.strip_prefix(b"-")?)?);
    (is_whole && version != 0xff && trace != 0 && span != 0).then_some((trace, span, flags & 1 == 1))
}

/// Capital letters are not allowed there.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |sum, digit| match digit {
        b'0'..=b'9' => Some(sum << 4 | u128::from(digit - b'0')),
        b'a'..=b'f' => Some(sum << 4 | u128::from(digit - b'a' + 10)),
        _ => None,
    })
}

/// SplitMix64: different numbers stay different, and look like chance. Never 0, which is no span's name.
fn mixed(number: u64) -> u64 {
    let z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ z >> 31).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(value: &str) -> TraceContext {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, value.parse().unwrap());
        TraceContext::of(&headers, [7; 16], 1.0)
    }

    #[test]
    fn a_client_s_trace_goes_on_and_says_itself_whether_it_is_kept() {
        let context = of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        assert_eq!(context.trace, 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736);
        assert_eq!((context.parent, context.is_sampled), (Some(0x00f0_67aa_0ba9_02b7), true));
        let attempt = context.attempt(0);
        let header = attempt.header().unwrap();
        assert_eq!(header, format!("00-4bf92f3577b34da6a3ce929d0e0e4736-{:016x}-01", attempt.span).as_str());
        assert_eq!(attempt.parent, Some(context.span));
        assert_ne!(attempt.span, context.attempt(1).span);
        assert!(!of("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00").is_sampled);
        assert!(of("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more").parent.is_some());
    }

    #[test]
    fn what_is_no_traceparent_begins_a_trace_that_has_the_call_s_own_name() {
        for wrong in [
            "",
            "00",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0x",
        ] {
            let context = of(wrong);
            assert_eq!((context.parent, context.trace), (None, u128::from_be_bytes([7; 16])), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_much_and_what_is_written_is_read_back(bytes in any::<Vec<u8>>(), trace in 1u128.., span in 1u64.., is_sampled: bool) {
            let _ = read(&bytes);
            let header = TraceContext { trace, parent: None, span, is_sampled }.header().unwrap();
            prop_assert_eq!(read(header.as_bytes()), Some((trace, span, is_sampled)));
        }
    }
}
