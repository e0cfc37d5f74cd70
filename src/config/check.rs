//! What no key can know alone: the checks across keys.

use std::net::SocketAddr;

use super::error::{Key, Problem};
use super::{Admin, Auth, Config, DovecotAuth, Endpoint};

mod upstream;

/// Finds the first contradiction between keys.
pub(super) fn check(config: &Config) -> Result<(), Problem> {
    check_completeness(config)?;
    check_addresses(config)?;
    let listeners: Vec<_> = config.listeners.iter().map(|one| one.address).collect();
    if let Some(upstream) = &config.upstream {
        upstream::check(upstream, &listeners)?;
    }
    check_admin(config)?;
    check_auth_socket(config)?;
    check_proxies(config)?;
    check_argon2_memory(config)?;
    check_refusal_is_sent(config)
}

/// A listener needs a certificate and an upstream. `[dovecot_auth]` alone is complete: Postfix keeps
/// its listeners and asks for verdicts.
fn check_completeness(config: &Config) -> Result<(), Problem> {
    let missing = |key: &str, remedy: &str| {
        let message = format!("missing; {remedy}");
        Err(Problem::new(Key::new([key]), message))
    };
    // The service manager may hand in all addresses.
    if config.listeners.is_empty() && config.tls.is_none() && config.upstream.is_none() {
        return Ok(());
    }
    // Postfix keeps its listeners.
    if config.listeners.is_empty() && config.dovecot_auth.is_some() {
        return Ok(());
    }
    if config.tls.is_none() {
        return missing(
            "tls",
            "clients log in over TLS only: write [tls] with certificate and key",
        );
    }
    match config.upstream {
        Some(_) => Ok(()),
        None => missing("upstream", "write [upstream] with the address of the MTA"),
    }
}

/// Two sockets on one address would fail only when they are bound, and then without naming a key.
fn check_addresses(config: &Config) -> Result<(), Problem> {
    let mut taken: Vec<(Key, SocketAddr)> = Vec::new();
    for (key, address) in tcp_listeners(config) {
        // Port 0 stands for any free port, another one each time.
        let same = taken
            .iter()
            .find(|(_, other)| *other == address && address.port() != 0);
        if let Some((other, _)) = same {
            let message = format!("{address} is taken by {other}; choose another address");
            return Err(Problem::new(key, message));
        }
        taken.push((key, address));
    }
    Ok(())
}

fn tcp_listeners(config: &Config) -> Vec<(Key, SocketAddr)> {
    let mut all = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        all.push((
            Key::new(["listener", &index.to_string(), "address"]),
            listener.address,
        ));
    }
    if let Some(Endpoint::Tcp(address)) = config.dovecot_auth.as_ref().map(|s| &s.listen) {
        all.push((Key::new(["dovecot_auth", "listen"]), *address));
    }
    if let Some(address) = config.admin.as_ref().and_then(|s| s.listen) {
        all.push((Key::new(["admin", "listen"]), address));
    }
    if let Some(address) = config.metrics.as_ref().and_then(|s| s.listen) {
        all.push((Key::new(["metrics", "listen"]), address));
    }
    all
}

/// Tokens and new passwords must not cross a network in clear text.
fn check_admin(config: &Config) -> Result<(), Problem> {
    let Some(Admin { listen, tls, .. }) = &config.admin else {
        return Ok(());
    };
    match listen {
        Some(address) if !tls && !address.ip().to_canonical().is_loopback() => Err(Problem::new(
            Key::new(["admin", "listen"]),
            format!(
                "{address} would carry tokens and new passwords over the network in clear text; \
                 use a loopback address, such as \"127.0.0.1:8587\", or set admin.tls = true"
            ),
        )),
        None if *tls => Err(Problem::new(
            Key::new(["admin", "tls"]),
            "there is no admin.listen that could speak TLS; name a TCP address, or leave this out",
        )),
        Some(_) if *tls && config.tls.is_none() => Err(Problem::new(
            Key::new(["admin", "tls"]),
            "there is no certificate to show; write [tls] with certificate and key, or leave this out",
        )),
        _ => Ok(()),
    }
}

