//! The server side of a session: every state and every transition.
//!
//! A line goes in, exactly one [`Action`] comes out. While the session waits for an outside
//! decision (a verdict, TLS, the upstream), the session accepts no input.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use crate::policy::{Denial, Limit, Party, Rule};
use crate::sasl::{
    Credentials, Exchange, ExchangeError, Identity, Mechanism, Step, Throttled, Verdict,
};

use super::client_name;
use super::command::{Command, CommandError, Path, split_verb};
use super::data::Refusal;
use super::envelope;
use super::extensions::Extensions;
use super::line::Line;
use super::relay::Expect;
use super::reply::{self, Reply};

/// The settings shared by all sessions.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Gatepost's name in the greeting and in EHLO.
    pub hostname: String,
    /// The largest accepted message, in octets.
    pub message_size: u64,
    /// The number of client errors that ends a session; an accepted message resets the count.
    pub max_errors: u32,
    /// The number of rejected logins that ends a session.
    pub max_auth_failures: u32,
    /// The number of commands that a session may send.
    pub max_commands: u64,
}

/// The next thing to do; exactly one per input.
#[derive(Debug)]
#[must_use]
pub enum Action<'a> {
    /// Check [`Session::policy_request`] against limits and rules, then call
    /// [`Session::on_policy`].
    CheckPolicy,
    Close(Reply),
    /// Open an upstream session for the identity, then call [`Session::on_upstream`].
    Connect(Arc<Identity>),
    /// Send the line upstream, with CRLF appended, and expect its reply.
    Forward(Cow<'a, [u8]>, Expect),
    Reply(Reply),
    /// Send the reply, perform the handshake, then call [`Session::on_tls`].
    StartTls(Reply),
    /// Verify the credentials, then call [`Session::on_verdict`].
    Verify(Credentials),
}

/// The kind of input that the session accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    /// A message body, for the scanner.
    Body,
    /// A command or a SASL response, for [`Session::on_line`].
    Line,
    /// Nothing until the next decision; input waits.
    Nothing,
}

/// A command subject to limits and rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyRequest<'a> {
    Mail {
        /// The reverse-path in its angle brackets.
        path: &'a [u8],
        /// The message size declared by the client, in octets.
        size: Option<u64>,
    },
    Recipient,
}

#[derive(Debug)]
pub struct Session {
    settings: Arc<Settings>,
    /// The upstream's extensions: from the latest probe, or after the handover from the client's
    /// own upstream session.
    extensions: Arc<Extensions>,
    state: State,
    /// Client errors since the start or the last accepted message.
    errors: u32,
    /// Whether the upstream has accepted a message of the session.
    has_sent: bool,
    auth_failures: u32,
    commands: u64,
    /// Whether the daemon stops, so that nothing new may begin.
    draining: bool,
    /// Whether the last line aborted a login or tried a login in the clear.
    login_noise: bool,
    /// The message size limit of the client's own limits, in octets.
    message_limit: Option<u64>,
    /// The command under policy check in canonical form, and its form for the upstream. The buffers
    /// are reused, so that commands need no allocation.
    asked: Vec<u8>,
    sent: Vec<u8>,
}

#[derive(Debug, Default)]
enum State {
    /// MAIL or RCPT in `asked` and `sent` waits for the policy check.
    Admitting { handed: Handed, envelope: Envelope },
    /// DATA was forwarded; the reply decides how to read the next octets.
    AwaitingData(Handed),
    /// The client sends a message body.
    Body(Handed),
    /// In the clear: only STARTTLS leads on.
    Clear,
    #[default]
    Closed,
    /// A SASL challenge was sent.
    Exchanging { helo: Arc<str>, exchange: Exchange },
    /// The verdict was Accept; the handover is in progress.
    HandingOver {
        helo: Arc<str>,
        identity: Arc<Identity>,
    },
    /// The client sent QUIT.
    Leaving,
    /// MAIL in canonical form waits for a new upstream session.
    Reopening { handed: Handed, mail: Vec<u8> },
    /// Authenticated: commands go upstream.
    Ready(Handed),
    /// Inside TLS, not authenticated, with the name from EHLO.
    Secure { helo: Option<Arc<str>> },
    /// The 220 reply to STARTTLS was sent.
    ShakingHands,
    /// Credentials are being verified.
    Verifying { helo: Arc<str> },
}

