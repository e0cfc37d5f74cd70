//! Command lines and AUTH dialogs, said to Gatepost and to a real Postfix: both answer with the same
//! code, but where the documents list the difference with its reason.

use std::io::Write as _;
use std::process::{Command, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::postfix::{Postfix, Sockets};
use crate::support::site::{Config, Credential};

/// How far a session is when the line comes.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Stage {
    /// Greeted, inside TLS.
    Greeted,
    /// Logged in.
    LoggedIn,
    /// Behind MAIL.
    Sender,
    /// Behind MAIL and RCPT.
    Recipient,
}

use Stage::{Greeted, LoggedIn, Recipient, Sender};

/// Lines to which both answer with the same code.
const SAME: &[(Stage, &[u8])] = &[
    (Greeted, b"EHLO"),
    (Greeted, b"EHLO  "),
    (Greeted, b"EHLO client.example"),
    (Greeted, b"ehlo client.example"),
    (Greeted, b"EHLO client.example  "),
    (Greeted, b" EHLO client.example"),
    (Greeted, b"\tEHLO\tclient.example"),
    (Greeted, "EHLO büro-pc".as_bytes()),
    (Greeted, "EHLO компьютер".as_bytes()),
    (Greeted, b"EHLO my pc"),
    (Greeted, b"EHLO my_pc"),
    (Greeted, b"EHLO my%20pc"),
    (Greeted, b"EHLO my\tpc"),
    (Greeted, b"EHLO [192.0.2.7]"),
    (Greeted, b"EHLO [IPv6:2001:db8::7]"),
    (Greeted, b"EHLO [300.1.2.3]"),
    (Greeted, b"EHLO [x"),
    (Greeted, b"EHLO a..b"),
    (Greeted, b"EHLO ."),
    (Greeted, b"EHLO <pc>"),
    (Greeted, b"EHLO \"pc\""),
    (Greeted, b"EHLO a\x01b"),
    (Greeted, &[b'E', b'H', b'L', b'O', b' ', 0x7f]),
    (Greeted, b"HELO"),
    (Greeted, b"HELO client.example"),
    (Greeted, b"HELO my pc"),
    (Greeted, b"QUIT"),
    (Greeted, b"QUIT now"),
    (Greeted, b"NOOP"),
    (Greeted, b"NOOP a b"),
    (Greeted, b"NOOP\t"),
    (Greeted, b"RSET"),
    (Greeted, b"RSET x"),
    (Greeted, b"VRFY"),
    (Greeted, b""),
    (Greeted, b"FOO"),
    (LoggedIn, b"MAIL"),
    (LoggedIn, b"MAIL FROM"),
    (LoggedIn, b"MAIL FROM:"),
    (LoggedIn, b"MAIL FROM: "),
    (LoggedIn, b"MAIL FROM:<>"),
    (LoggedIn, b"MAIL FROM: <>"),
    (LoggedIn, b"MAIL FROM:<a@example.test>"),
    (LoggedIn, b"mail from:<a@example.test>"),
    (LoggedIn, b" MAIL FROM:<a@example.test>"),
    (LoggedIn, b"MAIL\tFROM:<a@example.test>"),
    (LoggedIn, b"MAIL  FROM:<a@example.test>"),
    (LoggedIn, b"MAIL FROM:\t<a@example.test>"),
    (LoggedIn, b"MAIL FROM:<a@example.test> "),
    (LoggedIn, b"MAIL FROM:<a@example.test>\t"),
    (LoggedIn, b"MAIL FROM:< a@example.test >"),
    (LoggedIn, b"MAIL FROM:a@example.test"),
    (LoggedIn, b"MAIL FROM: a@example.test"),
    (LoggedIn, b"MAIL FROM:a@example.test SIZE=10"),
    (LoggedIn, b"MAIL FROM:<a@example.test> SIZE=10"),
    (LoggedIn, b"MAIL FROM:<a@example.test> size=10 body=7bit"),
    (LoggedIn, b"MAIL FROM:<a@example.test>SIZE=10"),
    (LoggedIn, b"MAIL FROM:<a@example.test> SIZE"),
    (LoggedIn, b"MAIL FROM:<a@example.test> SIZE=x"),
    (LoggedIn, b"MAIL FROM:<a@example.test> X=1"),
    (LoggedIn, b"MAIL FROM:<a@example.test> RET=FULL ENVID=x"),
    (LoggedIn, b"MAIL FROM:<a@example.test> SMTPUTF8"),
    (LoggedIn, b"MAIL FROM:<a@example.test> AUTH=<>"),
    (LoggedIn, b"MAIL FROM:a@example.test b@example.test"),
    (LoggedIn, b"MAIL FROM:Name <a@example.test>"),
    (LoggedIn, b"MAIL FROM:<a b@example.test>"),
    (LoggedIn, b"MAIL FROM:\"a b\"@example.test"),
    (LoggedIn, b"MAIL FROM:<\"a b\"@example.test>"),
    (LoggedIn, b"MAIL FROM:<a\\@example.test>"),
    (LoggedIn, b"MAIL FROM:a\\@example.test"),
    (LoggedIn, b"MAIL FROM:<@a.test,@b.test:a@example.test>"),
    (LoggedIn, b"MAIL FROM:< >"),
    (LoggedIn, b"MAIL FROM:<<>>"),
    (LoggedIn, b"MAIL FROM:\"\""),
    (LoggedIn, b"MAIL FROM:<Name <>>"),
    (LoggedIn, b"MAIL FROM:<Name <a@example.test>> SIZE=10"),
    (LoggedIn, b"MAIL FROM:a\\ b@example.test SIZE=10"),
    (LoggedIn, b"MAIL FROM:<a@example.test\\>"),
    (LoggedIn, b"MAIL FROM:<a@example.test>x"),
    (LoggedIn, b"MAIL FROM:<a@example.test b>"),
    (LoggedIn, b"MAIL FROM:<\"a\"b@example.test>"),
    (LoggedIn, b"MAIL FROM:<\"a@example.test>"),
    (LoggedIn, b"MAIL FROM:<Name, x <a@example.test>>"),
    (LoggedIn, b"MAIL FROM:<Name <a@example.test> x>"),
    (LoggedIn, b"MAIL FROM:<@a.test:>"),
    (LoggedIn, b"MAIL FROM:<a@[192.0.2.7]>"),
    (LoggedIn, b"MAIL FROM:<a@b+c>"),
    (LoggedIn, b"MAIL FROM:<a@>"),
    (LoggedIn, b"MAIL FROM:<@>"),
    (LoggedIn, b"MAIL FROM:<a>"),
    (LoggedIn, b"MAIL FROM:a"),
    (LoggedIn, b"MAIL FROM:<a@example.test"),
    (LoggedIn, b"MAIL FROM:<a@example.test>,<b@example.test>"),
    (LoggedIn, b"MAIL FROM :<a@example.test>"),
    (LoggedIn, b"MAIL TO:<a@example.test>"),
    (LoggedIn, b"MAIL a@example.test"),
    (LoggedIn, b"RCPT TO:<box@example.test>"),
    (LoggedIn, b"DATA"),
    (LoggedIn, b"AUTH PLAIN"),
    (Sender, b"RCPT"),
    (Sender, b"RCPT TO:"),
    (Sender, b"RCPT TO:<>"),
    (Sender, b"RCPT TO:<box@example.test>"),
    (Sender, b"RCPT TO:box@example.test"),
    (Sender, b"RCPT TO: box@example.test"),
    (Sender, b"RCPT TO:box@example.test NOTIFY=NEVER"),
    (Sender, b"RCPT TO:<box@example.test> NOTIFY=NEVER"),
    (Sender, b"RCPT TO:<box@example.test> X"),
    (Sender, b"RCPT TO:<@a.test:box@example.test>"),
    (Sender, b"RCPT TO:box@example.test box@example.test"),
    (Sender, b"RCPT TO:Name <box@example.test>"),
    (Sender, b"RCPT TO:<box@example.test"),
    (Sender, b"RCPT TO:box@example.test,box@example.test"),
    (Sender, b"RCPT FROM:<box@example.test>"),
    (Sender, b"MAIL FROM:<b@example.test>"),
    (Sender, b"DATA"),
    (Recipient, b"DATA"),
    (Recipient, b"DATA now"),
    (Recipient, b"RSET"),
    (Recipient, b"QUIT now"),
    (Recipient, b"EHLO client.example"),
    (Recipient, b"HELO client.example"),
];

