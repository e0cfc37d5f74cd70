//! The plan: every file and every edit that setup makes, computed from Postfix's configuration and
//! the answers. Nothing here touches the machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};

use super::super::CliError;
use super::postfix::{Edit, Postfix, Service};

/// The directory of Gatepost's configuration and of its copy of the certificate.
pub const DIRECTORY: &str = "/etc/gatepost";

const HOOK: &str = "/etc/letsencrypt/renewal-hooks/deploy/gatepost";
const HOOK_TEXT: &str = include_str!("../../../contrib/certbot-deploy-hook.sh");

/// The service that Gatepost hands sessions over to.
const HANDOFF: &str = "submit/unix";

/// The socket of gatepost-auth.socket as Postfix names it: an smtpd in a chroot reaches it, too.
pub const AUTH_SOCKET: &str = "private/gatepost";

/// The parameters that the shipped units rely on.
const FIXED: [(&str, &str); 3] = [
    ("mail_owner", "postfix"),
    ("queue_directory", "/var/spool/postfix"),
    ("setgid_group", "postdrop"),
];

/// Options of the service for the hand-over. The restrictions of port 25 are not for clients that
/// logged in, and from Postfix 3.8 on all sessions of Gatepost count as one client.
const OPTIONS: [(&str, &str); 19] = [
    ("syslog_name", "postfix/gatepost"),
    ("smtpd_authorized_xclient_hosts", "127.0.0.1"),
    ("smtpd_tls_security_level", "none"),
    ("smtpd_tls_auth_only", "no"),
    ("smtpd_sasl_auth_enable", "yes"),
    ("smtpd_sasl_type", "dovecot"),
    ("smtpd_sasl_path", AUTH_SOCKET),
    ("smtpd_sasl_security_options", "noanonymous"),
    ("smtpd_client_restrictions", ""),
    ("smtpd_helo_restrictions", ""),
    ("smtpd_sender_restrictions", ""),
    ("smtpd_relay_restrictions", LOGGED_IN),
    ("smtpd_recipient_restrictions", LOGGED_IN),
    ("smtpd_forbid_bare_newline", "yes"),
    ("smtpd_client_connection_count_limit", "0"),
    ("smtpd_client_connection_rate_limit", "0"),
    ("smtpd_client_message_rate_limit", "0"),
    ("smtpd_client_recipient_rate_limit", "0"),
    ("mynetworks", ""),
];

const LOGGED_IN: &str = "permit_sasl_authenticated,reject";

/// The beginnings of options about Gatepost's part of the work: the hand-over does not take them
/// over from the services before.
const REPLACED: [&str; 7] = [
    "smtpd_client_",
    "smtpd_enforce_tls",
    "smtpd_sasl_",
    "smtpd_tls_",
    "smtpd_upstream_proxy_",
    "smtpd_use_tls",
    "tls_",
];

/// The restrictions that the hand-over replaces.
const RESTRICTIONS: [&str; 5] = [
    "smtpd_client_restrictions",
    "smtpd_helo_restrictions",
    "smtpd_sender_restrictions",
    "smtpd_relay_restrictions",
    "smtpd_recipient_restrictions",
];

/// Restrictions that the hand-over has, too, or has no use for.
const ORDINARY: [&str; 7] = [
    "defer_unauth_destination",
    "permit",
    "permit_mynetworks",
    "permit_sasl_authenticated",
    "reject",
    "reject_unauth_destination",
    "reject_unauth_pipelining",
];

/// Whether Gatepost or Postfix listens on the ports of mail submission.
#[derive(Clone, Copy, Debug, Eq, PartialEq, clap::ValueEnum)]
pub enum Mode {
    /// Gatepost listens on 587 and 465 and hands sessions over to Postfix
    Front,
    /// Postfix keeps its listeners and asks Gatepost about logins only
    Behind,
}

/// The answers that the files depend on.
#[derive(Clone, Debug)]
pub struct Answers {
    /// The name that mail programs connect to.
    pub hostname: String,
    /// Who listens.
    pub mode: Mode,
    /// The directory in which certbot renews the certificate.
    pub lineage: Option<PathBuf>,
    /// Whether the machine has IPv6.
    pub has_ipv6: bool,
}

/// A file to write as a whole.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewFile {
    pub path: PathBuf,
    pub text: String,
    pub mode: u32,
}

/// Everything that setup does.
#[derive(Debug)]
pub struct Plan {
    pub mode: Mode,
    pub files: Vec<NewFile>,
    /// Edits of `master.cf`.
    pub edits: Vec<Edit>,
    /// Sentences for the administrator.
    pub notes: Vec<String>,
}

