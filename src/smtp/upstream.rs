//! The client side of a hand-over: greeting, EHLO, XCLIENT, its fresh greeting, EHLO again.
//!
//! Each command waits for the reply to the one before. Postfix takes XCLIENT pipelined with EHLO
//! for an attack, and nothing may reach it before XCLIENT was granted.

use super::extensions::Extensions;
use super::reply::{RawReply, ReplyFault};
use super::xclient::{Client, XclientError};

/// Where a hand-over has got to, and where it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Reaching the upstream.
    Connect,
    /// Its greeting.
    Greeting,
    /// EHLO with our own name.
    Ehlo,
    /// XCLIENT, up to the fresh greeting.
    Xclient,
    /// EHLO with the client's name.
    ClientEhlo,
}

impl Stage {
    /// Every stage, for building metrics.
    pub const ALL: [Self; 5] = [
        Self::Connect,
        Self::Greeting,
        Self::Ehlo,
        Self::Xclient,
        Self::ClientEhlo,
    ];

    /// The stable name in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Greeting => "greeting",
            Self::Ehlo => "ehlo",
            Self::Xclient => "xclient",
            Self::ClientEhlo => "client_ehlo",
        }
    }
}

/// Why the upstream did not take a session over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("upstream, at {}: {cause}", stage.as_str())]
pub struct UpstreamFailure {
    /// Where it failed.
    pub stage: Stage,
    /// Why it failed.
    pub cause: FailureCause,
}

/// What the upstream did wrong, or what was wrong on the way to it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FailureCause {
    /// It closed the connection.
    #[error("it closed the connection")]
    Closed,
    /// The connection failed.
    #[error("{0}")]
    Io(String),
    /// It broke the protocol.
    #[error("{0}")]
    Protocol(#[from] ReplyFault),
    /// It refused, with this reply.
    #[error("it answered {0}")]
    Refused(String),
    /// It did not answer in time.
    #[error("it did not answer in time")]
    Timeout,
    /// It does not offer XCLIENT to this address.
    #[error("it does not offer XCLIENT; list this host in smtpd_authorized_xclient_hosts")]
    XclientNotOffered,
    /// It does not take an attribute that the identity depends on.
    #[error("{0}")]
    XclientUnusable(#[from] XclientError),
}

/// A hand-over under way.
#[derive(Debug)]
pub struct Handover<'a> {
    stage: Stage,
    hostname: &'a str,
    client: Option<&'a Client>,
}

/// What to do after a reply.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// The session is the client's; commands may follow.
    Ready(Extensions),
    /// Send this and feed in the reply.
    Send(String),
}

impl<'a> Handover<'a> {
    /// Hands `client`'s session over. The first thing expected is the greeting.
    pub fn new(hostname: &'a str, client: &'a Client) -> Self {
        Self {
            stage: Stage::Greeting,
            hostname,
            client: Some(client),
        }
    }

    /// Only asks what the upstream offers.
    pub fn probe(hostname: &'a str) -> Self {
        Self {
            stage: Stage::Greeting,
            hostname,
            client: None,
        }
    }

    /// The stage whose reply is awaited.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// A failure at the current stage.
    pub fn failure(&self, cause: FailureCause) -> UpstreamFailure {
        UpstreamFailure {
            stage: self.stage,
            cause,
        }
    }

