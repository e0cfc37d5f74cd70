//! A login with the temporary credential, and whether the MTA takes mail from it: an envelope is
//! begun and taken back, and no message is sent.

use super::conversation::{Conversation, Fault, Said};
use super::finding::Finding;
use super::restrictions;
use super::settings::Settings;
use crate::config::IdentityBy;

const LOGIN: &str = "login";
const IDENTITY: &str = "identity";
const PIPELINING: &str = "pipelining";

/// What became of a login at `place`.
pub fn judge(place: &str, said: &Result<Said, Fault>) -> Finding {
    let problem = |found: String, next: &str| Finding::problem(LOGIN, found, next);
    match said {
        Ok(said) if said.code == 235 => {
            let found = format!("{place}: logged in, and the upstream took the session over");
            Finding::ok(LOGIN, found)
        }
        Ok(said) if said.code == 454 => problem(
            format!("{place}: a right password gets {}", said.words()),
            "what is said of the upstream here is the cause; otherwise the reason is in journalctl -u gatepost -n 20",
        ),
        Ok(said) if said.code == 535 => problem(
            format!("{place}: a right password gets {}", said.words()),
            "is its organization suspended (gatepost organization list; another one: --org SLUG), or has store.path changed since Gatepost was started (systemctl restart gatepost)?",
        ),
        Ok(said) => problem(
            format!("{place}: a right password gets {}", said.words()),
            "journalctl -u gatepost -n 20",
        ),
        Err(fault) => problem(
            format!("{place}: no answer to a login: {fault}"),
            "journalctl -u gatepost -n 20",
        ),
    }
}

/// Who the envelope is from and to; no sender is the null reverse-path.
pub struct Envelope<'a> {
    /// The sender.
    pub from: &'a str,
    /// The recipient.
    pub to: &'a str,
    /// How the MTA is told whose session it is.
    pub told_by: IdentityBy,
}

/// The replies to an envelope.
pub struct Replies {
    mail: Said,
    recipient: Said,
    reset: Said,
    together: bool,
}

/// Begins an envelope and takes it back, with all commands sent together where `pipelines`.
pub async fn try_envelope(
    conversation: &mut Conversation,
    envelope: &Envelope<'_>,
    pipelines: bool,
) -> Result<Replies, Fault> {
    let commands = [
        format!("MAIL FROM:<{}>\r\n", envelope.from),
        format!("RCPT TO:<{}>\r\n", envelope.to),
        "RSET\r\n".to_owned(),
    ];
    if pipelines {
        conversation.say(&commands.concat()).await?;
    }
    let mut replies = Vec::new();
    for command in &commands {
        if !pipelines {
            conversation.say(command).await?;
        }
        replies.push(conversation.reply().await?);
    }
    let mut replies = replies.into_iter();
    let mut next = || replies.next().ok_or(Fault::Closed);
    Ok(Replies {
        mail: next()?,
        recipient: next()?,
        reset: next()?,
        together: pipelines,
    })
}

/// Where the login is not told, and the MTA asks for one.
const UNTOLD: &str = "with this upstream.identity the MTA is told no login: that service has to take mail \
    from all sessions that Gatepost hands over (its smtpd_relay_restrictions, \
    smtpd_recipient_restrictions and mynetworks), and nobody else may reach it";

/// Whether mail is taken from whoever is logged in.
pub fn judge_envelope(
    replies: &Result<Replies, Fault>,
    envelope: &Envelope,
    settings: &Settings,
) -> Vec<Finding> {
    let replies = match replies {
        Ok(replies) => replies,
        Err(fault) => {
            let found = format!("the session ended after the login: {fault}");
            return vec![Finding::problem(
                IDENTITY,
                found,
                "Postfix's log says why it went away",
            )];
        }
    };
    let all = [&replies.mail, &replies.recipient, &replies.reset];
    if all.into_iter().any(is_cut_off) {
        let said = all.into_iter().find(|said| is_cut_off(said));
        let words = said.map(Said::words).unwrap_or_default();
        let found = format!("commands that are sent together are taken for an attack: {words}");
        let finding = Finding::problem(PIPELINING, found, settings.add_to_service());
        let lines = vec!["-o smtpd_forbid_unauth_pipelining=no".to_owned()];
        return vec![finding.with_lines("master.cf", lines)];
    }
    let mut findings = Vec::new();
    if replies.together {
        let setting = settings
            .service()
            .and_then(|service| service.value("smtpd_forbid_unauth_pipelining"));
        let setting = setting.map(|value| format!(" (smtpd_forbid_unauth_pipelining={value})"));
        let setting = setting.unwrap_or_default();
        let found = format!("commands may be sent together{setting}");
        findings.push(Finding::ok(PIPELINING, found));
    }
    findings.push(judge_identity(replies, envelope, settings));
    findings
}

