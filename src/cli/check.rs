//! `gatepost check`: everything that can be known to be wrong before serving, one line each.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::{Config, DovecotAuth, Endpoint, IdentityBy, Network, UpstreamTls};
use crate::daemon;
use crate::dovecot;
use crate::edge::{Dialer, Upstreams};
use crate::metrics::Metrics;
use crate::net::certificates::{Certificate, Pair};
use crate::net::listener::LocalListener;
use crate::net::upstream_pool::UpstreamHost;
use crate::smtp::upstream::{FailureCause, Stage, UpstreamFailure};
use crate::store::{Store, StoreError, StoreReport};

use super::doctor::finding::{Finding, Level};
use super::output::{plain, print};
use super::{CliError, doctor, serve};

/// Prints a line for each check; the first failure is the exit code.
pub fn run(path: &Path) -> Result<(), CliError> {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            report("config", Err(error.into()))?;
            return Err(CliError::Config("not everything is in order".into()));
        }
    };
    report("config", Ok(listeners(path, &config)))?;
    print(&descriptors(&config))?;
    let certificate = certificate(&config).map(|found| ("certificate", found));
    let mut checks: Vec<_> = certificate.into_iter().collect();
    checks.push(("store", store(&config)));
    checks.extend(organizations(&config).map(|found| ("organization", found)));
    let auth_socket = config.dovecot_auth.as_ref();
    let group = auth_socket.map(daemon::auth_socket_access).transpose();
    if let Err(error) = group {
        checks.push(("auth socket", Err(error.into())));
    }
    // Before the socket is lent to Postfix, which opens it as it should be.
    let is_there = |socket: &&DovecotAuth| match &socket.listen {
        Endpoint::Tcp(_) => true,
        Endpoint::Unix(path) => path.parent().is_some_and(Path::exists),
    };
    let concern = auth_socket
        .filter(is_there)
        .and_then(daemon::auth_socket_concern);
    checks.extend(usernames(&config).map(|found| ("usernames", found)));
    let (concerns, problems) = doctor::circumstances(&config, path)
        .into_iter()
        .partition::<Vec<_>, _>(|found| found.level < Level::Problem);
    checks.extend(
        problems
            .into_iter()
            .map(|found| (found.check, Err(failure(&found)))),
    );
    let upstreams = serve::runtime()?.block_on(upstreams(&config));
    checks.extend(upstreams.into_iter().map(|found| ("upstream", found)));
    let mut worst = None;
    for (name, outcome) in checks {
        worst = worst.or(report(name, outcome)?);
    }
    if let Some(concern) = concern {
        print(&format!("warn  {:<12} {concern}", "auth socket"))?;
    }
    for concern in concerns {
        print(&format!("warn  {:<12} {}", concern.check, words(&concern)))?;
    }
    worst.map_or(Ok(()), Err)
}

/// A finding of the doctor's as one line.
fn words(finding: &Finding) -> String {
    let next = finding.next.iter();
    let parts: Vec<_> = [&finding.found]
        .into_iter()
        .chain(next)
        .chain(&finding.lines)
        .collect();
    let parts: Vec<_> = parts.iter().map(|part| part.as_str()).collect();
    plain(&parts.join("; "))
}

fn failure(finding: &Finding) -> CliError {
    let words = words(finding);
    match finding.check {
        "certificate" | "config" | "sockets" => CliError::Config(words),
        "ports" | "store" => CliError::Io(words),
        _ => CliError::Refused(words),
    }
}

/// Prints one line; hands a failure back without its words, which have been said.
fn report(name: &str, outcome: Result<String, CliError>) -> Result<Option<CliError>, CliError> {
    let summary = || "not everything is in order".to_owned();
    match outcome {
        Ok(found) => print(&format!("ok    {name:<12} {found}")).map(|()| None),
        Err(error) => {
            print(&format!("FAIL  {name:<12} {error}"))?;
            Ok(Some(match error {
                CliError::Closed => CliError::Closed,
                CliError::Config(_) => CliError::Config(summary()),
                CliError::Io(_) => CliError::Io(summary()),
                CliError::Refused(_) => CliError::Refused(summary()),
            }))
        }
    }
}

/// The line of the descriptors that a daemon started from here would have. Too few are a warning:
/// mail flows, for fewer clients.
fn descriptors(config: &Config) -> String {
    let (_, limit) = daemon::descriptors::limits();
    match daemon::descriptors::shortage(config, limit) {
        Some(shortage) => format!("WARN  {:<12} started from here, {shortage}", "descriptors"),
        None => format!(
            "ok    {:<12} enough for limits.connections = {}",
            "descriptors", config.limits.connections
        ),
    }
}

