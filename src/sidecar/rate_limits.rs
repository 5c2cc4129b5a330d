//! The models' rate limits, as a config and the account's way of paying have them.

use super::config::Config;
use crate::catalogue::Catalogue;
use crate::layers::rate_limit;

/// The config's, and what the account's way of paying makes of the table's.
pub(super) fn rate_limits(config: &Config, catalogue: &Catalogue) -> rate_limit::Settings {
    let mut limits = config.limits.settings();
    let Some(paid) = config.account.billing.paid_limit() else { return limits };
    let is_set = |id: &str| config.models.get(id).is_some_and(|entry| entry.requests_per_minute.is_some());
    for model in catalogue.models().iter().filter(|model| model.paid_plan_only && !is_set(&model.id)) {
        limits.models.entry(model.id.to_string()).or_default().requests.get_or_insert(paid);
    }
    limits
}
