//! What an HTTP client's error says.

/// What sets the time-outs of a client that was handed in.
pub(super) const OWN_TIMEOUT: &str = "the HTTP client's own timeout";

/// An error and what lies behind it: reqwest's own words stop at "error sending request".
pub(crate) fn causes(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words.push_str(": ");
            words.push_str(&cause_words);
        }
        source = cause.source();
    }
    words
}