/// The file and where it has clients awaited.
pub(super) fn listeners(path: &Path, config: &Config) -> String {
    let listeners: Vec<_> = config
        .listeners
        .iter()
        .map(|listener| {
            let balancers: Vec<_> = listener.proxy_from.iter().map(Network::to_string).collect();
            let behind = match &balancers[..] {
                [] => String::new(),
                all => format!(" (PROXY headers from {})", all.join(" ")),
            };
            format!("{} {}{behind}", listener.kind, listener.address)
        })
        .collect();
    let words = match (&listeners[..], &config.dovecot_auth) {
        ([], Some(socket)) => format!("verdicts for Postfix at {}", socket.listen),
        _ => listeners.join(", "),
    };
    format!("{}: {words}", path.display())
}

fn certificate(config: &Config) -> Option<Result<String, CliError>> {
    let pairs = daemon::pairs(config.tls.as_ref()?);
    let found: Result<Vec<_>, _> = pairs.iter().map(pair).collect();
    Some(found.map(|found| found.join("; ")))
}

fn pair(pair: &Pair) -> Result<String, CliError> {
    let loaded = Certificate::load(pair).map_err(|error| CliError::Config(error.to_string()))?;
    let end = jiff::Timestamp::from_second(loaded.not_after).unwrap_or_default();
    let shown = pair.certificate.display();
    let now = crate::clock::now().as_second();
    if !loaded.is_valid_at(now) {
        let begin = jiff::Timestamp::from_second(loaded.not_before).unwrap_or_default();
        return Err(CliError::Config(match now < loaded.not_before {
            true => format!(
                "{shown} is not valid before {begin}; have it issued again, or correct this machine's clock"
            ),
            false => format!("{shown} expired on {end}; renew it"),
        }));
    }
    Ok(format!(
        "{shown} belongs to {}, is for {}, valid until {end}",
        pair.key.display(),
        loaded.names.join(" ")
    ))
}

fn store(config: &Config) -> Result<String, CliError> {
    let path = &config.store.path;
    Ok(match Store::check(path)? {
        StoreReport::Missing => format!(
            "{} does not exist yet; it is made at the first start",
            path.display()
        ),
        StoreReport::Sound {
            schema,
            credentials,
            bytes,
        } => format!(
            "{}: schema {schema}, {credentials} credentials, {bytes} bytes, sound",
            path.display()
        ),
    })
}

/// A failure if there are usernames that no login finds.
pub(super) fn usernames(config: &Config) -> Option<Result<String, CliError>> {
    let path = &config.store.path;
    if !path.exists() || !config.auth.username_case.folds() {
        return None;
    }
    let store = Store::open(path);
    let found = store.and_then(|store| daemon::unreachable_usernames(config, &store));
    match found {
        Ok(found) => found.map(|words| Err(CliError::Config(words))),
        Err(error) => Some(Err(error.into())),
    }
}

/// Those of `[upstream.organizations]` that there are not.
pub(super) fn organizations(config: &Config) -> Option<Result<String, CliError>> {
    let path = &config.store.path;
    let slugs = config.upstream.as_ref()?.organizations.keys();
    let unknown = |slug: &&String| {
        let store = Store::open(path);
        let found = store.and_then(|store| store.organization(slug));
        matches!(found, Err(StoreError::NotFound { .. }))
    };
    // Where there is no store yet there is nobody to be missed, and it is not made here.
    let mut slugs = slugs.filter(|_| path.exists()).filter(unknown);
    let slug = slugs.next()?;
    Some(Err(CliError::Config(format!(
        "upstream.organizations.{slug}: the store has no organization of that slug; correct it, or: \
         gatepost organization create {slug}"
    ))))
}

/// One finding for each place. One that fails is a failure of the whole only where no other place of
/// the same upstream would take its sessions.
async fn upstreams(config: &Config) -> Vec<Result<String, CliError>> {
    let Some(upstream) = &config.upstream else {
        return Vec::new();
    };
    let lent = config.dovecot_auth.as_ref().and_then(Lent::open);
    let loaded = match Metrics::new() {
        Err(error) => Err(CliError::Io(error.to_string())),
        Ok(metrics) => {
            let hostname = config.hostname.as_str();
            Upstreams::load(hostname, upstream, &Arc::new(metrics))
                .map_err(|error| CliError::Config(error.to_string()))
        }
    };
    let upstreams = match loaded {
        Ok(upstreams) => upstreams,
        Err(error) => return vec![Err(error)],
    };
    let mut findings = Vec::new();
    for (organization, dialer) in upstreams.all() {
        let owner = organization.map_or_else(String::new, |slug| format!("of {slug}: "));
        let hosts = dialer.pool();
        hosts.resolve().await;
        let unresolved = hosts.unresolved().into_iter().map(|(name, why)| {
            Err(CliError::Io(format!(
                "{owner}{name} has no address: {why}; correct the name, or this machine's resolver"
            )))
        });
        let mut found: Vec<_> = unresolved.collect();
        for host in hosts.all() {
            found.push(at(dialer, &host, &owner).await);
        }
        let any_works = found.iter().any(Result::is_ok);
        findings.extend(found.into_iter().map(|found| match found {
            Err(error) if any_works => Ok(format!("(not in use now) {error}")),
            found => found,
        }));
    }
    drop(lent);
    findings
}