/// The policy request, as ranges of the checked line.
#[derive(Debug)]
enum Envelope {
    /// The reverse-path, and the declared size in octets.
    Mail {
        path: Range<usize>,
        size: Option<u64>,
    },
    Recipient,
}

/// A session handed over to the upstream.
#[derive(Debug)]
struct Handed {
    identity: Arc<Identity>,
    /// The client's name before authentication, as known to the upstream.
    helo: Arc<str>,
    link: Link,
    /// Whether the last MAIL was denied by limits or rules: the rest of its transaction must not
    /// join another transaction.
    denied: bool,
}

/// The state of the upstream session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Link {
    Held,
    /// Released; the next MAIL opens a new upstream session.
    Lost,
    /// None at the moment; the next MAIL gets one.
    None,
}

/// The least excess read beyond the largest message, in octets: a client that sends too much gets
/// the reason only after its end of data.
const LEAST_EXCESS: u64 = 16 << 20;

impl Session {
    /// Starts a session inside TLS (submissions) or in the clear (submission).
    pub fn new(settings: Arc<Settings>, extensions: Arc<Extensions>, tls: bool) -> Self {
        let state = if tls {
            State::Secure { helo: None }
        } else {
            State::Clear
        };
        Self {
            settings,
            extensions,
            state,
            errors: 0,
            has_sent: false,
            auth_failures: 0,
            commands: 0,
            draining: false,
            login_noise: false,
            message_limit: None,
            asked: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// Returns the kind of input that the session accepts now.
    pub fn wants(&self) -> Wants {
        match self.state {
            State::Clear | State::Exchanging { .. } | State::Ready(_) | State::Secure { .. } => {
                Wants::Line
            }
            State::Body(_) => Wants::Body,
            State::Admitting { .. }
            | State::AwaitingData(_)
            | State::Closed
            | State::HandingOver { .. }
            | State::Leaving
            | State::Reopening { .. }
            | State::ShakingHands
            | State::Verifying { .. } => Wants::Nothing,
        }
    }

    /// Returns the client's name from EHLO, inside TLS only.
    pub fn helo(&self) -> Option<&str> {
        match &self.state {
            State::Admitting { handed, .. }
            | State::AwaitingData(handed)
            | State::Body(handed)
            | State::Ready(handed)
            | State::Reopening { handed, .. } => Some(&handed.helo),
            State::Exchanging { helo, .. }
            | State::HandingOver { helo, .. }
            | State::Verifying { helo } => Some(helo),
            State::Secure { helo } => helo.as_deref(),
            State::Clear | State::Closed | State::Leaving | State::ShakingHands => None,
        }
    }

    /// Whether the session is over once its output is sent.
    pub fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed | State::Leaving)
    }

    /// Whether the upstream has accepted a message of the session.
    pub fn has_sent(&self) -> bool {
        self.has_sent
    }

    /// The daemon stops: from now on the client may only quit or send harmless commands.
    pub fn on_drain(&mut self) {
        self.draining = true;
    }

    /// Whether the client has logged in and was handed over.
    pub fn is_authenticated(&self) -> bool {
        matches!(
            self.state,
            State::Admitting { .. }
                | State::AwaitingData(_)
                | State::Body(_)
                | State::Leaving
                | State::Ready(_)
                | State::Reopening { .. }
        )
    }

    /// Returns whether the last line aborted a login or tried a login in the clear, and resets the
    /// flag.
    pub fn take_login_noise(&mut self) -> bool {
        std::mem::take(&mut self.login_noise)
    }

