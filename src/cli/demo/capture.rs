//! An upstream that takes every message and keeps it: enough SMTP to stand in for Postfix, with
//! XCLIENT so that the hand-over is the real one. A thread a connection; this is a demo's.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read as _, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::smtp::data::{BareNewline, Progress, Scanner};
use crate::smtp::line::{Line, LineReader};
use crate::smtp::xtext;

/// How long a connection may be silent; longer than any session may idle.
const TIMEOUT: Duration = Duration::from_secs(600);

const EHLO: &str = "250-capture\r\n250-PIPELINING\r\n250-SIZE 0\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n\
                    250-DSN\r\n250-ENHANCEDSTATUSCODES\r\n\
                    250 XCLIENT NAME ADDR PROTO HELO REVERSE_NAME PORT LOGIN DESTADDR DESTPORT\r\n";

/// The upstream, bound and not yet serving.
pub struct Capture {
    listener: TcpListener,
    maildir: PathBuf,
}

/// A message that has been kept.
#[derive(Debug)]
pub struct Captured {
    login: String,
    address: String,
    octets: u64,
    file: PathBuf,
}

impl Captured {
    /// One line for people.
    pub fn describe(&self) -> String {
        let Self {
            login,
            address,
            octets,
            file,
        } = self;
        format!(
            "captured: credential {login}, client {address}, {octets} bytes, {}",
            file.display()
        )
    }
}

impl Capture {
    /// Listens on a free port of loopback and makes a Maildir.
    pub fn bind(maildir: &Path) -> io::Result<Self> {
        for folder in ["cur", "new", "tmp"] {
            fs::create_dir_all(maildir.join(folder))?;
        }
        Ok(Self {
            listener: TcpListener::bind("127.0.0.1:0")?,
            maildir: maildir.to_owned(),
        })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves for as long as the process lives, and tells of every message.
    pub fn start(self, tell: impl Fn(Captured) + Send + Sync + 'static) -> io::Result<()> {
        let (tell, maildir) = (Arc::new(tell), Arc::new(self.maildir));
        let serve = move || {
            for stream in self.listener.incoming().flatten() {
                let (tell, maildir) = (tell.clone(), maildir.clone());
                let serve = move || {
                    // A connection that breaks is Gatepost's to notice.
                    let _ =
                        Conversation::new(stream, &maildir).and_then(|mut talk| talk.run(&*tell));
                };
                // Without a thread the connection closes, which Gatepost answers with 454.
                let _ = std::thread::Builder::new()
                    .name("capture".into())
                    .spawn(serve);
            }
        };
        std::thread::Builder::new()
            .name("capture".into())
            .spawn(serve)
            .map(drop)
    }
}

struct Conversation<'a> {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
    lines: LineReader,
    maildir: &'a Path,
    login: String,
    address: String,
}

