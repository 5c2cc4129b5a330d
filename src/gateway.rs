//! The stack, composed.
//!
//! ```text
//!  http::Request
//!    │  Identify    the only door from HTTP; opens the receipt
//!    │  Meter       every attempt's usage and cost, read off the reply as it passes
//!    ▼
//!  Upstream         the vendor's API, or an AI Gateway
//! ```

use tower::{Layer, ServiceBuilder};

use crate::layers::identify::{Identify, IdentifyLayer, Settings};
use crate::layers::meter::{Meter, MeterLayer};
use crate::upstream::{Target, Upstream};

/// The whole gate around an HTTP client. Cloning shares its state.
pub type Gateway<C> = Identify<Meter<Upstream<C>>, Upstream<C>>;

/// Stacks the layers upon a client.
pub fn stack<C: Clone>(client: C, target: Target, door: Settings) -> Gateway<C> {
    let upstream = Upstream::new(client, target);
    ServiceBuilder::new()
        .layer(IdentifyLayer::new(door, upstream.clone()))
        .layer(MeterLayer::default())
        .into_inner()
        .layer(upstream)
}
