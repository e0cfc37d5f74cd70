//! The client side of a handover, from the first octet on a new connection until the client's own
//! commands may follow: every state and every transition.
//!
//! Each command waits for the previous reply. Postfix treats XCLIENT pipelined with EHLO as an
//! attack, and no client data may reach an upstream before the client's identity. If the upstream
//! lacks anything in the configuration, the handover fails; there is no fallback.
//!
//! If an earlier session discovered the XCLIENT attributes, XCLIENT skips the first EHLO: XCLIENT
//! is allowed any time outside a message. An upstream that requires EHLO first rejects XCLIENT, and
//! the handover falls back to EHLO.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::sasl::{Mechanism, Secret};

use super::extensions::Extensions;
use super::proxy;
use super::reply::{RawReply, ReplyFault};
use super::xclient::{Attributes, Client, XclientError};

/// The stages of a handover, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    Connect,
    Tls,
    Greeting,
    /// EHLO with Gatepost's name, or with the client's name if sent first.
    Ehlo,
    StartTls,
    /// AUTH with a configured account.
    Auth,
    /// XCLIENT, up to the second greeting.
    Xclient,
    /// EHLO with the client's name after XCLIENT.
    ClientEhlo,
}

impl Stage {
    pub const ALL: [Self; 8] = [
        Self::Connect,
        Self::Tls,
        Self::Greeting,
        Self::Ehlo,
        Self::StartTls,
        Self::Auth,
        Self::Xclient,
        Self::ClientEhlo,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Greeting => "greeting",
            Self::Ehlo => "ehlo",
            Self::StartTls => "starttls",
            Self::Auth => "auth",
            Self::Xclient => "xclient",
            Self::ClientEhlo => "client_ehlo",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("upstream, at {}: {cause}", stage.as_str())]
pub struct UpstreamFailure {
    pub stage: Stage,
    pub cause: FailureCause,
}

/// The cause of a failed handover.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FailureCause {
    #[error("it offers neither AUTH PLAIN nor AUTH LOGIN")]
    AuthNotOffered,
    /// The upstream rejected a configured account. The text of the reply is left out, because some
    /// servers repeat the command with the password.
    #[error("it answered the login of {username:?} with {code}")]
    AuthRefused { username: String, code: u16 },
    #[error("it closed the connection")]
    Closed,
    #[error("{0}")]
    Io(String),
    #[error("upstream.organizations has no account for {0:?}, and there is no upstream.username")]
    NoAccount(String),
    #[error("{0}")]
    Protocol(#[from] ReplyFault),
    /// The upstream rejected a command with the given reply.
    #[error("it answered {0}")]
    Refused(String),
    /// The upstream sent more than a reply. The rest would be taken for the next reply, and after
    /// STARTTLS an attacker may have injected the octets (RFC 3207, 4.2).
    #[error("it said more than it was asked")]
    SpokeUnasked,
    #[error("it does not offer STARTTLS")]
    StartTlsNotOffered,
    #[error("it did not answer in time")]
    Timeout,
    /// No name has an address; with the resolver's reasons.
    #[error("no address is known of {0}; correct the name, or the resolver of this machine")]
    Unresolved(String),
    #[error("it does not offer XCLIENT; list this host in smtpd_authorized_xclient_hosts")]
    XclientNotOffered,
    /// The upstream lacks an XCLIENT attribute needed for the identity.
    #[error("{0}")]
    XclientUnusable(#[from] XclientError),
}

/// When TLS begins towards the upstream. Never opportunistic: without the configured TLS there is
/// no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// From the first octet, after a PROXY header if configured.
    Implicit,
    None,
    StartTls,
}

/// A configured account at the upstream.
#[derive(Clone, Debug)]
pub struct Account {
    pub username: String,
    pub password: Secret,
}

/// How the upstream learns the session's identity.
#[derive(Clone, Copy, Debug)]
pub enum HandoffMode<'a> {
    /// A configured account logs in; the upstream does not learn the client.
    Login(&'a Account),
    /// A probe without a client, after a PROXY header if the upstream expects the header.
    Probe(Option<proxy::Version>),
    /// A PROXY header carries the client's addresses.
    Proxy(&'a Client, proxy::Version),
    /// The upstream learns no identity.
    NoIdentity,
    /// XCLIENT carries the client's addresses and username.
    Xclient(&'a Client),
}

/// A handover in progress.
#[derive(Debug)]
pub struct Handover<'a> {
    state: State,
    hostname: &'a str,
    security: Security,
    mode: HandoffMode<'a>,
    xclient_support: XclientSupport,
    found: Option<XclientSupport>,
}

/// Discovered facts about an upstream's XCLIENT support.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XclientSupport {
    /// The supported attributes, if known.
    pub xclient: Option<Attributes>,
    /// Whether XCLIENT requires EHLO first.
    pub after_ehlo: bool,
}

#[derive(Debug)]
enum State {
    /// The first EHLO in the clear, before STARTTLS.
    ClearEhlo,
    ClientEhlo,
    /// Before the connection is established.
    Connecting,
    /// XCLIENT as the first command, based on known support.
    EarlyXclient,
    /// The last EHLO before the identity.
    Ehlo,
    Greeting,
    /// AUTH LOGIN was sent; the first challenge is due.
    LoginName(Extensions),
    /// The username was sent; the second challenge is due.
    LoginPassword(Extensions),
    /// A TLS handshake, before or after the greeting.
    ShakingHands {
        greeted: bool,
    },
    StartTls,
    /// The password was sent; the verdict is due.
    Verdict(Extensions),
    Xclient,
}

#[derive(Debug)]
#[must_use]
pub enum Step {
    /// Feed in the next reply.
    Await,
    /// The session is handed over; the client's commands may follow.
    Ready(Extensions),
    /// Send the line, which may hold a password, and feed in the reply.
    Send(Secret),
    /// Perform the handshake, then call [`Handover::on_tls`].
    StartTls,
}

impl<'a> Handover<'a> {
    /// `hostname` is Gatepost's name in EHLO; `xclient_support` comes from earlier sessions.
    pub fn new(
        hostname: &'a str,
        security: Security,
        mode: HandoffMode<'a>,
        xclient_support: XclientSupport,
    ) -> Self {
        Self {
            state: State::Connecting,
            hostname,
            security,
            mode,
            xclient_support,
            found: None,
        }
    }

