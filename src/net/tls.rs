//! TLS towards clients, with certificates that are reloaded at runtime.

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

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{path}: {error}; it must be readable by the user gatepost runs as")]
    Read { path: PathBuf, error: io::Error },
    #[error("{path}: no {expected} in PEM form found; {fix}")]
    Pem {
        path: PathBuf,
        expected: &'static str,
        fix: &'static str,
    },
    /// The key does not match the certificate, or has an unsupported kind.
    #[error(
        "{certificate} and {key} cannot be used together: {}; give the key that the certificate was issued for",
        error_text(error)
    )]
    Pair {
        certificate: PathBuf,
        key: PathBuf,
        error: rustls::Error,
    },
    /// Clients would reject the new certificate, and the served certificate is better.
    #[error("{path}: it {}; have it renewed, or correct this machine's clock", validity(*begins, *ends))]
    NotValid {
        path: PathBuf,
        /// The start of validity in seconds since 1970, if in the future.
        begins: Option<i64>,
        /// The end of validity in seconds since 1970.
        ends: i64,
    },
    /// No trusted authority means that no upstream could be verified.
    #[error(
        "no certificate of an authority found on this system; install ca-certificates, or name a file in upstream.tls_ca"
    )]
    NoRoots,
    #[error(
        "{path}: {}; give the certificates of authorities in PEM form",
        error_text(error)
    )]
    Root { path: PathBuf, error: rustls::Error },
    #[error(
        "upstream.tls_name: {0:?} is not a name that a certificate can have; use a host name or an IP address"
    )]
    Name(String),
    #[error("TLS: {}", error_text(.0))]
    Setup(#[from] rustls::Error),
}

fn validity(begins: Option<i64>, ends: i64) -> String {
    let time = |second| jiff::Timestamp::from_second(second).unwrap_or_default();
    match begins {
        Some(begins) => format!("is not valid before {}", time(begins)),
        None => format!("expired on {}", time(ends)),
    }
}

/// Reads every certificate in a PEM file; returns none if the file holds anything else.
pub(super) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    Ok(chain_of(&read(path)?))
}

/// Parses every certificate in PEM; returns none if `pem` holds anything else.
pub(super) fn chain_of(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    let chain: Result<_, _> = CertificateDer::pem_slice_iter(pem).collect();
    chain.unwrap_or_default()
}

/// Reads the private key in a PEM file.
pub(super) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    key_of(path, &zeroize::Zeroizing::new(read(path)?))
}

/// Parses the private key of the file at `path`.
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

/// The only choice of the cryptography provider.
pub fn provider() -> CryptoProvider {
    rustls::crypto::aws_lc_rs::default_provider()
}

/// Draws the first random number. The first draw costs the process tens of milliseconds, better at
/// the start than in a client's handshake.
pub fn warm_up() {
    // After a failure handshakes fail with the cause.
    let _ = provider().secure_random.fill(&mut [0]);
}

/// Describes a connection error in plain words, including a wrapped rustls error.
pub fn io_error_text(error: &io::Error) -> String {
    let source = error.get_ref().and_then(|source| source.downcast_ref());
    source.map_or_else(|| error.to_string(), error_text)
}

/// Describes a rustls error in plain words, without type names.
pub fn error_text(error: &rustls::Error) -> String {
    use rustls::Error;
    match error {
        Error::AlertReceived(alert) => format!("the peer sent the alert {}", alert_name(*alert)),
        Error::General(why) => why.clone(),
        Error::InappropriateHandshakeMessage { .. }
        | Error::InappropriateMessage { .. }
        | Error::PeerMisbehaved(_) => "the peer broke the protocol of TLS".to_owned(),
        Error::InconsistentKeys(_) => "the key does not belong to the certificate".to_owned(),
        Error::InvalidCertificate(why) => {
            format!("invalid peer certificate: {}", certificate_error_text(why))
        }
        Error::InvalidMessage(_) => "the peer sent something that is not TLS".to_owned(),
        Error::PeerIncompatible(_) => {
            "the peer takes no version, cipher suite or group that is offered".to_owned()
        }
        error => error.to_string(),
    }
}

fn certificate_error_text(error: &CertificateError) -> String {
    let text = match error {
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
    text.to_owned()
}

/// The TLS configuration of the listeners, with certificates that can be replaced.
#[derive(Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
    served: Arc<Served>,
    pairs: Vec<Pair>,
    files: Mutex<Files>,
}

/// The contents of the files at the last refresh.
#[derive(Debug)]
struct Files {
    /// The served pairs, in the order of the configuration.
    served: Vec<(blake3::Hash, Certificate)>,
    /// The error of the last refresh, if the files could not be served.
    refused: Option<Refused>,
}

/// Files that cannot be served.
#[derive(Debug, PartialEq)]
struct Refused {
    /// Each pair's digest; `None` for an unreadable file.
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
    /// Loads the pairs, the default certificate first, and prepares TLS 1.2 and 1.3.
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
        // The greeting is public and must not cost an extra round trip.
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

    /// Returns the configuration for clients; [`Tls::refresh`] replaces its certificates.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// Returns the earliest end of validity of the served certificates, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        self.served.0.load().not_after()
    }

    /// Rereads the files at `now`, in seconds since 1970, and serves changed certificates. Returns
    /// whether anything changed. All old certificates stay if a pair cannot be used, or if a new
    /// certificate is invalid while the served certificate is valid.
    ///
    /// # Errors
    /// The reason why the old certificates stay. The first refresh that meets an error returns
    /// `Ok(false)`, and the second returns the error once, because a renewal may be halfway through
    /// its two files. With `at_once`, every refresh returns the error, and unchanged files count as
    /// new.
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

    /// Writes a pair with a validity given in years.
    fn write_pair_of(directory: &Path, name: &str, years: (i32, i32)) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        let certificate = params.self_signed(&key).unwrap();
        fs::write(directory.join("cert"), certificate.pem()).unwrap();
        fs::write(directory.join("key"), key.serialize_pem()).unwrap();
    }

    /// The test time, 1 July 2026.
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
    fn changed_pair_is_served_and_broken_pair_keeps_the_old() {
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

        // The key of another pair, as halfway through a renewal.
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
    fn pair_rewritten_with_an_old_mtime_is_served() {
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
    fn invalid_certificate_never_replaces_a_valid_one() {
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
    fn future_certificate_is_served_once_valid() {
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