/// Lines to which Gatepost has an answer of its own: the line, Postfix's code and Gatepost's. The
/// page of the differences has the reasons.
const DIFFERENT: &[(Stage, &[u8], u16, u16)] = &[
    (Greeted, b"EHLO b\xfcro-pc", 500, 250),
    (Greeted, b"EHLO a\0b", 250, 500),
    (Greeted, b"NOOP a\0b", 250, 500),
    (Greeted, b"AUTH PLAIN", 334, 503),
    (Greeted, b"HELP", 500, 214),
    (Greeted, b"VRFY a b", 501, 252),
    (Greeted, b"EXPN a", 500, 502),
    (Greeted, b"TURN", 500, 502),
    (Greeted, b"XCLIENT NAME=a", 550, 502),
    (Greeted, b"GET / HTTP/1.0", 221, 500),
    (Greeted, b"STARTTLS", 554, 503),
    (Greeted, b"DATA", 503, 530),
    (Greeted, b"MAIL FROM:<a@example.test>", 250, 530),
    (LoggedIn, b"MAIL FROM:<a@example.test> BODY=x", 555, 501),
    (LoggedIn, b"MAIL FROM:<Name: <a@example.test>>", 501, 250),
    (LoggedIn, b"MAIL FROM:<Name:a@example.test;>", 250, 501),
    (LoggedIn, b"MAIL FROM:<a(@example.test>", 250, 501),
    (LoggedIn, b"MAIL FROM:<a@[192.0.2.7>", 250, 501),
    (LoggedIn, b"MAIL FROM:<>a@example.test", 250, 501),
    (LoggedIn, b"MAIL FROM:<a\x01@example.test>", 250, 500),
];

