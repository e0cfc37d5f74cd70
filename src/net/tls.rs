//! TLS towards clients, with certificates that are replaced while running.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, ServerConfig};

use super::certificates::{Certificate, Certificates, Contents, Pair};
use super::handshake::alert_name;

/// How many TLS 1.2 and 1.3 sessions can be resumed.
const RESUMABLE: usize = 4096;

/// Why a certificate cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{path}: {error}; it must be readable by the user gatepost runs as")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A file holds no usable PEM.
    #[error("{path}: no {expected} in PEM form found; {fix}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        expected: &'static str,
        /// What to do.
        fix: &'static str,
    },
    /// Key and certificate do not belong together, or the key is of no usable kind.
    #[error(
        "{certificate} and {key} cannot be used together: {}; give the key that the certificate was issued for",
        words(error)
    )]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What rustls says.
        error: rustls::Error,
    },
    /// Clients would refuse the certificate, and the one that is served is better.
    #[error("{path}: it {}; have it renewed, or correct this machine's clock", validity(*begins, *ends))]
    NotValid {
        /// The certificate's file.
        path: PathBuf,
        /// When it begins to be valid, in seconds since 1970, if it is not valid yet.
        begins: Option<i64>,
        /// The end of its validity, in seconds since 1970.
        ends: i64,
    },
    /// Nobody is trusted, so nobody could be verified.
    #[error(
        "no certificate of an authority found on this system; install ca-certificates, or name a file in upstream.tls_ca"
    )]
    NoRoots,
    /// What should be an authority's certificate is none.
    #[error(
        "{path}: {}; give the certificates of authorities in PEM form",
        words(error)
    )]
    Root {
        /// The file.
        path: PathBuf,
        /// What rustls says.
        error: rustls::Error,
    },
    /// No certificate can have this name.
    #[error(
        "upstream.tls_name: {0:?} is not a name that a certificate can have; use a host name or an IP address"
    )]
    Name(String),
    /// TLS cannot be set up at all.
    #[error("TLS: {}", words(.0))]
    Setup(#[from] rustls::Error),
}

fn validity(begins: Option<i64>, ends: i64) -> String {
    let time = |second| jiff::Timestamp::from_second(second).unwrap_or_default();
    match begins {
        Some(begins) => format!("is not valid before {}", time(begins)),
        None => format!("expired on {}", time(ends)),
    }
}

/// Every certificate in a PEM file; none where it holds anything else.
pub(super) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    Ok(chain_of(&read(path)?))
}

/// The same of the file's contents.
pub(super) fn chain_of(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    let chain: Result<_, _> = CertificateDer::pem_slice_iter(pem).collect();
    chain.unwrap_or_default()
}

/// The private key in a PEM file.
pub(super) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    key_of(path, &zeroize::Zeroizing::new(read(path)?))
}

/// The same of the contents of the file at `path`.
pub(super) fn key_of(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| TlsError::Pem {
        path: path.to_owned(),
        expected: "private key",
        fix: "give an unencrypted key (certbot: privkey.pem)",
    })
}

pub(super) fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|error| TlsError::Read {
        path: path.to_owned(),
        error,
    })
}

/// The one place that chooses the cryptography.
pub fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// Draws the first random number, which costs tens of milliseconds once a process; otherwise
/// somebody's handshake would pay for it.
pub fn warm_up() {
    // Should it fail, handshakes fail and say why.
    let _ = provider().secure_random.fill(&mut [0]);
}

/// The error of a connection in plain words; it may hold one of rustls.
pub fn words_of_io(error: &io::Error) -> String {
    let source = error.get_ref().and_then(|source| source.downcast_ref());
    source.map_or_else(|| error.to_string(), words)
}

/// The error in plain words, without the names of rustls's types.
pub fn words(error: &rustls::Error) -> String {
    use rustls::Error;
    match error {
        Error::AlertReceived(alert) => format!("the peer sent the alert {}", alert_name(*alert)),
        Error::General(why) => why.clone(),
        Error::InappropriateHandshakeMessage { .. }
        | Error::InappropriateMessage { .. }
        | Error::PeerMisbehaved(_) => "the peer broke the protocol of TLS".to_owned(),
        Error::InconsistentKeys(_) => "the key does not belong to the certificate".to_owned(),
        Error::InvalidCertificate(why) => {
            format!("invalid peer certificate: {}", words_on_certificate(why))
        }
        Error::InvalidMessage(_) => "the peer sent something that is not TLS".to_owned(),
        Error::PeerIncompatible(_) => {
            "the peer takes no version, cipher suite or group that is offered".to_owned()
        }
        error => error.to_string(),
    }
}

fn words_on_certificate(error: &CertificateError) -> String {
    let words = match error {
        CertificateError::BadEncoding => "it cannot be read",
        CertificateError::BadSignature => "its signature is wrong",
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => "expired",
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "it was issued for another purpose"
        }
        CertificateError::NotValidForName => "not valid for name",
        CertificateError::NotValidForNameContext { expected, .. } => {
            return format!("not valid for name {}", expected.to_str());
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "not valid yet"
        }
        CertificateError::Revoked => "revoked",
        CertificateError::UnknownIssuer => "unknown issuer",
        CertificateError::Other(why) => return why.to_string(),
        _ => "it cannot be verified",
    };
    words.to_owned()
}