impl<'a> Conversation<'a> {
    fn new(stream: TcpStream, maildir: &'a Path) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        Ok(Self {
            stream,
            input: Vec::new(),
            output: b"220 capture ESMTP\r\n".to_vec(),
            lines: LineReader::default(),
            maildir,
            login: "none".into(),
            address: "none".into(),
        })
    }

    fn run(&mut self, tell: &impl Fn(Captured)) -> io::Result<()> {
        loop {
            let Some((line, taken)) = self.lines.next(&self.input) else {
                self.exchange()?;
                continue;
            };
            let line = match line {
                Some(Line::Good(line)) => String::from_utf8_lossy(line).into_owned(),
                Some(Line::BareNewline | Line::TooLong(_)) | None => return Ok(()),
            };
            self.input.drain(..taken);
            let verb = line
                .split([' ', ':'])
                .next()
                .unwrap_or_default()
                .to_ascii_uppercase();
            match verb.as_str() {
                "EHLO" => self.reply(EHLO),
                "XCLIENT" => {
                    self.handed_over(&line);
                    self.reply("220 capture ESMTP\r\n");
                }
                "DATA" => self.data(tell)?,
                "MAIL" | "RCPT" | "RSET" | "NOOP" => self.reply("250 2.0.0 OK\r\n"),
                "QUIT" => {
                    self.reply("221 2.0.0 Bye\r\n");
                    return self.stream.write_all(&self.output);
                }
                _ => self.reply("500 5.5.1 Unknown command\r\n"),
            }
        }
    }

    fn reply(&mut self, text: &str) {
        self.output.extend_from_slice(text.as_bytes());
    }

    /// Sends what is due, then waits for more.
    fn exchange(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.output)?;
        self.output.clear();
        let mut piece = [0; 16 * 1024];
        match self.stream.read(&mut piece)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.input.extend_from_slice(&piece[..count]);
                Ok(())
            }
        }
    }

    fn handed_over(&mut self, line: &str) {
        for (name, value) in line.split(' ').filter_map(|word| word.split_once('=')) {
            let value = xtext::decode(value.as_bytes()).unwrap_or_default();
            let value = String::from_utf8_lossy(&value).into_owned();
            match name {
                "LOGIN" => self.login = value,
                "ADDR" => self.address = value,
                _ => {}
            }
        }
    }

    /// Streams a body into `tmp` and moves it to `new` once it is whole, as Maildir has it.
    fn data(&mut self, tell: &impl Fn(Captured)) -> io::Result<()> {
        static NUMBER: AtomicU64 = AtomicU64::new(1);
        let name = format!("{}.gatepost", NUMBER.fetch_add(1, Ordering::Relaxed));
        let (unfinished, file) = (
            self.maildir.join("tmp").join(&name),
            self.maildir.join("new").join(&name),
        );
        self.reply("354 End with a dot on a line by itself\r\n");
        let mut scanner = Scanner::new(BareNewline::Reject, u64::MAX);
        let mut message = Message::new(BufWriter::new(File::create(&unfinished)?));
        let mut piece = Vec::new();
        loop {
            let progress = scanner.scan(&self.input, &mut piece);
            message.write(&piece)?;
            piece.clear();
            match progress {
                Progress::End(taken) => {
                    self.input.drain(..taken);
                    break;
                }
                Progress::More => self.input.clear(),
            }
            self.exchange()?;
        }
        message.writer.flush()?;
        fs::rename(&unfinished, &file)?;
        self.reply("250 2.0.0 Captured\r\n");
        let (login, address) = (self.login.clone(), self.address.clone());
        tell(Captured {
            login,
            address,
            octets: scanner.octets(),
            file,
        });
        Ok(())
    }
}

/// Writes a message as it was before it was stuffed for the wire (RFC 5321, 4.5.2), without its
/// end.
struct Message<W> {
    writer: W,
    position: Position,
}

#[derive(Clone, Copy)]
enum Position {
    /// Behind a dot that began a line: stuffing, or the end.
    Dot,
    /// The end has begun.
    End,
    LineStart,
    Text,
}

impl<W: Write> Message<W> {
    fn new(writer: W) -> Self {
        Self {
            writer,
            position: Position::LineStart,
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for &byte in bytes {
            self.position = match (self.position, byte) {
                (Position::End, _) | (Position::Dot, b'\r') => Position::End,
                (Position::LineStart, b'.') => Position::Dot,
                (_, byte) => {
                    self.writer.write_all(&[byte])?;
                    if byte == b'\n' {
                        Position::LineStart
                    } else {
                        Position::Text
                    }
                }
            };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_kept_as_it_was_before_the_wire() {
        for (wire, kept) in [
            ("a\r\n.\r\n", "a\r\n"),
            ("..a\r\n...\r\n.\r\n", ".a\r\n..\r\n"),
            (".\r\n", ""),
        ] {
            for size in 1..=wire.len() {
                let mut message = Message::new(Vec::new());
                for piece in wire.as_bytes().chunks(size) {
                    message.write(piece).unwrap();
                }
                assert_eq!(message.writer, kept.as_bytes(), "{wire:?} by {size}");
            }
        }
    }
}
