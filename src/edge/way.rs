//! The way to the upstream, as configured: when TLS begins, whom it verifies, and how a session's
//! identity is told. Where something that is configured cannot be had, there is no session.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::config::{self, Endpoint, IdentityBy, Target, UpstreamTls};
use crate::net::connector::Connector;
use crate::net::tls::TlsError;
use crate::sasl::Secret;
use crate::smtp::proxy;
use crate::smtp::upstream::{Account, FailureCause, Purpose, Security, Stage, UpstreamFailure};
use crate::smtp::xclient::Client;

use super::upstream::Upstream;

/// The longest password that AUTH is sure to carry (RFC 4616 asks for 255 octets).
const MAX_PASSWORD: usize = 255;

/// Why the way to the upstream cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum WayError {
    /// A password cannot be read.
    #[error(
        "{path}: {error}; it holds the password of {username:?} at the upstream and must be readable by the user gatepost runs as"
    )]
    Read {
        /// The file.
        path: PathBuf,
        /// Of whom it is to hold the password.
        username: String,
        /// Why not.
        error: io::Error,
    },
    /// What was read is no password.
    #[error(
        "{path}: {fault}; write the password of {username:?} at the upstream on the first line and nothing else"
    )]
    Password {
        /// The file.
        path: PathBuf,
        /// Of whom it is to hold the password.
        username: String,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// How sessions reach the upstream.
pub struct Way {
    /// When TLS begins.
    pub security: Security,
    /// One for each target, or none.
    connectors: Vec<Connector>,
    introduction: Introduction,
}

enum Introduction {
    Login {
        organizations: BTreeMap<String, Account>,
        others: Option<Account>,
    },
    Proxy(proxy::Version),
    Untold,
    Xclient,
}

impl Way {
    /// Reads what the configuration names: authorities, our certificate, our passwords.
    pub fn load(upstream: &config::Upstream) -> Result<Self, WayError> {
        Ok(Self {
            security: match upstream.tls {
                UpstreamTls::Implicit => Security::Implicit,
                UpstreamTls::None => Security::None,
                UpstreamTls::StartTls => Security::StartTls,
            },
            connectors: connectors(upstream)?,
            introduction: introduction(upstream)?,
        })
    }

    /// How to ask what the upstream offers.
    pub fn probe(&self) -> Purpose<'_> {
        Purpose::Probe(match self.introduction {
            Introduction::Proxy(version) => Some(version),
            Introduction::Login { .. } | Introduction::Untold | Introduction::Xclient => None,
        })
    }

    /// How to hand over the session of `client`, who belongs to `organization`.
    pub fn purpose<'a>(
        &'a self,
        client: &'a Client,
        organization: &str,
    ) -> Result<Purpose<'a>, UpstreamFailure> {
        Ok(match &self.introduction {
            Introduction::Proxy(version) => Purpose::Proxy(client, *version),
            Introduction::Untold => Purpose::Untold,
            Introduction::Xclient => Purpose::Xclient(client),
            Introduction::Login {
                organizations,
                others,
            } => {
                let account = organizations.get(organization).or(others.as_ref());
                Purpose::Login(account.ok_or_else(|| UpstreamFailure {
                    stage: Stage::Auth,
                    cause: FailureCause::NoAccount(organization.to_owned()),
                })?)
            }
        })
    }

    /// Our accounts at the upstream.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        let (organizations, others) = match &self.introduction {
            Introduction::Login {
                organizations,
                others,
            } => (Some(organizations.values()), others.as_ref()),
            _ => (None, None),
        };
        others
            .into_iter()
            .chain(organizations.into_iter().flatten())
    }

    /// Puts the connection inside TLS.
    pub async fn secure(&self, upstream: &mut Upstream) -> io::Result<()> {
        match self.connectors.get(upstream.host.target) {
            Some(connector) => upstream.secure(connector).await,
            None => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

fn connectors(upstream: &config::Upstream) -> Result<Vec<Connector>, TlsError> {
    if upstream.tls == UpstreamTls::None {
        return Ok(Vec::new());
    }
    let own = upstream
        .tls_certificate
        .as_deref()
        .zip(upstream.tls_key.as_deref());
    let connector = |target: &Target| {
        let name = match (&upstream.tls_name, target) {
            (Some(name), _) => name.clone(),
            (None, Target::Endpoint(Endpoint::Tcp(address))) => {
                address.ip().to_canonical().to_string()
            }
            // The configuration's own check has refused this.
            (None, Target::Endpoint(Endpoint::Unix(path))) => path.display().to_string(),
            (None, Target::Name { host, .. }) => host.trim_end_matches('.').to_owned(),
        };
        Connector::load(&name, upstream.tls_ca.as_deref(), own)
    };
    upstream.address.iter().map(connector).collect()
}

fn introduction(upstream: &config::Upstream) -> Result<Introduction, WayError> {
    Ok(match upstream.identity {
        IdentityBy::None => Introduction::Untold,
        IdentityBy::Proxy if upstream.proxy_version == 1 => Introduction::Proxy(proxy::Version::V1),
        IdentityBy::Proxy => Introduction::Proxy(proxy::Version::V2),
        IdentityBy::Xclient => Introduction::Xclient,
        IdentityBy::Login => {
            // Those with an address have an upstream of their own.
            let here = upstream
                .organizations
                .iter()
                .filter(|(_, own)| own.address.is_empty());
            let organizations =
                here.filter_map(|(slug, own)| Some(own_account(own)?.map(|it| (slug.clone(), it))));
            Introduction::Login {
                others: own_account(upstream).transpose()?,
                organizations: organizations.collect::<Result<_, WayError>>()?,
            }
        }
    })
}

fn own_account(upstream: &config::Upstream) -> Option<Result<Account, WayError>> {
    let username = upstream.username.as_deref()?;
    let file = upstream.password_file.as_deref()?;
    Some(account(username, file))
}

/// Reads the password from its file; the line's end is not part of it.
fn account(username: &str, path: &Path) -> Result<Account, WayError> {
    let read = fs::read(path).map_err(|error| WayError::Read {
        path: path.to_owned(),
        username: username.to_owned(),
        error,
    })?;
    let text = Secret::new(read);
    let line = text.expose().strip_suffix(b"\n").unwrap_or(text.expose());
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let fault = match line {
        [] => Some("the password is empty"),
        _ if line.len() > MAX_PASSWORD => Some("the password is longer than 255 bytes"),
        _ if line.iter().any(|byte| matches!(byte, 0 | b'\r' | b'\n')) => {
            Some("there is more than one line")
        }
        _ => None,
    };
    match fault {
        Some(fault) => Err(WayError::Password {
            path: path.to_owned(),
            username: username.to_owned(),
            fault,
        }),
        None => Ok(Account {
            username: username.to_owned(),
            password: Secret::new(line),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8]) -> Result<Account, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        account("gate", file.path()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_password_is_the_one_line_of_its_file() {
        for content in ["a secret", "a secret\n", "a secret\r\n"] {
            let account = read(content.as_bytes()).unwrap();
            assert_eq!(account.password.expose(), b"a secret");
        }
        for (content, fault) in [
            (&b""[..], "is empty"),
            (b"\n", "is empty"),
            (b"one\ntwo\n", "more than one line"),
            (b"a\0b", "more than one line"),
            (&[b'x'; 256], "longer than 255"),
        ] {
            let error = read(content).unwrap_err();
            assert!(
                error.contains(fault) && error.contains("\"gate\""),
                "{error}"
            );
        }
        let error = account("gate", Path::new("/nowhere/password")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/password"), "{error}");
    }
}
