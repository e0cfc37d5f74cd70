//! Credentials as `--json` shows them: names and forms that programs rely on.

use serde::Serialize;

use crate::cli::output::rfc3339;
use crate::store::Credential;

/// What `create` and `rotate` tell programs.
#[derive(Serialize)]
pub(super) struct IssuedView<'a> {
    id: String,
    username: &'a str,
    password: &'a str,
    organization: &'a str,
    name: Option<&'a str>,
    status: &'a str,
    created_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rotated_at: Option<String>,
}

impl<'a> IssuedView<'a> {
    pub(super) fn of(credential: &'a Credential, password: &'a str) -> IssuedView<'a> {
        IssuedView {
            id: credential.id.to_string(),
            username: &credential.username,
            password,
            organization: &credential.organization,
            name: credential.name.as_deref(),
            status: credential.status.as_str(),
            created_at: rfc3339(credential.created_at),
            rotated_at: credential.rotated_at.and_then(rfc3339),
        }
    }
}

/// What all others tell programs.
#[derive(Serialize)]
pub(super) struct View<'a> {
    id: String,
    username: &'a str,
    organization: &'a str,
    name: Option<&'a str>,
    status: &'a str,
    created_at: Option<String>,
    rotated_at: Option<String>,
    revoked_at: Option<String>,
    expires_at: Option<String>,
    previous_until: Option<String>,
    last_used: Option<LastUsedView<'a>>,
}

#[derive(Serialize)]
struct LastUsedView<'a> {
    at: Option<String>,
    address: &'a str,
    tls: Option<&'a str>,
    mechanism: &'a str,
    helo: &'a str,
    count: u64,
}

impl View<'_> {
    pub(super) fn of(credential: &Credential) -> View<'_> {
        View {
            id: credential.id.to_string(),
            username: &credential.username,
            organization: &credential.organization,
            name: credential.name.as_deref(),
            status: credential.status.as_str(),
            created_at: rfc3339(credential.created_at),
            rotated_at: credential.rotated_at.and_then(rfc3339),
            revoked_at: credential.revoked_at.and_then(rfc3339),
            expires_at: credential.expires_at.and_then(rfc3339),
            previous_until: credential.previous_until.and_then(rfc3339),
            last_used: credential.last_used.as_ref().map(|used| LastUsedView {
                at: rfc3339(used.at),
                address: &used.address,
                tls: used.tls.as_deref(),
                mechanism: &used.mechanism,
                helo: &used.helo,
                count: used.count,
            }),
        }
    }
}