    /// Returns newly discovered XCLIENT support.
    pub fn found(&self) -> Option<XclientSupport> {
        self.found
    }

    /// Returns the stage of the next reply.
    pub fn stage(&self) -> Stage {
        match self.state {
            State::ClearEhlo | State::Ehlo => Stage::Ehlo,
            State::ClientEhlo => Stage::ClientEhlo,
            State::Connecting => Stage::Connect,
            State::Greeting => Stage::Greeting,
            State::LoginName(_) | State::LoginPassword(_) | State::Verdict(_) => Stage::Auth,
            State::ShakingHands { .. } => Stage::Tls,
            State::StartTls => Stage::StartTls,
            State::EarlyXclient | State::Xclient => Stage::Xclient,
        }
    }

    /// Builds a failure at the current stage.
    pub fn failure(&self, cause: FailureCause) -> UpstreamFailure {
        UpstreamFailure {
            stage: self.stage(),
            cause,
        }
    }

    /// Returns the octets to send in the clear before anything else, TLS included; often none.
    pub fn preamble(&self) -> Vec<u8> {
        match self.mode {
            HandoffMode::Proxy(client, version) => proxy::header(client, version),
            HandoffMode::Probe(Some(version)) => proxy::local_header(version),
            HandoffMode::Login(_)
            | HandoffMode::Probe(None)
            | HandoffMode::NoIdentity
            | HandoffMode::Xclient(_) => Vec::new(),
        }
    }

