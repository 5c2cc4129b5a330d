//! Whether lines of the log are sent.

use super::built::LogLines;
use crate::sidecar::config::{ConfigError, Otel, Variables};

impl Otel {
    /// What has the lines of the log sent, where somebody asks for it.
    pub fn log_lines(&self, variables: &Variables) -> Result<Option<LogLines>, ConfigError> {
        let collector = self.collector(variables)?;
        Ok(collector.and_then(|collector| collector.logs).and_then(|_| LogLines::waiting()))
    }
}
