//! The one page on which a password stands, and what to do with it.

use askama::Template;
use axum::response::Response;

use crate::admin::desk::Desk;
use crate::admin::problem::Problem;
use crate::auth::issue::Issued;
use crate::store::{PasswordUse, plain};

use super::address::of_credential;
use super::error::ErrorPage;
use super::frame::{Frame, page};
use super::quoted;
use super::stamp::Stamp;

#[derive(Template)]
#[template(path = "issued.html")]
pub(super) struct IssuedPage<'a> {
    frame: Frame,
    /// What became of the password before; there is none where the credential is new.
    before: Option<Before>,
    slug: &'a str,
    /// The address of the credential's page.
    page: String,
    username: &'a str,
    password: &'a str,
    connection: Connection,
    snippets: Vec<Snippet>,
}

/// What became of the password that was replaced.
pub(super) struct Before {
    /// Until when it is right, if it is.
    pub(super) right_until: Option<Stamp>,
    /// Where an overlap ran already: the uses of the password that was replaced in it.
    pub(super) replaced_in_overlap: Option<Option<(PasswordUse, Stamp)>>,
    /// Whether the sessions that were live have ended.
    pub(super) disconnected: bool,
}

/// Where clients connect to.
pub(super) struct Connection {
    host: String,
    /// The port of each kind of listener, and the kind of TLS there.
    ports: Vec<(String, &'static str)>,
}

struct Snippet {
    id: &'static str,
    title: &'static str,
    text: String,
}

impl Connection {
    pub(super) fn of(desk: &Desk) -> Connection {
        let listeners = &desk.system.listeners;
        let of_kind = |kind: &str, security| {
            let mut own = listeners.iter().filter(|(own, _)| own == kind);
            let (_, address) = own.next()?;
            let (_, port) = address.rsplit_once(':')?;
            Some((port.to_owned(), security))
        };
        let submissions = of_kind("submissions", "TLS from the start (implicit TLS, SSL/TLS)");
        let submission = of_kind("submission", "STARTTLS");
        Connection {
            host: desk.system.hostname.clone(),
            ports: submissions.into_iter().chain(submission).collect(),
        }
    }

    fn port(&self) -> &str {
        self.ports.first().map_or("465", |(port, _)| port)
    }

