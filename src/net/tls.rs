//! TLS towards clients, with certificates that are replaced while running.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert, ServerSessionMemoryCache};
use rustls::sign::CertifiedKey;

use super::certificates::{Certificates, Pair};

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
        "{certificate} and {key} cannot be used together: {error}; give the key that the certificate was issued for"
    )]
    Pair {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// What rustls says.
        error: rustls::Error,
    },
    /// Nobody is trusted, so nobody could be verified.
    #[error(
        "no certificate of an authority found on this system; install ca-certificates, or name a file in upstream.tls_ca"
    )]
    NoRoots,
    /// What should be an authority's certificate is none.
    #[error("{path}: {error}; give the certificates of authorities in PEM form")]
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
    #[error("TLS: {0}")]
    Setup(#[from] rustls::Error),
}

/// Every certificate in a PEM file; none where it holds anything else.
pub(super) fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let chain = read(path)?;
    let chain: Result<_, _> = CertificateDer::pem_slice_iter(&chain).collect();
    Ok(chain.unwrap_or_default())
}

/// The private key in a PEM file.
pub(super) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let private = zeroize::Zeroizing::new(read(path)?);
    PrivateKeyDer::from_pem_slice(&private).map_err(|_| TlsError::Pem {
        path: path.to_owned(),
        expected: "private key",
        fix: "give an unencrypted key (certbot: privkey.pem)",
    })
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
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

/// TLS as the listeners offer it, with certificates that can be replaced under them.
#[derive(Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
    served: Arc<Served>,
    pairs: Vec<Pair>,
    /// What the files looked like when they were last loaded or found unusable.
    seen: Mutex<Fingerprint>,
}

#[derive(Debug)]
struct Served(ArcSwap<Certificates>);

impl ResolvesServerCert for Served {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let certificates = self.0.load();
        certificates.choose(hello.server_name(), hello.signature_schemes())
    }
}

/// Modification time, inode and size of both files of each pair. Symbolic links are followed, as
/// certbot's point somewhere else after a renewal.
type Fingerprint = Vec<Option<[(i64, i64, u64, u64); 2]>>;

impl Tls {
    /// Loads the pairs, the one for everybody else first, and prepares TLS 1.2 and 1.3.
    pub fn load(pairs: Vec<Pair>) -> Result<Self, TlsError> {
        let seen = fingerprint(&pairs);
        let served = Arc::new(Served(ArcSwap::from_pointee(Certificates::load(&pairs)?)));
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
            seen: Mutex::new(seen),
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

    /// Loads the files again. If any of them is unusable, all the old ones stay in place.
    pub fn reload(&self) -> Result<(), TlsError> {
        let seen = fingerprint(&self.pairs);
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        self.served
            .0
            .store(Arc::new(Certificates::load(&self.pairs)?));
        Ok(())
    }

    /// Whether the files look different from when they were last loaded.
    pub fn has_changed(&self) -> bool {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = fingerprint(&self.pairs);
        // Between the two renames of a renewal a file may be missing; look again later.
        let differs = |(now, seen): (&Option<_>, &Option<_>)| now.is_some() && now != seen;
        now.iter().zip(seen.iter()).any(differs)
    }
}

fn fingerprint(pairs: &[Pair]) -> Fingerprint {
    let of = |path: &Path| {
        let file = fs::metadata(path).ok()?;
        Some((file.mtime(), file.mtime_nsec(), file.ino(), file.size()))
    };
    let both = |pair: &Pair| Some([of(&pair.certificate)?, of(&pair.key)?]);
    pairs.iter().map(both).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_pair(directory: &Path, name: &str) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        fs::write(directory.join("cert"), made.cert.pem()).unwrap();
        fs::write(directory.join("key"), made.signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn a_changed_pair_is_noticed_and_a_bad_one_keeps_the_old() {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (directory.path().join("cert"), directory.path().join("key"));
        write_pair(directory.path(), "one.test");
        let tls = Tls::load(vec![Pair {
            certificate,
            key: key.clone(),
        }])
        .unwrap();
        assert!(!tls.has_changed());
        let shown = |tls: &Tls| tls.served.0.load().choose(None, &[]).unwrap().cert.clone();
        let first = shown(&tls);

        write_pair(directory.path(), "two.test");
        assert!(tls.has_changed());
        tls.reload().unwrap();
        assert!(!tls.has_changed());
        let second = shown(&tls);
        assert_ne!(first, second);

        // The key of another pair.
        let other = rcgen::generate_simple_self_signed(["x.test".to_owned()]).unwrap();
        fs::write(&key, other.signing_key.serialize_pem()).unwrap();
        assert!(matches!(tls.reload(), Err(TlsError::Pair { .. })));
        assert_eq!(shown(&tls), second);
        // The same broken files are not tried again and again.
        assert!(!tls.has_changed());
    }
}
