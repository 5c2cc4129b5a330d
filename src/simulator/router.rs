//! Names that stand for a model of the vendor's choice: `cloudflare/auto`, `dynamic/…` and `custom/…`.

use super::dice::{Dice, seed};
use super::received::Received;

/// What a route leads to whose request lists no models.
const BY_DEFAULT: &str = "@cf/meta/llama-3.3-70b-instruct-fp8-fast";

/// The model that a route is led to, the same for the same body; `None` where a model is named.
pub(super) fn chosen(call: &Received, name: &str) -> Option<String> {
    if name == "cloudflare/auto" {
        let allowed = call.header("cf-aig-allowed-models").unwrap_or(BY_DEFAULT);
        let allowed: Vec<_> = allowed.split(',').map(str::trim).collect();
        return Some(Dice::new(seed(&[&String::from_utf8_lossy(&call.body)])).pick(&allowed).to_owned());
    }
    (name.starts_with("dynamic/") || name.starts_with("custom/")).then(|| BY_DEFAULT.to_owned())
}
