//! The MTA behind the gate: whether it answers, and takes clients at any address for who they are.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;

use super::super::check::advice;
use super::causes::{HANDOVER, RESTART, SERVICE};
use super::finding::{Finding, Level};
use super::master;
use super::settings::{Answers, Settings};
use crate::config::{self, Config, Endpoint, IdentityBy};
use crate::edge::{Dialer, Upstreams};
use crate::metrics::Metrics;
use crate::net::upstream_pool::UpstreamHost;
use crate::smtp::extensions::Extensions;
use crate::smtp::upstream::{FailureCause, Stage, UpstreamFailure};
use crate::smtp::xclient::{Attributes, Client};
use crate::store::DEFAULT_ORGANIZATION;

/// After this time without a greeting, the doctor says that it waits.
const SLOW: Duration = Duration::from_millis(1500);

const UPSTREAM: &str = "upstream";
const XCLIENT: &str = "xclient";
const IPV6: &str = "ipv6";

/// Clients and addresses of ours that nobody has (RFC 5737, RFC 3849).
const EXAMPLES: [(&str, &str); 2] = [
    ("203.0.113.7:40000", "203.0.113.1:587"),
    ("[2001:db8::7]:40000", "[2001:db8::1]:587"),
];

/// Whether clients come by IPv6.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Six {
    /// A listener is there for them.
    Comes,
    /// A load balancer may bring them.
    MayCome,
    /// They cannot reach us.
    Never,
}

impl Six {
    fn of(config: &Config) -> Self {
        let listeners = &config.listeners;
        if listeners.iter().any(|one| one.address.is_ipv6()) {
            Self::Comes
        } else if listeners.iter().any(|one| !one.proxy_from.is_empty()) {
            Self::MayCome
        } else {
            Self::Never
        }
    }
}

/// One place where sessions go.
pub struct Place {
    dialer: Arc<Dialer>,
    host: Arc<UpstreamHost>,
    /// Whose sessions, if not everybody's.
    pub organization: Option<String>,
    /// The service there.
    pub settings: Settings,
}

impl Place {
    /// How it is reached.
    pub fn upstream(&self) -> &config::Upstream {
        self.dialer.upstream()
    }
}

/// What was found out about a place of the upstream of this organization, or else of all.
pub type Found = (Option<String>, Vec<Finding>);

/// All places where sessions go, and what is wrong with names that lead to none. `is_named`: whether
/// the caller named the configuration that postconf answered from.
pub async fn places(
    config: &Config,
    answers: &Result<Answers, String>,
    is_named: bool,
) -> Result<(Vec<Place>, Vec<Found>), Box<Finding>> {
    let refused = |error: String| {
        Box::new(Finding::problem(
            UPSTREAM,
            error,
            format!("correct [upstream] in config.toml, then: {RESTART}"),
        ))
    };
    let Some(upstream) = &config.upstream else {
        return Ok((Vec::new(), Vec::new()));
    };
    let metrics = Metrics::new().map_err(|error| refused(error.to_string()))?;
    let upstreams = Upstreams::load(config.hostname.as_str(), upstream, &Arc::new(metrics));
    let upstreams = upstreams.map_err(|error| refused(error.to_string()))?;
    let (mut places, mut findings) = (Vec::new(), Vec::new());
    for (organization, dialer) in upstreams.all() {
        dialer.pool().resolve().await;
        for (name, why) in dialer.pool().unresolved() {
            let finding = Finding::problem(
                UPSTREAM,
                format!("{}{name} has no address: {why}", owner(organization)),
                "correct the name in config.toml, or the resolver of this machine",
            )
            .explaining(HANDOVER);
            findings.push((organization.map(str::to_owned), vec![finding]));
        }
        places.extend(dialer.pool().all().into_iter().map(|host| Place {
            settings: Settings::of(&host.endpoint, answers, is_named),
            organization: organization.map(str::to_owned),
            dialer: dialer.clone(),
            host,
        }));
    }
    Ok((places, findings))
}

fn owner(organization: Option<&str>) -> String {
    organization.map_or_else(String::new, |slug| format!("of {slug}: "))
}

