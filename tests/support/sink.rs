//! The laxest upstream there could be: whatever any server ever took for the end of a message ends
//! one here. What it commits is what a message would become at the worst of them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};

use super::{PATIENCE, ports};

const OFFER: &str = "250-sink.example.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n\
    250 XCLIENT ADDR PORT PROTO HELO LOGIN\r\n";

/// What came of one MAIL, by its reverse-path.
#[derive(Clone, Default, Debug)]
pub struct Transaction {
    /// The octets of its body so far.
    pub received: Vec<u8>,
    /// Bodies that came to what is an end here, without it.
    pub committed: Vec<Vec<u8>>,
    /// Whether the connection ended, or the body did.
    pub over: bool,
}

/// A listening sink.
pub struct Sink {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    transactions: Mutex<BTreeMap<String, Transaction>>,
    changed: Condvar,
}

impl Sink {
    pub fn start() -> Sink {
        let address = ports::free_address();
        let listener = TcpListener::bind(address).expect("bind the sink");
        let shared = Arc::<Shared>::default();
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                socket.set_nodelay(true).expect("answer at once");
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || Conversation::new(socket, shared).run());
            }
        });
        Sink { address, shared }
    }

    /// Waits until the transaction of `sender` satisfies `condition`, and returns it.
    #[track_caller]
    pub fn wait_for(&self, sender: &str, condition: impl Fn(&Transaction) -> bool) -> Transaction {
        let transactions = self.shared.transactions.lock().unwrap();
        let (transactions, timeout) = self
            .shared
            .changed
            .wait_timeout_while(transactions, PATIENCE, |transactions| {
                !transactions.get(sender).is_some_and(&condition)
            })
            .unwrap();
        let transaction = transactions.get(sender);
        assert!(!timeout.timed_out(), "{sender}: {transaction:?}");
        transaction.expect("just seen").clone()
    }

    /// Every transaction so far.
    pub fn transactions(&self) -> BTreeMap<String, Transaction> {
        self.shared.transactions.lock().unwrap().clone()
    }
}

/// Where in `body` the first thing stands that some server took for the end of a message: a dot,
/// alone between any two of CR and LF, with NULs ignored, or a NUL behind it for the end of all
/// text. Its first octet and the one behind it.
pub fn lax_end(body: &[u8]) -> Option<(usize, usize)> {
    let mut line_start = 0;
    loop {
        let line = &body[line_start..];
        let nuls = line.iter().take_while(|&&byte| byte == 0).count();
        if let [b'.', b'\0' | b'\r' | b'\n', ..] = line[nuls..] {
            return Some((line_start, line_start + nuls + 2));
        }
        line_start += 1 + memchr::memchr2(b'\r', b'\n', &body[line_start..])?;
    }
}

/// The sink's side of one connection.
struct Conversation {
    socket: TcpStream,
    shared: Arc<Shared>,
    input: Vec<u8>,
    sender: String,
}

impl Conversation {
    fn new(socket: TcpStream, shared: Arc<Shared>) -> Conversation {
        Conversation {
            socket,
            shared,
            input: Vec::new(),
            sender: String::new(),
        }
    }

    fn run(mut self) {
        self.converse();
        // Fails where the peer was faster, which is as good.
        let _ = self.socket.shutdown(Shutdown::Both);
        self.record(|transaction| transaction.over = true);
    }

    /// Until the peer goes.
    fn converse(&mut self) -> Option<()> {
        self.say("220 sink.example.test ESMTP\r\n")?;
        loop {
            let line = self.line()?;
            let verb: String = line.chars().take(4).collect();
            match verb.to_ascii_uppercase().as_str() {
                "EHLO" => self.say(OFFER)?,
                "XCLI" => self.say("220 sink.example.test ESMTP\r\n")?,
                "MAIL" => {
                    self.sender = line;
                    self.record(|_| ());
                    self.say("250 2.1.0 Ok\r\n")?;
                }
                "DATA" => {
                    self.say("354 Go on\r\n")?;
                    self.body()?;
                    self.say("250 2.0.0 Ok\r\n")?;
                }
                "QUIT" => return self.say("221 2.0.0 Bye\r\n"),
                _ => self.say("250 2.0.0 Ok\r\n")?,
            }
        }
    }

    fn body(&mut self) -> Option<()> {
        loop {
            let body = self.input.clone();
            if let Some((end, next)) = lax_end(&body) {
                self.input.drain(..next);
                self.record(|transaction| {
                    transaction.committed.push(body[..end].to_vec());
                    transaction.over = true;
                });
                return Some(());
            }
            self.record(|transaction| transaction.received = body);
            self.read()?;
        }
    }

    /// The next line that is not empty, however it ends. What is left of an end of data, the LF
    /// behind its CR, is an empty one.
    fn line(&mut self) -> Option<String> {
        loop {
            while let Some(end) = memchr::memchr2(b'\r', b'\n', &self.input) {
                let line: Vec<u8> = self.input.drain(..=end).collect();
                // The other half of a CRLF is not the beginning of a body.
                if line.ends_with(b"\r") && self.input.starts_with(b"\n") {
                    self.input.remove(0);
                }
                let text = String::from_utf8_lossy(&line[..end]).replace('\0', "");
                if !text.is_empty() {
                    return Some(text);
                }
            }
            self.read()?;
        }
    }

    fn read(&mut self) -> Option<()> {
        let mut chunk = [0; 16 * 1024];
        let length = self.socket.read(&mut chunk).ok()?;
        self.input.extend_from_slice(&chunk[..length]);
        (length > 0).then_some(())
    }

    fn say(&mut self, text: &str) -> Option<()> {
        self.socket.write_all(text.as_bytes()).ok()
    }

    fn record(&self, change: impl FnOnce(&mut Transaction)) {
        if self.sender.is_empty() {
            return;
        }
        let mut transactions = self.shared.transactions.lock().unwrap();
        change(transactions.entry(self.sender.clone()).or_default());
        self.shared.changed.notify_all();
    }
}
