//! What no key can know alone: the checks across keys.

use std::net::SocketAddr;

use super::error::{Key, Problem};
use super::{Admin, Auth, Config, DovecotAuth, Endpoint};

mod upstream;

/// Finds the first contradiction between keys.
pub(super) fn check(config: &Config) -> Result<(), Problem> {
    check_listeners(config)?;
    let listeners: Vec<_> = config.listeners.iter().map(|one| one.address).collect();
    upstream::check(&config.upstream, &listeners)?;
    check_admin(config)?;
    check_auth_socket(config)?;
    check_argon2_memory(config)?;
    check_refusal_is_sent(config)
}

/// Two sockets on one address would fail only when they are bound, and then without naming a key.
fn check_listeners(config: &Config) -> Result<(), Problem> {
    if config.listeners.is_empty() {
        return Err(Problem::new(
            Key::new(["listener"]),
            "missing; write at least one [[listener]] with its kind and address",
        ));
    }
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
    if let Some(metrics) = &config.metrics {
        all.push((Key::new(["metrics", "listen"]), metrics.listen));
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