/// TLS as the listeners offer it, with certificates that can be replaced under them.
#[derive(Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
    served: Arc<Served>,
    pairs: Vec<Pair>,
    files: Mutex<Files>,
}

/// What the files held, as of the last look.
#[derive(Debug)]
struct Files {
    /// Those that are served, in the order of the configuration.
    served: Vec<(blake3::Hash, Certificate)>,
    /// Why they are not what is served, if the last look said so.
    refused: Option<Refused>,
}

/// Files that cannot be used.
#[derive(Debug, PartialEq)]
struct Refused {
    /// What each pair held; `None` where a file could not be read.
    found: Vec<Option<blake3::Hash>>,
    why: String,
    is_told: bool,
}

#[derive(Debug)]
struct Served(ArcSwap<Certificates>);

impl ResolvesServerCert for Served {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = self.0.load();
        certificates.choose(hello.server_name(), hello.signature_schemes())
    }
}

impl Tls {
    /// Loads the pairs, the one for everybody else first, and prepares TLS 1.2 and 1.3.
    pub fn load(pairs: Vec<Pair>) -> Result<Self, TlsError> {
        let loaded = pairs.iter().map(|pair| {
            let contents = Contents::read(pair)?;
            Ok((contents.digest(), Certificate::of(pair, &contents)?))
        });
        let loaded = loaded.collect::<Result<Vec<_>, TlsError>>()?;
        let served = Arc::new(Served(ArcSwap::from_pointee(certificates(&loaded))));
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(served.clone());
        config.session_storage = ServerSessionMemoryCache::new(RESUMABLE);
        config.send_tls13_tickets = 1;
        // The greeting is public, and should not take a round trip of its own.
        config.send_half_rtt_data = true;
        Ok(Self {
            config: Arc::new(config),
            served,
            pairs,
            files: Mutex::new(Files {
                served: loaded,
                refused: None,
            }),
        })
    }

    /// What clients are offered, whose certificates change with [`Tls::reload`].
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// When the first of the certificates served ends, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.served.0.load().not_after()
    }

    /// Looks at the files, at `now` in seconds since 1970, and serves what they hold if that is new. Returns whether
    /// anything is served anew. While one of the pairs cannot be used, or is not valid where the one that is served is,
    /// all the old ones stay.
    ///
    /// # Errors
    /// Why they stay. An error is returned once, at the second look that meets it: a renewal may be halfway through its
    /// two files. Where `at_once` is set, it is returned at once and again, and files that did not change count as new.
    pub fn refresh(&self, now: i64, at_once: bool) -> Result<bool, TlsError> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let found: Vec<_> = self.pairs.iter().map(Contents::read).collect();
        let digest = |contents: &Result<Contents, _>| contents.as_ref().ok().map(Contents::digest);
        let digests: Vec<_> = found.iter().map(digest).collect();
        let is_same = digests
            .iter()
            .zip(&files.served)
            .all(|(found, (served, _))| *found == Some(*served));
        if is_same && files.refused.is_none() && !at_once {
            return Ok(false);
        }
        let loaded = self.pairs.iter().zip(found).zip(&files.served);
        let loaded = loaded.map(|((pair, contents), (served, current))| {
            let contents = contents?;
            let digest = contents.digest();
            if digest == *served {
                return Ok((digest, current.clone()));
            }
            let new = Certificate::of(pair, &contents)?;
            if !new.replaces(current, now) {
                return Err(TlsError::NotValid {
                    path: pair.certificate.clone(),
                    begins: (now < new.not_before).then_some(new.not_before),
                    ends: new.not_after,
                });
            }
            Ok((digest, new))
        });
        match loaded.collect::<Result<Vec<_>, TlsError>>() {
            Ok(loaded) => {
                self.served.0.store(Arc::new(certificates(&loaded)));
                *files = Files {
                    served: loaded,
                    refused: None,
                };
                Ok(true)
            }
            Err(error) => {
                let mut refused = Refused {
                    found: digests,
                    why: error.to_string(),
                    is_told: at_once,
                };
                let before = files.refused.take();
                let is_seen_again = before.as_ref().is_some_and(|before| {
                    before.found == refused.found && before.why == refused.why
                });
                let was_told = is_seen_again && before.is_some_and(|before| before.is_told);
                refused.is_told |= is_seen_again;
                let tell = at_once || (is_seen_again && !was_told);
                files.refused = Some(refused);
                if tell { Err(error) } else { Ok(false) }
            }
        }
    }
}