/// Speaks to the upstream there as the running Gatepost does, up to taking over a session.
///
/// `wait` is called with the reason where the upstream takes its time.
pub async fn examine(place: &Place, config: &Config, wait: impl Fn(&str)) -> Vec<Finding> {
    let Place {
        dialer,
        host,
        settings,
        ..
    } = place;
    let identity = dialer.upstream().identity;
    let address = &host.endpoint;
    let owner = owner(place.organization.as_deref());
    let mut probe = pin!(dialer.probe_at(host));
    let probed = match timeout(SLOW, &mut probe).await {
        Ok(probed) => probed,
        Err(_) => {
            wait(&format!(
                "waiting for {address}, which does not greet: Postfix holds a service back that failed, for up to a minute"
            ));
            probe.await
        }
    };
    let offered = match probed {
        Ok(offered) => offered,
        Err(failure) => return vec![judge_failure(address, &failure, identity, settings)],
    };
    let mut findings = vec![Finding::ok(UPSTREAM, format!("{owner}{address} answers"))];
    match identity {
        IdentityBy::Xclient => {
            findings.push(judge_xclient(&offered, address, settings));
            if !offered.xclient.is_some_and(Attributes::are_enough) {
                return findings;
            }
        }
        IdentityBy::Login => {
            if let Err(failure) = dialer.try_accounts_at(host).await {
                findings.push(judge_failure(address, &failure, identity, settings));
            }
            return findings;
        }
        IdentityBy::None => return findings,
        IdentityBy::Proxy => {}
    }
    let [four, six] = EXAMPLES.map(|(from, to)| Client {
        address: example(from),
        destination: example(to),
        helo: "doctor.invalid".to_owned(),
        login: "gatepost-doctor".to_owned(),
    });
    let hand_over = async |client: &Client| {
        let mut upstream = dialer
            .hand_over_at(client, DEFAULT_ORGANIZATION, host)
            .await?;
        upstream.quit().await;
        Ok(())
    };
    if let Err(failure) = hand_over(&four).await {
        findings.push(judge_failure(address, &failure, identity, settings));
        return findings;
    }
    let six = hand_over(&six).await;
    findings.push(judge_ipv6(&six, Six::of(config)));
    findings
}

/// A place that does not answer keeps nobody's mail from flowing while another one takes it.
pub fn weigh(all: &mut [Found]) {
    let working: Vec<_> = all
        .iter()
        .filter(|(_, found)| found.iter().any(says_that_it_answers))
        .map(|(organization, _)| organization.clone())
        .collect();
    let spared = all
        .iter_mut()
        .filter(|(organization, _)| working.contains(organization));
    for finding in spared.flat_map(|(_, found)| found) {
        if finding.check == UPSTREAM && finding.level == Level::Problem {
            finding.level = Level::Warning;
        }
    }
}

/// Whether this finding means that the upstream greets.
pub fn says_that_it_answers(finding: &Finding) -> bool {
    finding.check == UPSTREAM && finding.level == Level::Ok
}

fn example(address: &str) -> SocketAddr {
    let nobody = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    address.parse().unwrap_or(nobody)
}

fn judge_failure(
    address: &Endpoint,
    failure: &UpstreamFailure,
    identity: IdentityBy,
    settings: &Settings,
) -> Finding {
    judge_words(address, failure, identity, settings).explaining(SERVICE)
}

