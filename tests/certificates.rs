//! Several certificates: who is shown which, and what becomes of them when files change.

use std::path::PathBuf;

use rcgen::{
    CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, SignatureAlgorithm,
};
use rustix::process::Signal;
use rustls::SignatureScheme;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use crate::prometheus::wait_for_series;
use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::site::{Config, HOSTNAME, Site};
use crate::support::upstream::Upstream;
use crate::support::{eventually, ports, tls};

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

/// A pair for `name` that is valid from the first year to the second.
fn write_valid(directory: &TempDir, name: &str, years: (i32, i32)) -> CertificateDer<'static> {
    let mut params = CertificateParams::new([name.to_owned()]).expect("a valid name");
    params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    tls::write_certificate_of(directory.path(), params)
}

#[test]
fn a_pair_written_in_place_with_the_time_of_before_is_shown() {
    let upstream = Upstream::start();
    let config = Config::for_upstream(upstream.address).text("tls", "reload_interval", "50ms");
    let gatepost = Gatepost::start(config);
    let new = Pair::new(&PKCS_ECDSA_P256_SHA256, HOSTNAME);
    for (from, to) in [
        (new.files().1, "key.pem"),
        (new.files().0, "certificate.pem"),
    ] {
        let to = gatepost.path(to);
        let before = std::fs::metadata(&to).expect("a file").modified();
        std::fs::write(&to, std::fs::read(from).expect("read")).expect("write in place");
        let file = std::fs::File::options().write(true).open(&to);
        let file = file.expect("open it");
        file.set_modified(before.expect("a time")).expect("set it");
    }
    eventually("the new one is shown", || {
        (shown(&gatepost, HOSTNAME, &[ECDSA]) == new.certificate).then_some(())
    });
}

#[test]
fn a_pair_that_is_not_valid_replaces_no_valid_one_of_any_name_or_on_sighup() {
    const OTHER: &str = "mail.example.net";
    let upstream = Upstream::start();
    let other = Pair::new(&PKCS_ECDSA_P256_SHA256, OTHER);
    let metrics = ports::free_address();
    let config = Config::for_upstream(upstream.address)
        .others(&[other.files()])
        .text("tls", "reload_interval", "50ms")
        .text("metrics", "listen", &metrics.to_string());
    let gatepost = Gatepost::start(config);
    write_valid(&other.directory, OTHER, (2020, 2021));
    gatepost.wait_for_log(&[
        "the new certificate cannot be used",
        "expired on 2021-01-01",
    ]);
    gatepost.signal(Signal::HUP);
    eventually("SIGHUP says so too", || {
        (gatepost.log().matches("expired on 2021").count() == 2).then_some(())
    });
    wait_for_series(metrics, "gatepost_tls_reload_failures_total", 2.0);
    assert!(shown(&gatepost, OTHER, &[ECDSA]) == other.certificate);
    let doctor = gatepost.run(&["doctor"]);
    let doctor = String::from_utf8_lossy(&doctor.stdout).into_owned();
    let file = other.files().0.display().to_string();
    assert!(
        doctor.contains(&format!("{file}: it is not valid now")),
        "{doctor}"
    );
    write_valid(&other.directory, OTHER, (2900, 2901));
    gatepost.wait_for_log(&[
        "the new certificate cannot be used",
        "is not valid before 2900",
    ]);
    let check = gatepost.run(&["check"]);
    let check = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.contains("is not valid before 2900"), "{check}");
    assert!(shown(&gatepost, OTHER, &[ECDSA]) == other.certificate);
    let renewed = write_valid(&other.directory, OTHER, (2020, 2900));
    eventually("the valid one is shown", || {
        (shown(&gatepost, OTHER, &[ECDSA]) == renewed).then_some(())
    });
}

#[test]
fn an_expired_pair_is_replaced_by_one_that_expired_later() {
    let upstream = Upstream::start();
    let other = Pair::new(&PKCS_ECDSA_P256_SHA256, "mail.example.net");
    write_valid(&other.directory, "mail.example.net", (2020, 2021));
    let config = Config::for_upstream(upstream.address)
        .others(&[other.files()])
        .text("tls", "reload_interval", "50ms");
    let gatepost = Gatepost::start(config);
    let later = write_valid(&other.directory, "mail.example.net", (2020, 2022));
    eventually("the later one is shown", || {
        (shown(&gatepost, "mail.example.net", &[ECDSA]) == later).then_some(())
    });
}
