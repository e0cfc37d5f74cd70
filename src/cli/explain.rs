//! `gatepost explain`: what would become of a login, and why.

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::Method;
use clap::Args;
use form_urlencoded::Serializer;

use super::CliError;
use super::output::{document, plain, print, shown};
use super::running::Running;
use crate::admin::api::Explanation;
use crate::admin::client::{Client, ClientError};
use crate::auth::ActivityBatch;
use crate::auth::explain::{Question, Sources, explain};
use crate::auth::guard::Guard;
use crate::auth::quota::Quotas;
use crate::config::Config;
use crate::daemon;
use crate::metrics::Metrics;
use crate::sasl::Throttled;
use crate::store::Store;

/// Which login.
#[derive(Args, Debug)]
pub struct ExplainOptions {
    /// Whom the client claims to be
    #[arg(long)]
    username: String,
    /// The client's IP address
    #[arg(long, value_name = "ADDRESS")]
    from: IpAddr,
    /// Whom it wants to send as
    #[arg(long, value_name = "ADDRESS")]
    sender: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Has the running Gatepost explain it, or goes by the store where none runs, and prints the answer.
///
/// # Errors
/// The store cannot be used, the running Gatepost refuses, or standard output is closed.
pub fn run(options: &ExplainOptions, config: &Config, running: &Running) -> Result<(), CliError> {
    let store = Arc::new(Store::open(&config.store.path)?);
    let (explanation, note) = match running.configured().map(|client| ask(client, options)) {
        Some(Ok(explanation)) => (explanation, None),
        Some(Err(error @ ClientError::Unreachable { .. })) => {
            (by_store(options, config, &store)?, Some(error.to_string()))
        }
        Some(Err(error)) => return Err(error.into()),
        None => {
            let note = "no socket in [admin], so no running Gatepost could be asked".to_owned();
            (by_store(options, config, &store)?, Some(note))
        }
    };
    if options.json {
        return print(&document(&explanation)?);
    }
    print(&told(&explanation, note.as_deref()))
}

fn ask(client: &Client, options: &ExplainOptions) -> Result<Explanation, ClientError> {
    let mut query = Serializer::new(String::new());
    query.append_pair("username", &options.username);
    query.append_pair("from", &options.from.to_string());
    query.extend_pairs(options.sender.iter().map(|sender| ("sender", sender)));
    let path = format!("/api/v1/explain?{}", query.finish());
    client.ask(Method::GET, &path, None)
}

/// What a daemon that began now would do.
fn by_store(
    options: &ExplainOptions,
    config: &Config,
    store: &Arc<Store>,
) -> Result<Explanation, CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::Io(error.to_string());
    let metrics = Arc::new(Metrics::new().map_err(|error| failed(&error))?);
    let guard = Guard::load(daemon::guard_settings(config, 1), metrics.clone(), store)?;
    let noted = Arc::new(ActivityBatch::new(1, metrics.clone()));
    let quotas = Quotas::new(store.clone(), noted, metrics, daemon::defaults(config));
    let sources = Sources {
        store,
        guard: &guard,
        quotas: &quotas,
        folds_case: config.auth.username_case.folds(),
    };
    let asked = Question {
        username: &options.username,
        organization: None,
        from: options.from,
        sender: options.sender.as_deref(),
    };
    let told = explain(&sources, asked)?.unwrap_or_default();
    Ok(Explanation::of(asked, &told))
}

fn told(explanation: &Explanation, note: Option<&str>) -> String {
    let Explanation {
        username,
        from,
        reply,
        ..
    } = explanation;
    let username = shown(username);
    let mut text = match (explanation.accepted, explanation.mail_refused) {
        (true, false) => {
            format!("{username} from {from} is accepted with the right password ({reply}).")
        }
        (true, true) => format!(
            "{username} from {from} is accepted with the right password ({reply}), but mail is refused."
        ),
        (false, _) if explanation.reason.as_deref() == Some(Throttled::Guard.as_str()) => format!(
            "{username} from {from} is turned away ({reply}, reason guard), unless its password is right and remembered by the running Gatepost."
        ),
        (false, _) => format!(
            "{username} from {from} is refused, whatever the password ({reply}, reason {}).",
            explanation.reason.as_deref().unwrap_or("-")
        ),
    };
    for check in &explanation.checks {
        let mark = match check.finding.as_str() {
            "passes" => "  ok      ",
            "reports" => "  reports ",
            _ => "  NO      ",
        };
        text += &format!("\n{mark}{:<20}{}", check.check, plain(&check.words));
    }
    if let Some(note) = note {
        text += &format!(
            "\nThis goes by the store, which is what a Gatepost that starts now begins with: {note}"
        );
    }
    text
}
