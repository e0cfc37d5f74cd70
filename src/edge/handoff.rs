//! The upstream configuration, loaded and ready: when TLS begins, which certificate is verified,
//! and how the upstream learns the session's identity. A missing file or account prevents the
//! session.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::config::{self, Endpoint, IdentityBy, Target, UpstreamTls};
use crate::net::connector::Connector;
use crate::net::tls::TlsError;
use crate::sasl::Secret;
use crate::smtp::proxy;
use crate::smtp::upstream::{Account, FailureCause, HandoffMode, Security, Stage, UpstreamFailure};
use crate::smtp::xclient::Client;

use super::upstream::Upstream;

/// The longest password that every SASL PLAIN server accepts (RFC 4616 asks for 255 octets).
const MAX_PASSWORD: usize = 255;

/// Why the upstream configuration cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum HandoffError {
    #[error(
        "{path}: {error}; it holds the password of {username:?} at the upstream and must be readable by the user gatepost runs as"
    )]
    Read {
        path: PathBuf,
        username: String,
        error: io::Error,
    },
    #[error(
        "{path}: {fault}; write the password of {username:?} at the upstream on the first line and nothing else"
    )]
    Password {
        path: PathBuf,
        username: String,
        fault: &'static str,
    },
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// How Gatepost hands sessions to the upstream.
pub struct HandoffConfig {
    pub security: Security,
    /// One for each target; empty without TLS.
    connectors: Vec<Connector>,
    identity: IdentityMode,
}

enum IdentityMode {
    Login {
        organizations: BTreeMap<String, Account>,
        others: Option<Account>,
    },
    Proxy(proxy::Version),
    None,
    Xclient,
}

impl HandoffConfig {
    /// Reads the configured authorities, the client certificate and the passwords.
    pub fn load(upstream: &config::Upstream) -> Result<Self, HandoffError> {
        Ok(Self {
            security: match upstream.tls {
                UpstreamTls::Implicit => Security::Implicit,
                UpstreamTls::None => Security::None,
                UpstreamTls::StartTls => Security::StartTls,
            },
            connectors: connectors(upstream)?,
            identity: identity(upstream)?,
        })
    }

    /// Returns the handover mode for asking the upstream's extensions.
    pub fn probe(&self) -> HandoffMode<'_> {
        HandoffMode::Probe(match self.identity {
            IdentityMode::Proxy(version) => Some(version),
            IdentityMode::Login { .. } | IdentityMode::None | IdentityMode::Xclient => None,
        })
    }

    /// Returns the handover mode for the session of `client`, a member of `organization`.
    pub fn mode<'a>(
        &'a self,
        client: &'a Client,
        organization: &str,
    ) -> Result<HandoffMode<'a>, UpstreamFailure> {
        Ok(match &self.identity {
            IdentityMode::Proxy(version) => HandoffMode::Proxy(client, *version),
            IdentityMode::None => HandoffMode::NoIdentity,
            IdentityMode::Xclient => HandoffMode::Xclient(client),
            IdentityMode::Login {
                organizations,
                others,
            } => {
                let account = organizations.get(organization).or(others.as_ref());
                HandoffMode::Login(account.ok_or_else(|| UpstreamFailure {
                    stage: Stage::Auth,
                    cause: FailureCause::NoAccount(organization.to_owned()),
                })?)
            }
        })
    }

    /// Iterates over the configured upstream accounts.
    pub fn accounts(&self) -> impl Iterator<Item = &Account> {
        let (organizations, others) = match &self.identity {
            IdentityMode::Login {
                organizations,
                others,
            } => (Some(organizations.values()), others.as_ref()),
            _ => (None, None),
        };
        others
            .into_iter()
            .chain(organizations.into_iter().flatten())
    }

    /// Starts TLS on the connection.
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
            // The configuration check has already rejected TLS over a Unix socket without
            // `tls_name`.
            (None, Target::Endpoint(Endpoint::Unix(path))) => path.display().to_string(),
            (None, Target::Name { host, .. }) => host.trim_end_matches('.').to_owned(),
        };
        Connector::load(&name, upstream.tls_ca.as_deref(), own)
    };
    upstream.address.iter().map(connector).collect()
}

fn identity(upstream: &config::Upstream) -> Result<IdentityMode, HandoffError> {
    Ok(match upstream.identity {
        IdentityBy::None => IdentityMode::None,
        IdentityBy::Proxy if upstream.proxy_version == 1 => IdentityMode::Proxy(proxy::Version::V1),
        IdentityBy::Proxy => IdentityMode::Proxy(proxy::Version::V2),
        IdentityBy::Xclient => IdentityMode::Xclient,
        IdentityBy::Login => {
            // An organization with an address has a separate upstream.
            let here = upstream
                .organizations
                .iter()
                .filter(|(_, own)| own.address.is_empty());
            let organizations =
                here.filter_map(|(slug, own)| Some(own_account(own)?.map(|it| (slug.clone(), it))));
            IdentityMode::Login {
                others: own_account(upstream).transpose()?,
                organizations: organizations.collect::<Result<_, HandoffError>>()?,
            }
        }
    })
}

fn own_account(upstream: &config::Upstream) -> Option<Result<Account, HandoffError>> {
    let username = upstream.username.as_deref()?;
    let file = upstream.password_file.as_deref()?;
    Some(account(username, file))
}

/// Reads a password from its file; a final line break is not part of the password.
fn account(username: &str, path: &Path) -> Result<Account, HandoffError> {
    let read = fs::read(path).map_err(|error| HandoffError::Read {
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
        Some(fault) => Err(HandoffError::Password {
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
    fn password_file_holds_a_single_line() {
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
