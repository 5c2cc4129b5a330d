//! What would have cost less, in the page's words.

use maud::{Markup, html};

use crate::sidecar::advice::Advice;

/// The dearest of them; `tollgate advise` has them all, and what each costs in return.
const SHOWN: usize = 5;

pub(super) fn section(advice: &[Advice]) -> Markup {
    html! {
        @if !advice.is_empty() {
            section #advice aria-label="Spend less" {
                h2 { "Spend less" }
                ul {
                    @for Advice { of, saved, shown, change, .. } in advice.iter().take(SHOWN) {
                        li {
                            strong { (change) }
                            @if !saved.is_zero() { " saves " (saved) " neurons of " (of) }
                            br;
                            span.quiet { (shown) }
                        }
                    }
                }
                p.quiet {
                    "By the records of the last seven days. " code { "tollgate advise" } " tells what each costs in return"
                    @if advice.len() > SHOWN { ", and " (advice.len() - SHOWN) " more" }
                    "."
                }
            }
        }
    }
}