impl Plan {
    /// Computes the plan.
    ///
    /// # Errors
    /// Setup does not understand something; the error says what to do by hand.
    pub fn new(postfix: &Postfix, answers: &Answers) -> Result<Plan, CliError> {
        require_known(postfix)?;
        let mut plan = Plan {
            mode: answers.mode,
            files: vec![configuration(answers)],
            edits: Vec::new(),
            notes: Vec::new(),
        };
        match answers.mode {
            Mode::Front => plan.in_front(postfix, answers)?,
            Mode::Behind => plan.behind(postfix)?,
        }
        Ok(plan)
    }

    /// Moves the ports to Gatepost and adds the service for the hand-over.
    fn in_front(&mut self, postfix: &Postfix, answers: &Answers) -> Result<(), CliError> {
        let submission = postfix.submission();
        let existing = postfix.services.iter().find(|one| one.key() == HANDOFF);
        match existing {
            None => self.add_handoff(postfix, &submission),
            Some(one) if one.options.contains_key("smtpd_authorized_xclient_hosts") => {}
            Some(_) => {
                return Err(by_hand(&format!(
                    "master.cf has a service {HANDOFF} that is not Gatepost's; rename that service and run setup again"
                )));
            }
        }
        let comment_out = |service: &&Service| Edit::CommentOut { key: service.key() };
        self.edits.extend(submission.iter().map(comment_out));
        for (unit, port) in [("gatepost", 587), ("gatepost-submissions", 465)] {
            let addresses = addresses(postfix, answers.has_ipv6, port)?;
            self.files.extend(drop_in(unit, port, &addresses));
        }
        if let Some(lineage) = &answers.lineage {
            self.files.push(hook(lineage)?);
        }
        Ok(())
    }

    fn add_handoff(&mut self, postfix: &Postfix, submission: &[&Service]) {
        let port_25 = postfix.services.iter().find(|one| one.key() == "smtp/inet");
        let model = submission.first().copied();
        // Paths of milters and maps hold inside a chroot, or outside.
        let chroot = model.or(port_25).map_or("n", |service| &service.chroot);
        let processes = model.map_or("-", |service| &service.processes);
        let mut entry = format!("submit unix n - {chroot} - {processes} smtpd");
        let mut add = |name: &str, value: &str| {
            entry += &match value.contains(char::is_whitespace) {
                true => format!(" -o {{{name}={value}}}"),
                false => format!(" -o {name}={value}"),
            };
        };
        for (name, value) in OPTIONS {
            add(name, value);
        }
        let mut kept: Vec<(&str, &str, &str)> = Vec::new();
        for service in submission {
            for (name, value) in &service.options {
                let own = kept.iter().find(|(kept, ..)| kept == name);
                match own {
                    _ if !is_kept(name) => {}
                    None => kept.push((name, value, &service.name)),
                    Some((_, other, _)) if other == value => {}
                    Some((_, other, of)) => self.notes.push(format!(
                        "{name} is \"{other}\" in {of} and \"{value}\" in {}; the service submit has the former.",
                        service.name
                    )),
                }
            }
        }
        let originating = ("milter_macro_daemon_name", "ORIGINATING", "");
        if kept.iter().all(|(name, ..)| *name != originating.0) {
            kept.insert(0, originating);
        }
        for (name, value, _) in &kept {
            add(name, value);
        }
        self.edits.push(Edit::Service {
            key: HANDOFF.to_owned(),
            entry,
        });
        for service in submission {
            for name in RESTRICTIONS {
                self.notes.extend(lost(postfix, service, name));
            }
        }
        self.notes.dedup();
    }

    /// Points the SASL of the submission services at Gatepost.
    fn behind(&mut self, postfix: &Postfix) -> Result<(), CliError> {
        let submission = postfix.submission();
        if submission.is_empty() {
            return Err(CliError::Refused(
                "master.cf has no service on 587 or 465 that could ask Gatepost: uncomment submission and submissions there, or run setup with --mode front".to_owned(),
            ));
        }
        for service in submission {
            for (name, value) in [
                ("smtpd_sasl_auth_enable", "yes"),
                ("smtpd_sasl_type", "dovecot"),
                ("smtpd_sasl_path", AUTH_SOCKET),
            ] {
                if postfix.value_for(service, name) != value {
                    let key = service.key();
                    self.edits.push(Edit::Option { key, name, value });
                }
            }
        }
        Ok(())
    }
}

/// A refusal that leads to the steps by hand.
pub fn by_hand(cause: &str) -> CliError {
    CliError::Refused(format!(
        "{cause}. Nothing was changed. The steps by hand are in /usr/share/doc/gatepost/docs/src/guide/by-hand.md"
    ))
}