fn judge_words(
    address: &Endpoint,
    failure: &UpstreamFailure,
    identity: IdentityBy,
    settings: &Settings,
) -> Finding {
    let found = format!("{address}: {failure}");
    let crowded = |said: &String| said.starts_with("421") && said.contains("too many connections");
    match (&failure.cause, settings) {
        (FailureCause::Refused(said), _) if crowded(said) => Finding::problem(
            "limits",
            format!("{found}; Postfix counts all clients as one"),
            settings.add_to_service(),
        )
        .with_lines(
            "master.cf",
            vec!["-o smtpd_client_connection_count_limit=0".to_owned()],
        ),
        (
            _,
            Settings::NoService {
                other: Some(other), ..
            },
        ) if failure.stage == Stage::Connect => {
            let found = format!("{found}; Postfix's service for Gatepost is at {other}");
            let next = format!("write into config.toml, then: {RESTART}");
            let line = format!("address = \"{other}\"");
            Finding::problem(UPSTREAM, found, next)
                .with_lines("config.toml", vec!["[upstream]".to_owned(), line])
        }
        (_, Settings::NoService { directory, .. })
            if failure.stage == Stage::Connect && identity == IdentityBy::Xclient =>
        {
            let next = format!("add to {directory}/master.cf, then: postfix reload");
            Finding::problem(UPSTREAM, found, next).with_lines("master.cf", service(address))
        }
        (_, Settings::Known(service)) if failure.stage == Stage::Connect => {
            match master::runs(&service.queue_directory()) {
                Some(false) => master::down(),
                _ => Finding::problem(
                    UPSTREAM,
                    format!(
                        "{found}; Postfix has not opened its service {}",
                        service.name
                    ),
                    "postfix reload",
                ),
            }
        }
        (FailureCause::Timeout | FailureCause::Closed, _) if failure.stage == Stage::Greeting => {
            let next = format!(
                "{}; mended, that minute has to pass, or: postfix stop && postfix start (a reload does not end it)",
                advice(failure, identity)
            );
            Finding::problem(UPSTREAM, found, next)
        }
        _ => Finding::problem(UPSTREAM, found, advice(failure, identity)),
    }
}

/// The service to begin with; what it lacks is found next.
fn service(address: &Endpoint) -> Vec<String> {
    let first = match address {
        Endpoint::Tcp(address) => format!("{address} inet n - n - - smtpd"),
        Endpoint::Unix(path) => {
            let name = path.file_name().unwrap_or_default();
            format!("{} unix n - n - - smtpd", name.display())
        }
    };
    let options = [
        "  -o syslog_name=postfix/gatepost",
        "  -o smtpd_authorized_xclient_hosts=127.0.0.1",
        "  -o smtpd_tls_security_level=none",
        "  -o smtpd_sasl_auth_enable=yes",
        "  -o smtpd_sasl_type=dovecot",
        "  -o smtpd_sasl_path=private/gatepost",
        "  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject",
        "  -o smtpd_recipient_restrictions=permit_sasl_authenticated,reject",
        "  -o smtpd_forbid_bare_newline=yes",
        "  -o smtpd_client_connection_count_limit=0",
        "  -o smtpd_client_connection_rate_limit=0",
        "  -o smtpd_client_message_rate_limit=0",
        "  -o smtpd_client_recipient_rate_limit=0",
        "  -o mynetworks=",
    ];
    let options = options.into_iter().map(str::to_owned);
    std::iter::once(first).chain(options).collect()
}

fn judge_xclient(offered: &Extensions, address: &Endpoint, settings: &Settings) -> Finding {
    let Some(attributes) = offered.xclient else {
        let set = settings
            .service()
            .and_then(|service| service.value("smtpd_authorized_xclient_hosts"));
        let set = set.map(|hosts| format!(" (smtpd_authorized_xclient_hosts={hosts})"));
        let found = format!(
            "{address} does not offer XCLIENT to this machine{}: every login gets 454",
            set.unwrap_or_default()
        );
        let line = format!(
            "-o smtpd_authorized_xclient_hosts={}",
            address_there(address)
        );
        return Finding::problem(XCLIENT, found, settings.add_to_service())
            .explaining(HANDOVER)
            .with_lines("master.cf", vec![line]);
    };
    let missing: Vec<_> = attributes.missing().collect();
    let missing = missing.join(" ");
    if !attributes.are_enough() {
        let found = format!("XCLIENT is offered without {missing}: every login gets 454");
        let next = "use a Postfix that is built with SASL";
        return Finding::problem(XCLIENT, found, next).explaining(HANDOVER);
    }
    if !missing.is_empty() {
        let found = format!(
            "XCLIENT is offered without {missing}: Postfix's log and restrictions do not see that of the client"
        );
        return Finding::warning(XCLIENT, found, "update Postfix");
    }
    Finding::ok(XCLIENT, "offered, with all attributes")
}

