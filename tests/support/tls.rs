//! Both sides of TLS as the tests speak it, and the certificates they put before each other.

use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
};

/// A client's half of a new session. Never resumed: a resumed session would go on showing the
/// certificate of the first one, and hide whether a reload worked.
pub fn session() -> ClientConnection {
    let schemes = aws_lc_rs::default_provider()
        .signature_verification_algorithms
        .supported_schemes();
    session_for("mail.example.test", schemes)
}

/// The same of a client that asks for `name` and can verify signatures of these kinds alone.
pub fn session_for(name: &str, schemes: Vec<SignatureScheme>) -> ClientConnection {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyCertificate { provider, schemes }))
        .with_no_client_auth();
    let name = ServerName::try_from(name.to_owned()).expect("a valid name");
    ClientConnection::new(Arc::new(config), name).expect("a valid configuration")
}

/// Writes a fresh self-signed pair as `certificate.pem` and `key.pem` into `directory`, each by
/// rename so that nobody reads half a file, and returns the certificate.
pub fn write_certificate(directory: &Path) -> CertificateDer<'static> {
    let names = ["mail.example.test", "localhost", "127.0.0.1"].map(String::from);
    write_certificate_of(
        directory,
        CertificateParams::new(names).expect("valid names"),
    )
}

/// The same, made out as `params` say.
pub fn write_certificate_of(
    directory: &Path,
    params: CertificateParams,
) -> CertificateDer<'static> {
    let key = KeyPair::generate().expect("a key pair");
    write_pair(directory, params, &key)
}

/// The same with this key.
pub fn write_pair(
    directory: &Path,
    params: CertificateParams,
    key: &KeyPair,
) -> CertificateDer<'static> {
    let certificate = params.self_signed(key).expect("a self-signed certificate");
    for (file, pem) in [
        ("key.pem", key.serialize_pem()),
        ("certificate.pem", certificate.pem()),
    ] {
        let draft = directory.join(format!("{file}.new"));
        std::fs::write(&draft, pem).expect("write a certificate");
        std::fs::rename(&draft, directory.join(file)).expect("move a certificate into place");
    }
    certificate.der().clone()
}

/// What a server made of the pair in `directory` does; where `clients` names a certificate, only for
/// who shows one that it signed.
pub fn server(directory: &Path, clients: Option<&Path>) -> Arc<ServerConfig> {
    let read = |name: &str| std::fs::read(directory.join(name)).expect("read a pair");
    let certificate = certificates(&directory.join("certificate.pem"));
    let key = PrivateKeyDer::from_pem_slice(&read("key.pem")).expect("a private key");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("the provider knows TLS 1.2 and 1.3");
    let config = match clients {
        None => config.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(certificates(path));
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            config.with_client_cert_verifier(verifier.expect("a root"))
        }
    };
    Arc::new(config.with_single_cert(certificate, key).expect("a pair"))
}

fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    let pem = std::fs::read(path).expect("read a certificate");
    CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<_, _>>()
        .expect("certificates in PEM form")
}

/// Believes any certificate but checks its signatures: the tests compare the certificate itself
/// where it matters.
#[derive(Debug)]
struct AnyCertificate {
    provider: Arc<CryptoProvider>,
    schemes: Vec<SignatureScheme>,
}

impl ServerCertVerifier for AnyCertificate {
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
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