    /// Whether TLS is there from the start on [`Connection::port`].
    fn is_implicit(&self) -> bool {
        self.ports
            .first()
            .is_none_or(|(_, security)| *security != "STARTTLS")
    }
}

/// Shows what was issued.
pub(super) fn show(
    frame: Frame,
    issued: &Issued,
    connection: Connection,
    before: Option<Before>,
) -> Result<Response, ErrorPage> {
    let password = str::from_utf8(issued.password.expose());
    let password = password.map_err(|error| Problem::internal(&error))?;
    let username = &issued.credential.username;
    page(&IssuedPage {
        frame,
        before,
        slug: &issued.credential.organization,
        page: of_credential(&issued.credential.organization, username),
        username,
        password,
        snippets: snippets(&connection, username, password),
        connection,
    })
}

fn snippets(connection: &Connection, username: &str, password: &str) -> Vec<Snippet> {
    let (host, port) = (&connection.host, connection.port());
    let implicit = connection.is_implicit();
    let snippet = |id, title, text| Snippet { id, title, text };
    let swaks_tls = if implicit {
        "--tls-on-connect"
    } else {
        "--tls"
    };
    let curl_scheme = if implicit { "smtps" } else { "smtp" };
    let (python_class, python_start) = match implicit {
        true => ("SMTP_SSL", ""),
        false => (
            "SMTP",
            "    smtp.starttls(context=ssl.create_default_context())\n",
        ),
    };
    let python_context = match implicit {
        true => ", context=ssl.create_default_context()",
        false => "",
    };
    // curl takes everything up to the first colon for the username.
    let (curl_user, curl_login) = match username.contains(':') {
        true => {
            let login = format!("{}:{}@", quoted::url(username), quoted::url(password));
            (login, String::new())
        }
        false => {
            let login = quoted::shell(&format!("{username}:{password}"));
            (String::new(), format!("--user {login} \\\n  "))
        }
    };
    let php_security = if implicit { "ssl" } else { "tls" };
    let relayhost = format!("[{host}]:{port}");
    let wrapper = if implicit {
        "smtp_tls_wrappermode = yes\n"
    } else {
        ""
    };
    let postfix_login = match quoted::postfix(username) {
        Some(username) => format!("{relayhost} {username}:{password}"),
        None => format!(
            "# Postfix's tables cannot hold this username: {}",
            plain(username)
        ),
    };
    let env_username = match quoted::environment(username) {
        Some(username) => format!("SMTP_USERNAME={username}"),
        None => format!("# This file cannot hold the username: {}", plain(username)),
    };
    let env_security = if implicit { "tls" } else { "starttls" };
    vec![
        snippet(
            "swaks",
            "swaks",
            format!(
                "swaks --server {host} --port {port} {swaks_tls} \\\n  --auth PLAIN --auth-user={} --auth-password={} \\\n  --from you@example.org --to you@example.org",
                quoted::shell(username),
                quoted::shell(password),
            ),
        ),
        snippet(
            "curl",
            "curl",
            format!(
                "curl --url {curl_scheme}://{curl_user}{host}:{port} --ssl-reqd \\\n  {curl_login}--mail-from you@example.org --mail-rcpt you@example.org \\\n  --upload-file message.eml"
            ),
        ),
        snippet(
            "python",
            "Python",
            format!(
                "import smtplib, ssl\nfrom email.message import EmailMessage\n\nmessage = EmailMessage()\nmessage[\"From\"] = message[\"To\"] = \"you@example.org\"\nmessage[\"Subject\"] = \"A first message\"\nmessage.set_content(\"It works.\")\n\nwith smtplib.{python_class}(\"{host}\", {port}{python_context}) as smtp:\n{python_start}    smtp.login({}, {})\n    smtp.send_message(message)",
                quoted::python(username),
                quoted::python(password),
            ),
        ),
        snippet(
            "node",
            "Node (nodemailer)",
            format!(
                "const transport = require(\"nodemailer\").createTransport({{\n  host: \"{host}\",\n  port: {port},\n  secure: {implicit},\n  requireTLS: true,\n  auth: {{ user: {}, pass: {} }},\n}});\n\ntransport.sendMail({{\n  from: \"you@example.org\",\n  to: \"you@example.org\",\n  subject: \"A first message\",\n  text: \"It works.\",\n}});",
                quoted::javascript(username),
                quoted::javascript(password),
            ),
        ),
        snippet(
            "php",
            "PHP (PHPMailer)",
            format!(
                "$mail = new PHPMailer\\PHPMailer\\PHPMailer(true);\n$mail->isSMTP();\n$mail->Host = '{host}';\n$mail->Port = {port};\n$mail->SMTPSecure = '{php_security}';\n$mail->SMTPAuth = true;\n$mail->Username = {};\n$mail->Password = {};\n$mail->setFrom('you@example.org');\n$mail->addAddress('you@example.org');\n$mail->Subject = 'A first message';\n$mail->Body = 'It works.';\n$mail->send();",
                quoted::php(username),
                quoted::php(password),
            ),
        ),
        snippet(
            "postfix",
            "Postfix relayhost",
            format!(
                "# /etc/postfix/sasl_passwd, which only root may read (chmod 600)\n{postfix_login}\n\n# /etc/postfix/main.cf\nrelayhost = {relayhost}\n{wrapper}smtp_tls_security_level = secure\nsmtp_sasl_auth_enable = yes\nsmtp_sasl_tls_security_options = noanonymous\nsmtp_sasl_password_maps = texthash:/etc/postfix/sasl_passwd"
            ),
        ),
        snippet(
            "env",
            ".env",
            format!(
                "SMTP_HOST={host}\nSMTP_PORT={port}\nSMTP_SECURITY={env_security}\n{env_username}\nSMTP_PASSWORD={}",
                quoted::environment(password).unwrap_or_default(),
            ),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(ports: &[(&str, &'static str)]) -> Connection {
        Connection {
            host: "mail.example.test".to_owned(),
            ports: ports
                .iter()
                .map(|(port, security)| ((*port).to_owned(), *security))
                .collect(),
        }
    }

    #[test]
    fn every_snippet_has_all_that_it_needs() {
        let both = connection(&[("465", "TLS"), ("587", "STARTTLS")]);
        for snippet in snippets(&both, "smtp_a", "sk_b") {
            for needed in ["mail.example.test", "465", "smtp_a", "sk_b"] {
                assert!(snippet.text.contains(needed), "{}: {needed}", snippet.id);
            }
        }
    }

    /// Lines as a program gets them: in place of what they run, `stub` prints what that was given.
    fn run(program: &[&str], stub: &str, text: &str) -> String {
        let mut command = std::process::Command::new(program[0]);
        let output = command.args(&program[1..]).arg(format!("{stub}\n{text}"));
        let output = output.output().unwrap();
        assert!(output.status.success(), "{text}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn pasted_lines_give_the_username_as_it_is_and_run_nothing_else() {
        let both = connection(&[("465", "TLS"), ("587", "STARTTLS")]);
        for name in quoted::tests::HOSTILE.into_iter().chain(["with:colon"]) {
            let all = snippets(&both, name, "sk_b");
            let text = |id| &all.iter().find(|snippet| snippet.id == id).unwrap().text;
            let words = "swaks() { printf '%s\\0' \"$@\"; }; curl() { swaks \"$@\"; }";
            let given = run(&["sh", "-c"], words, text("swaks"));
            let user = format!("--auth-user={name}");
            assert!(given.split('\0').any(|word| word == user), "{given:?}");
            let given = run(&["sh", "-c"], words, text("curl"));
            let (user, at) = (format!("{name}:sk_b"), "smtps://with%3Acolon:sk_b@mail.");
            let is_told = |word: &str| word == user || word.starts_with(at);
            assert!(given.split('\0').any(is_told), "{given:?}");
            let python = "
import smtplib, sys
class Stub:
    def __init__(self, *_, **__): pass
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def login(self, user, _): sys.stdout.buffer.write(user.encode())
    def send_message(self, _): pass
smtplib.SMTP_SSL = Stub";
            assert_eq!(run(&["python3", "-c"], python, text("python")), name);
            let node = "
const require = () => ({ createTransport: (to) => {
  process.stdout.write(to.auth.user);
  return { sendMail: () => {} };
} });";
            assert_eq!(run(&["node", "-e"], node, text("node")), name);
            let env = format!("{}\nprintf %s \"$SMTP_USERNAME\"", text("env"));
            let value = run(&["sh", "-c"], "", &env);
            let is_refused = text("env").contains("# This file cannot hold");
            assert!(value == name || is_refused, "{value:?}");
            let table = text("postfix");
            let line = format!("[mail.example.test]:465 {name}:sk_b");
            assert!(table.contains(&line) || table.contains("# Postfix's tables cannot"));
            assert!(!table.contains(char::is_control) || table.lines().count() < 12);
        }
        assert!(!std::path::Path::new("/tmp/pwned").exists());
    }

    #[test]
    fn where_there_is_only_starttls_snippets_use_it() {
        let only = connection(&[("587", "STARTTLS")]);
        let all = snippets(&only, "smtp_a", "sk_b");
        let text = |id| &all.iter().find(|snippet| snippet.id == id).unwrap().text;
        assert!(text("swaks").contains("--tls \\") && text("curl").contains("smtp://"));
        assert!(
            text("python").contains("smtp.starttls(") && text("node").contains("secure: false")
        );
        assert!(text("php").contains("'tls'") && !text("postfix").contains("wrappermode"));
        assert!(text("env").contains("SMTP_SECURITY=starttls"));
    }
}