/// Our own address, as the upstream sees it.
fn address_there(upstream: &Endpoint) -> String {
    let Endpoint::Tcp(upstream) = upstream else {
        // Postfix takes who comes by a unix socket for this one.
        return Ipv4Addr::LOCALHOST.to_string();
    };
    let any: SocketAddr = match upstream {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // Nothing is sent: to connect a datagram socket only asks for the way.
    let socket = UdpSocket::bind(any).and_then(|socket| {
        socket.connect(upstream)?;
        socket.local_addr()
    });
    match socket.map(|address| address.ip()) {
        Ok(IpAddr::V6(ip)) => format!("[{ip}]"),
        Ok(ip) => ip.to_string(),
        Err(_) => "THIS.MACHINE'S.ADDRESS".to_owned(),
    }
}

fn judge_ipv6(handed: &Result<(), UpstreamFailure>, six: Six) -> Finding {
    let Err(failure) = handed else {
        return Finding::ok(IPV6, "clients at IPv6 addresses are taken over");
    };
    let found = format!("clients at IPv6 addresses are not taken over, they get 454: {failure}");
    let next =
        "in /etc/postfix/main.cf, then: postfix stop && postfix start (a reload is not enough)";
    let lines = || vec!["inet_protocols = all".to_owned()];
    match six {
        Six::Comes => Finding::problem(IPV6, found, format!("{next}; or drop the IPv6 listeners"))
            .with_lines("main.cf", lines()),
        Six::MayCome => Finding::warning(
            IPV6,
            format!("{found}; a load balancer may bring some"),
            next,
        )
        .with_lines("main.cf", lines()),
        Six::Never => Finding::ok(
            IPV6,
            "clients at IPv6 addresses are not taken over, and no listener is there for them",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::settings::tests::with;
    use super::*;

    fn failure(stage: Stage, cause: FailureCause) -> UpstreamFailure {
        UpstreamFailure { stage, cause }
    }

    fn tcp() -> Endpoint {
        "127.0.0.1:10025".parse().unwrap()
    }

    #[test]
    fn xclient_is_judged_by_its_attributes() {
        let judged = |attributes: Option<&str>| {
            let offered = Extensions {
                xclient: attributes.map(Attributes::parse),
                ..Extensions::default()
            };
            judge_xclient(&offered, &tcp(), &with("3.7.11", &[]))
        };
        let all = "NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN DESTADDR DESTPORT";
        assert_eq!(judged(Some(all)).level, Level::Ok);
        let older = judged(Some("NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN"));
        assert_eq!(older.level, Level::Warning);
        assert!(older.found.contains("DESTADDR DESTPORT"));
        assert_eq!(judged(Some("NAME ADDR")).level, Level::Problem);
        let none = judged(None);
        assert_eq!(none.level, Level::Problem);
        assert_eq!(none.lines, ["-o smtpd_authorized_xclient_hosts=127.0.0.1"]);
    }

    #[test]
    fn ipv6_matters_only_where_it_can_come() {
        let refused = || {
            let said = FailureCause::Refused("501 5.5.4 Bad ADDR syntax".into());
            Err(failure(Stage::Xclient, said))
        };
        assert_eq!(judge_ipv6(&Ok(()), Six::Comes).level, Level::Ok);
        assert_eq!(judge_ipv6(&refused(), Six::Comes).level, Level::Problem);
        assert_eq!(judge_ipv6(&refused(), Six::MayCome).level, Level::Warning);
        assert_eq!(judge_ipv6(&refused(), Six::Never).level, Level::Ok);
    }

    #[test]
    fn a_missing_service_is_written_out() {
        let nobody = failure(Stage::Connect, FailureCause::Io("refused".into()));
        let settings = Settings::NoService {
            directory: "/etc/postfix".into(),
            other: None,
        };
        let finding = judge_failure(&tcp(), &nobody, IdentityBy::Xclient, &settings);
        assert_eq!(finding.lines[0], "127.0.0.1:10025 inet n - n - - smtpd");
        let other: Endpoint = "unix:/q/public/submit".parse().unwrap();
        let elsewhere = Settings::NoService {
            directory: "/etc/postfix".into(),
            other: Some(other),
        };
        let finding = judge_failure(&tcp(), &nobody, IdentityBy::Xclient, &elsewhere);
        assert_eq!(finding.lines[1], "address = \"unix:/q/public/submit\"");
        let crowd = FailureCause::Refused("421 4.7.0 x Error: too many connections from y".into());
        let crowd = failure(Stage::Xclient, crowd);
        let finding = judge_failure(&tcp(), &crowd, IdentityBy::Xclient, &settings);
        assert_eq!(finding.check, "limits");
    }
}
