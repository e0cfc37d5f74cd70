//! A listener as a mail program meets it, up to where it would log in.

use std::io;

use rustls::pki_types::{CertificateDer, ServerName};

use super::conversation::{Conversation, Fault, Said};
use super::finding::Finding;
use crate::config::{Listener, ListenerKind};

const CHECK: &str = "listener";

/// What stands in every greeting of ours.
const GREETING: &str = "ESMTP Gatepost";

/// Where it ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Connecting.
    Connect,
    /// The TLS handshake.
    Tls,
    /// The greeting.
    Greeting,
    /// EHLO, in the clear or inside TLS.
    Ehlo,
    /// STARTTLS.
    StartTls,
}

/// A listener that works, inside TLS and greeted.
pub struct Met {
    /// Where to log in.
    pub conversation: Conversation,
    /// What was shown, the server's own first.
    pub chain: Vec<CertificateDer<'static>>,
    /// What it offers.
    offers: Offers,
    tls: &'static str,
}

/// What it says in reply to EHLO.
struct Offers {
    greeting: Said,
    clear: Option<Said>,
    inside: Said,
}

impl Met {
    /// Whether commands may be sent together.
    pub fn pipelines(&self) -> bool {
        self.offers.inside.offers("PIPELINING").is_some()
    }
}

/// Goes up to where a mail program would log in.
pub async fn meet(
    listener: &Listener,
    name: &ServerName<'static>,
    own: &str,
) -> Result<Met, (Step, Fault)> {
    let at = |step| move |fault| (step, fault);
    let dialled = Conversation::dial(listener).await;
    let mut conversation = dialled.map_err(at(Step::Connect))?;
    let ehlo = format!("EHLO {own}");
    let mut shake = None;
    if listener.kind == ListenerKind::Submissions {
        shake = Some(conversation.secure(name).await.map_err(at(Step::Tls))?);
    }
    let greeting = conversation.greeting().await.map_err(at(Step::Greeting))?;
    let mut clear = None;
    if listener.kind == ListenerKind::Submission {
        let said = conversation.expect(&ehlo, 250).await;
        clear = Some(said.map_err(at(Step::Ehlo))?);
        let said = conversation.expect("STARTTLS", 220).await;
        said.map_err(at(Step::StartTls))?;
        shake = Some(conversation.secure(name).await.map_err(at(Step::Tls))?);
    }
    let inside = conversation.expect(&ehlo, 250).await;
    let inside = inside.map_err(at(Step::Ehlo))?;
    let (tls, chain) = shake.ok_or((Step::Tls, Fault::Closed))?;
    Ok(Met {
        conversation,
        chain,
        offers: Offers {
            greeting,
            clear,
            inside,
        },
        tls,
    })
}

/// Whether somebody accepts connections and then says nothing, as systemd does for a service that
/// does not start, or nobody accepts any.
pub fn is_absent(step: Step, fault: &Fault) -> bool {
    match fault {
        Fault::Io(_) => step == Step::Connect,
        Fault::Silent => matches!(step, Step::Connect | Step::Greeting | Step::Tls),
        Fault::Closed | Fault::Protocol(_) | Fault::Said(_) => false,
    }
}

/// What mail programs will make of it.
pub fn judge(listener: &Listener, met: &Result<Met, (Step, Fault)>) -> Finding {
    let place = place(listener);
    match met {
        Ok(met) => judge_offers(&place, &met.offers, met.tls),
        Err((step, fault)) => judge_fault(&place, *step, fault, next(*step, fault)),
    }
}

/// Kind and address, for people.
pub fn place(listener: &Listener) -> String {
    format!("{} {}", listener.kind, listener.address)
}

