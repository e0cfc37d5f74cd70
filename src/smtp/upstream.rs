//! The client side of a hand-over: from the first byte on a new connection to the moment at which the
//! client's own commands may follow. Every state and every way from one to the next is here.
//!
//! Each command waits for the reply to the one before. Postfix takes XCLIENT pipelined with EHLO
//! for an attack, and nothing of the client's may reach an upstream that has not been told whose it
//! is. Whatever an upstream lacks of what is configured ends the hand-over; there is no second best.
//!
//! What is taken by XCLIENT is asked by EHLO only where that is not known from a session before: XCLIENT
//! may come at any time but inside a message. An upstream that wants to be asked first says so, and is.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::sasl::{Mechanism, Secret};

use super::extensions::Extensions;
use super::proxy;
use super::reply::{RawReply, ReplyFault};
use super::xclient::{Attributes, Client, XclientError};

/// Where a hand-over has got to, and where it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Reaching the upstream.
    Connect,
    /// The TLS handshake.
    Tls,
    /// Its greeting.
    Greeting,
    /// EHLO with our own name, or with the client's where that is the first one.
    Ehlo,
    /// STARTTLS.
    StartTls,
    /// AUTH with an account of ours.
    Auth,
    /// XCLIENT, up to the fresh greeting.
    Xclient,
    /// EHLO with the client's name behind XCLIENT.
    ClientEhlo,
}

impl Stage {
    /// Every stage, for building metrics.
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

    /// The stable name in logs and metrics.
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
    /// It does not offer AUTH by PLAIN or LOGIN.
    #[error("it offers neither AUTH PLAIN nor AUTH LOGIN")]
    AuthNotOffered,
    /// It refused an account of ours. What else it said is left out: some servers say the command
    /// again, and with it the password.
    #[error("it answered the login of {username:?} with {code}")]
    AuthRefused {
        /// The account's name.
        username: String,
        /// The code of its reply.
        code: u16,
    },
    /// It closed the connection.
    #[error("it closed the connection")]
    Closed,
    /// The connection failed.
    #[error("{0}")]
    Io(String),
    /// There is no account for the client's organization.
    #[error("upstream.organizations has no account for {0:?}, and there is no upstream.username")]
    NoAccount(String),
    /// It broke the protocol.
    #[error("{0}")]
    Protocol(#[from] ReplyFault),
    /// It refused, with this reply.
    #[error("it answered {0}")]
    Refused(String),
    /// It said more than was asked. That would be taken for the next command's reply, and behind
    /// STARTTLS it may be somebody else's words (RFC 3207, 4.2).
    #[error("it said more than it was asked")]
    SpokeUnasked,
    /// It does not offer STARTTLS.
    #[error("it does not offer STARTTLS")]
    StartTlsNotOffered,
    /// It did not answer in time.
    #[error("it did not answer in time")]
    Timeout,
    /// None of its names has an address, with the reasons.
    #[error("no address is known of {0}; correct the name, or the resolver of this machine")]
    Unresolved(String),
    /// It does not offer XCLIENT to this address.
    #[error("it does not offer XCLIENT; list this host in smtpd_authorized_xclient_hosts")]
    XclientNotOffered,
    /// It does not take an attribute that the identity depends on.
    #[error("{0}")]
    XclientUnusable(#[from] XclientError),
}

/// When TLS begins on the way to the upstream. Never opportunistic: what is configured is had, or
/// there is no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// From the first byte, behind a PROXY header if there is one.
    Implicit,
    /// Never.
    None,
    /// After STARTTLS.
    StartTls,
}

/// An account of our own at the upstream.
#[derive(Clone, Debug)]
pub struct Account {
    /// Its name.
    pub username: String,
    /// Its password.
    pub password: Secret,
}

/// Whose session it is to be, and how the upstream is told.
#[derive(Clone, Copy, Debug)]
pub enum HandoffMode<'a> {
    /// Ours, by an account; the upstream does not hear of the client.
    Login(&'a Account),
    /// Nobody's: only what is offered is asked, behind a PROXY header where one is expected.
    Probe(Option<proxy::Version>),
    /// The client's, by a PROXY header.
    Proxy(&'a Client, proxy::Version),
    /// Whoever's: the upstream is told nothing.
    NoIdentity,
    /// The client's, by XCLIENT.
    Xclient(&'a Client),
}

/// A hand-over under way.
#[derive(Debug)]
pub struct Handover<'a> {
    state: State,
    hostname: &'a str,
    security: Security,
    mode: HandoffMode<'a>,
    xclient_support: XclientSupport,
    found: Option<XclientSupport>,
}

/// How an upstream takes XCLIENT, as far as that was found out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct XclientSupport {
    /// With these attributes.
    pub xclient: Option<Attributes>,
    /// Only after EHLO.
    pub after_ehlo: bool,
}

#[derive(Debug)]
enum State {
    /// The first EHLO in the clear, which is to lead to STARTTLS.
    ClearEhlo,
    /// EHLO behind XCLIENT.
    ClientEhlo,
    /// The connection is being made.
    Connecting,
    /// XCLIENT as the first command, by what is known of the upstream.
    EarlyXclient,
    /// The last EHLO before the upstream is told whose session it is.
    Ehlo,
    Greeting,
    /// AUTH LOGIN; its first challenge is awaited.
    LoginName(Extensions),
    /// The username is sent; the second challenge is awaited.
    LoginPassword(Extensions),
    /// The handshake, with what comes behind it.
    ShakingHands {
        greeted: bool,
    },
    StartTls,
    /// The password is sent; the verdict is awaited.
    Verdict(Extensions),
    Xclient,
}

/// What to do next.
#[derive(Debug)]
#[must_use]
pub enum Step {
    /// Feed in the next reply.
    Await,
    /// The session is the client's; commands may follow.
    Ready(Extensions),
    /// Send this, which may hold a password, and feed in the reply.
    Send(Secret),
    /// Shake hands, then [`Handover::on_tls`].
    StartTls,
}

impl<'a> Handover<'a> {
    /// `hostname` is our own name in EHLO; `xclient_support` is what sessions before found out.
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

