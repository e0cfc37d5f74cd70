//! What the keys of `[upstream]` say to each other. The way to the MTA fails closed, so a key that
//! would have no effect is a mistake: whoever wrote it believes that it protects something.

use super::super::error::{Key, Problem};
use super::super::{Endpoint, IdentityBy, Upstream, UpstreamTls};

/// Finds the first contradiction.
pub(super) fn check(upstream: &Upstream) -> Result<(), Problem> {
    check_identity(upstream)?;
    check_accounts(upstream)?;
    check_tls(upstream)
}

fn problem(key: &str, message: impl Into<String>) -> Problem {
    Problem::new(Key::new(["upstream", key]), message)
}

/// Whoever may send there without a name must be kept away from there by something else.
fn check_identity(upstream: &Upstream) -> Result<(), Problem> {
    if upstream.identity == IdentityBy::None && !upstream.trusted {
        return Err(problem(
            "identity",
            "\"none\" tells the MTA nothing, so it has to take mail from whoever reaches it; if only \
             gatepost does, write upstream.trusted = true, else use \"xclient\", \"proxy\" or \"login\"",
        ));
    }
    Ok(())
}

fn check_accounts(upstream: &Upstream) -> Result<(), Problem> {
    let default = (&upstream.username, &upstream.password_file);
    if upstream.identity != IdentityBy::Login {
        let unused = [
            ("username", default.0.is_some()),
            ("password_file", default.1.is_some()),
            ("organizations", !upstream.organizations.is_empty()),
        ];
        return match unused.into_iter().find(|(_, written)| *written) {
            Some((key, _)) => Err(problem(
                key,
                "has no effect with this upstream.identity; use identity = \"login\", or leave it out",
            )),
            None => Ok(()),
        };
    }
    match default {
        (Some(_), None) => Err(problem(
            "password_file",
            "missing; name the file with the password of upstream.username",
        )),
        (None, Some(_)) => Err(problem(
            "username",
            "missing; name the account that upstream.password_file has the password of",
        )),
        (None, None) if upstream.organizations.is_empty() => Err(problem(
            "username",
            "missing; identity = \"login\" needs username and password_file, or \
             [upstream.organizations.SLUG] with both",
        )),
        _ => check_password_is_safe(upstream),
    }
}

/// PLAIN and LOGIN are readable for whoever sees the bytes pass.
fn check_password_is_safe(upstream: &Upstream) -> Result<(), Problem> {
    if upstream.trusted || upstream.tls != UpstreamTls::None {
        return Ok(());
    }
    let far = upstream.address.iter().find_map(|endpoint| match endpoint {
        Endpoint::Tcp(address) if !address.ip().to_canonical().is_loopback() => Some(address),
        _ => None,
    });
    let Some(address) = far else { return Ok(()) };
    Err(problem(
        "tls",
        format!(
            "the password of upstream.username would cross the network to {address} in clear text; \
             use \"starttls\" or \"implicit\", or write upstream.trusted = true if nobody can listen"
        ),
    ))
}

fn check_tls(upstream: &Upstream) -> Result<(), Problem> {
    let written = [
        ("tls_name", upstream.tls_name.is_some()),
        ("tls_ca", upstream.tls_ca.is_some()),
        ("tls_certificate", upstream.tls_certificate.is_some()),
        ("tls_key", upstream.tls_key.is_some()),
    ];
    let unused = written.into_iter().find(|(_, written)| *written);
    if let (UpstreamTls::None, Some((key, _))) = (upstream.tls, unused) {
        return Err(problem(
            key,
            "has no effect without TLS; write upstream.tls = \"starttls\" or \"implicit\", or leave it out",
        ));
    }
    match (&upstream.tls_certificate, &upstream.tls_key) {
        (Some(_), None) => {
            return Err(problem(
                "tls_key",
                "missing; name the private key of upstream.tls_certificate",
            ));
        }
        (None, Some(_)) => {
            return Err(problem(
                "tls_certificate",
                "missing; name the certificate that upstream.tls_key belongs to",
            ));
        }
        _ => {}
    }
    let mut addresses = upstream.address.iter();
    let unix = addresses.any(|endpoint| matches!(endpoint, Endpoint::Unix(_)));
    let nameless = unix && upstream.tls_name.is_none();
    if upstream.tls != UpstreamTls::None && nameless {
        return Err(problem(
            "tls_name",
            "missing; a unix socket has no name of its own, so write the one in the MTA's certificate",
        ));
    }
    Ok(())
}
