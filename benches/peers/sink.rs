//! The upstream of everything measured: one thread that answers at once, takes XCLIENT, a PROXY header or a login,
//! and verifies every message.

use std::collections::HashSet;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use memchr::memmem;
use mio::net::TcpListener;
use mio::{Events, Interest, Poll, Token};

use crate::message::claim;
use crate::wire::{self, Buffers, Link, Received};

const LISTENER: Token = Token(usize::MAX);

const EHLO: &[u8] =
    b"250-sink.example.test\r\n250-PIPELINING\r\n250-SIZE 52428800\r\n250-8BITMIME\r\n\
    250-ENHANCEDSTATUSCODES\r\n250-AUTH PLAIN\r\n\
    250 XCLIENT NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN DESTADDR DESTPORT\r\n";

/// The name of a relay that logs nobody in here, because it took the message over itself.
const RELAY: &[u8] = b"relay.example.test";

/// What has arrived since the sink began.
#[derive(Default)]
pub struct Counters {
    /// Messages whose checksum was right.
    pub messages: AtomicU64,
    /// The numbers of those, added up.
    pub numbers: AtomicU64,
    /// Messages that were not as they had been sent.
    pub damaged: AtomicU64,
    /// Commands that made no sense, or came from whoever had not said who they are.
    pub refused: AtomicU64,
    /// Connections that are open.
    pub open: AtomicU64,
}

/// A running sink. It ends with the process.
pub struct Sink {
    pub address: SocketAddr,
    pub counters: Arc<Counters>,
}

impl Sink {
    /// Starts one that accepts these SASL PLAIN messages (in base64).
    pub fn start(address: SocketAddr, logins: HashSet<Vec<u8>>) -> io::Result<Sink> {
        let listener = wire::listen(address)?;
        let counters = Arc::new(Counters::default());
        let mut served = Served {
            poll: Poll::new()?,
            listener,
            conversations: Vec::new(),
            free: Vec::new(),
            logins,
            counters: Arc::clone(&counters),
        };
        std::thread::Builder::new()
            .name("sink".to_owned())
            .spawn(move || served.run().expect("the sink runs"))?;
        Ok(Sink { address, counters })
    }

