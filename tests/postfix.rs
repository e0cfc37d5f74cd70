//! Gatepost in front of a real Postfix.

use std::process::{Command, Output};

use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::postfix::{Postfix, Sockets};
use crate::support::site::{Config, Credential};

const CLIENT: &str = "127.0.0.7";

fn gate(postfix: &Postfix) -> Gatepost {
    let config = Config::for_upstream(postfix.upstream());
    Gatepost::start(postfix.asks(config))
}

/// A message with what relays break: leading dots, a full line, eight bits, no text at all.
pub fn hard_message(marker: &str) -> Vec<u8> {
    let mut message = format!(
        "From: <sender@example.test>\r\nTo: <box@example.test>\r\nSubject: {marker}\r\n\
         Date: Mon, 2 Nov 2026 10:00:00 +0000\r\nMessage-ID: <{marker}@example.test>\r\n\r\n\
         .\r\n..\r\n.a line that starts with a dot\r\n\r\n\t \r\n{}\r\n\r\n",
        "x".repeat(998)
    )
    .into_bytes();
    message.extend((1..=255).filter(|byte| !b"\r\n".contains(byte)));
    message.extend_from_slice(b"\r\n\r\n.\r\n");
    message
}

/// The message with `marker` must be in the Maildir as it was sent, from [`CLIENT`].
pub fn assert_delivered(postfix: &Postfix, marker: &str, sent: &[u8]) {
    let expected: Vec<u8> = sent.iter().copied().filter(|&byte| byte != b'\r').collect();
    let delivered = postfix.wait_for_message(&format!("Subject: {marker}"));
    let text = String::from_utf8_lossy(&delivered);
    assert!(
        delivered.ends_with(&expected),
        "changed on the way:\n{text}"
    );
    assert!(
        text.contains(&format!("[{CLIENT}]")),
        "no Received line with the client:\n{text}"
    );
}

fn client_at_submission(gatepost: &Gatepost) -> Client {
    let mut client = Client::dial_from(CLIENT.parse().unwrap(), gatepost.submission).unwrap();
    client.reply().expect("220");
    client.starttls()
}

fn client_at_submissions(gatepost: &Gatepost) -> Client {
    let client = Client::dial_from(CLIENT.parse().unwrap(), gatepost.submissions).unwrap();
    let mut client = client.over_tls();
    client.reply().expect("220");
    client
}

fn deliver(postfix: &Postfix, mut client: Client, credential: &Credential, marker: &str) {
    let message = hard_message(marker);
    client.send_message(&message).expect("250 2.0.0");
    client.expect("QUIT", "221");
    assert_delivered(postfix, marker, &message);
    let login = format!("sasl_username={}", credential.username);
    postfix.wait_for_log(&["client=", &format!("[{CLIENT}]"), &login]);
}

#[test]
fn submission_with_plain_and_login_delivers_byte_for_byte_as_the_credential() {
    let postfix = Postfix::start(Sockets::Tcp);
    let gatepost = gate(&postfix);

    let plain = gatepost.create();
    let mut client = client_at_submission(&gatepost);
    client.log_in(&plain);
    deliver(&postfix, client, &plain, "submission-plain");

    let login = gatepost.create();
    let mut client = client_at_submission(&gatepost);
    client.expect("EHLO client.example", "250");
    client.auth_login(&login).expect("235 2.7.0");
    deliver(&postfix, client, &login, "submission-login");
}

#[test]
fn submissions_with_plain_and_login_delivers_byte_for_byte_as_the_credential() {
    let postfix = Postfix::start(Sockets::Tcp);
    let gatepost = gate(&postfix);

    let plain = gatepost.create();
    let mut client = client_at_submissions(&gatepost);
    client.log_in(&plain);
    deliver(&postfix, client, &plain, "submissions-plain");

    let login = gatepost.create();
    let mut client = client_at_submissions(&gatepost);
    client.expect("EHLO client.example", "250");
    client.auth_login(&login).expect("235 2.7.0");
    deliver(&postfix, client, &login, "submissions-login");
}

#[test]
fn hand_over_and_verdict_work_over_unix_sockets() {
    let postfix = Postfix::start(Sockets::Unix);
    let gatepost = gate(&postfix);
    let credential = gatepost.create();
    let mut client = client_at_submissions(&gatepost);
    client.log_in(&credential);
    deliver(&postfix, client, &credential, "unix-sockets");
}

#[test]
fn several_messages_in_one_session_all_arrive() {
    let postfix = Postfix::start(Sockets::Tcp);
    let gatepost = gate(&postfix);
    let mut client = client_at_submissions(&gatepost);
    client.log_in(&gatepost.create());
    for marker in ["first", "second", "third"] {
        let message = hard_message(marker);
        client.send_message(&message).expect("250 2.0.0");
        assert_delivered(&postfix, marker, &message);
    }
}

