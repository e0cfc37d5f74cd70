//! Whether SASL is active in Postfix's smtpd, without which many releases ignore XCLIENT's login,
//! and whether smtpd reaches the socket that makes it active.

use std::path::Path;
use std::time::Duration;

use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::finding::Finding;
use super::settings::{Service, Settings, Version};
use crate::config::Endpoint;

const CHECK: &str = "sasl";

/// How long the auth socket may take to introduce itself.
const PATIENCE: Duration = Duration::from_secs(5);

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

/// What is known on Gatepost's side.
pub struct Ours<'a> {
    /// `[dovecot_auth] listen`.
    pub listen: Option<&'a Endpoint>,
    /// What became of [`ask`].
    pub answer: Option<Result<(), String>>,
    /// Whether sessions reach Postfix without TLS.
    pub clear: bool,
}

/// What Postfix makes of the login that XCLIENT brings, as far as settings tell.
pub fn judge(ours: &Ours, settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let (Some(listen), Some(Err(error))) = (ours.listen, &ours.answer) {
        findings.push(Finding::problem(
            CHECK,
            format!("nobody answers at dovecot_auth.listen, {listen}: {error}; smtpd ends at its start without it"),
            "start Gatepost, or restart it if [dovecot_auth] is new: systemctl restart gatepost",
        ));
    }
    match settings.service() {
        Some(service) => findings.extend(judge_service(ours, service, settings)),
        None if !findings.is_empty() => {}
        None => findings.push(settings.untold(CHECK, "whether SASL is active in smtpd")),
    }
    if findings.is_empty() {
        findings.push(Finding::ok(
            CHECK,
            "active in smtpd, which finds the auth socket",
        ));
    }
    findings
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
        findings.push(Finding::problem(CHECK, found, next()).with_lines("master.cf", lines));
    }
    if service.value("smtpd_sasl_type").as_deref() != Some("dovecot") {
        return findings;
    }
    let path = service.value("smtpd_sasl_path").unwrap_or_default();
    let asked = endpoint(&path, &service.queue_directory());
    match (ours.listen, asked) {
        (None, asked) => {
            let listen = asked.map_or_else(
                || "unix:/run/gatepost-auth.sock".to_owned(),
                |at| at.to_string(),
            );
            findings.push(
                Finding::problem(
                    CHECK,
                    format!("smtpd asks for a login at {path}, and config.toml has no [dovecot_auth]: smtpd ends at its start, and the service stays silent"),
                    "add to config.toml, then: systemctl restart gatepost && postfix reload",
                )
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
                .with_lines("master.cf", vec![line]),
            );
        }
        (Some(Endpoint::Unix(listen)), _) if service.chroot && !is_inside(listen, service) => {
            findings.push(Finding::problem(
                CHECK,
                format!("smtpd is confined to Postfix's directory (chroot) and cannot see {}: it ends at its start, and the service stays silent", listen.display()),
                "write n instead of y into the fifth column of that service in master.cf, then: postfix reload",
            ));
        }
        _ => {}
    }
    findings
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
            lines.push("-o smtpd_sasl_path=/run/gatepost-auth.sock".to_owned());
            next = format!(
                "have Gatepost answer first ([dovecot_auth], listen = \"unix:/run/gatepost-auth.sock\" in config.toml, and a restart); {next}"
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
    match listen {
        Endpoint::Tcp(address) => format!("inet:{address}"),
        Endpoint::Unix(path) => {
            let inside = path.strip_prefix(service.queue_directory());
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
            answer: listen.as_ref().map(|_| Ok(())),
            clear: true,
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
        let ours = Ours {
            listen: Some(&listen),
            answer: Some(Err("refused".into())),
            clear: true,
        };
        assert_eq!(judge(&ours, &unknown)[0].level, Level::Problem);
    }
}
