//! `gatepost healthcheck`: whether mail gets through now, for a container's health check.

use std::path::PathBuf;
use std::time::Duration;

use super::CliError;
use super::output::print;
use super::running::Running;
use crate::admin::client::ClientError;
use crate::config::Config;

/// The longest wait for an answer; container engines wait 30 seconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Prints one line. Every failure exits with 1, as engines reserve the other codes.
///
/// # Errors
/// Mail does not get through, or the running Gatepost does not say so.
pub fn run(path: PathBuf) -> Result<(), CliError> {
    let config = Config::load(&path).map_err(|error| CliError::Refused(error.to_string()))?;
    let file = path.display().to_string();
    let running = Running::of(&config, path);
    let client = running.configured().ok_or_else(|| {
        CliError::Refused(format!(
            "{file} names no socket for this question: set socket in [admin], for example \"/run/gatepost/admin.sock\", and restart Gatepost"
        ))
    })?;
    let failed = |error: ClientError| CliError::Refused(error.to_string());
    let (status, text) = client.within(PATIENCE).text("/readyz").map_err(failed)?;
    let line = text.trim().replace('\n', "; ");
    match status.is_success() {
        true => print(&line),
        false => Err(CliError::Refused(line)),
    }
}