    /// Processes a line while [`Wants::Line`] holds.
    pub fn on_line<'a>(&mut self, line: Line<'a>) -> Action<'a> {
        if let State::Exchanging { .. } = self.state {
            return match self.draining {
                true => self.close(reply::SHUTTING_DOWN),
                false => self.on_response(line),
            };
        }
        self.commands += 1;
        if self.commands > self.settings.max_commands {
            return self.close(reply::TOO_MANY_COMMANDS);
        }
        let (text, command) = match line {
            Line::Good(text) => match Command::parse(text) {
                Ok(command) => (text, command),
                Err(error) if is_recipient(text) => {
                    return self.refuse_recipient(command_error(error));
                }
                Err(error) => return self.refuse(command_error(error)),
            },
            Line::BareNewline => return self.refuse(reply::BAD_LINE),
            Line::TooLong(start) if is_recipient(start) => {
                return self.refuse_recipient(too_long(start));
            }
            Line::TooLong(start) => return self.refuse(too_long(start)),
        };
        if self.draining && begins(&command) {
            return self.close(reply::SHUTTING_DOWN);
        }
        match std::mem::take(&mut self.state) {
            State::Clear => self.in_clear(command),
            State::Secure { helo } => self.unauthenticated(helo, command),
            State::Ready(handed) => self.authenticated(handed, command, text),
            // No line was wanted, so no specific reply fits.
            _ => self.close(reply::OUT_OF_ORDER),
        }
    }

    /// Before TLS, RFC 3207, 4 limits the accepted commands.
    fn in_clear<'a>(&mut self, command: Command) -> Action<'a> {
        self.state = State::Clear;
        self.login_noise = matches!(command, Command::Auth(_));
        match command {
            Command::Ehlo(_) => self.answer(self.ehlo(&["STARTTLS"])),
            Command::Helo(_) => self.answer(Reply::helo(&self.settings.hostname)),
            Command::Noop => self.answer(reply::OK),
            Command::NotOffered => self.refuse(reply::NOT_OFFERED),
            Command::Quit => self.close(reply::BYE),
            Command::StartTls => {
                self.state = State::ShakingHands;
                Action::StartTls(reply::TLS_READY)
            }
            Command::Auth(_)
            | Command::Data
            | Command::Help
            | Command::Mail(_)
            | Command::Rcpt(_)
            | Command::Rset
            | Command::Vrfy => self.refuse(reply::TLS_REQUIRED),
        }
    }

    fn unauthenticated<'a>(&mut self, helo: Option<Arc<str>>, command: Command) -> Action<'a> {
        if let Command::Auth(arguments) = command {
            return self.auth(helo, arguments);
        }
        self.state = State::Secure { helo };
        match command {
            Command::Ehlo(name) | Command::Helo(name) => {
                self.state = State::Secure {
                    helo: Some(client_name::read(name)),
                };
                // Old devices send HELO and still use AUTH.
                self.answer(match command {
                    Command::Helo(_) => Reply::helo(&self.settings.hostname),
                    _ => self.ehlo(&["AUTH PLAIN LOGIN"]),
                })
            }
            Command::Help => self.answer(reply::HELP),
            Command::Noop | Command::Rset => self.answer(reply::OK),
            Command::NotOffered => self.refuse(reply::NOT_OFFERED),
            Command::Quit => self.close(reply::BYE),
            Command::StartTls => self.refuse(reply::ALREADY_TLS),
            Command::Vrfy => self.answer(reply::CANNOT_VERIFY),
            Command::Auth(_) | Command::Data | Command::Mail(_) | Command::Rcpt(_) => {
                self.refuse(reply::AUTH_REQUIRED)
            }
        }
    }

    fn auth<'a>(&mut self, helo: Option<Arc<str>>, arguments: &[u8]) -> Action<'a> {
        let (name, initial) = split_verb(arguments);
        let initial = Some(initial).filter(|initial| !initial.is_empty());
        let Some(helo) = helo else {
            self.state = State::Secure { helo };
            return self.refuse(reply::EHLO_FIRST);
        };
        match Mechanism::parse(name) {
            Some(mechanism) => self.step(helo, Exchange::start(mechanism, initial)),
            None => {
                self.state = State::Secure { helo: Some(helo) };
                let missing = name.is_empty();
                self.refuse(if missing {
                    reply::BAD_ARGUMENTS
                } else {
                    reply::UNKNOWN_MECHANISM
                })
            }
        }
    }

    fn on_response<'a>(&mut self, line: Line) -> Action<'a> {
        let State::Exchanging { helo, exchange } = std::mem::take(&mut self.state) else {
            return self.close(reply::OUT_OF_ORDER);
        };
        match line {
            Line::Good(response) => self.step(helo, exchange.respond(response)),
            Line::TooLong(_) => self.step(helo, Err(ExchangeError::TooLong)),
            Line::BareNewline => {
                self.state = State::Secure { helo: Some(helo) };
                self.login_noise = true;
                self.refuse(reply::BAD_LINE)
            }
        }
    }

    fn step<'a>(&mut self, helo: Arc<str>, step: Result<Step, ExchangeError>) -> Action<'a> {
        match step {
            Ok(Step::Challenge(challenge, exchange)) => {
                self.state = State::Exchanging { helo, exchange };
                self.answer(Reply::challenge(challenge))
            }
            Ok(Step::Done(credentials)) => {
                self.state = State::Verifying { helo };
                Action::Verify(credentials)
            }
            Err(error) => {
                self.state = State::Secure { helo: Some(helo) };
                self.login_noise = true;
                self.refuse(match error {
                    ExchangeError::BadEncoding | ExchangeError::Malformed => reply::BAD_RESPONSE,
                    ExchangeError::Cancelled => reply::CANCELLED,
                    ExchangeError::TooLong => reply::RESPONSE_TOO_LONG,
                })
            }
        }
    }

    /// The handshake is done. Everything before it is forgotten (RFC 3207, 4.2).
    pub fn on_tls(&mut self) {
        self.state = match self.state {
            State::ShakingHands => State::Secure { helo: None },
            _ => State::Closed,
        };
    }

    /// Continues with the verdict after [`Action::Verify`].
    pub fn on_verdict<'a>(&mut self, verdict: Verdict) -> Action<'a> {
        let State::Verifying { helo } = std::mem::take(&mut self.state) else {
            return self.close(reply::CANNOT_AUTHENTICATE);
        };
        match verdict {
            Verdict::Accept(identity) => {
                self.state = State::HandingOver {
                    helo,
                    identity: identity.clone(),
                };
                Action::Connect(identity)
            }
            Verdict::Throttled(Throttled::Guard) => self.close(reply::TOO_MANY_FAILURES),
            Verdict::Throttled(Throttled::Sessions) => self.close(reply::TOO_MANY_SESSIONS),
            Verdict::Reject(_) => {
                self.state = State::Secure { helo: Some(helo) };
                self.auth_failures += 1;
                if self.auth_failures >= self.settings.max_auth_failures {
                    return self.close(reply::TOO_MANY_ERRORS);
                }
                self.refuse(reply::BAD_CREDENTIALS)
            }
            Verdict::Unavailable(_) => {
                self.state = State::Secure { helo: Some(helo) };
                self.refuse(reply::CANNOT_AUTHENTICATE)
            }
        }
    }

    /// Continues after [`Action::Connect`] with the upstream's extensions, or `None` if the
    /// handover failed.
    pub fn on_upstream<'a>(&mut self, ready: Option<Extensions>) -> Action<'a> {
        let taken = ready.is_some();
        if let Some(extensions) = ready {
            self.extensions = Arc::new(extensions);
        }
        match std::mem::take(&mut self.state) {
            State::HandingOver { helo, identity } if taken => {
                self.state = State::Ready(Handed {
                    identity,
                    helo,
                    link: Link::Held,
                    denied: false,
                });
                self.answer(reply::AUTHENTICATED)
            }
            State::HandingOver { helo, .. } => {
                self.state = State::Secure { helo: Some(helo) };
                self.refuse(reply::CANNOT_AUTHENTICATE)
            }
            State::Reopening { handed, mail } if taken => {
                self.state = State::Ready(Handed {
                    link: Link::Held,
                    ..handed
                });
                self.mail_again(&mail)
            }
            State::Reopening { handed, .. } => {
                self.state = State::Ready(handed);
                self.refuse(reply::UPSTREAM_UNAVAILABLE)
            }
            _ => self.close(reply::UPSTREAM_LOST),
        }
    }

    fn authenticated<'a>(
        &mut self,
        mut handed: Handed,
        command: Command<'a>,
        line: &'a [u8],
    ) -> Action<'a> {
        if matches!(
            command,
            Command::Ehlo(_) | Command::Helo(_) | Command::Mail(_) | Command::Rset
        ) {
            handed.denied = false;
        }
        if handed.link == Link::Lost {
            match command {
                Command::Ehlo(_) | Command::Helo(_) | Command::Rset => handed.link = Link::None,
                Command::Data | Command::Mail(_) | Command::Rcpt(_) => {
                    return self.close(reply::UPSTREAM_LOST);
                }
                _ => {}
            }
        }
        let denied = handed.denied;
        let attached = handed.link == Link::Held;
        let forward = |line: &'static [u8], expect| Action::Forward(Cow::Borrowed(line), expect);
        let state = match command {
            Command::Data if attached && !denied => State::AwaitingData(handed),
            Command::Quit => State::Leaving,
            Command::Mail(path) => return self.mail(handed, path, line),
            Command::Rcpt(path) if attached && !denied => return self.rcpt(handed, path, line),
            _ => State::Ready(handed),
        };
        self.state = state;
        match command {
            Command::Data if attached && !denied => forward(b"DATA", Expect::Data),
            Command::Noop if attached => forward(b"NOOP", Expect::Noop),
            Command::Rset if attached => forward(b"RSET", Expect::Rset),
            // EHLO resets the transaction (RFC 5321, 4.1.4); the upstream gets RSET, as it already
            // had EHLO.
            Command::Ehlo(_) if attached => {
                let answer = self.ehlo(&["AUTH PLAIN LOGIN"]);
                forward(b"RSET", Expect::Ehlo(Box::new(answer)))
            }
            Command::Helo(_) if attached => {
                let answer = Reply::helo(&self.settings.hostname);
                forward(b"RSET", Expect::Ehlo(Box::new(answer)))
            }
            Command::Ehlo(_) => self.answer(self.ehlo(&["AUTH PLAIN LOGIN"])),
            Command::Helo(_) => self.answer(Reply::helo(&self.settings.hostname)),
            Command::Help => self.answer(reply::HELP),
            Command::Noop | Command::Rset => self.answer(reply::OK),
            Command::NotOffered => self.refuse(reply::NOT_OFFERED),
            // Never forwarded: a client whose upstream is lost at QUIT would take its message for
            // lost and send again.
            Command::Quit => Action::Close(reply::BYE),
            Command::Auth(_) => self.refuse(reply::ALREADY_AUTHENTICATED),
            Command::StartTls => self.refuse(reply::ALREADY_TLS),
            Command::Vrfy => self.answer(reply::CANNOT_VERIFY),
            // Without an upstream or MAIL there is no transaction.
            Command::Rcpt(_) => self.refuse_recipient(reply::OUT_OF_ORDER),
            Command::Data | Command::Mail(_) => self.refuse(reply::OUT_OF_ORDER),
        }
    }

    fn mail<'a>(&mut self, handed: Handed, path: Path, line: &[u8]) -> Action<'a> {
        match envelope::mail(&path, &self.extensions, self.offered_size()) {
            Err(refusal) => {
                self.state = State::Ready(handed);
                self.refuse(refusal)
            }
            Ok(rebuilt) => {
                self.asked.clear();
                path.write(b"MAIL FROM:", line, &mut self.asked);
                self.sent.clear();
                self.sent
                    .extend_from_slice(rebuilt.as_ref().unwrap_or(&self.asked));
                // The text before the path contains no angle bracket.
                let start = memchr::memchr(b'<', &self.asked).unwrap_or(self.asked.len());
                let brackets = 2;
                let envelope = Envelope::Mail {
                    path: start..start + path.address.len() + brackets,
                    size: envelope::stated_size(&path),
                };
                self.state = State::Admitting { handed, envelope };
                Action::CheckPolicy
            }
        }
    }

    fn rcpt<'a>(&mut self, handed: Handed, path: Path, line: &[u8]) -> Action<'a> {
        match envelope::rcpt(&path, &self.extensions) {
            Err(refusal) => {
                self.state = State::Ready(handed);
                self.refuse_recipient(refusal)
            }
            Ok(()) => {
                self.asked.clear();
                path.write(b"RCPT TO:", line, &mut self.asked);
                let envelope = Envelope::Recipient;
                self.state = State::Admitting { handed, envelope };
                Action::CheckPolicy
            }
        }
    }

    /// Returns the request of [`Action::CheckPolicy`].
    pub fn policy_request(&self) -> Option<PolicyRequest<'_>> {
        let State::Admitting { envelope, .. } = &self.state else {
            return None;
        };
        match envelope {
            Envelope::Mail { path, size } => Some(PolicyRequest::Mail {
                path: self.asked.get(path.clone())?,
                size: *size,
            }),
            Envelope::Recipient => Some(PolicyRequest::Recipient),
        }
    }

    /// Continues with the decision after [`Action::CheckPolicy`].
    pub fn on_policy(&mut self, verdict: Result<(), Denial>) -> Action<'_> {
        let State::Admitting {
            mut handed,
            envelope,
        } = std::mem::take(&mut self.state)
        else {
            return self.close(reply::OUT_OF_ORDER);
        };
        let is_recipient = matches!(envelope, Envelope::Recipient);
        match verdict {
            Ok(()) if is_recipient => {
                self.state = State::Ready(handed);
                Action::Forward(Cow::Borrowed(&self.asked), Expect::Rcpt)
            }
            Ok(()) if handed.link == Link::Held => {
                self.state = State::Ready(handed);
                Action::Forward(Cow::Borrowed(&self.sent), Expect::Mail)
            }
            Ok(()) => {
                let identity = handed.identity.clone();
                let mail = std::mem::take(&mut self.asked);
                self.state = State::Reopening { handed, mail };
                Action::Connect(identity)
            }
            Err(denial @ Denial::Over(Party::Organization, Limit::MessagesPerSecond)) => {
                self.close(Reply::denied(denial))
            }
            // RFC 5321, 4.5.3.1.10: no client error, as the client goes on with the accepted
            // recipients.
            Err(denial) if is_recipient => {
                self.state = State::Ready(handed);
                Action::Reply(Reply::denied(denial))
            }
            Err(denial) => {
                handed.denied = true;
                self.state = State::Ready(handed);
                self.refuse(Reply::denied(denial))
            }
        }
    }

    /// Rebuilds MAIL for a new upstream session, whose extensions may differ.
    fn mail_again<'a>(&mut self, line: &[u8]) -> Action<'a> {
        let mail = match Command::parse(line) {
            Ok(Command::Mail(path)) => envelope::mail(&path, &self.extensions, self.offered_size()),
            _ => Err(reply::OUT_OF_ORDER),
        };
        match mail {
            Ok(rebuilt) => {
                let mail = rebuilt.unwrap_or_else(|| line.to_vec());
                Action::Forward(Cow::Owned(mail), Expect::Mail)
            }
            Err(refusal) => self.refuse(refusal),
        }
    }

    /// Returns the largest message that the session may send, in octets.
    pub fn message_size(&self) -> u64 {
        let offered = self.offered_size();
        self.message_limit
            .map_or(offered, |limit| limit.min(offered))
    }

    /// Returns the largest message that Gatepost and the upstream accept from any client, in
    /// octets.
    fn offered_size(&self) -> u64 {
        self.extensions.message_size(self.settings.message_size)
    }

    /// Limits the client's message size, in EHLO and while streaming, in octets.
    pub fn limit_message_size(&mut self, limit: Option<u64>) {
        self.message_limit = limit;
    }

    /// DATA was answered; `go` means that a body follows.
    pub fn on_data(&mut self, go: bool) {
        self.state = match std::mem::take(&mut self.state) {
            State::AwaitingData(handed) if go => State::Body(handed),
            State::AwaitingData(handed) => State::Ready(handed),
            _ => State::Closed,
        };
    }

    /// The client's end of data was forwarded.
    pub fn on_end_of_data(&mut self) {
        self.state = match std::mem::take(&mut self.state) {
            State::Body(handed) => State::Ready(handed),
            _ => State::Closed,
        };
    }

    /// The client's end of data arrived for a message rejected by Gatepost, whose upstream session
    /// is closed.
    pub fn on_refused_body<'a>(&mut self, refusal: Refusal) -> Action<'a> {
        self.on_end_of_data();
        self.on_detached();
        self.refuse(match refusal {
            Refusal::BareNewline { line } => Reply::bare_newline(line),
            Refusal::From(_) => Reply::denied(Denial::Against(Rule::HeaderFrom)),
            Refusal::Nul { line } => Reply::nul(line),
            Refusal::TooLarge => reply::TOO_LARGE,
        })
    }

    /// The client's end of data arrived after the upstream was lost inside the body. The reply does
    /// not reject the message.
    pub fn on_lost_body(&mut self) {
        self.on_end_of_data();
        self.on_detached();
    }

    /// The upstream session ended without loss. The next MAIL opens a new session.
    pub fn on_detached(&mut self) {
        self.set_link(Link::None);
    }

    /// The upstream session ended, and its pending replies were answered without the upstream.
    pub fn on_answered_without_upstream(&mut self) {
        if let State::AwaitingData(_) = self.state {
            self.on_data(false);
        }
        self.on_detached();
    }

    /// The upstream session ended inside a transaction with no reply due.
    pub fn on_lost_transaction(&mut self) {
        self.set_link(Link::Lost);
    }

    fn set_link(&mut self, link: Link) {
        match &mut self.state {
            State::Ready(handed) => handed.link = link,
            state => *state = State::Closed,
        }
    }

    /// The upstream answered a message. An accepted message shows an honest client and resets the
    /// error count.
    pub fn on_message(&mut self, taken: bool) {
        if taken {
            self.errors = 0;
            self.has_sent = true;
        }
    }

    /// The upstream rejected a recipient permanently. Disconnects a client that probes address
    /// after address without sending a message.
    pub fn on_refused_recipient<'a>(&mut self) -> Option<Action<'a>> {
        if self.has_sent || self.is_closed() {
            return None;
        }
        self.errors += 1;
        (self.errors >= self.settings.max_errors).then(|| self.close(reply::TOO_MANY_ERRORS))
    }

    /// Returns how many octets of a discarded message are read at most.
    pub fn most_read(&self) -> u64 {
        let largest = self.settings.message_size;
        largest.saturating_add(largest.max(LEAST_EXCESS))
    }

    /// Closes the session for an outside reason: a timeout, the shutdown or a lost upstream.
    pub fn close<'a>(&mut self, reply: Reply) -> Action<'a> {
        self.state = State::Closed;
        Action::Close(reply)
    }

    fn answer<'a>(&self, reply: Reply) -> Action<'a> {
        Action::Reply(reply)
    }

    /// Rejects a command and counts the error, so that a client that does nothing right is
    /// disconnected.
    fn refuse<'a>(&mut self, refusal: Reply) -> Action<'a> {
        self.errors += 1;
        if self.errors >= self.settings.max_errors {
            return self.close(reply::TOO_MANY_ERRORS);
        }
        Action::Reply(refusal)
    }

    /// Rejects a recipient. The error counts only until a message is accepted: address lists
    /// contain bad addresses, and a client that sends mail is not probing.
    fn refuse_recipient<'a>(&mut self, refusal: Reply) -> Action<'a> {
        match self.has_sent {
            true => Action::Reply(refusal),
            false => self.refuse(refusal),
        }
    }

    fn ehlo(&self, ours: &[&'static str]) -> Reply {
        let own = self.settings.message_size;
        let size = self.message_limit.map_or(own, |limit| limit.min(own));
        let mut keywords = self.extensions.announced(size);
        keywords.extend(ours.iter().map(|&keyword| Cow::Borrowed(keyword)));
        Reply::ehlo(&self.settings.hostname, &keywords)
    }
}