fn judge_offers(place: &str, offers: &Offers, tls: &str) -> Finding {
    let problem = |found: String, next: &str| Finding::problem(CHECK, found, next);
    let greeting = offers.greeting.words();
    if !greeting.contains(GREETING) {
        return problem(
            format!("{place}: it is not Gatepost that answers there, it said {greeting}"),
            "see who has the port (ss -ltnp); if it is Postfix, comment out its services submission and submissions in master.cf, then: postfix reload && systemctl restart gatepost.socket gatepost",
        );
    }
    let clear = offers.clear.as_ref();
    if clear.is_some_and(|said| said.offers("AUTH").is_some()) {
        let found = format!("{place}: AUTH is offered before TLS");
        return problem(found, "please report it: Gatepost never does that");
    }
    let said = &offers.inside;
    let Some(mechanisms) = said.offers("AUTH").filter(|offer| offer.contains("PLAIN")) else {
        let found = format!("{place}: AUTH PLAIN is not offered inside TLS");
        return problem(found, "please report it: Gatepost always does that");
    };
    let start = if clear.is_some() { "STARTTLS, " } else { "" };
    let size = said.offers("SIZE").unwrap_or("unlimited");
    Finding::ok(
        CHECK,
        format!("{place}: {start}{tls}, AUTH {mechanisms}, SIZE {size}"),
    )
}

/// The step where Gatepost's own listener does not answer.
fn next(step: Step, fault: &Fault) -> &'static str {
    let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    match (step, fault) {
        (Step::Connect, Fault::Io(error)) if refused(error) => {
            "the running Gatepost does not listen there; was it started before that was written? systemctl daemon-reload && systemctl restart gatepost.socket gatepost"
        }
        (Step::Connect, _) => "is the address one of this machine's (ip address)?",
        (Step::Greeting, Fault::Silent | Fault::Closed) => {
            "is it Gatepost that has the port (ss -ltnp)? then: journalctl -u gatepost -n 50"
        }
        (Step::Greeting, Fault::Said(words)) if words.contains("Too many connections") => {
            "limits.connections is reached; raise it"
        }
        (Step::Tls, _) => {
            "does that listener have the kind it is configured with? then: journalctl -u gatepost -n 50"
        }
        _ => "journalctl -u gatepost -n 50",
    }
}

/// That a listener fails at this step.
pub fn judge_fault(place: &str, step: Step, fault: &Fault, next: &str) -> Finding {
    let doing = match step {
        Step::Connect => "cannot connect",
        Step::Tls => "no TLS",
        Step::Greeting => "no greeting",
        Step::Ehlo => "no answer to EHLO",
        Step::StartTls => "no STARTTLS",
    };
    Finding::problem(CHECK, format!("{place}: {doing}: {fault}"), next)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;

    fn said(code: u16, lines: &[&str]) -> Said {
        Said {
            code,
            lines: lines.iter().map(ToString::to_string).collect(),
        }
    }

    fn offers(greeting: &str, clear: &[&str], inside: &[&str]) -> Finding {
        let offers = Offers {
            greeting: said(220, &[greeting]),
            clear: (!clear.is_empty()).then(|| said(250, clear)),
            inside: said(250, inside),
        };
        judge_offers("submission 127.0.0.1:587", &offers, "TLSv1.3")
    }

    #[test]
    fn what_is_offered_is_looked_at() {
        let own = "mail.test ESMTP Gatepost";
        let clear = ["mail.test", "STARTTLS"];
        let inside = ["mail.test", "SIZE 1000", "AUTH PLAIN LOGIN"];
        let good = offers(own, &clear, &inside);
        assert_eq!(good.level, Level::Ok);
        assert!(
            good.found
                .ends_with("STARTTLS, TLSv1.3, AUTH PLAIN LOGIN, SIZE 1000"),
            "{}",
            good.found
        );
        for bad in [
            offers("mail.test ESMTP Postfix", &clear, &inside),
            offers(own, &["mail.test", "AUTH PLAIN"], &inside),
            offers(own, &clear, &["mail.test"]),
        ] {
            assert_eq!(bad.level, Level::Problem);
        }
    }

    #[test]
    fn nobody_there_is_told_from_somebody_else() {
        let refused = || Fault::Io(io::ErrorKind::ConnectionRefused.into());
        assert!(is_absent(Step::Connect, &refused()));
        assert!(is_absent(Step::Greeting, &Fault::Silent));
        assert!(!is_absent(Step::Greeting, &Fault::Said("421".into())));
        let words = next(Step::Connect, &refused());
        let finding = judge_fault("submission [::1]:587", Step::Connect, &refused(), words);
        assert_eq!(finding.level, Level::Problem);
        assert!(finding.next.unwrap().contains("gatepost.socket"));
    }
}