    /// The connection is established and the preamble sent.
    pub fn on_connected(&mut self) -> Step {
        if self.security == Security::Implicit {
            self.state = State::ShakingHands { greeted: false };
            Step::StartTls
        } else {
            self.state = State::Greeting;
            Step::Await
        }
    }

    pub fn on_tls(&mut self) -> Step {
        if let State::ShakingHands { greeted: true } = self.state {
            self.open()
        } else {
            self.state = State::Greeting;
            Step::Await
        }
    }

    /// Processes the next reply. After an error the handover must not continue.
    pub fn on_reply(&mut self, reply: &RawReply) -> Result<Step, UpstreamFailure> {
        let checked = self.check_code(reply);
        if checked.is_err() && matches!(self.state, State::Xclient) {
            // The upstream lists XCLIENT but rejects the client; other clients' support stays
            // unknown.
            self.found = None;
        }
        checked?;
        match std::mem::replace(&mut self.state, State::Connecting) {
            State::Greeting if self.security == Security::StartTls => {
                self.state = State::ClearEhlo;
                Ok(self.ehlo())
            }
            State::Greeting => Ok(self.open()),
            State::EarlyXclient if reply.code != 220 => Ok(self.ask()),
            State::ClearEhlo => {
                self.state = State::StartTls;
                // Ignore every other offer in the clear, as an attacker may have injected the reply
                // (RFC 3207, 4.2).
                if Extensions::parse(reply).starttls {
                    Ok(say("STARTTLS"))
                } else {
                    Err(self.failure(FailureCause::StartTlsNotOffered))
                }
            }
            State::StartTls => {
                self.state = State::ShakingHands { greeted: true };
                Ok(Step::StartTls)
            }
            State::Ehlo => self.introduce(Extensions::parse(reply)),
            State::EarlyXclient => {
                self.found = None;
                self.state = State::ClientEhlo;
                Ok(self.ehlo())
            }
            State::Xclient => {
                self.state = State::ClientEhlo;
                Ok(self.ehlo())
            }
            State::LoginName(extensions) => {
                self.state = State::LoginPassword(extensions);
                Ok(self.say_account(|account| account.username.as_bytes()))
            }
            State::LoginPassword(extensions) => {
                self.state = State::Verdict(extensions);
                Ok(self.say_account(|account| account.password.expose()))
            }
            State::Verdict(extensions) => Ok(Step::Ready(extensions)),
            State::ClientEhlo => Ok(Step::Ready(Extensions::parse(reply))),
            // No command is pending, so the reply is unsolicited.
            State::Connecting | State::ShakingHands { .. } => {
                Err(self.failure(FailureCause::Protocol(ReplyFault::NotAReply)))
            }
        }
    }

    fn check_code(&self, reply: &RawReply) -> Result<(), UpstreamFailure> {
        let expected = match self.state {
            State::EarlyXclient if reply.code / 100 == 5 => return Ok(()),
            State::Greeting | State::StartTls | State::EarlyXclient | State::Xclient => 220,
            State::ClearEhlo | State::Ehlo | State::ClientEhlo => 250,
            State::LoginName(_) | State::LoginPassword(_) => 334,
            State::Verdict(_) => 235,
            State::Connecting | State::ShakingHands { .. } => return Ok(()),
        };
        if reply.code == expected {
            return Ok(());
        }
        Err(self.failure(match (self.stage(), self.mode) {
            (Stage::Auth, HandoffMode::Login(account)) => FailureCause::AuthRefused {
                username: account.username.clone(),
                code: reply.code,
            },
            _ => FailureCause::Refused(first_line(reply)),
        }))
    }