/// A group is for a file.
fn check_auth_socket(config: &Config) -> Result<(), Problem> {
    let Some(DovecotAuth { listen, group, .. }) = &config.dovecot_auth else {
        return Ok(());
    };
    match (listen, group) {
        (Endpoint::Tcp(address), Some(_)) => Err(Problem::new(
            Key::new(["dovecot_auth", "group"]),
            format!("{address} has no group; use a unix socket, or leave this out"),
        )),
        _ => Ok(()),
    }
}

/// A reverse proxy must be known before it is believed, and what it says must allow something.
fn check_proxies(config: &Config) -> Result<(), Problem> {
    let Some(admin) = &config.admin else {
        return Ok(());
    };
    let key = |name| Key::new(["admin", name]);
    if admin.proxy_socket.is_some() && admin.proxy_socket == admin.socket {
        return Err(Problem::new(
            key("proxy_socket"),
            "admin.socket is the same, where every request may do everything; choose another path",
        ));
    }
    if !admin.trusted_proxies.is_empty() && admin.listen.is_none() {
        return Err(Problem::new(
            key("trusted_proxies"),
            "there is no admin.listen for them to connect to; set it, or leave this out",
        ));
    }
    let Some(auth) = &admin.proxy_auth else {
        return Ok(());
    };
    let wrong = |name: &str, message: &str| {
        let key = key("proxy_auth");
        Err(Problem::new(
            if name.is_empty() {
                key
            } else {
                key.child(name)
            },
            message,
        ))
    };
    if admin.trusted_proxies.is_empty() && admin.proxy_socket.is_none() {
        return wrong(
            "",
            "no proxy may set these headers; set admin.proxy_socket or admin.trusted_proxies",
        );
    }
    let groups = auth.groups_header.as_deref();
    if groups.is_some_and(|groups| groups.eq_ignore_ascii_case(&auth.user_header)) {
        return wrong(
            "groups_header",
            "it is the same as user_header; name the header with the groups",
        );
    }
    match (groups, auth.groups.is_empty(), auth.users.is_empty()) {
        (None, false, _) => wrong("groups", "without groups_header no group is known; set it"),
        (Some(_), true, _) => wrong(
            "groups_header",
            "no group has a scope; add [admin.proxy_auth.groups]",
        ),
        (None, true, true) => wrong(
            "",
            "no person has a scope; set groups_header and add [admin.proxy_auth.groups], or add [admin.proxy_auth.users]",
        ),
        _ => Ok(()),
    }
}

/// RFC 9106 section 3.1: at least 8 KiB for each lane.
fn check_argon2_memory(config: &Config) -> Result<(), Problem> {
    let (memory, lanes) = (config.auth.memory_kib, config.auth.lanes);
    let least = 8 * lanes;
    if memory < least {
        return Err(Problem::new(
            Key::new(["auth", "memory_kib"]),
            format!(
                "{memory} is too little for {lanes} lanes; use {least} or more, or fewer lanes"
            ),
        ));
    }
    Ok(())
}

/// A refusal that comes after the time for logging in would never be seen.
fn check_refusal_is_sent(config: &Config) -> Result<(), Problem> {
    let (delay, login) = (config.auth.refusal_delay, config.timeouts.login);
    if delay < login {
        return Ok(());
    }
    // A default is nobody's mistake: blame the key that was written.
    Err(if delay == Auth::default().refusal_delay {
        Problem::new(
            Key::new(["timeouts", "login"]),
            format!("{login:?} is not longer than auth.refusal_delay ({delay:?}); use more"),
        )
    } else {
        Problem::new(
            Key::new(["auth", "refusal_delay"]),
            format!("{delay:?} is not shorter than timeouts.login ({login:?}); use less"),
        )
    })
}
