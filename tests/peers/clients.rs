//! Programs that send mail through Gatepost.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{arrived, assert_behind_headers};
use crate::postfix::hard_message;
use crate::relay::serving;
use crate::support::client::{Client, stuffed};
use crate::support::gatepost::Gatepost;
use crate::support::peers::send_by_exim;
use crate::support::postfix::{Postfix, Sockets};
use crate::support::site::Credential;

/// A program that sends the message in a file, whose lines end in CRLF, and ends.
type Sender = fn(&Gatepost, &Credential, &Path) -> Command;

const SENDERS: [(&str, Sender); 4] = [
    ("curl", curl),
    ("msmtp", msmtp),
    ("smtplib", smtplib),
    ("swaks", swaks),
];

fn curl(gatepost: &Gatepost, credential: &Credential, message: &Path) -> Command {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--insecure"])
        .arg(format!("smtps://{}", gatepost.submissions))
        .args(["--mail-from", "sender@example.test"])
        .args(["--mail-rcpt", "box@example.test", "--user"])
        .arg(format!("{}:{}", credential.username, credential.password))
        .arg("--upload-file")
        .arg(message);
    curl
}

fn msmtp(gatepost: &Gatepost, credential: &Credential, message: &Path) -> Command {
    let address = gatepost.submission;
    let configuration = format!(
        "account default\nhost {}\nport {}\nauth plain\nuser {}\npassword {}\n\
         tls on\ntls_certcheck off\n",
        address.ip(),
        address.port(),
        credential.username,
        credential.password,
    );
    let path = message.with_file_name("msmtprc");
    std::fs::write(&path, configuration).expect("write a configuration");
    // It reads text of this system and makes the line ends itself.
    let script = "chmod 600 \"$1\"\ntr -d '\\r' <\"$2\" |
        msmtp --file=\"$1\" --from=sender@example.test box@example.test";
    let mut shell = Command::new("sh");
    shell
        .args(["-c", script, "sh"])
        .args([&path, message].map(AsRef::<Path>::as_ref));
    shell
}

fn smtplib(gatepost: &Gatepost, credential: &Credential, message: &Path) -> Command {
    let script = "import smtplib, ssl, sys\n\
        host, port, username, password, path = sys.argv[1:]\n\
        s = smtplib.SMTP_SSL(host, int(port), context=ssl._create_unverified_context())\n\
        s.login(username, password)\n\
        s.sendmail('sender@example.test', ['box@example.test'], open(path, 'rb').read())\n\
        s.quit()\n";
    let address = gatepost.submissions;
    let mut python = Command::new("python3");
    python
        .args(["-c", script, &address.ip().to_string()])
        .arg(address.port().to_string())
        .args([&credential.username, &credential.password])
        .arg(message);
    python
}

fn swaks(gatepost: &Gatepost, credential: &Credential, message: &Path) -> Command {
    // Left to itself it takes a dot at the end of a text for the end of data; told to leave the text
    // alone it adds nothing but the last line end.
    let wire = stuffed(&std::fs::read(message).expect("read the message"));
    let path = message.with_file_name("wire");
    std::fs::write(&path, &wire[..wire.len() - 2]).expect("write the data");
    let mut swaks = Command::new("swaks");
    swaks
        .args(["--server", &gatepost.submission.to_string(), "--tls"])
        .args(["--auth", "PLAIN", "--auth-user", &credential.username])
        .args(["--auth-password", &credential.password])
        .args(["--from", "sender@example.test", "--to", "box@example.test"])
        .args(["--no-data-fixup", "--data"])
        .arg(format!("@{}", path.display()));
    swaks
}

#[test]
fn what_a_sending_program_has_arrives_as_it_is() {
    let (upstream, gatepost) = serving();
    let credential = gatepost.create();
    // Not in the site's directory: what it holds must not show the password.
    let directory = TempDir::new().expect("tempdir");
    for (name, sender) in SENDERS {
        let message = hard_message(name);
        let path = directory.path().join("message");
        std::fs::write(&path, &message).expect("write a message");
        let output = sender(&gatepost, &credential, &path).output();
        let output = output.expect(name);
        assert!(output.status.success(), "{name}: {output:?}");
        let body = arrived(&upstream, name);
        let wire = stuffed(&message);
        let text = String::from_utf8_lossy(&body);
        assert!(body == wire[..wire.len() - 3], "changed by {name}:\n{text}");
    }
}

#[test]
fn exim_relays_through_gatepost() {
    let (upstream, gatepost) = serving();
    let message = hard_message("from-exim");
    let text: Vec<u8> = message
        .iter()
        .copied()
        .filter(|&byte| byte != b'\r')
        .collect();
    send_by_exim(&gatepost, &gatepost.create(), &text);
    assert_behind_headers(&arrived(&upstream, "from-exim"), &message);
}

#[test]
fn postfix_relays_through_gatepost() {
    let (upstream, gatepost) = serving();
    let credential = gatepost.create();
    let Credential { username, password } = &credential;
    let postfix = Postfix::start_with(
        Sockets::Tcp,
        &format!(
            "relayhost = [{}]:{}\n\
             default_transport = smtp\n\
             smtp_tls_security_level = encrypt\n\
             smtp_sasl_auth_enable = yes\n\
             smtp_sasl_password_maps = static:{username}:{password}\n\
             smtp_sasl_security_options = noanonymous\n\
             smtp_sasl_tls_security_options = noanonymous\n",
            gatepost.submission.ip(),
            gatepost.submission.port(),
        ),
    );
    let mut client = Client::dial(postfix.proxied).expect("connect");
    client.write(format!("PROXY TCP4 {} 127.0.0.1 40000 25\r\n", Postfix::FRIEND).as_bytes());
    client.reply().expect("220");
    client.expect("EHLO client.example", "250");
    client.expect("MAIL FROM:<sender@example.test>", "250");
    client.expect("RCPT TO:<box@elsewhere.example>", "250");
    client.expect("DATA", "354");
    let message = hard_message("from-postfix");
    client.write(&stuffed(&message));
    client.reply().expect("250");
    assert_behind_headers(&arrived(&upstream, "from-postfix"), &message);
}
