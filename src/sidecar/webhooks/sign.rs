//! Signs what is sent, as the Standard Webhooks specification has it, so that the libraries for that can verify it: HMAC-SHA256
//! over id, time and body, joined by dots.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What signs.
#[derive(Clone)]
pub(super) struct Key(Hmac<Sha256>);

/// Before a key that is written in base64.
const PREFIX: &str = "whsec_";

impl Key {
    /// `whsec_` and base64 is those bytes; anything else is the text's own.
    pub(super) fn read(secret: &str) -> Result<Self, &'static str> {
        let bytes = match secret.trim().strip_prefix(PREFIX) {
            Some(digits) => {
                STANDARD.decode(digits).map_err(|_| "has a secret with `whsec_` and no base64 behind it")?
            }
            None => secret.trim().as_bytes().to_vec(),
        };
        if bytes.len() < 16 {
            return Err(
                "has a secret of fewer than 16 bytes, which can be guessed: `openssl rand -base64 24` makes a good one",
            );
        }
        Hmac::new_from_slice(&bytes).map(Self).map_err(|_| "has a secret that cannot sign")
    }

    /// The header's value.
    pub(super) fn signature(&self, id: &str, seconds: u64, body: &[u8]) -> String {
        let mut mac = self.0.clone();
        mac.update(format!("{id}.{seconds}.").as_bytes());
        mac.update(body);
        format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    #[test]
    fn what_is_signed_is_what_the_specification_says() {
        let key = Key::read("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let signed = key.signature("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, br#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn a_secret_that_can_be_guessed_is_refused() {
        for wrong in ["", "short", "whsec_no base64!", "whsec_c2hvcnQ="] {
            assert!(Key::read(wrong).is_err(), "{wrong}");
        }
    }
}
