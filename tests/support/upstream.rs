//! An upstream in the place of Postfix: it speaks XCLIENT, records all it is told, and misbehaves
//! where a test tells it to.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{PATIENCE, ports};

/// What Postfix offers and then some, so that a test sees which of it reaches a client.
pub const EXTENSIONS: &str = "250-upstream.example.test\r\n\
    250-PIPELINING\r\n250-SIZE 10240000\r\n250-VRFY\r\n250-ETRN\r\n250-STARTTLS\r\n\
    250-AUTH CRAM-MD5\r\n250-ENHANCEDSTATUSCODES\r\n250-8BITMIME\r\n250-DSN\r\n250-SMTPUTF8\r\n\
    250-CHUNKING\r\n250-BINARYMIME\r\n250-X-NOVELTY\r\n250-XFORWARD NAME ADDR\r\n\
    250 XCLIENT NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN DESTADDR DESTPORT";

/// The pseudo-command a rule names for the first line of a body.
pub const BODY: &str = "<body>";
/// The pseudo-command a rule names for the end of data.
pub const END_OF_DATA: &str = "<end of data>";

/// What to do at a command instead of the usual.
#[derive(Clone, Copy, Debug)]
pub enum Act {
    /// Says this, each byte in a segment of its own.
    Bytewise(&'static str),
    Close,
    /// Says `250-` lines for as long as anybody takes them.
    Flood,
    /// Says this as it is, then closes.
    Last(&'static str),
    /// Says this after so many milliseconds.
    Late(u64, &'static str),
    /// Says this as it is, CRLF or not.
    Raw(&'static str),
    Reply(&'static str),
    /// Closes in the way that makes the peer's kernel forget what it had not read.
    Reset,
    Silence,
    /// Says this line by line, with a pause before each.
    Slowly(&'static str),
}

/// What one connection said.
#[derive(Clone, Default, Debug)]
pub struct Session {
    /// Command lines without CRLF.
    pub commands: Vec<String>,
    /// What each read returned: whether a batch of commands stayed a batch.
    pub reads: Vec<String>,
    /// Bodies that came to their end of data, as on the wire, without the last dot.
    pub bodies: Vec<Vec<u8>>,
    /// How much arrived of a body that has not come to its end of data.
    pub unfinished: Vec<u8>,
    /// How many bodies were answered with a whole 2xx.
    pub taken: usize,
    /// Whether the peer, or a rule, ended the connection.
    pub ended: bool,
    /// Whether a TLS handshake was completed.
    pub tls: bool,
    /// Whether the peer showed a certificate in it.
    pub certified: bool,
}

impl Session {
    /// The XCLIENT command of a session that was handed over.
    pub fn xclient(&self) -> Option<&str> {
        let mut commands = self.commands.iter().map(String::as_str);
        commands.find(|command| command.starts_with("XCLIENT ") && command.contains(" LOGIN="))
    }

    /// Whether a command that begins with `start` came.
    pub fn heard(&self, start: &str) -> bool {
        self.commands
            .iter()
            .any(|command| command.starts_with(start))
    }
}

/// A listening upstream; its connections die with it.
pub struct Upstream {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

/// When TLS begins, and with what.
#[derive(Clone, Default)]
pub enum Security {
    /// With the first byte.
    Implicit(Arc<ServerConfig>),
    /// Never; STARTTLS is offered and refused.
    #[default]
    None,
    /// After STARTTLS.
    StartTls(Arc<ServerConfig>),
}

#[derive(Clone, Copy)]
struct Rule {
    /// How the commands begin that it is for.
    start: &'static str,
    act: Act,
    /// Whether it is forgotten once it was followed.
    once: bool,
}

#[derive(Default)]
struct Shared {
    tls: Security,
    lax: bool,
    rules: Mutex<Vec<Rule>>,
    sessions: Mutex<Vec<Session>>,
    changed: Condvar,
    sockets: Mutex<Vec<TcpStream>>,
    stopped: AtomicBool,
}

impl Shared {
    fn record(&self, index: usize, change: impl FnOnce(&mut Session)) {
        change(&mut self.sessions.lock().unwrap()[index]);
        self.changed.notify_all();
    }
}

impl Upstream {
    pub fn start() -> Upstream {
        Upstream::start_at(ports::free_address())
    }

    /// Starts where an earlier one stopped.
    pub fn start_at(address: SocketAddr) -> Upstream {
        Upstream::listen(address, Security::None, false)
    }

    /// Starts one that takes any CR and any LF for the end of a line, as no upstream should.
    pub fn start_lax() -> Upstream {
        Upstream::listen(ports::free_address(), Security::None, true)
    }

    /// Starts one that speaks TLS.
    pub fn start_with(tls: Security) -> Upstream {
        Upstream::listen(ports::free_address(), tls, false)
    }

    fn listen(address: SocketAddr, tls: Security, lax: bool) -> Upstream {
        let listener = TcpListener::bind(address).expect("bind the upstream");
        let shared = Arc::new(Shared {
            tls,
            lax,
            ..Shared::default()
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                if accepting.stopped.load(Ordering::SeqCst) {
                    return;
                }
                accepting
                    .sockets
                    .lock()
                    .unwrap()
                    .push(socket.try_clone().expect("a descriptor"));
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || Conversation::new(socket, shared).run());
            }
        });
        Upstream { address, shared }
    }

    /// From now on does `act` at commands that begin with `command`.
    pub fn on(&self, command: &'static str, act: Act) {
        self.rule(command, act, false);
    }

    /// Does `act` at the next command that begins with `command`, and never again.
    pub fn once(&self, command: &'static str, act: Act) {
        self.rule(command, act, true);
    }

    fn rule(&self, start: &'static str, act: Act, once: bool) {
        let rule = Rule { start, act, once };
        self.shared.rules.lock().unwrap().insert(0, rule);
    }

    /// Whether every rule for one time has been followed.
    pub fn is_through(&self) -> bool {
        let rules = self.shared.rules.lock().unwrap();
        !rules.iter().any(|rule| rule.once)
    }

    /// Cuts every connection there is; new ones are welcome.
    pub fn hang_up(&self) {
        for socket in self.shared.sockets.lock().unwrap().drain(..) {
            // Fails where the peer was faster, which is as good.
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// The sessions handed over so far, in the order of their connections. Probes are not.
    pub fn handed_over(&self) -> Vec<Session> {
        let mut sessions = self.shared.sessions.lock().unwrap().clone();
        sessions.retain(|session| session.xclient().is_some());
        sessions
    }

    /// Every session so far, probes included.
    pub fn sessions(&self) -> Vec<Session> {
        self.shared.sessions.lock().unwrap().clone()
    }

    /// Waits until some handed-over session satisfies `condition`, and returns it.
    #[track_caller]
    pub fn wait_for(&self, what: &str, condition: impl Fn(&Session) -> bool) -> Session {
        let seen = |sessions: &mut Vec<Session>| !sessions.iter().any(&condition);
        let sessions = self.shared.sessions.lock().unwrap();
        let (sessions, timeout) = self
            .shared
            .changed
            .wait_timeout_while(sessions, PATIENCE, seen)
            .unwrap();
        assert!(
            !timeout.timed_out(),
            "no upstream session {what}: {sessions:#?}"
        );
        sessions
            .iter()
            .find(|session| condition(session))
            .expect("just seen")
            .clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the accept so that it sees the flag and gives the port back.
        let _ = TcpStream::connect(self.address);
        self.hang_up();
    }
}

/// A connection, in the clear or inside TLS.
enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Wire {
    fn shake_hands(&mut self, config: Arc<ServerConfig>) -> Option<bool> {
        let Wire::Plain(socket) = self else {
            panic!("TLS inside TLS")
        };
        let mut socket = socket.try_clone().expect("a descriptor");
        let mut session = ServerConnection::new(config).expect("a valid configuration");
        while session.is_handshaking() {
            session.complete_io(&mut socket).ok()?;
        }
        let certified = session.peer_certificates().is_some();
        *self = Wire::Tls(Box::new(StreamOwned::new(session, socket)));
        Some(certified)
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Wire::Plain(socket) => socket.read(buffer),
            Wire::Tls(tls) => tls.read(buffer),
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Wire::Plain(socket) => socket.write_all(bytes),
            Wire::Tls(tls) => tls.write_all(bytes).and_then(|()| tls.flush()),
        }
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Wire::Plain(socket) => socket,
            Wire::Tls(tls) => &tls.sock,
        }
    }
}

/// The upstream's side of one connection.
struct Conversation {
    socket: Wire,
    shared: Arc<Shared>,
    index: usize,
    buffer: Vec<u8>,
    /// Whether the body that ended last is among those taken already.
    counted: bool,
}

impl Conversation {
    fn new(socket: TcpStream, shared: Arc<Shared>) -> Conversation {
        let index = {
            let mut sessions = shared.sessions.lock().unwrap();
            sessions.push(Session::default());
            sessions.len() - 1
        };
        Conversation {
            socket: Wire::Plain(socket),
            shared,
            index,
            buffer: Vec::new(),
            counted: false,
        }
    }

    fn run(mut self) {
        self.converse();
        let Conversation {
            socket,
            shared,
            index,
            ..
        } = self;
        let tcp = socket.tcp();
        if socket2::SockRef::from(tcp)
            .linger()
            .is_ok_and(|linger| linger.is_none())
        {
            // Fails where the peer was faster, which is as good.
            let _ = tcp.shutdown(Shutdown::Both);
        }
        drop(socket);
        shared.record(index, |session| session.ended = true);
    }

    /// Until the peer goes, or a rule says to.
    fn converse(&mut self) -> Option<()> {
        if let Security::Implicit(config) = self.shared.tls.clone() {
            self.shake_hands(config)?;
        }
        self.obey("<greeting>", "220 upstream.example.test ESMTP")?;
        loop {
            let line = String::from_utf8_lossy(&self.line()?).into_owned();
            self.record(|session| session.commands.push(line.clone()));
            let verb = line
                .split(' ')
                .next()
                .unwrap_or_default()
                .to_ascii_uppercase();
            let usual = match verb.as_str() {
                "EHLO" => EXTENSIONS,
                "XCLIENT" => "220 upstream.example.test ESMTP",
                "MAIL" => "250 2.1.0 Ok",
                "RCPT" => "250 2.1.5 Ok",
                "DATA" => "354 Go on",
                "STARTTLS" if matches!(self.shared.tls, Security::StartTls(_)) => "220 2.0.0 Go on",
                "RSET" | "NOOP" => "250 2.0.0 Ok",
                "QUIT" => "221 2.0.0 Bye",
                _ => "502 5.5.1 Not implemented upstream",
            };
            let reply = self.obey(&line, usual)?;
            match verb.as_str() {
                "DATA" if reply.starts_with("354") => self.body()?,
                "STARTTLS" if reply.starts_with("220") => {
                    if let Security::StartTls(config) = self.shared.tls.clone() {
                        self.shake_hands(config)?;
                    }
                }
                "QUIT" => return None,
                _ => {}
            }
        }
    }

    fn shake_hands(&mut self, config: Arc<ServerConfig>) -> Option<()> {
        // What came before the handshake and was not asked for is not for this session.
        self.buffer.clear();
        let certified = self.socket.shake_hands(config)?;
        self.record(|session| {
            session.tls = true;
            session.certified = certified;
        });
        Some(())
    }

    fn body(&mut self) -> Option<()> {
        self.record(|session| session.unfinished.clear());
        let mut first = true;
        loop {
            let (line, end) = self.whole_line()?;
            if &line[..line.len() - end] == b"." {
                break;
            }
            self.record(|session| session.unfinished.extend_from_slice(&line));
            if std::mem::take(&mut first) {
                self.obey(BODY, "")?;
            }
        }
        self.record(|session| {
            let body = std::mem::take(&mut session.unfinished);
            session.bodies.push(body);
        });
        let reply = self.obey(END_OF_DATA, "250 2.0.0 Ok: queued as 4242")?;
        if !self.counted && reply.starts_with('2') && reply.contains("\r\n") {
            self.record(|session| session.taken += 1);
        }
        self.counted = false;
        Some(())
    }

    /// Answers as a rule for `command` says, or with `usual`; returns all that was said. `None` where
    /// that is to close.
    fn obey(&mut self, command: &str, usual: &'static str) -> Option<String> {
        let act = self.act_at(command).unwrap_or(Act::Reply(usual));
        match act {
            Act::Bytewise(text) => {
                for byte in text.as_bytes() {
                    self.say(&[*byte])?;
                }
                Some(text.to_owned())
            }
            Act::Close => None,
            Act::Flood => loop {
                self.say(&b"250-flood\r\n".repeat(1000))?;
            },
            Act::Last(text) => {
                self.say(text.as_bytes())?;
                None
            }
            Act::Raw(text) => {
                self.say(text.as_bytes())?;
                Some(text.to_owned())
            }
            Act::Late(millis, text) => {
                // The subject is time, so there is nothing to wait for instead.
                std::thread::sleep(Duration::from_millis(millis));
                let reply = format!("{text}\r\n");
                self.say(reply.as_bytes())?;
                Some(reply)
            }
            Act::Reply("") | Act::Silence => Some(String::new()),
            Act::Reply(text) => {
                let reply = format!("{text}\r\n");
                // Before it is said: whoever hears it may look at once.
                self.counted = command == END_OF_DATA && text.starts_with('2');
                if self.counted {
                    self.record(|session| session.taken += 1);
                }
                self.say(reply.as_bytes())?;
                Some(reply)
            }
            Act::Reset => {
                let socket = self.socket.tcp();
                let linger = socket2::SockRef::from(socket).set_linger(Some(Duration::ZERO));
                linger.expect("a reset at the close");
                // The close is that of the last descriptor.
                let peer = socket.peer_addr().ok();
                let mut sockets = self.shared.sockets.lock().unwrap();
                sockets.retain(|other| other.peer_addr().ok() != peer);
                None
            }
            Act::Slowly(text) => {
                for line in text.split_inclusive('\n') {
                    // The subject is time, so there is nothing to wait for instead.
                    std::thread::sleep(Duration::from_millis(60));
                    self.say(line.as_bytes())?;
                }
                Some(text.to_owned())
            }
        }
    }

    fn act_at(&self, command: &str) -> Option<Act> {
        let mut rules = self.shared.rules.lock().unwrap();
        let at = rules
            .iter()
            .position(|rule| command.starts_with(rule.start))?;
        let rule = rules[at];
        if rule.once {
            rules.remove(at);
        }
        Some(rule.act)
    }

    fn say(&mut self, bytes: &[u8]) -> Option<()> {
        self.socket.write_all(bytes).ok()
    }

    /// The next line without its end.
    fn line(&mut self) -> Option<Vec<u8>> {
        let (mut line, end) = self.whole_line()?;
        line.truncate(line.len() - end);
        Some(line)
    }

    /// The next line with its end, and how long that is. Only CRLF ends one, so that this upstream
    /// cannot be smuggled to; unless it is to be lax.
    fn whole_line(&mut self) -> Option<(Vec<u8>, usize)> {
        loop {
            let found = match self.shared.lax {
                true => lax_line(&self.buffer),
                false => strict_line(&self.buffer),
            };
            if let Some((length, end)) = found {
                return Some((self.buffer.drain(..length).collect(), end));
            }
            let mut chunk = [0; 16 * 1024];
            let length = self
                .socket
                .read(&mut chunk)
                .ok()
                .filter(|&length| length > 0)?;
            self.buffer.extend_from_slice(&chunk[..length]);
            let read = String::from_utf8_lossy(&chunk[..length]).into_owned();
            self.record(|session| session.reads.push(read));
        }
    }

    fn record(&self, change: impl FnOnce(&mut Session)) {
        self.shared.record(self.index, change);
    }
}

/// How long the first line is, with its end, and how long that end is.
fn strict_line(buffer: &[u8]) -> Option<(usize, usize)> {
    let end = buffer.windows(2).position(|pair| pair == b"\r\n")?;
    Some((end + 2, 2))
}

/// The same for who takes any CR and any LF for the end of a line.
fn lax_line(buffer: &[u8]) -> Option<(usize, usize)> {
    let end = buffer.iter().position(|byte| b"\r\n".contains(byte))?;
    match (buffer[end], buffer.get(end + 1)) {
        (b'\n', _) => Some((end + 1, 1)),
        // The other half may be on its way.
        (_, None) => None,
        (_, Some(b'\n')) => Some((end + 2, 2)),
        (_, Some(_)) => Some((end + 1, 1)),
    }
}
