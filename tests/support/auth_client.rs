//! The client's side of the Dovecot authentication protocol, as Postfix speaks it, and the least
//! server that lets Postfix's smtpd start.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::PATIENCE;

/// A connection to an authentication socket that has shaken hands.
pub struct AuthClient {
    reader: BufReader<Box<dyn Read>>,
    writer: Box<dyn Write>,
    /// The lines of the server's handshake, `DONE` excluded.
    pub handshake: Vec<String>,
}

impl AuthClient {
    pub fn over_tcp(address: SocketAddr) -> AuthClient {
        let socket = TcpStream::connect(address).expect("connect");
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("set a timeout");
        AuthClient::shake_hands(Box::new(socket.try_clone().unwrap()), Box::new(socket))
    }

    pub fn over_unix(path: &Path) -> AuthClient {
        let socket = UnixStream::connect(path).expect("connect");
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("set a timeout");
        AuthClient::shake_hands(Box::new(socket.try_clone().unwrap()), Box::new(socket))
    }

    fn shake_hands(reader: Box<dyn Read>, writer: Box<dyn Write>) -> AuthClient {
        let reader = BufReader::new(reader);
        let mut client = AuthClient {
            reader,
            writer,
            handshake: Vec::new(),
        };
        client.say(&format!("VERSION\t1\t2\nCPID\t{}", std::process::id()));
        loop {
            match client.hear().as_str() {
                "DONE" => return client,
                line => client.handshake.push(line.to_owned()),
            }
        }
    }

    /// One request of one line; the line that answers it.
    pub fn ask(&mut self, request: &str) -> String {
        self.say(request);
        self.hear()
    }

    fn say(&mut self, line: &str) {
        self.writer
            .write_all(format!("{line}\n").as_bytes())
            .expect("write");
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("a line");
        assert!(line.ends_with('\n'), "the socket closed after {line:?}");
        line.truncate(line.len() - 1);
        line
    }
}

/// Offers PLAIN and LOGIN at `address` and refuses whoever uses them: enough for smtpd to come up
/// without Gatepost, which tells a broken Postfix from a broken Gatepost.
pub fn refuse_everybody_at(address: SocketAddr) {
    let listener = TcpListener::bind(address).expect("bind the authentication socket");
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || -> std::io::Result<()> {
                let mechanisms = "MECH\tPLAIN\tplaintext\nMECH\tLOGIN\tplaintext\n";
                let rest = format!("SPID\t1\nCUID\t1\nCOOKIE\t{:032x}\nDONE\n", 1);
                socket.write_all(format!("VERSION\t1\t2\n{mechanisms}{rest}").as_bytes())?;
                for line in BufReader::new(socket.try_clone()?).lines() {
                    if let Some(request) = line?.strip_prefix("AUTH\t") {
                        let id = request.split('\t').next().unwrap_or_default();
                        socket.write_all(format!("FAIL\t{id}\n").as_bytes())?;
                    }
                }
                Ok(())
            });
        }
    });
}
