//! The demo's mail client: one message through STARTTLS and AUTH, every line shown.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::net::tls::provider;

use super::{CliError, Site, print};

/// What is sent.
pub const MESSAGE: &str = "From: me@example.org\r\nTo: you@example.net\r\n\
    Subject: Gatepost demo\r\n\r\nHello. The line below begins with a dot.\r\n..\r\n";

/// Nothing here should take this long.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Sends [`MESSAGE`] and shows the dialogue.
pub fn send(site: &Site) -> Result<(), CliError> {
    print(&format!("--- connecting to {}", site.submission))?;
    let stream = TcpStream::connect(site.submission)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let mut clear = BufReader::new(stream);
    expect(&mut clear, 220)?;
    command(&mut clear, "EHLO demo.example.org", 250)?;
    command(&mut clear, "STARTTLS", 220)?;

    let mut tls = BufReader::new(start_tls(site, clear.into_inner())?);
    command(&mut tls, "EHLO demo.example.org", 250)?;
    let version = tls.get_ref().conn.protocol_version();
    let version = version.and_then(|version| version.as_str());
    print(&format!(
        "--- inside TLS: {}, certificate verified",
        version.unwrap_or("unknown version")
    ))?;
    let response = STANDARD.encode(format!("\0{}\0{}", site.username(), site.password()));
    print(&format!("C: AUTH PLAIN ... (as {})", site.username()))?;
    tls.get_mut()
        .write_all(format!("AUTH PLAIN {response}\r\n").as_bytes())?;
    expect(&mut tls, 235)?;
    command(&mut tls, "MAIL FROM:<me@example.org>", 250)?;
    command(&mut tls, "RCPT TO:<you@example.net>", 250)?;
    command(&mut tls, "DATA", 354)?;
    print(&format!(
        "C: ... a message of {} bytes, then a dot",
        MESSAGE.len()
    ))?;
    tls.get_mut()
        .write_all(format!("{MESSAGE}.\r\n").as_bytes())?;
    expect(&mut tls, 250)?;
    command(&mut tls, "QUIT", 221)
}

/// Trusts the demo's own certificate and nothing else.
fn start_tls(
    site: &Site,
    stream: TcpStream,
) -> Result<StreamOwned<ClientConnection, TcpStream>, CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::Io(format!("TLS: {error}"));
    let mut roots = RootCertStore::empty();
    let certificate =
        CertificateDer::from_pem_slice(&site.certificate).map_err(|error| failed(&error))?;
    roots.add(certificate).map_err(|error| failed(&error))?;
    let config = ClientConfig::builder_with_provider(Arc::new(provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").map_err(|error| failed(&error))?;
    let connection =
        ClientConnection::new(Arc::new(config), name).map_err(|error| failed(&error))?;
    Ok(StreamOwned::new(connection, stream))
}

fn command<S: Read + Write>(
    stream: &mut BufReader<S>,
    line: &str,
    code: u16,
) -> Result<(), CliError> {
    print(&format!("C: {line}"))?;
    stream
        .get_mut()
        .write_all(format!("{line}\r\n").as_bytes())?;
    expect(stream, code)
}

fn expect<S: Read>(stream: &mut BufReader<S>, code: u16) -> Result<(), CliError> {
    loop {
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let line = line.trim_end();
        print(&format!("S: {line}"))?;
        if !line.starts_with(&code.to_string()) {
            return Err(CliError::Refused(format!("expected {code}, got {line:?}")));
        }
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(());
        }
    }
}