    /// Waits until all connections are closed and `messages` have arrived in total, as far as that comes in time.
    pub fn settle(&self, messages: u64, patience: Duration) {
        let started = Instant::now();
        let is_settled = || {
            let arrived = self.counters.messages.load(Ordering::Relaxed)
                + self.counters.damaged.load(Ordering::Relaxed);
            self.counters.open.load(Ordering::Relaxed) == 0 && arrived >= messages
        };
        while !is_settled() && started.elapsed() < patience {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

struct Served {
    poll: Poll,
    listener: TcpListener,
    conversations: Vec<Option<Conversation>>,
    free: Vec<usize>,
    logins: HashSet<Vec<u8>>,
    counters: Arc<Counters>,
}

impl Served {
    fn run(&mut self) -> io::Result<()> {
        let registry = self.poll.registry().try_clone()?;
        registry.register(&mut self.listener, LISTENER, Interest::READABLE)?;
        let mut events = Events::with_capacity(1024);
        let mut buffers = Buffers::new();
        let mut input = Vec::new();
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            let mut wanted = false;
            for event in &events {
                if event.token() == LISTENER {
                    wanted = true;
                    continue;
                }
                let index = event.token().0;
                let Some(conversation) = &mut self.conversations[index] else {
                    continue;
                };
                let open = (!event.is_writable() || conversation.link.flush().is_ok())
                    && (!event.is_readable()
                        || conversation
                            .read(
                                &mut buffers,
                                &mut input,
                                event.is_read_closed(),
                                &self.logins,
                                &self.counters,
                            )
                            .unwrap_or(false));
                if !open {
                    self.conversations[index] = None;
                    self.free.push(index);
                    self.counters.open.fetch_sub(1, Ordering::Relaxed);
                }
            }
            // Not before the events of this turn are over: a place given away now could get those of its predecessor.
            while wanted && let Some((mut link, _)) = wire::accept(&self.listener)? {
                let index = self.free.pop().unwrap_or_else(|| {
                    self.conversations.push(None);
                    self.conversations.len() - 1
                });
                link.register(&registry, Token(index))?;
                self.counters.open.fetch_add(1, Ordering::Relaxed);
                // Whoever has gone by now is found out by its event.
                let _ = link.send(b"220 sink.example.test ESMTP\r\n");
                self.conversations[index] = Some(Conversation::new(link));
            }
        }
    }
}

/// What is awaited next.
enum State {
    Command,
    /// The header lines before ours.
    Head,
    Body {
        number: u64,
        checksum: [u8; 64],
        hasher: Box<blake3::Hasher>,
    },
    /// The rest of a message without our line.
    Foreign,
}

struct Conversation {
    link: Link,
    state: State,
    known: bool,
    /// The beginning of a line, or of an end of data, whose rest has not arrived.
    carry: Vec<u8>,
}

impl Conversation {
    fn new(link: Link) -> Conversation {
        Conversation {
            link,
            state: State::Command,
            known: false,
            carry: Vec::new(),
        }
    }

    /// Takes what has arrived and answers it. False when there is nothing more to come.
    fn read(
        &mut self,
        buffers: &mut Buffers,
        input: &mut Vec<u8>,
        to_end: bool,
        logins: &HashSet<Vec<u8>>,
        counters: &Counters,
    ) -> io::Result<bool> {
        loop {
            let received = self.link.receive(buffers, to_end)?;
            let goes_on = self.take(buffers, input, logins, counters)?;
            if !goes_on || received == Received::Closed {
                return Ok(false);
            }
            if received == Received::Drained {
                return Ok(true);
            }
        }
    }

    fn take(
        &mut self,
        buffers: &Buffers,
        input: &mut Vec<u8>,
        logins: &HashSet<Vec<u8>>,
        counters: &Counters,
    ) -> io::Result<bool> {
        let arrived: &[u8] = if self.carry.is_empty() {
            &buffers.plain
        } else {
            input.clear();
            input.extend_from_slice(&self.carry);
            input.extend_from_slice(&buffers.plain);
            self.carry = Vec::new();
            input
        };
        let mut replies = Vec::new();
        let mut rest = arrived;
        let mut goes_on = true;
        while goes_on && !rest.is_empty() {
            let taken = if matches!(self.state, State::Command) {
                let Some(end) = memchr::memchr(b'\n', rest) else {
                    break;
                };
                let line = rest[..end].trim_ascii_end();
                goes_on = self.command(line, &mut replies, logins, counters);
                end + 1
            } else {
                self.data(rest, &mut replies, counters)
            };
            if taken == 0 {
                break;
            }
            rest = &rest[taken..];
        }
        self.carry.extend_from_slice(rest);
        if !replies.is_empty() {
            self.link.send(&replies)?;
        }
        Ok(goes_on)
    }

    /// Answers one command. False after QUIT.
    fn command(
        &mut self,
        line: &[u8],
        replies: &mut Vec<u8>,
        logins: &HashSet<Vec<u8>>,
        counters: &Counters,
    ) -> bool {
        let verb = line.split(|&byte| byte == b' ').next().unwrap_or_default();
        let reply: &[u8] = match verb.to_ascii_uppercase().as_slice() {
            b"PROXY" => b"",
            b"EHLO" => {
                self.known |= line.ends_with(RELAY);
                EHLO
            }
            b"XCLIENT" => {
                self.known = true;
                b"220 sink.example.test ESMTP\r\n"
            }
            b"AUTH" if logins.contains(line.get(11..).unwrap_or_default()) => {
                self.known = true;
                b"235 2.7.0 Authentication successful\r\n"
            }
            b"AUTH" => b"535 5.7.8 Authentication credentials invalid\r\n",
            b"DATA" if self.known => {
                self.state = State::Head;
                b"354 Go ahead\r\n"
            }
            b"MAIL" | b"RCPT" if self.known => b"250 2.1.0 Ok\r\n",
            b"NOOP" | b"RSET" => b"250 2.0.0 Ok\r\n",
            b"QUIT" => b"221 2.0.0 Bye\r\n",
            _ => {
                counters.refused.fetch_add(1, Ordering::Relaxed);
                b"503 5.5.1 Not now\r\n"
            }
        };
        replies.extend_from_slice(reply);
        !verb.eq_ignore_ascii_case(b"QUIT")
    }

    /// Takes a piece of a message; how much of it.
    fn data(&mut self, piece: &[u8], replies: &mut Vec<u8>, counters: &Counters) -> usize {
        match &mut self.state {
            State::Command => 0,
            State::Head => {
                let Some(end) = memmem::find(piece, b"\r\n") else {
                    return 0;
                };
                let line = &piece[..end];
                if let Some((number, checksum)) = claim(line) {
                    self.state = State::Body {
                        number,
                        checksum,
                        hasher: Box::default(),
                    };
                } else if line.is_empty() || line == b"." {
                    self.state = State::Foreign;
                    return 0;
                }
                end + 2
            }
            State::Body {
                number,
                checksum,
                hasher,
            } => match memmem::find(piece, b"\r\n.\r\n") {
                Some(end) => {
                    hasher.update(&piece[..end + 2]);
                    if hasher.finalize().to_hex().as_bytes() == checksum {
                        counters.numbers.fetch_add(*number, Ordering::Relaxed);
                        counters.messages.fetch_add(1, Ordering::Relaxed);
                    } else {
                        counters.damaged.fetch_add(1, Ordering::Relaxed);
                    }
                    self.received(end + 5, replies)
                }
                None => {
                    let sure = piece.len().saturating_sub(4);
                    hasher.update(&piece[..sure]);
                    sure
                }
            },
            State::Foreign => match memmem::find(piece, b"\r\n.\r\n") {
                Some(end) => {
                    counters.damaged.fetch_add(1, Ordering::Relaxed);
                    self.received(end + 5, replies)
                }
                None => piece.len().saturating_sub(4),
            },
        }
    }

    fn received(&mut self, taken: usize, replies: &mut Vec<u8>) -> usize {
        self.state = State::Command;
        replies.extend_from_slice(b"250 2.0.0 Ok\r\n");
        taken
    }
}
