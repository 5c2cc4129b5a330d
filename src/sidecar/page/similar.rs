//! What was taken for the same, in the page's words: so that a person can judge the threshold.

use maud::{Markup, html};

use super::figures::{amount, clock, whole};
use crate::layers::cache::semantic::Standing;

/// Nothing where no question was ever looked for.
pub(super) fn section(standing: &Standing) -> Markup {
    let Standing { hits, misses, failed, late, saved, paid, pairs, .. } = standing;
    let net = saved.as_f64() - paid.as_f64();
    let asked = hits + misses + failed + late;
    html! {
        @if asked > 0 {
            section #similar aria-label="Semantic cache" {
                h2 { "Semantic cache" }
                p {
                    data #semantic-net value=(net) { (if net < 0.0 { "−" } else { "" }) (amount(net.abs())) }
                    " neurons saved since the start, net: answers that would have cost " (amount(saved.as_f64()))
                    ", less " (amount(paid.as_f64())) " for the vectors of all questions. "
                    (whole(*hits as f64)) " of " (whole(asked as f64)) " questions had an answer"
                    @if *failed + *late > 0 {
                        "; of " (whole((failed + late) as f64)) " no vector came, or not in time"
                    }
                    "."
                }
                @if !pairs.is_empty() {
                    table {
                        caption { "The last ones that were taken for the same. Where they do not mean the same, raise the threshold." }
                        thead { tr {
                            th scope="col" { "at" } th scope="col" { "similarity" } th scope="col" { "asked" }
                            th scope="col" { "had the answer to" } th scope="col" { "model" }
                        } }
                        tbody {
                            @for pair in pairs {
                                tr {
                                    td { (clock(pair.at)) }
                                    td { (format!("{:.4}", pair.similarity)) }
                                    td { (pair.asked) }
                                    td { (pair.answered) }
                                    td { (pair.model) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