/// Refuses a Postfix that setup or the units do not know.
fn require_known(postfix: &Postfix) -> Result<(), CliError> {
    for (name, expected) in FIXED {
        let value = postfix.value(name);
        if value != expected {
            return Err(by_hand(&format!(
                "Postfix has {name} = {value}, and Gatepost's units are made for {expected}"
            )));
        }
    }
    if !postfix.value("multi_instance_directories").is_empty() {
        return Err(by_hand(
            "Postfix has several instances (multi_instance_directories), and setup cannot tell which of them takes mail from users",
        ));
    }
    let is_other = |service: &&&Service| service.command.split(' ').next() != Some("smtpd");
    match postfix.submission().iter().find(is_other) {
        None => Ok(()),
        Some(other) => Err(by_hand(&format!(
            "the service {} in master.cf runs {:?} and not smtpd; move that service to another port and run setup again",
            other.name, other.command
        ))),
    }
}

fn is_kept(option: &str) -> bool {
    let is_own = OPTIONS.iter().any(|(own, _)| *own == option);
    !is_own && !REPLACED.iter().any(|start| option.starts_with(start))
}

/// A restriction of `service` that does not hold for mail through Gatepost.
fn lost(postfix: &Postfix, service: &Service, name: &str) -> Option<String> {
    let value = postfix.value_for(service, name);
    let named = value.strip_prefix('$');
    let value = named.map_or(value, |named| postfix.value(named));
    let mut words = value
        .split([' ', ',', '\t'])
        .filter(|word| !word.is_empty());
    let is_ordinary = words.all(|word| ORDINARY.contains(&word));
    (!is_ordinary).then(|| {
        format!("{name} of port 587 and 465 ends: {value}. For senders and networks see: gatepost credential rules --help")
    })
}

/// The addresses on which Postfix serves `port`, or would.
fn addresses(postfix: &Postfix, has_ipv6: bool, port: u16) -> Result<Vec<IpAddr>, CliError> {
    let submission = postfix.submission();
    let services = submission
        .iter()
        .filter(|service| service.submission_port() == Some(port));
    let hosts: Vec<_> = services.map(|service| service.host()).collect();
    let is_general = hosts.is_empty() || hosts.contains(&"");
    let interfaces = postfix.value("inet_interfaces").split([' ', ',']);
    let hosts: Vec<_> = match is_general {
        true => interfaces.filter(|host| !host.is_empty()).collect(),
        false => hosts,
    };
    let mut addresses = Vec::new();
    for host in hosts {
        match host {
            "all" | "*" => addresses.extend([ANY_4, ANY_6]),
            "localhost" | "loopback-only" => addresses.extend([
                IpAddr::V4(Ipv4Addr::LOCALHOST),
                IpAddr::V6(Ipv6Addr::LOCALHOST),
            ]),
            host => addresses.push(host.trim_matches(['[', ']']).parse().map_err(|_| {
                by_hand(&format!(
                    "Postfix listens on {host}, and setup cannot tell the address; write an address for that name into inet_interfaces or master.cf and run setup again"
                ))
            })?),
        }
    }
    let protocols = postfix.value("inet_protocols");
    let has = |protocol: &str| protocols.contains(protocol) || protocols.contains("all");
    addresses.retain(|address| match address {
        IpAddr::V4(_) => has("ipv4"),
        IpAddr::V6(_) => has("ipv6") && has_ipv6,
    });
    Ok(addresses)
}

const ANY_4: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
const ANY_6: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

/// The drop-in of a socket unit, unless the unit has these addresses already.
fn drop_in(unit: &str, port: u16, addresses: &[IpAddr]) -> Option<NewFile> {
    if *addresses == [ANY_4, ANY_6] {
        return None;
    }
    let mut text =
        "# The addresses of inet_interfaces, inet_protocols and master.cf, by gatepost setup.\n\
        [Socket]\nListenStream=\n"
            .to_owned();
    for address in addresses {
        text += &match address {
            IpAddr::V4(address) => format!("ListenStream={address}:{port}\n"),
            IpAddr::V6(address) => format!("ListenStream=[{address}]:{port}\n"),
        };
    }
    Some(NewFile {
        path: format!("/etc/systemd/system/{unit}.socket.d/10-setup.conf").into(),
        text,
        mode: 0o644,
    })
}

