//! A mail program's side of SMTP, as far as the doctor needs it: one reply to each command, and no
//! patience with silence.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

use crate::config::Listener;
use crate::net::buffer::{Buffer, LINES};
use crate::net::stream::{LocalStream, UpstreamStream};
use crate::net::tls::{io_error_text, provider};
use crate::sasl::Secret;
use crate::smtp::proxy::{Version, local_header};
use crate::smtp::reply::{RawReply, ReplyFault};

/// How long one reply or one handshake may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Why a conversation ended early.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// It was closed from the other side.
    #[error("the connection was closed")]
    Closed,
    /// The connection failed, or the handshake.
    #[error("{}", io_error_text(.0))]
    Io(#[from] io::Error),
    /// What came is not SMTP.
    #[error("{0}")]
    Protocol(#[from] ReplyFault),
    /// Another reply than the one that was hoped for.
    #[error("it said {0}")]
    Said(String),
    /// Nothing came for too long.
    #[error("nothing came within {} seconds", PATIENCE.as_secs())]
    Silent,
}

/// A reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Said {
    /// Its code.
    pub code: u16,
    /// The text of its lines.
    pub lines: Vec<String>,
}

impl Said {
    /// Code and first line, for people.
    pub fn words(&self) -> String {
        let first = self.lines.first().map_or("", String::as_str);
        format!("\"{} {first}\"", self.code)
    }

    /// What stands behind a keyword in the reply to EHLO, if it is there.
    pub fn offers(&self, keyword: &str) -> Option<&str> {
        self.lines.iter().skip(1).find_map(|line| {
            let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
            first.eq_ignore_ascii_case(keyword).then_some(rest)
        })
    }
}

/// A connection to one of our own listeners.
pub struct Conversation {
    stream: UpstreamStream,
    input: Buffer,
    /// What is waited for each reply.
    pub patience: Duration,
}

impl Conversation {
    /// Connects to a listener from this machine. Where that expects a PROXY header from here, it
    /// gets one that says nothing.
    pub async fn dial(listener: &Listener) -> Result<Self, Fault> {
        let connect = TcpStream::connect(reachable(listener.address));
        let mut stream = timeout(PATIENCE, connect)
            .await
            .map_err(|_| Fault::Silent)??;
        stream.set_nodelay(true)?;
        let from = stream.local_addr()?.ip();
        if listener
            .proxy_from
            .iter()
            .any(|network| network.contains(from))
        {
            stream.write_all(&local_header(Version::V2)).await?;
        }
        Ok(Self {
            stream: UpstreamStream::Clear(LocalStream::Tcp(stream)),
            input: Buffer::default(),
            patience: PATIENCE,
        })
    }

    /// The next reply.
    pub async fn reply(&mut self) -> Result<Said, Fault> {
        let patience = self.patience;
        timeout(patience, self.read())
            .await
            .map_err(|_| Fault::Silent)?
    }

    async fn read(&mut self) -> Result<Said, Fault> {
        loop {
            if let Some(reply) = RawReply::parse(self.input.unread())? {
                let text = |line| String::from_utf8_lossy(line).into_owned();
                let said = Said {
                    code: reply.code,
                    lines: reply.lines().map(text).collect(),
                };
                let length = reply.bytes.len();
                self.input.consume(length);
                return Ok(said);
            }
            if self.input.read_from(&mut self.stream, LINES).await? == 0 {
                return Err(Fault::Closed);
            }
        }
    }

    /// Sends lines, each with its CRLF.
    pub async fn say(&mut self, lines: &str) -> Result<(), Fault> {
        self.stream.write_all(lines.as_bytes()).await?;
        Ok(self.stream.flush().await?)
    }

    /// The reply to a command.
    pub async fn ask(&mut self, command: &str) -> Result<Said, Fault> {
        self.say(&format!("{command}\r\n")).await?;
        self.reply().await
    }

    /// The reply to a command, if it has this code.
    pub async fn expect(&mut self, command: &str, code: u16) -> Result<Said, Fault> {
        of_code(self.ask(command).await?, code)
    }

    /// The greeting.
    pub async fn greeting(&mut self) -> Result<Said, Fault> {
        of_code(self.reply().await?, 220)
    }

    /// The reply to AUTH PLAIN.
    pub async fn log_in(&mut self, username: &str, password: &Secret) -> Result<Said, Fault> {
        let fields = [b"\0", username.as_bytes(), b"\0", password.expose()];
        let fields = Zeroizing::new(fields.concat());
        let mut line = Zeroizing::new(String::with_capacity(fields.len() * 2 + 16));
        line.push_str("AUTH PLAIN ");
        STANDARD.encode_string(&fields, &mut line);
        line.push_str("\r\n");
        self.say(&line).await?;
        self.reply().await
    }

    /// Shakes hands; returns the version of TLS and the certificates shown, which are believed for
    /// now: they are what is to be judged.
    pub async fn secure(
        &mut self,
        name: &ServerName<'static>,
    ) -> Result<(&'static str, Vec<CertificateDer<'static>>), Fault> {
        let UpstreamStream::Clear(stream) =
            std::mem::replace(&mut self.stream, UpstreamStream::Gone)
        else {
            return Err(Fault::Closed);
        };
        let connector = TlsConnector::from(Arc::new(client_config()?));
        let shaking = connector.connect(name.clone(), stream);
        let stream = timeout(PATIENCE, shaking)
            .await
            .map_err(|_| Fault::Silent)??;
        let (_, session) = stream.get_ref();
        let version = match session.protocol_version() {
            Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLS",
        };
        let chain = session.peer_certificates().unwrap_or_default();
        let chain = chain.iter().cloned().map(CertificateDer::into_owned);
        let chain = chain.collect();
        self.stream = UpstreamStream::Tls(Box::new(stream));
        Ok((version, chain))
    }
}

fn of_code(said: Said, code: u16) -> Result<Said, Fault> {
    match said.code == code {
        true => Ok(said),
        false => Err(Fault::Said(said.words())),
    }
}

/// Where to connect to for what listens there.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

fn client_config() -> io::Result<ClientConfig> {
    let provider = Arc::new(provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    Ok(config)
}

/// Believes any certificate: a refused one could not be looked at. What is sent here is a password
/// that was made for this, on the way to a socket of this machine.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_reached_on_this_machine() {
        for (listens, reached) in [
            ("0.0.0.0:587", "127.0.0.1:587"),
            ("[::]:465", "[::1]:465"),
            ("192.0.2.7:587", "192.0.2.7:587"),
        ] {
            let reached: SocketAddr = reached.parse().unwrap();
            assert_eq!(reachable(listens.parse().unwrap()), reached);
        }
    }

    #[test]
    fn keywords_are_found_whatever_their_case() {
        let said = Said {
            code: 250,
            lines: ["mail.test", "PIPELINING", "auth PLAIN LOGIN"]
                .map(String::from)
                .to_vec(),
        };
        assert_eq!(said.offers("AUTH"), Some("PLAIN LOGIN"));
        assert_eq!(said.offers("PIPELINING"), Some(""));
        assert_eq!(said.offers("MAIL.TEST"), None);
        assert_eq!(said.words(), "\"250 mail.test\"");
    }
}
