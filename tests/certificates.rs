//! Several certificates: who is shown which, and what becomes of them when files change.

use std::path::PathBuf;

use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm,
};
use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::site::{Config, HOSTNAME, Site};
use crate::support::upstream::Upstream;
use crate::support::{eventually, tls};

const ECDSA: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;
const RSA: SignatureScheme = SignatureScheme::RSA_PSS_SHA256;

struct Pair {
    directory: TempDir,
    certificate: CertificateDer<'static>,
}

impl Pair {
    fn new(kind: &'static SignatureAlgorithm, name: &str) -> Self {
        let directory = TempDir::new().expect("tempdir");
        let certificate = Self::write(&directory, kind, name);
        Self {
            directory,
            certificate,
        }
    }

    fn write(
        directory: &TempDir,
        kind: &'static SignatureAlgorithm,
        name: &str,
    ) -> CertificateDer<'static> {
        let key = KeyPair::generate_for(kind).expect("a key pair");
        let params = CertificateParams::new([name.to_owned()]).expect("a valid name");
        tls::write_pair(directory.path(), params, &key)
    }

    fn files(&self) -> (PathBuf, PathBuf) {
        let path = self.directory.path();
        (path.join("certificate.pem"), path.join("key.pem"))
    }
}

/// What a client is shown that asks for `name` and can verify these signatures.
fn shown(gatepost: &Site, name: &str, schemes: &[SignatureScheme]) -> CertificateDer<'static> {
    let client = Client::dial(gatepost.submissions).expect("connect");
    client
        .over_tls_by(tls::session_for(name, schemes.to_vec()))
        .certificate()
}

#[test]
fn each_client_is_shown_what_it_asks_for_and_can_verify() {
    let upstream = Upstream::start();
    // The site's own is for HOSTNAME, with ECDSA.
    let twin = Pair::new(&PKCS_RSA_SHA256, HOSTNAME);
    let other = Pair::new(&PKCS_ECDSA_P256_SHA256, "mail.example.net");
    let config = Config::for_upstream(upstream.address).others(&[twin.files(), other.files()]);
    let gatepost = Gatepost::start(config);
    let first = shown(&gatepost, HOSTNAME, &[ECDSA, RSA]);
    assert!(first != twin.certificate && first != other.certificate);
    for (name, schemes, expected) in [
        (HOSTNAME, &[ECDSA][..], &first),
        (HOSTNAME, &[RSA], &twin.certificate),
        ("mail.example.net", &[ECDSA, RSA], &other.certificate),
        ("unknown.example.net", &[ECDSA, RSA], &first),
        ("unknown.example.net", &[RSA], &twin.certificate),
        // An address is no name, and is not asked for.
        ("127.0.0.1", &[RSA], &twin.certificate),
    ] {
        assert!(
            shown(&gatepost, name, schemes) == *expected,
            "{name} {schemes:?}"
        );
    }
    let client = Client::submission(&gatepost)
        .starttls_by(tls::session_for("mail.example.net", vec![ECDSA]));
    assert!(client.certificate() == other.certificate);
    let checked = gatepost.succeed(&["check"]);
    for name in [HOSTNAME, "mail.example.net"] {
        assert!(checked.contains(&format!("is for {name}")), "{checked}");
    }
}

#[test]
fn a_renewal_of_any_of_them_is_noticed_and_a_bad_one_leaves_all() {
    let upstream = Upstream::start();
    let other = Pair::new(&PKCS_ECDSA_P256_SHA256, "mail.example.net");
    let config = Config::for_upstream(upstream.address)
        .others(&[other.files()])
        .text("tls", "reload_interval", "50ms");
    let gatepost = Gatepost::start(config);
    let renewed = Pair::write(
        &other.directory,
        &PKCS_ECDSA_P256_SHA256,
        "mail.example.net",
    );
    eventually("the renewed one is shown", || {
        (shown(&gatepost, "mail.example.net", &[ECDSA]) == renewed).then_some(())
    });
    let first = shown(&gatepost, HOSTNAME, &[ECDSA]);
    std::fs::write(other.files().1, "no key").expect("spoil the key");
    gatepost.wait_for_log(&["the new certificate cannot be used", "no private key"]);
    gatepost.renew_certificate();
    eventually("it was tried again", || {
        (gatepost
            .log()
            .matches("the new certificate cannot be used")
            .count()
            > 1)
        .then_some(())
    });
    assert!(shown(&gatepost, HOSTNAME, &[ECDSA]) == first);
    assert!(shown(&gatepost, "mail.example.net", &[ECDSA]) == renewed);
}

#[test]
fn one_that_cannot_be_used_ends_the_start() {
    let (one, other) = (
        Pair::new(&PKCS_ECDSA_P256_SHA256, "one.example"),
        Pair::new(&PKCS_ECDSA_P256_SHA256, "other.example"),
    );
    let mixed = (one.files().0, other.files().1);
    let site = Site::new(Config::for_upstream("127.0.0.1:1").others(&[one.files(), mixed]));
    for command in ["serve", "check"] {
        let output = site.run(&[command]);
        assert_eq!(output.status.code(), Some(78), "{output:?}");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.contains("cannot be used together"), "{said}");
    }
}