    /// Takes the reply that was awaited.
    pub fn on_reply(&mut self, reply: &RawReply) -> Result<Step, UpstreamFailure> {
        let expected = match self.stage {
            Stage::Connect | Stage::Greeting | Stage::Xclient => 220,
            Stage::Ehlo | Stage::ClientEhlo => 250,
        };
        if reply.code != expected {
            return Err(self.failure(FailureCause::Refused(first_line(reply))));
        }
        match (self.stage, self.client) {
            (Stage::Connect | Stage::Greeting, _) => {
                self.stage = Stage::Ehlo;
                Ok(Step::Send(format!("EHLO {}\r\n", self.hostname)))
            }
            (Stage::Ehlo, Some(client)) => {
                let offered = Extensions::parse(reply).xclient;
                self.stage = Stage::Xclient;
                let offered =
                    offered.ok_or_else(|| self.failure(FailureCause::XclientNotOffered))?;
                let command = client
                    .command(offered)
                    .map_err(|error| self.failure(error.into()))?;
                Ok(Step::Send(command))
            }
            (Stage::Xclient, Some(client)) => {
                self.stage = Stage::ClientEhlo;
                Ok(Step::Send(format!("EHLO {}\r\n", client.helo)))
            }
            (Stage::Ehlo | Stage::Xclient | Stage::ClientEhlo, _) => {
                Ok(Step::Ready(Extensions::parse(reply)))
            }
        }
    }
}

/// The first line, cut short, for people.
fn first_line(reply: &RawReply) -> String {
    let line = reply
        .bytes
        .split(|&byte| byte == b'\r')
        .next()
        .unwrap_or_default();
    String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OFFER: &str = "250-mx\r\n250-PIPELINING\r\n250 XCLIENT ADDR LOGIN HELO\r\n";

    fn client() -> Client {
        Client {
            address: "203.0.113.7:40000".parse().unwrap(),
            destination: "192.0.2.1:587".parse().unwrap(),
            helo: "client.test".into(),
            login: "smtp_x".into(),
        }
    }

    /// Feeds replies until the first failure or the end.
    fn play(mut handover: Handover, replies: &[&str]) -> Result<Vec<Step>, UpstreamFailure> {
        replies
            .iter()
            .map(|reply| handover.on_reply(&RawReply::parse(reply.as_bytes()).unwrap().unwrap()))
            .collect()
    }

    #[test]
    fn the_session_is_ready_after_the_second_ehlo() {
        let client = client();
        let replies = [
            "220 mx ESMTP\r\n",
            OFFER,
            "220 mx ESMTP\r\n",
            "250-mx\r\n250 DSN\r\n",
        ];
        let steps = play(Handover::new("gate.test", &client), &replies).unwrap();
        assert_eq!(
            steps,
            [
                Step::Send("EHLO gate.test\r\n".into()),
                Step::Send("XCLIENT ADDR=203.0.113.7 HELO=client.test LOGIN=smtp_x\r\n".into()),
                Step::Send("EHLO client.test\r\n".into()),
                Step::Ready(Extensions {
                    dsn: true,
                    ..Extensions::default()
                }),
            ]
        );
    }

    #[test]
    fn a_probe_stops_after_the_first_ehlo() {
        let steps = play(Handover::probe("gate.test"), &["220 mx\r\n", OFFER]).unwrap();
        assert!(
            matches!(&steps[..], [Step::Send(_), Step::Ready(found)] if found.xclient.is_some())
        );
    }

    #[test]
    fn every_refusal_ends_the_hand_over() {
        let client = client();
        let good = ["220 mx\r\n", OFFER, "220 mx\r\n", "250 mx\r\n"];
        let stages = [
            Stage::Greeting,
            Stage::Ehlo,
            Stage::Xclient,
            Stage::ClientEhlo,
        ];
        for (at, stage) in stages.into_iter().enumerate() {
            for refusal in [
                "421 4.7.0 no\r\n",
                "550 5.7.0 no\r\n",
                "354 odd\r\n",
                "251 odd\r\n",
            ] {
                let mut replies = good;
                replies[at] = refusal;
                let failure = play(Handover::new("gate.test", &client), &replies).unwrap_err();
                let cause = FailureCause::Refused(refusal.trim_end().into());
                assert_eq!(failure, UpstreamFailure { stage, cause });
            }
        }
    }

    #[test]
    fn without_xclient_there_is_no_hand_over() {
        let client = client();
        let replies = ["220 mx\r\n", "250-mx\r\n250 PIPELINING\r\n"];
        let failure = play(Handover::new("gate.test", &client), &replies).unwrap_err();
        assert_eq!(failure.cause, FailureCause::XclientNotOffered);
    }
}