/// The deploy hook: certbot renews, and the hook renews Gatepost's copy of the pair.
fn hook(lineage: &Path) -> Result<NewFile, CliError> {
    let name = lineage.file_name().and_then(|name| name.to_str());
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let name = name.filter(|name| name.bytes().all(is_plain));
    let name = name.ok_or_else(|| {
        by_hand(&format!(
            "setup cannot write the name of {} into a deploy hook",
            lineage.display()
        ))
    })?;
    Ok(NewFile {
        path: HOOK.into(),
        text: HOOK_TEXT.replacen("mail.example.org", name, 1),
        mode: 0o755,
    })
}

fn configuration(answers: &Answers) -> NewFile {
    let front = match answers.mode {
        Mode::Behind => String::new(),
        Mode::Front => format!(
            "\n[tls]\ncertificate = \"{DIRECTORY}/fullchain.pem\"\nkey = \"{DIRECTORY}/privkey.pem\"\n\n\
            [upstream]\naddress = \"unix:/var/spool/postfix/public/submit\"\n"
        ),
    };
    let hostname = &answers.hostname;
    NewFile {
        path: Path::new(DIRECTORY).join("config.toml"),
        text: format!(
            "# By gatepost setup. All keys: /usr/share/doc/gatepost/config.toml.example\nhostname = \"{hostname}\"\n{front}"
        ),
        // Members of gatepost-admin read it; it holds no secret.
        mode: 0o644,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIN: &str = "config_directory = /etc/postfix\ninet_interfaces = all\ninet_protocols = all\n\
        mail_owner = postfix\nqueue_directory = /var/spool/postfix\nsetgid_group = postdrop\n\
        multi_instance_directories =\nmua_sender_restrictions = reject_sender_login_mismatch\n\
        smtpd_client_restrictions = reject_unknown_client_hostname\nsmtpd_sasl_type = cyrus\n";
    const SERVICES: &str = "smtp inet n - y - - smtpd\n\
        submission inet n - y - 50 smtpd -o syslog_name=postfix/submission\n\
        smtps inet n - y - - smtpd\n";
    const OPTIONS_BEFORE: &str = "submission/inet/syslog_name = postfix/submission\n\
        submission/inet/smtpd_tls_security_level = encrypt\n\
        submission/inet/smtpd_client_restrictions =\n\
        submission/inet/smtpd_sender_restrictions = $mua_sender_restrictions\n\
        submission/inet/smtpd_milters = inet:a:1 inet:b:2\n\
        smtps/inet/smtpd_client_restrictions = permit_sasl_authenticated, reject\n\
        smtps/inet/smtpd_milters = inet:c:3\n\
        smtps/inet/smtpd_proxy_filter = 127.0.0.1:10024\n";

    fn answers(mode: Mode) -> Answers {
        Answers {
            hostname: "mail.example.org".to_owned(),
            mode,
            lineage: None,
            has_ipv6: true,
        }
    }

    fn plan_of(main: &str, services: &str, options: &str, mode: Mode) -> Result<Plan, String> {
        let main = format!("{MAIN}{main}");
        let postfix = Postfix::parse(&main, services, options);
        Plan::new(&postfix, &answers(mode)).map_err(|error| error.to_string())
    }

    #[test]
    fn in_front_the_ports_move_and_the_treatment_of_mail_stays() {
        let plan = plan_of("", SERVICES, OPTIONS_BEFORE, Mode::Front).unwrap();
        let [Edit::Service { key, entry }, commented @ ..] = &plan.edits[..] else {
            panic!("{:?}", plan.edits)
        };
        assert_eq!(key, "submit/unix");
        assert!(
            entry.starts_with("submit unix n - y - 50 smtpd -o syslog_name=postfix/gatepost -o "),
            "{entry}"
        );
        for part in [
            " -o smtpd_client_restrictions= ",
            " -o smtpd_helo_restrictions= ",
            " -o smtpd_sender_restrictions= ",
            " -o milter_macro_daemon_name=ORIGINATING",
            " -o {smtpd_milters=inet:a:1 inet:b:2}",
            " -o smtpd_proxy_filter=127.0.0.1:10024",
        ] {
            assert!(entry.contains(part), "{part}: {entry}");
        }
        assert!(!entry.contains("encrypt") && !entry.contains("inet:c:3"));
        let keys =
            ["submission/inet", "smtps/inet"].map(|key| Edit::CommentOut { key: key.into() });
        assert_eq!(commented, keys);
        let [milters, senders] = &plan.notes[..] else {
            panic!("{:?}", plan.notes)
        };
        assert!(milters.contains("\"inet:c:3\" in smtps"), "{milters}");
        assert!(
            senders.contains("reject_sender_login_mismatch"),
            "{senders}"
        );
        assert_eq!(plan.files.len(), 1);
        assert!(plan.files[0].text.contains("public/submit"));
    }

    #[test]
    fn the_macro_of_the_service_before_is_kept() {
        let own = "smtps/inet/milter_macro_daemon_name = SUBMIT\n";
        let plan = plan_of("", SERVICES, own, Mode::Front).unwrap();
        let Edit::Service { entry, .. } = &plan.edits[0] else {
            panic!("{:?}", plan.edits)
        };
        assert!(entry.contains("daemon_name=SUBMIT") && !entry.contains("ORIGINATING"));
    }

    #[test]
    fn a_second_plan_changes_nothing() {
        let after = "smtp inet n - y - - smtpd\nsubmit unix n - y - - smtpd\n";
        let options = "submit/unix/smtpd_authorized_xclient_hosts = 127.0.0.1\n";
        let plan = plan_of("", after, options, Mode::Front).unwrap();
        assert_eq!((plan.edits.len(), plan.notes.len()), (0, 0));
        let options = "submission/inet/smtpd_sasl_auth_enable = yes\n\
            submission/inet/smtpd_sasl_type = dovecot\nsubmission/inet/smtpd_sasl_path = private/gatepost\n";
        let services = "submission inet n - y - - smtpd\n";
        let plan = plan_of("", services, options, Mode::Behind).unwrap();
        assert_eq!(plan.edits, []);
    }

    #[test]
    fn behind_only_the_logins_of_the_submission_services_change() {
        let plan = plan_of("", SERVICES, OPTIONS_BEFORE, Mode::Behind).unwrap();
        let keys: Vec<_> = plan
            .edits
            .iter()
            .map(|edit| match edit {
                Edit::Option { key, name, .. } => format!("{key} {name}"),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(keys.len(), 6);
        assert!(keys.iter().all(|key| key.contains(" smtpd_sasl_")));
        assert!(!plan.files[0].text.contains("[upstream]"));
        let none = plan_of("", "smtp inet n - y - - smtpd\n", "", Mode::Behind);
        assert!(none.unwrap_err().contains("--mode front"));
    }

    #[test]
    fn gatepost_listens_where_postfix_did() {
        let texts = |main: &str, services: &str| -> Vec<String> {
            let plan = plan_of(main, services, "", Mode::Front).unwrap();
            plan.files
                .into_iter()
                .skip(1)
                .map(|file| file.text)
                .collect()
        };
        let none = "smtp inet n - y - - smtpd\n";
        assert_eq!(texts("", none).len(), 0);
        let [submission, submissions] = &texts("inet_protocols = ipv4\n", none)[..] else {
            panic!()
        };
        assert!(submission.ends_with("ListenStream=\nListenStream=0.0.0.0:587\n"));
        assert!(submissions.ends_with("ListenStream=\nListenStream=0.0.0.0:465\n"));
        let loopback = texts("inet_interfaces = loopback-only\n", none);
        assert!(loopback[0].ends_with("=127.0.0.1:587\nListenStream=[::1]:587\n"));
        let named =
            "[2001:db8::1]:587 inet n - y - - smtpd\n192.0.2.1:submission inet n - y - - smtpd\n";
        let named = texts("", named);
        assert_eq!(named.len(), 1);
        assert!(named[0].ends_with("=[2001:db8::1]:587\nListenStream=192.0.2.1:587\n"));
    }

    #[test]
    fn what_setup_does_not_understand_is_refused_with_the_next_step() {
        let none = "smtp inet n - y - - smtpd\n";
        for (main, services, cause) in [
            ("mail_owner = mail\n", none, "mail_owner"),
            ("queue_directory = /srv/q\n", none, "queue_directory"),
            ("setgid_group = maildrop\n", none, "setgid_group"),
            ("multi_instance_directories = /etc/p2\n", none, "instances"),
            ("inet_interfaces = mail.test\n", none, "mail.test"),
            ("", "587 inet n - n - 0 spawn user=a argv=/b\n", "spawn"),
            ("", "submit unix n - n - - smtpd\n", "submit/unix"),
        ] {
            let error = plan_of(main, services, "", Mode::Front).unwrap_err();
            assert!(
                error.contains(cause) && error.contains("by hand"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_hook_is_for_the_certificate_of_the_answer() {
        let file = hook(Path::new("/etc/letsencrypt/live/mail.test-0001")).unwrap();
        assert!(
            file.text
                .contains("name=${CERTIFICATE_NAME:-mail.test-0001}")
        );
        assert!(hook(Path::new("/etc/letsencrypt/live/$(id)")).is_err());
    }
}
