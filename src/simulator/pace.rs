//! How quick a model is.

use std::time::Duration;

#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Until the first token.
    pub(super) first: Duration,
    /// Between two.
    pub(super) token: Duration,
}

impl Pace {
    /// By the billions of parameters in its name, `-70b-`; a model that names none is a small one.
    pub(super) fn of(model: &str, scale: f64) -> Self {
        let sizes = model.split(['-', '/', '_']).filter_map(|part| part.strip_suffix(['b', 'B'])?.parse::<f64>().ok());
        let billions = sizes.fold(3.0, f64::max).min(400.0);
        Self {
            first: Duration::from_secs_f64((0.06 + billions * 0.003) * scale),
            token: Duration::from_secs_f64((0.004 + billions * 0.0002) * scale),
        }
    }
}