    /// Sends the first command once the connection is as secure as configured.
    fn open(&mut self) -> Step {
        let XclientSupport {
            xclient,
            after_ehlo,
        } = self.xclient_support;
        let known = xclient.filter(|_| !after_ehlo);
        if let (HandoffMode::Xclient(client), Some(known)) = (self.mode, known)
            && let Ok(command) = client.command(known)
        {
            self.state = State::EarlyXclient;
            // Unless the attempt succeeds, the next session sends EHLO first.
            self.found = Some(XclientSupport {
                after_ehlo: true,
                ..self.xclient_support
            });
            return Step::Send(Secret::new(command));
        }
        self.ask()
    }

    fn ask(&mut self) -> Step {
        self.state = State::Ehlo;
        self.ehlo()
    }

    /// Sends the identity after the upstream's offer.
    fn introduce(&mut self, extensions: Extensions) -> Result<Step, UpstreamFailure> {
        if let HandoffMode::Probe(_) | HandoffMode::Xclient(_) = self.mode {
            self.found = Some(XclientSupport {
                xclient: extensions.xclient,
                ..self.found.unwrap_or(self.xclient_support)
            });
        }
        match self.mode {
            HandoffMode::Probe(_) | HandoffMode::Proxy(..) | HandoffMode::NoIdentity => {
                Ok(Step::Ready(extensions))
            }
            HandoffMode::Xclient(client) => {
                self.state = State::Xclient;
                let offered = extensions
                    .xclient
                    .ok_or_else(|| self.failure(FailureCause::XclientNotOffered))?;
                let command = client
                    .command(offered)
                    .map_err(|error| self.failure(error.into()))?;
                Ok(Step::Send(Secret::new(command)))
            }
            HandoffMode::Login(account) => match extensions.mechanism {
                Some(Mechanism::Plain) => {
                    self.state = State::Verdict(extensions);
                    Ok(plain(account))
                }
                Some(Mechanism::Login) => {
                    self.state = State::LoginName(extensions);
                    Ok(say("AUTH LOGIN"))
                }
                None => {
                    self.state = State::Verdict(extensions);
                    Err(self.failure(FailureCause::AuthNotOffered))
                }
            },
        }
    }

    /// Builds EHLO with the name of the upstream's current idea of the client.
    fn ehlo(&self) -> Step {
        let name = match (&self.state, self.mode) {
            (State::ClientEhlo, HandoffMode::Xclient(client)) => &client.helo,
            (_, HandoffMode::Proxy(client, _)) => &client.helo,
            _ => self.hostname,
        };
        say(&format!("EHLO {name}"))
    }

    fn say_account(&self, field: fn(&Account) -> &[u8]) -> Step {
        let value: &[u8] = match self.mode {
            HandoffMode::Login(account) => field(account),
            _ => &[],
        };
        secret_line("", value)
    }
}

fn say(command: &str) -> Step {
    Step::Send(Secret::new(format!("{command}\r\n")))
}

/// Builds AUTH PLAIN with its initial response (RFC 4616).
fn plain(account: &Account) -> Step {
    let fields = [
        b"\0",
        account.username.as_bytes(),
        b"\0",
        account.password.expose(),
    ];
    secret_line("AUTH PLAIN ", &Zeroizing::new(fields.concat()))
}

/// Builds a line ending in base64 without leaving copies in memory.
fn secret_line(start: &str, value: &[u8]) -> Step {
    let room = start.len() + value.len().div_ceil(3) * 4 + "\r\n".len();
    let mut line = String::with_capacity(room);
    line.push_str(start);
    STANDARD.encode_string(value, &mut line);
    line.push_str("\r\n");
    Step::Send(Secret::new(line))
}

/// Returns the first line, truncated, for people.
fn first_line(reply: &RawReply) -> String {
    let line = reply
        .bytes
        .split(|&byte| byte == b'\r')
        .next()
        .unwrap_or_default();
    String::from_utf8_lossy(&line[..line.len().min(200)]).into_owned()
}

#[cfg(test)]
mod tests;