struct Pair {
    gatepost: Gatepost,
    postfix: Postfix,
    credential: Credential,
}

impl Pair {
    fn start() -> Pair {
        let postfix = Postfix::start(Sockets::Tcp);
        let config = Config::for_upstream(postfix.upstream());
        let gatepost = Gatepost::start(postfix.asks(config));
        let credential = gatepost.create();
        Pair {
            gatepost,
            postfix,
            credential,
        }
    }

    /// A session inside TLS with each: Gatepost's, then Postfix's.
    fn sessions(&self) -> [Client; 2] {
        let mut direct = Client::dial(self.postfix.direct_tls).unwrap().over_tls();
        direct.reply().expect("220");
        [Client::submissions(&self.gatepost), direct]
    }

    fn codes(&self, stage: Stage, line: &[u8]) -> [u16; 2] {
        self.sessions().map(|mut client| {
            if stage != Greeted {
                client.log_in(&self.credential);
            }
            if matches!(stage, Sender | Recipient) {
                client.expect("MAIL FROM:<sender@example.test>", "250");
            }
            if stage == Recipient {
                client.expect("RCPT TO:<box@example.test>", "250");
            }
            client.write(&[line, b"\r\n"].concat());
            code(&client.reply().lines)
        })
    }
}

fn code(lines: &[String]) -> u16 {
    lines[0][..3].parse().expect("a reply code")
}