    /// What has been found out, if anything new.
    pub fn found(&self) -> Option<XclientSupport> {
        self.found
    }

    /// The stage whose reply is awaited.
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

    /// A failure at the current stage.
    pub fn failure(&self, cause: FailureCause) -> UpstreamFailure {
        UpstreamFailure {
            stage: self.stage(),
            cause,
        }
    }

    /// What goes out in the clear before everything else, TLS included; often nothing.
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

    /// The connection is made, and the preamble sent.
    pub fn on_connected(&mut self) -> Step {
        if self.security == Security::Implicit {
            self.state = State::ShakingHands { greeted: false };
            Step::StartTls
        } else {
            self.state = State::Greeting;
            Step::Await
        }
    }

    /// The handshake is done.
    pub fn on_tls(&mut self) -> Step {
        if let State::ShakingHands { greeted: true } = self.state {
            self.open()
        } else {
            self.state = State::Greeting;
            Step::Await
        }
    }

    /// Takes the reply that was awaited. What comes of an error is not to be used any further.
    pub fn on_reply(&mut self, reply: &RawReply) -> Result<Step, UpstreamFailure> {
        let checked = self.check_code(reply);
        if checked.is_err() && matches!(self.state, State::Xclient) {
            // It was asked, and does not take this client; that says nothing of how others are to be told.
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
                // What is offered in the clear may be somebody else's words, so nothing of it
                // counts but this (RFC 3207, 4.2).
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
            // Nothing was asked, so this answers nothing.
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

    /// The first command of a session that is as safe as it will be.
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
            // However it ends, unless well, the next session asks first.
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

    /// The upstream has said what it offers; now it is told whose session this is.
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

    /// EHLO, in the name of whom the upstream takes the session for at this moment.
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

/// AUTH PLAIN with its initial response (RFC 4616).
fn plain(account: &Account) -> Step {
    let fields = [
        b"\0",
        account.username.as_bytes(),
        b"\0",
        account.password.expose(),
    ];
    secret_line("AUTH PLAIN ", &Zeroizing::new(fields.concat()))
}

/// A line that ends in base64, written without leaving copies of it behind.
fn secret_line(start: &str, value: &[u8]) -> Step {
    let room = start.len() + value.len().div_ceil(3) * 4 + "\r\n".len();
    let mut line = String::with_capacity(room);
    line.push_str(start);
    STANDARD.encode_string(value, &mut line);
    line.push_str("\r\n");
    Step::Send(Secret::new(line))
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
mod tests;