fn judge_identity(replies: &Replies, envelope: &Envelope, settings: &Settings) -> Finding {
    let refused = match (&replies.mail, &replies.recipient) {
        (mail, _) if mail.code != 250 => mail,
        (_, recipient) if recipient.code != 250 => recipient,
        _ => {
            let found = "the MTA takes mail from whoever is logged in (tried without a message)";
            return Finding::ok(IDENTITY, found);
        }
    };
    let words = refused.words();
    if let Some(list) = refusing_list(&words) {
        let found = format!("Postfix refuses the client before its login counts: {words}");
        let next = settings.add_to_service();
        return Finding::problem(IDENTITY, found, next)
            .with_lines("master.cf", vec![format!("-o {list}=")]);
    }
    if is_denied(refused) {
        let found = format!("the MTA does not take mail from whoever is logged in: {words}");
        if matches!(envelope.told_by, IdentityBy::None | IdentityBy::Proxy) {
            return Finding::problem(IDENTITY, found, UNTOLD);
        }
        let next = format!(
            "Postfix ignores the login, or does not permit it; see what is said of sasl here; if that is well, {}",
            settings.add_to_service()
        );
        return Finding::problem(IDENTITY, found, next)
            .with_lines("master.cf", restrictions::lines());
    }
    let Envelope { from, to, .. } = envelope;
    Finding {
        next: Some(
            "try again with addresses that your users may use: --from ADDRESS --to ADDRESS".into(),
        ),
        ..Finding::unknown(
            IDENTITY,
            format!(
                "whether the MTA takes mail from whoever is logged in could not be told: an envelope from <{from}> to <{to}> got {words}"
            ),
        )
    }
}

/// The list that refused a client for its address, its name or its EHLO, whatever the envelope.
fn refusing_list(words: &str) -> Option<&'static str> {
    let lists = [
        ("Client host rejected", "smtpd_client_restrictions"),
        ("Helo command rejected", "smtpd_helo_restrictions"),
    ];
    let own = |(said, _): &&(&str, _)| words.contains(said);
    lists.iter().find(own).map(|(_, list)| *list)
}

/// Postfix's words for `reject` and `reject_unauth_destination`: whoever is not permitted.
fn is_denied(said: &Said) -> bool {
    let words = said.words();
    said.code / 100 == 5
        && (words.contains("Access denied") || words.contains("Relay access denied"))
}

/// Postfix's words for pipelining that it forbids.
fn is_cut_off(said: &Said) -> bool {
    let words = said.words();
    said.code / 100 == 5 && (words.contains("pipelining") || words.contains("synchronization"))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::settings::tests::with;
    use super::*;

    fn said(text: &str) -> Said {
        let (code, text) = text.split_once(' ').unwrap();
        Said {
            code: code.parse().unwrap(),
            lines: vec![text.to_owned()],
        }
    }

    fn envelope(mail: &str, recipient: &str) -> (Level, &'static str) {
        let replies = Replies {
            mail: said(mail),
            recipient: said(recipient),
            reset: said("250 2.0.0 Ok"),
            together: true,
        };
        let addresses = Envelope {
            from: "",
            to: "x@x.invalid",
            told_by: IdentityBy::Xclient,
        };
        let findings = judge_envelope(&Ok(replies), &addresses, &with("3.7.11", &[]));
        let last = findings.last().unwrap();
        (last.level, last.check)
    }

    #[test]
    fn only_a_denial_says_that_the_login_does_not_count() {
        let ok = "250 2.1.0 Ok";
        for (mail, recipient, level, check) in [
            (ok, "250 2.1.5 Ok", Level::Ok, IDENTITY),
            (
                ok,
                "554 5.7.1 <x@x.invalid>: Recipient address rejected: Access denied",
                Level::Problem,
                IDENTITY,
            ),
            (
                ok,
                "554 5.7.1 <x@x.invalid>: Relay access denied",
                Level::Problem,
                IDENTITY,
            ),
            (
                ok,
                "450 4.7.25 Client host rejected: cannot find your hostname, [203.0.113.7]",
                Level::Problem,
                IDENTITY,
            ),
            (
                ok,
                "450 4.1.2 <x@x.invalid>: Recipient address rejected: Domain not found",
                Level::Unknown,
                IDENTITY,
            ),
            (
                "553 5.7.1 <>: Sender address rejected: not owned by user",
                "503 5.5.1 Error: need MAIL command",
                Level::Unknown,
                IDENTITY,
            ),
            (
                "554 5.5.0 Error: SMTP protocol synchronization",
                ok,
                Level::Problem,
                PIPELINING,
            ),
        ] {
            assert_eq!(envelope(mail, recipient), (level, check), "{recipient}");
        }
    }

    #[test]
    fn each_refusal_of_a_login_has_its_next_step() {
        let judged = |text: &str| judge("submission", &Ok(said(text)));
        assert_eq!(
            judged("235 2.7.0 Authentication successful").level,
            Level::Ok
        );
        for (text, next) in [
            ("454 4.7.0 Temporary authentication failure", "upstream"),
            ("535 5.7.8 Authentication credentials invalid", "suspended"),
            ("421 4.7.0 Too many errors", "journalctl"),
        ] {
            let finding = judged(text);
            assert_eq!(finding.level, Level::Problem);
            assert!(finding.next.unwrap().contains(next), "{text}");
        }
    }
}
