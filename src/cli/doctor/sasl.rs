//! Whether SASL is active in Postfix's smtpd, without which many releases ignore XCLIENT's login,
//! and whether smtpd reaches the socket that makes it active.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::account::{Account, Want};
use super::causes::{RESTART, SERVICE};
use super::finding::Finding;
use super::settings::{Service, Settings, Version};
use crate::config::Endpoint;

/// The documented auth socket as smtpd names it: below the queue directory, with chroot and without.
const AUTH_SOCKET: &str = "private/gatepost";

const CHECK: &str = "sasl";
const SOCKET: &str = "auth-socket";

/// How long the auth socket may take to introduce itself.
const PATIENCE: Duration = Duration::from_secs(1);

/// What every server of that protocol says first.
const INTRODUCTION: &[u8] = b"VERSION\t";

/// Whether somebody speaks Dovecot's auth protocol there.
pub async fn ask(endpoint: &Endpoint) -> Result<(), String> {
    let asked = async {
        let mut said = [0; INTRODUCTION.len()];
        match endpoint {
            Endpoint::Tcp(address) => {
                TcpStream::connect(address)
                    .await?
                    .read_exact(&mut said)
                    .await?
            }
            Endpoint::Unix(path) => {
                UnixStream::connect(path)
                    .await?
                    .read_exact(&mut said)
                    .await?
            }
        };
        Ok::<_, std::io::Error>(said)
    };
    match timeout(PATIENCE, asked).await {
        Ok(Ok(said)) if said == INTRODUCTION => Ok(()),
        Ok(Ok(_)) => Err("who answers there does not speak that protocol".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}

/// What is known on Gatepost's side, and of the socket that smtpd asks.
pub struct Ours<'a> {
    /// `[dovecot_auth] listen`.
    pub listen: Option<&'a Endpoint>,
    /// Whether sessions reach Postfix without TLS.
    pub clear: bool,
    /// Whether another server answers where smtpd asks.
    pub another_answers: bool,
    /// The user of smtpd and the place that keeps it from the socket.
    pub kept_out: Option<(String, PathBuf)>,
}

impl<'a> Ours<'a> {
    /// Looks at the socket that the service asks.
    pub async fn look(listen: Option<&'a Endpoint>, clear: bool, settings: &Settings) -> Self {
        let mut ours = Self {
            listen,
            clear,
            another_answers: false,
            kept_out: None,
        };
        let Some(service) = settings.service() else {
            return ours;
        };
        let asked = asked(service);
        if asked.as_ref() != listen {
            if let Some(asked) = &asked {
                ours.another_answers = ask(asked).await.is_ok();
            }
        } else if let Some(Endpoint::Unix(path)) = listen {
            let user = service.value("mail_owner").unwrap_or_default();
            let at =
                Account::named(&user).and_then(|account| account.is_kept_out(path, Want::Write));
            ours.kept_out = at.map(|at| (user, at));
        }
        ours
    }
}

/// That Gatepost's own auth socket does not answer, if it does not.
pub fn judge_answer(listen: &Endpoint, answer: &Result<(), String>) -> Option<Finding> {
    let error = answer.as_ref().err()?;
    let found = format!(
        "the auth socket {listen} does not answer: {error}; smtpd ends at its start without it"
    );
    let next = format!("{RESTART} (with gatepost-auth.socket, if that opens it)");
    Some(Finding::problem(SOCKET, found, next).explaining(SERVICE))
}

/// What Postfix makes of the login that XCLIENT brings, as far as settings tell.
pub fn judge(ours: &Ours, settings: &Settings) -> Vec<Finding> {
    let Some(service) = settings.service() else {
        return vec![settings.untold(CHECK, "whether SASL is active in smtpd")];
    };
    let findings = judge_service(ours, service, settings);
    if !findings.is_empty() {
        return findings;
    }
    let found = match ours.another_answers {
        true => "active in smtpd, by another server than Gatepost",
        false => "active in smtpd, which finds the auth socket",
    };
    vec![Finding::ok(CHECK, found)]
}

/// The services that ask Gatepost for verdicts, where Postfix keeps its listeners.
pub fn judge_askers(askers: &[&Service], listen: &Endpoint) -> Option<Finding> {
    let at = |service: &&&Service| asked(service).as_ref() == Some(listen);
    if askers.iter().any(|service| at(&service)) {
        return None;
    }
    let (found, lines) = match askers.first() {
        None => (
            "no service of Postfix asks for logins by Dovecot's protocol".to_owned(),
            vec![
                "-o smtpd_sasl_auth_enable=yes".to_owned(),
                "-o smtpd_sasl_type=dovecot".to_owned(),
                format!("-o smtpd_sasl_path={}", words(listen, None)),
            ],
        ),
        Some(service) => (
            format!(
                "Postfix's {} asks for logins at {}, and Gatepost answers at {listen}",
                service.name,
                service.value("smtpd_sasl_path").unwrap_or_default()
            ),
            vec![format!("-o smtpd_sasl_path={}", sasl_path(listen, service))],
        ),
    };
    let next = "add to the services submission and submissions in master.cf, then: postfix reload";
    let finding = Finding::problem(CHECK, found, next).explaining(&["login", "identity"]);
    Some(finding.with_lines("master.cf", lines))
}

/// The endpoint that smtpd asks for a login; `None` unless it asks by Dovecot's protocol.
pub fn asked(service: &Service) -> Option<Endpoint> {
    if !asks(service) {
        return None;
    }
    endpoint(
        &service.value("smtpd_sasl_path")?,
        &service.queue_directory(),
    )
}

/// Whether smtpd asks for logins by Dovecot's protocol.
pub fn asks(service: &Service) -> bool {
    let kind = service.value("smtpd_sasl_type");
    service.is_on("smtpd_sasl_auth_enable") && kind.as_deref() == Some("dovecot")
}

fn judge_service(ours: &Ours, service: &Service, settings: &Settings) -> Vec<Finding> {
    let next = || settings.add_to_service();
    if !service.is_on("smtpd_sasl_auth_enable") {
        return vec![inactive(ours, service, settings)];
    }
    let mut findings = Vec::new();
    let encrypts = service.is_on("smtpd_tls_auth_only")
        || service.is_on("smtpd_enforce_tls")
        || service.value("smtpd_tls_security_level").as_deref() == Some("encrypt");
    if ours.clear && encrypts {
        let found = "Postfix wants TLS before a login (smtpd_tls_auth_only=yes, or smtpd_tls_security_level=encrypt), and Gatepost hands over without: the login is ignored";
        let lines = [
            "-o smtpd_tls_auth_only=no",
            "-o smtpd_tls_security_level=none",
        ];
        let lines = lines.map(String::from).to_vec();
        findings.push(
            Finding::problem(CHECK, found, next())
                .explaining(&["identity", "pipelining"])
                .with_lines("master.cf", lines),
        );
    }
    if service.value("smtpd_sasl_type").as_deref() != Some("dovecot") {
        return findings;
    }
    let path = service.value("smtpd_sasl_path").unwrap_or_default();
    let asked = endpoint(&path, &service.queue_directory());
    match (ours.listen, asked) {
        (listen, asked) if ours.another_answers && asked.as_ref() != listen => {}
        (None, asked) => {
            let listen = asked.map_or_else(
                || format!("unix:{}", auth_socket(service)),
                |at| at.to_string(),
            );
            findings.push(
                Finding::problem(
                    CHECK,
                    format!("smtpd asks for a login at {path}, and config.toml has no [dovecot_auth]: smtpd ends at its start, and the service stays silent"),
                    format!("add to config.toml, then: {RESTART} && postfix reload"),
                )
                .explaining(SERVICE)
                .with_lines(
                    "config.toml",
                    vec!["[dovecot_auth]".into(), format!("listen = \"{listen}\"")],
                ),
            );
        }
        (Some(listen), asked) if asked.as_ref() != Some(listen) => {
            let line = format!("-o smtpd_sasl_path={}", sasl_path(listen, service));
            findings.push(
                Finding::problem(
                    CHECK,
                    format!("smtpd asks for a login at {path}, and Gatepost answers at {listen}: smtpd ends at its start, and the service stays silent"),
                    next(),
                )
                .explaining(SERVICE)
                .with_lines("master.cf", vec![line]),
            );
        }
        (Some(Endpoint::Unix(listen)), _) if service.chroot && !is_inside(listen, service) => {
            findings.push(Finding::problem(
                CHECK,
                format!("smtpd is confined to Postfix's directory (chroot) and cannot see {}: it ends at its start, and the service stays silent", listen.display()),
                "write n instead of y into the fifth column of that service in master.cf, then: postfix reload",
            ).explaining(SERVICE));
        }
        _ => findings.extend(ours.kept_out.as_ref().map(|(user, at)| {
            let found = format!(
                "smtpd, which runs as {user} with that user's first group alone, may not use {}: it ends at its start, and the service stays silent",
                at.display()
            );
            let next = format!("give the auth socket to {user} (SocketUser={user} and SocketMode=0660 in gatepost-auth.socket, or dovecot_auth.group = \"{user}\"), then: {RESTART}");
            Finding::problem(CHECK, found, next).explaining(SERVICE)
        })),
    }
    findings
}

/// The documented place of the auth socket.
fn auth_socket(service: &Service) -> String {
    let path = service.queue_directory().join(AUTH_SOCKET);
    path.display().to_string()
}

/// SASL is off there.
fn inactive(ours: &Ours, service: &Service, settings: &Settings) -> Finding {
    let mut lines = vec![
        "-o smtpd_sasl_auth_enable=yes".to_owned(),
        "-o smtpd_sasl_type=dovecot".to_owned(),
    ];
    let mut next = settings.add_to_service();
    match ours.listen {
        Some(listen) => lines.push(format!("-o smtpd_sasl_path={}", sasl_path(listen, service))),
        None => {
            lines.push(format!("-o smtpd_sasl_path={AUTH_SOCKET}"));
            next = format!(
                "have Gatepost answer first ([dovecot_auth], listen = \"unix:{}\" in config.toml, and a restart); {next}",
                auth_socket(service)
            );
        }
    }
    let shown = service.value("mail_version").unwrap_or_default();
    let finding = if service.version().is_some_and(ignores_login) {
        Finding::problem(
            CHECK,
            format!(
                "SASL is not active in smtpd, and Postfix {shown} ignores XCLIENT's login without it: permit_sasl_authenticated lets nobody in"
            ),
            next,
        )
        .explaining(&["identity", "pipelining"])
    } else {
        Finding::warning(
            CHECK,
            "SASL is not active in smtpd: check_sasl_access and reject_sender_login_mismatch do not see the login",
            next,
        )
    };
    finding.with_lines("master.cf", lines)
}

/// The releases in which `permit_sasl_authenticated` does not see XCLIENT's login unless SASL is
/// active.
fn ignores_login(version: Version) -> bool {
    let fixed = match version {
        (3, 6, _) => (3, 6, 16),
        (3, 7, _) => (3, 7, 12),
        (3, 8, _) => (3, 8, 7),
        _ => (3, 9, 1),
    };
    version >= (2, 9, 0) && version < fixed
}

/// Where smtpd asks with this `smtpd_sasl_path`.
fn endpoint(path: &str, queue: &Path) -> Option<Endpoint> {
    match path.strip_prefix("inet:") {
        Some(address) => {
            let address = address.replace("localhost:", "127.0.0.1:");
            address.parse().ok().map(Endpoint::Tcp)
        }
        None => {
            let path = path.strip_prefix("unix:").unwrap_or(path);
            Some(Endpoint::Unix(queue.join(path)))
        }
    }
}

/// What to write for `smtpd_sasl_path` so that smtpd asks there.
fn sasl_path(listen: &Endpoint, service: &Service) -> String {
    words(listen, Some(&service.queue_directory()))
}

fn words(listen: &Endpoint, queue: Option<&Path>) -> String {
    match listen {
        Endpoint::Tcp(address) => format!("inet:{address}"),
        Endpoint::Unix(path) => {
            let inside = queue.and_then(|queue| path.strip_prefix(queue).ok());
            inside.unwrap_or(path).display().to_string()
        }
    }
}

fn is_inside(path: &Path, service: &Service) -> bool {
    path.starts_with(service.queue_directory())
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::settings::tests::with;
    use super::*;

    const ON: (&str, &str) = ("smtpd_sasl_auth_enable", "yes");
    const DOVECOT: (&str, &str) = ("smtpd_sasl_type", "dovecot");
    const PATH: (&str, &str) = ("smtpd_sasl_path", "inet:127.0.0.1:10026");

    fn judged(listen: Option<&str>, settings: &Settings) -> Vec<Finding> {
        let listen: Option<Endpoint> = listen.map(|text| text.parse().unwrap());
        let ours = Ours {
            listen: listen.as_ref(),
            clear: true,
            another_answers: false,
            kept_out: None,
        };
        judge(&ours, settings)
    }

    #[track_caller]
    fn one(listen: Option<&str>, settings: &Settings) -> (Level, Vec<String>) {
        let mut findings = judged(listen, settings);
        assert_eq!(findings.len(), 1, "{findings:?}");
        let finding = findings.remove(0);
        (finding.level, finding.lines)
    }

    #[test]
    fn both_sides_have_to_name_the_same_socket() {
        let socket = Some("127.0.0.1:10026");
        let agreed = with("3.7.11", &[ON, DOVECOT, PATH]);
        assert_eq!(one(socket, &agreed).0, Level::Ok);
        let (level, lines) = one(Some("unix:/var/spool/postfix/private/gatepost"), &agreed);
        assert_eq!(level, Level::Problem);
        assert_eq!(lines, ["-o smtpd_sasl_path=private/gatepost"]);
        let (level, lines) = one(None, &agreed);
        assert_eq!(level, Level::Problem);
        assert_eq!(lines, ["[dovecot_auth]", "listen = \"127.0.0.1:10026\""]);
        let relative = with(
            "3.7.11",
            &[ON, DOVECOT, ("smtpd_sasl_path", "private/auth")],
        );
        let lines = one(None, &relative).1;
        assert_eq!(
            lines[1],
            "listen = \"unix:/var/spool/postfix/private/auth\""
        );
    }

    #[test]
    fn a_login_that_is_ignored_is_a_problem_only_where_it_is() {
        let socket = Some("127.0.0.1:10026");
        let (level, lines) = one(socket, &with("3.7.11", &[]));
        assert_eq!(level, Level::Problem);
        assert_eq!(lines[2], "-o smtpd_sasl_path=inet:127.0.0.1:10026");
        assert_eq!(one(socket, &with("3.10.2", &[])).0, Level::Warning);
        let only = ("smtpd_tls_auth_only", "yes");
        let (level, lines) = one(socket, &with("3.10.2", &[ON, DOVECOT, PATH, only]));
        assert_eq!(level, Level::Problem);
        assert_eq!(lines[0], "-o smtpd_tls_auth_only=no");
    }

    #[test]
    fn the_releases_that_ignore_the_login_are_known() {
        for (version, ignores) in [
            ((2, 8, 9), false),
            ((2, 9, 0), true),
            ((3, 5, 25), true),
            ((3, 6, 15), true),
            ((3, 6, 16), false),
            ((3, 7, 11), true),
            ((3, 7, 12), false),
            ((3, 8, 6), true),
            ((3, 8, 7), false),
            ((3, 9, 0), true),
            ((3, 9, 1), false),
            ((3, 10, 0), false),
        ] {
            assert_eq!(ignores_login(version), ignores, "{version:?}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_said_so() {
        let unknown = Settings::Unknown("why".into());
        assert_eq!(one(None, &unknown).0, Level::Unknown);
        let listen = "127.0.0.1:10026".parse().unwrap();
        let silent = judge_answer(&listen, &Err("refused".into())).unwrap();
        assert_eq!(silent.level, Level::Problem);
        assert_eq!(judge_answer(&listen, &Ok(())), None);
    }

    #[test]
    fn the_socket_is_looked_at_from_smtpds_side() {
        let private = "/var/spool/postfix/private/gatepost";
        let listen: Endpoint = format!("unix:{private}").parse().unwrap();
        let agreed = with(
            "3.7.11",
            &[ON, DOVECOT, ("smtpd_sasl_path", "private/gatepost")],
        );
        let ours = |kept_out| Ours {
            listen: Some(&listen),
            clear: true,
            another_answers: false,
            kept_out,
        };
        assert_eq!(judge(&ours(None), &agreed)[0].level, Level::Ok);
        let out = Some(("postfix".to_owned(), private.into()));
        let finding = &judge(&ours(out), &agreed)[0];
        assert_eq!(finding.level, Level::Problem);
        assert!(
            finding.found.contains("runs as postfix"),
            "{}",
            finding.found
        );
        // Dovecot itself, say.
        let other = with(
            "3.7.11",
            &[ON, DOVECOT, ("smtpd_sasl_path", "private/auth")],
        );
        let answered = Ours {
            another_answers: true,
            ..ours(None)
        };
        assert_eq!(judge(&answered, &other)[0].level, Level::Ok);
        assert_eq!(judge(&ours(None), &other)[0].level, Level::Problem);
    }

    #[test]
    fn a_postfix_that_keeps_its_listeners_has_to_ask_at_the_socket() {
        let listen: Endpoint = "127.0.0.1:10026".parse().unwrap();
        let judged = |own: &[(&str, &str)]| {
            let settings = with("3.7.11", own);
            let services: Vec<_> = settings
                .service()
                .filter(|own| asks(own))
                .into_iter()
                .collect();
            judge_askers(&services, &listen).map(|found| found.lines)
        };
        assert_eq!(judged(&[ON, DOVECOT, PATH]), None);
        assert_eq!(judged(&[DOVECOT, PATH]).unwrap().len(), 3);
        let wrong = judged(&[ON, DOVECOT, ("smtpd_sasl_path", "private/auth")]);
        assert_eq!(wrong.unwrap(), ["-o smtpd_sasl_path=inet:127.0.0.1:10026"]);
    }
}
