//! The sockets that are open now.

use maud::{Markup, html};

use super::figures::{amount, short, time};
use crate::readers::running::Speech;

/// So many are shown; the rest are counted.
const SHOWN: usize = 20;

/// Nothing where none is open.
pub(super) fn open(sockets: &[Speech]) -> Markup {
    html! {
        @if !sockets.is_empty() {
            section #speech aria-labelledby="speech-title" {
                h2 #speech-title { "Open sockets: " data id="sockets-open" value=(sockets.len()) { (sockets.len()) } }
                div.scroll tabindex="0" role="group" aria-labelledby="speech-title" {
                    table {
                        thead { tr {
                            th scope="col" { "model" } th scope="col" { "open for" } th scope="col" { "heard" }
                            th scope="col" { "characters" } th scope="col" { "neurons so far" } th scope="col" { "says who" }
                            th scope="col" { "key" }
                        } }
                        tbody {
                            @for socket in sockets.iter().take(SHOWN) { (one(socket)) }
                            @if sockets.len() > SHOWN { tr { td.quiet colspan="7" { (sockets.len() - SHOWN) " more" } } }
                        }
                    }
                }
            }
        }
    }
}

fn one(socket: &Speech) -> Markup {
    html! {
        tr title=(socket.id) {
            td title=(socket.model.id) { (short(&socket.model.id)) }
            td { (time(socket.open_for)) }
            td { (time(std::time::Duration::from_millis(socket.usage.audio_ms))) }
            td { (socket.usage.characters) }
            td { data value=(socket.cost.neurons.decimal()) { (amount(socket.cost.neurons.as_f64())) } }
            td { (socket.cost.source.label().unwrap_or("–")) }
            td { (socket.key.as_deref().unwrap_or("–")) }
        }
    }
}