#[test]
fn command_lines_get_the_code_that_postfix_gives() {
    let pair = Pair::start();
    let same = SAME.iter().filter_map(|&(stage, line)| {
        let [gatepost, postfix] = pair.codes(stage, line);
        (gatepost != postfix).then_some((stage, line, postfix, gatepost))
    });
    let different = DIFFERENT.iter().filter_map(|&(stage, line, postfix, own)| {
        let found = pair.codes(stage, line);
        (found != [own, postfix]).then_some((stage, line, found[1], found[0]))
    });
    let wrong: Vec<_> = same
        .chain(different)
        .map(|(stage, line, postfix, gatepost)| {
            let line = line.escape_ascii();
            format!("{stage:?} {line}: Postfix {postfix}, Gatepost {gatepost}")
        })
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Spellings of recipients that Postfix takes.
const SPELLINGS: &[&str] = &[
    "a@example.test",
    "<a@example.test>",
    "< a@example.test >",
    "<a @ example . test>",
    "<a\t@example.test>",
    "<<a@example.test>>",
    "a@example.test>",
    "<a@example.test>>",
    "<a@example.test>;",
    "a@example.test,",
    ",a@example.test",
    "<a@example.test;>",
    "<Office <a@example.test>>",
    "<Office at home <a@example.test>>",
    "<\"Of>fice\" <a@example.test>>",
    "<b@example.test <a@example.test>>",
    "<Office (x) <a@example.test> (y)>",
    "a<a@example.test>",
    "(x)a@example.test",
    "<a(>)@example.(\\)y)test>",
    "<a((x)y)@example.test>",
    "<a)@example.test>",
    "<\"a\"@example.test>",
    "<\"a@example.test\">",
    "<a@\"example\".test>",
    "<\"a\".b@example.test>",
    "<\"a b\"@example.test>",
    "<\"a\tb\"@example.test>",
    "<\"a>b\"@example.test>",
    "<\"a\\\"b\\\\\"@example.test>",
    "<\"a@b\"@example.test>",
    "<\"\"@example.test>",
    "<\\a@example.test>",
    "<a\\@example.test>",
    "<a\\@b@example.test>",
    "<a@b@example.test>",
    "a\\ b@example.test",
    "<a\\\tb@example.test>",
    "<a\\>b@example.test>",
    "<a\\\"b\\\\@example.test>",
    "a@example.test\\",
    "a:b@example.test",
    "mailto:a@example.test",
    ".a..b.@example.test",
    "[a]@example.test",
    "a%b@example.test",
    "a!b@example.test",
    "'a'@example.test",
    "<@b.test,@c.test:a@example.test>",
    "@b.test:a@example.test",
    "<@example.test>",
    "\u{e9}@example.test",
    "<\"\u{e9} b\"@example.test>",
];

#[test]
fn postfix_reads_the_same_address_as_in_the_spelling_that_came() {
    let settings = "virtual_mailbox_maps = inline:{box@example.test=box/}\n\
                    smtpd_error_sleep_time = 0\nsmtpd_hard_error_limit = 1000\n";
    let postfix = Postfix::start_with(Sockets::Tcp, settings);
    let config = Config::for_upstream(postfix.upstream()).number("limits", "errors", 1_000);
    let gatepost = Gatepost::start(postfix.asks(config));
    let credential = gatepost.create();
    let pair = Pair {
        gatepost,
        postfix,
        credential,
    };
    let [mut gatepost, mut postfix] = pair.sessions().map(|mut client| {
        client.log_in(&pair.credential);
        client.expect("MAIL FROM:<sender@example.test> SMTPUTF8", "250");
        client
    });
    for spelling in SPELLINGS {
        let line = format!("RCPT TO:{spelling}");
        // Postfix names the address in the refusal.
        let refusal = postfix.command(&line);
        let text = refusal.lines.join("\n");
        assert!(text.starts_with("550 5.1.1 <"), "{line}: {text}");
        assert_eq!(gatepost.command(&line).lines, refusal.lines, "{line}");
    }
}

#[test]
fn the_page_has_each_difference() {
    let page = include_str!("../docs/src/integrate/postfix-front.md");
    for (_, line, postfix, gatepost) in DIFFERENT {
        let line = line.escape_ascii().to_string();
        let row = page
            .lines()
            .find(|row| row.starts_with("| `") && row.contains(&format!("`{line}`")));
        let row = row.unwrap_or_else(|| panic!("{line} is missing"));
        let codes = format!("| {postfix} | {gatepost} |");
        assert!(row.contains(&codes), "{line}: no {codes} in {row}");
    }
}

/// An AUTH dialog as lines, and the codes of both. `{…}` is sent as base64, in which `U` and `P`
/// stand for the right username and password and `0` for NUL; other lines go as they are.
const DIALOGS: &[(&[&str], &[u16])] = &[
    (&["EHLO c", "AUTH PLAIN {0U0P}"], &[250, 235]),
    (&["HELO c", "AUTH PLAIN {0U0P}"], &[250, 235]),
    (&["EHLO büro pc", "AUTH PLAIN {0U0P}"], &[250, 235]),
    (&["EHLO c", "auth plain {0U0P}"], &[250, 235]),
    (&["EHLO c", "AUTH PLAIN {U0U0P}"], &[250, 235]),
    (&["EHLO c", "AUTH PLAIN", "{0U0P}"], &[250, 334, 235]),
    (&["HELO c", "AUTH PLAIN", "{0U0P}"], &[250, 334, 235]),
    (&["EHLO c", "AUTH PLAIN ", "{0U0P}"], &[250, 334, 235]),
    (
        &["EHLO c", "AUTH LOGIN", "{U}", "{P}"],
        &[250, 334, 334, 235],
    ),
    (
        &["HELO c", "AUTH LOGIN", "{U}", "{P}"],
        &[250, 334, 334, 235],
    ),
    (
        &["EHLO c", "AUTH login", "{U}", "{P}"],
        &[250, 334, 334, 235],
    ),
    (&["EHLO c", "AUTH LOGIN {U}", "{P}"], &[250, 334, 235]),
    (&["EHLO c", " AUTH LOGIN {U}", "{P}"], &[250, 334, 235]),
    (&["EHLO c", "AUTH PLAIN {0U0x}"], &[250, 535]),
    (&["EHLO c", "AUTH PLAIN {0x0P}"], &[250, 535]),
    (
        &["EHLO c", "AUTH LOGIN", "{U}", "{x}"],
        &[250, 334, 334, 535],
    ),
    (
        &["EHLO c", "AUTH LOGIN", "{x}", "{P}"],
        &[250, 334, 334, 535],
    ),
    (
        &["EHLO c", "AUTH PLAIN {0U0x}", "AUTH PLAIN {0U0P}"],
        &[250, 535, 235],
    ),
    (
        &["EHLO c", "AUTH LOGIN", "*", "AUTH PLAIN {0U0P}"],
        &[250, 334, 501, 235],
    ),
    (&["EHLO c", "AUTH LOGIN", "{U}", "*"], &[250, 334, 334, 501]),
    (&["EHLO c", "AUTH PLAIN", "*"], &[250, 334, 501]),
    (&["AUTH PLAIN {0U0P}"], &[235]),
    (&["EHLO c", "AUTH"], &[250, 501]),
    (
        &["EHLO c", "AUTH PLAIN {0U0P}", "AUTH PLAIN {0U0P}"],
        &[250, 235, 503],
    ),
    (
        &["EHLO c", "AUTH PLAIN {0U0P}", "AUTH LOGIN"],
        &[250, 235, 503],
    ),
    (
        &["EHLO c", "AUTH PLAIN {0U0P}", "STARTTLS"],
        &[250, 235, 554],
    ),
    (&["EHLO c", "AUTH PLAIN {0U0P}", "EHLO c"], &[250, 235, 250]),
    (
        &[
            "EHLO c",
            "AUTH PLAIN {0U0P}",
            "RSET",
            "MAIL FROM:a@example.test",
        ],
        &[250, 235, 250, 250],
    ),
    (&["EHLO c", "AUTH CRAM-MD5"], &[250, 535]),
    (&["EHLO c", "AUTH FOO"], &[250, 535]),
    (&["EHLO c", "AUTH PLAIN =="], &[250, 535]),
    (&["EHLO c", "AUTH PLAIN x"], &[250, 535]),
    (&["EHLO c", "AUTH PLAIN {U}"], &[250, 535]),
    (&["EHLO c", "AUTH LOGIN", "x"], &[250, 334, 535]),
];

/// Dialogs in which the last code of Gatepost is another one: RFC 4954 names it for the case, and
/// Postfix leaves every failure to its SASL library.
const OTHER_END: &[(&[&str], u16)] = &[
    (&["AUTH PLAIN {0U0P}"], 503),
    (&["EHLO c", "AUTH PLAIN {0U0P}", "STARTTLS"], 503),
    (&["EHLO c", "AUTH CRAM-MD5"], 504),
    (&["EHLO c", "AUTH FOO"], 504),
    (&["EHLO c", "AUTH PLAIN =="], 501),
    (&["EHLO c", "AUTH PLAIN x"], 501),
    (&["EHLO c", "AUTH PLAIN {U}"], 501),
    (&["EHLO c", "AUTH LOGIN", "x"], 501),
];

#[test]
fn auth_dialogs_get_the_codes_that_postfix_gives() {
    let pair = Pair::start();
    let said = |line: &str| {
        let Some((before, rest)) = line.split_once('{') else {
            return line.to_owned();
        };
        let coded = rest.strip_suffix('}').expect("a closing brace");
        let plain: String = coded
            .chars()
            .map(|c| match c {
                'U' => pair.credential.username.clone(),
                'P' => pair.credential.password.clone(),
                '0' => "\0".to_owned(),
                other => other.to_string(),
            })
            .collect();
        format!("{before}{}", STANDARD.encode(plain))
    };
    let mut wrong = Vec::new();
    for (dialog, codes) in DIALOGS {
        let found = pair.sessions().map(|mut client| {
            let replies = dialog
                .iter()
                .map(|line| code(&client.command(&said(line)).lines));
            replies.collect::<Vec<_>>()
        });
        let mut own = codes.to_vec();
        if let Some((_, end)) = OTHER_END.iter().find(|(other, _)| other == dialog) {
            *own.last_mut().expect("a code") = *end;
        }
        if found != [own, codes.to_vec()] {
            wrong.push(format!("{dialog:?}: Gatepost and Postfix {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A program with the name that a computer of today calls itself by.
fn program(name: &str, gatepost: &Gatepost, credential: &Credential) -> Command {
    let (username, password) = (&credential.username, &credential.password);
    let (tls, submission) = (gatepost.submissions, gatepost.submission.to_string());
    let mut command = Command::new(name);
    match name {
        "curl" => command
            .args([
                "--silent",
                "--show-error",
                "--insecure",
                "--upload-file",
                "-",
            ])
            .arg(format!("smtps://{tls}/b%C3%BCro%20pc"))
            .args(["--mail-from", "sender@example.test"])
            .args(["--mail-rcpt", "box@example.test"])
            .args(["--user", &format!("{username}:{password}")]),
        "swaks" => command
            .args(["--server", &submission, "--tls", "--auth", "PLAIN"])
            .args(["--auth-user", username, "--auth-password", password])
            .args(["--ehlo", "büro pc", "--data", "-"])
            .args(["--from", "sender@example.test", "--to", "box@example.test"]),
        "ruby" => command
            .args(["-rnet/smtp", "-e", RUBY, &tls.ip().to_string()])
            .args([&tls.port().to_string(), username, password]),
        other => panic!("how is {other} run?"),
    };
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::piped());
    command
}

const RUBY: &str = "host, port, username, password = ARGV
smtp = Net::SMTP.new(host, port.to_i)
smtp.enable_tls(OpenSSL::SSL::SSLContext.new.tap { |tls| tls.verify_mode = 0 })
smtp.start('büro pc', username, password, :login) do |session|
  session.send_message($stdin.read, 'sender@example.test', 'box@example.test')
end";

#[test]
fn programs_on_a_computer_with_any_name_deliver() {
    let pair = Pair::start();
    for name in ["curl", "swaks", "ruby"] {
        let mut child = program(name, &pair.gatepost, &pair.credential)
            .spawn()
            .expect("run a program");
        let message = format!("Subject: by-{name}\r\n\r\nhello\r\n");
        let mut input = child.stdin.take().expect("its input");
        input.write_all(message.as_bytes()).expect("write");
        drop(input);
        let output = child.wait_with_output().expect("wait for it");
        assert!(output.status.success(), "{name}: {output:?}");
        let delivered = pair
            .postfix
            .wait_for_message(&format!("Subject: by-{name}"));
        let text = String::from_utf8_lossy(&delivered);
        assert!(text.contains("from b-ro-pc ("), "{name}:\n{text}");
        let helo = "helo=\"büro pc\"";
        pair.gatepost
            .wait_for_log(&["session ended", helo, "messages=1"]);
    }
}

#[test]
fn an_old_device_delivers_without_ehlo_and_without_brackets() {
    let pair = Pair::start();
    let mut client = Client::submissions(&pair.gatepost);
    client.write(b"HELO B\xdcRO_1\r\n");
    client.reply().expect("250");
    client.auth_login(&pair.credential).expect("235");
    client.expect("MAIL FROM: sender@example.test", "250");
    client.expect("RCPT TO:box@example.test", "250");
    client.expect("DATA", "354");
    client.expect("Subject: by-hand\r\n\r\nhello\r\n.", "250");
    client.expect("QUIT now", "221");
    let delivered = pair.postfix.wait_for_message("Subject: by-hand");
    let text = String::from_utf8_lossy(&delivered);
    assert!(text.contains("from B-RO_1 ("), "{text}");
    pair.gatepost.wait_for_log(&["helo=\"BÜRO_1\""]);
}