async fn at(dialer: &Dialer, host: &Arc<UpstreamHost>, owner: &str) -> Result<String, CliError> {
    let place = format!("{owner}{}", host.endpoint);
    let tls = match dialer.upstream().tls {
        UpstreamTls::None => "",
        UpstreamTls::Implicit | UpstreamTls::StartTls => " over verified TLS",
    };
    match try_out(dialer, host).await {
        Ok(Ok(found)) => Ok(format!("{place} answers{tls} {found}")),
        Ok(Err(lacks)) => Err(CliError::Refused(format!("{place} {lacks}"))),
        Err(failure) => Err(CliError::Io(format!(
            "{place}: {failure}; {}",
            advice(&failure, dialer.upstream().identity)
        ))),
    }
}

/// What the upstream does, or what it lacks, for sessions to be handed over.
async fn try_out(
    dialer: &Dialer,
    host: &Arc<UpstreamHost>,
) -> Result<Result<String, &'static str>, UpstreamFailure> {
    let offered = dialer.probe_at(host).await?;
    Ok(match dialer.upstream().identity {
        IdentityBy::Login => {
            let accounts = dialer.try_accounts_at(host).await?;
            Ok(format!(
                "and lets every account in ({accounts} of {accounts})"
            ))
        }
        IdentityBy::None => Ok("and is told nothing of the clients".into()),
        IdentityBy::Proxy => Ok(format!(
            "behind a PROXY header of version {}",
            dialer.upstream().proxy_version
        )),
        IdentityBy::Xclient => match offered.xclient {
            Some(attributes) if attributes.are_enough() => {
                Ok("and grants XCLIENT with ADDR and LOGIN".into())
            }
            Some(_) => Err("grants XCLIENT without ADDR or LOGIN; build Postfix with SASL support"),
            None => Err(
                "does not offer XCLIENT to this host; add to that service in master.cf: \
                 -o smtpd_authorized_xclient_hosts=127.0.0.1",
            ),
        },
    })
}

/// The auth socket, open until dropped. Postfix's smtpd does not even greet when it is missing, so
/// it is lent for the moment should no daemon hold it.
pub(super) struct Lent {
    introducing: tokio::task::JoinHandle<()>,
    socket: Option<PathBuf>,
    directory: Option<PathBuf>,
}

impl Lent {
    /// Opens it, unless somebody else has or it cannot be opened.
    pub(super) fn open(socket: &DovecotAuth) -> Option<Self> {
        let (endpoint, access) = (&socket.listen, daemon::auth_socket_access(socket).ok()?);
        let socket = match endpoint {
            Endpoint::Unix(path) => Some(path.clone()),
            Endpoint::Tcp(_) => None,
        };
        // /run/gatepost is there only while systemd runs the service.
        let directory = socket.as_deref().and_then(Path::parent);
        let directory = directory.filter(|path| fs::create_dir(path).is_ok());
        let lent = LocalListener::bind(endpoint, access).ok()?;
        Some(Self {
            introducing: tokio::spawn(dovecot::introduce(lent)),
            directory: directory.map(Path::to_owned),
            socket,
        })
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.introducing.abort();
        // Made by whoever checks, they would be in the daemon's way.
        if let Some(path) = &self.socket {
            let _ = fs::remove_file(path);
        }
        if let Some(path) = &self.directory {
            let _ = fs::remove_dir(path);
        }
    }
}

/// What to look at where an upstream did not take a session over.
pub(super) fn advice(failure: &UpstreamFailure, identity: IdentityBy) -> &'static str {
    match (failure.stage, &failure.cause) {
        (Stage::Connect, FailureCause::Timeout) => "check the address and the firewall",
        (Stage::Connect, _) => "is Postfix running, and does master.cf have this service?",
        (Stage::Tls, _) => {
            "its tls_name must be a name in its certificate, and its tls_ca who signed that"
        }
        (Stage::StartTls, _) => {
            "does that service have a certificate (smtpd_tls_security_level=may)?"
        }
        (Stage::Auth, FailureCause::AuthRefused { .. }) => {
            "check the username and its password_file"
        }
        (Stage::Greeting | Stage::Ehlo, _) if identity == IdentityBy::Proxy => {
            "does that service expect a PROXY header (smtpd_upstream_proxy_protocol=haproxy)?"
        }
        (_, FailureCause::Closed | FailureCause::Timeout) => {
            "Postfix's log says why; a missing SASL socket or missing restrictions end smtpd at once, and master then waits a minute"
        }
        _ => "Postfix's log says why",
    }
}