/// Whether a command starts or continues a login or a transaction.
fn begins(command: &Command) -> bool {
    match command {
        Command::Auth(_)
        | Command::Data
        | Command::Mail(_)
        | Command::Rcpt(_)
        | Command::StartTls => true,
        Command::Ehlo(_)
        | Command::Helo(_)
        | Command::Help
        | Command::Noop
        | Command::NotOffered
        | Command::Quit
        | Command::Rset
        | Command::Vrfy => false,
    }
}

/// Whether a malformed line was meant as RCPT.
fn is_recipient(line: &[u8]) -> bool {
    split_verb(line).0.eq_ignore_ascii_case(b"RCPT")
}

fn command_error(error: CommandError) -> Reply {
    match error {
        CommandError::Arguments => reply::BAD_ARGUMENTS,
        CommandError::Characters => reply::BAD_LINE,
        CommandError::TooLong => reply::LINE_TOO_LONG,
        CommandError::Unknown => reply::UNKNOWN_COMMAND,
    }
}

/// RFC 4954, 4 defines a specific code for AUTH.
fn too_long(start: &[u8]) -> Reply {
    match split_verb(start).0.eq_ignore_ascii_case(b"AUTH") {
        true => reply::RESPONSE_TOO_LONG,
        false => reply::LINE_TOO_LONG,
    }
}