fn certificates(loaded: &[(blake3::Hash, Certificate)]) -> Certificates {
    let all = loaded.iter().map(|(_, certificate)| certificate.clone());
    Certificates::of(all.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_pair(directory: &Path, name: &str) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        fs::write(directory.join("cert"), made.cert.pem()).unwrap();
        fs::write(directory.join("key"), made.signing_key.serialize_pem()).unwrap();
    }

    /// The same with this validity, in years.
    fn write_pair_of(directory: &Path, name: &str, years: (i32, i32)) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let certificate = params.self_signed(&key).unwrap();
        fs::write(directory.join("cert"), certificate.pem()).unwrap();
        fs::write(directory.join("key"), key.serialize_pem()).unwrap();
    }

    /// 1 July 2026.
    const NOW: i64 = 1_782_864_000;

    fn loaded(directory: &Path) -> Tls {
        Tls::load(vec![Pair {
            certificate: directory.join("cert"),
            key: directory.join("key"),
        }])
        .unwrap()
    }

    fn shown(tls: &Tls) -> Vec<CertificateDer<'static>> {
        tls.served.0.load().choose(None, &[]).unwrap().cert.clone()
    }

    #[test]
    fn a_changed_pair_is_noticed_and_a_bad_one_keeps_the_old() {
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("key");
        write_pair(directory.path(), "one.test");
        let tls = loaded(directory.path());
        assert!(!tls.refresh(NOW, false).unwrap());
        assert!(tls.refresh(NOW, true).unwrap(), "asked to");
        let first = shown(&tls);

        write_pair(directory.path(), "two.test");
        assert!(tls.refresh(NOW, false).unwrap());
        assert!(!tls.refresh(NOW, false).unwrap());
        let second = shown(&tls);
        assert_ne!(first, second);

        // The key of another pair: perhaps a renewal that is halfway through.
        let right = fs::read(&key).unwrap();
        let other = rcgen::generate_simple_self_signed(["x.test".to_owned()]).unwrap();
        fs::write(&key, other.signing_key.serialize_pem()).unwrap();
        assert!(!tls.refresh(NOW, false).unwrap());
        let error = tls.refresh(NOW, false).unwrap_err();
        assert!(matches!(error, TlsError::Pair { .. }), "{error}");
        assert!(!tls.refresh(NOW, false).unwrap(), "told once");
        assert!(tls.refresh(NOW, true).is_err(), "asked to");
        assert_eq!(shown(&tls), second);
        fs::remove_file(&key).unwrap();
        assert!(!tls.refresh(NOW, false).unwrap());
        let error = tls.refresh(NOW, false).unwrap_err();
        assert!(matches!(error, TlsError::Read { .. }), "{error}");
        fs::write(&key, right).unwrap();
        assert!(tls.refresh(NOW, false).unwrap(), "all is well again");
        assert_eq!(shown(&tls), second);
        assert!(!tls.refresh(NOW, false).unwrap());
    }

    #[test]
    fn a_pair_written_in_place_with_the_time_of_before_is_noticed() {
        let directory = tempfile::tempdir().unwrap();
        write_pair(directory.path(), "one.test");
        let tls = loaded(directory.path());
        let first = shown(&tls);
        let files = ["cert", "key"].map(|name| directory.path().join(name));
        let times = files
            .each_ref()
            .map(|file| fs::metadata(file).unwrap().modified().unwrap());
        write_pair(directory.path(), "two.test");
        for (file, time) in files.iter().zip(times) {
            let file = fs::File::options().write(true).open(file).unwrap();
            file.set_modified(time).unwrap();
        }
        assert!(tls.refresh(NOW, false).unwrap());
        assert_ne!(shown(&tls), first);
    }

    #[test]
    fn a_certificate_that_is_not_valid_replaces_no_valid_one() {
        for (current, new, is_taken) in [
            ((2020, 2030), (2021, 2022), false),
            ((2020, 2030), (2027, 2040), false),
            ((2020, 2030), (2025, 2028), true),
            ((2020, 2021), (2020, 2022), true),
            ((2020, 2022), (2020, 2021), false),
            ((2020, 2022), (2027, 2040), true),
            ((2020, 2022), (2025, 2028), true),
            ((2027, 2040), (2020, 2022), false),
        ] {
            let directory = tempfile::tempdir().unwrap();
            write_pair_of(directory.path(), "one.test", current);
            let tls = loaded(directory.path());
            let before = shown(&tls);
            write_pair_of(directory.path(), "two.test", new);
            let outcome = tls.refresh(NOW, true);
            assert_eq!(
                outcome.is_ok(),
                is_taken,
                "{current:?} {new:?}: {outcome:?}"
            );
            assert_eq!(shown(&tls) != before, is_taken, "{current:?} {new:?}");
            if !is_taken {
                let error = outcome.unwrap_err();
                assert!(matches!(error, TlsError::NotValid { .. }), "{error}");
            }
        }
    }

    #[test]
    fn a_certificate_that_becomes_valid_is_taken_then() {
        let directory = tempfile::tempdir().unwrap();
        write_pair_of(directory.path(), "one.test", (2020, 2030));
        let tls = loaded(directory.path());
        write_pair_of(directory.path(), "two.test", (2027, 2040));
        for _ in 0..2 {
            assert!(!tls.refresh(NOW, false).unwrap_or(false));
        }
        let a_year = 365 * 24 * 3600;
        assert!(tls.refresh(NOW + a_year, false).unwrap());
    }
}