#[test]
fn a_stopped_postfix_is_454_and_a_restarted_one_takes_mail_again() {
    let mut postfix = Postfix::start(Sockets::Tcp);
    let gatepost = gate(&postfix);
    let credential = gatepost.create();
    postfix.stop();
    let mut client = client_at_submissions(&gatepost);
    client.expect("EHLO client.example", "250");
    client.auth_plain(&credential).expect("454 4.7.0");
    postfix.restart();
    // The same session: 454 leaves it usable.
    client.auth_plain(&credential).expect("235 2.7.0");
    deliver(&postfix, client, &credential, "after-the-stop");
}

#[test]
fn nothing_relays_without_authentication() {
    let postfix = Postfix::start(Sockets::Tcp);
    let gatepost = gate(&postfix);
    let credential = gatepost.create();
    for mut client in [
        client_at_submission(&gatepost),
        client_at_submissions(&gatepost),
    ] {
        client.expect("EHLO client.example", "250");
        client
            .auth_plain(&credential.with_wrong_password())
            .expect("535 5.7.8");
        client.expect("XCLIENT LOGIN=anybody", "502");
        client.expect("MAIL FROM:<sender@example.test>", "530");
        client.expect("RCPT TO:<box@elsewhere.example>", "530");
        client.expect("DATA", "530");
        client.expect("QUIT", "221");
    }
    assert!(
        !postfix.log().contains("sasl_username="),
        "{}",
        postfix.log()
    );
    assert!(!postfix.log().contains("queued"), "{}", postfix.log());
}

#[test]
fn what_postfix_refuses_is_refused_in_its_own_words() {
    let postfix = Postfix::start(Sockets::Tcp);
    let gatepost = gate(&postfix);
    let mut client = client_at_submissions(&gatepost);
    client.log_in(&gatepost.create());
    client.expect("MAIL FROM:<sender@example.test>", "250 2.1.0 Ok");
    client.expect(
        "MAIL FROM:<sender@example.test>",
        "503 5.5.1 Error: nested MAIL command",
    );
    client.expect("RSET", "250 2.0.0 Ok");
}

#[test]
fn swaks_curl_python_and_msmtp_each_send_a_message() {
    let postfix = Postfix::start(Sockets::Tcp);
    let gatepost = gate(&postfix);
    let credential = gatepost.create();
    let message = gatepost.path("message");
    std::fs::write(&message, "Subject: by-curl\r\n\r\nhello\r\n").expect("write a message");

    let mut swaks = Command::new("swaks");
    swaks.args([
        "--server",
        &gatepost.submission.to_string(),
        "--tls",
        "--auth",
        "LOGIN",
    ]);
    swaks.args([
        "--auth-user",
        &credential.username,
        "--auth-password",
        &credential.password,
    ]);
    swaks.args(["--from", "sender@example.test", "--to", "box@example.test"]);
    swaks.args(["--header", "Subject: by-swaks"]);
    assert_success(&swaks.output().expect("run swaks"));

    let mut curl = Command::new("curl");
    curl.args([
        "--silent",
        "--show-error",
        "--insecure",
        "--mail-from",
        "sender@example.test",
    ]);
    curl.arg(format!("smtps://{}", gatepost.submissions))
        .arg("--upload-file")
        .arg(&message);
    curl.args(["--mail-rcpt", "box@example.test", "--user"]);
    curl.arg(format!("{}:{}", credential.username, credential.password));
    assert_success(&curl.output().expect("run curl"));

    let script = "import smtplib, ssl, sys\n\
        host, port, username, password = sys.argv[1:]\n\
        s = smtplib.SMTP(host, int(port))\n\
        s.starttls(context=ssl._create_unverified_context())\n\
        s.login(username, password)\n\
        text = 'Subject: by-python\\r\\n\\r\\nhello\\r\\n'\n\
        s.sendmail('sender@example.test', ['box@example.test'], text)\n\
        s.quit()\n";
    let mut python = Command::new("python3");
    python.args(["-c", script, &gatepost.submission.ip().to_string()]);
    python.arg(gatepost.submission.port().to_string());
    python.args([&credential.username, &credential.password]);
    assert_success(&python.output().expect("run python3"));

    let text = "Subject: by-msmtp\r\n\r\nhello\r\n.a dot\r\n";
    std::fs::write(&message, text).expect("write a message");
    let mut msmtp = Command::new("msmtp");
    msmtp.args([
        "--file=/dev/null",
        "--auth=plain",
        "--tls=on",
        "--tls-starttls=off",
    ]);
    msmtp.args([
        "--tls-certcheck=off",
        "--from=sender@example.test",
        "box@example.test",
    ]);
    msmtp.arg(format!("--host={}", gatepost.submissions.ip()));
    msmtp.arg(format!("--port={}", gatepost.submissions.port()));
    msmtp.arg(format!("--user={}", credential.username));
    msmtp.arg(format!("--passwordeval=echo {}", credential.password));
    msmtp.stdin(std::fs::File::open(&message).expect("open the message"));
    assert_success(&msmtp.output().expect("run msmtp"));

    for marker in [
        "Subject: by-msmtp",
        "Subject: by-swaks",
        "Subject: by-curl",
        "Subject: by-python",
    ] {
        postfix.wait_for_message(marker);
    }
}

#[track_caller]
fn assert_success(output: &Output) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}\n{stderr}",
        String::from_utf8_lossy(&output.stdout)
    );
}
