//! Server certificates with their keys, and the choice among them for each client.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SignatureScheme};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use zeroize::Zeroizing;

use super::tls::{TlsError, chain_of, key_of, provider, read};

/// The two files of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The PEM file with the chain, leaf first.
    pub certificate: PathBuf,
    /// The PEM file with the private key.
    pub key: PathBuf,
}

pub(super) struct Contents {
    certificate: Vec<u8>,
    key: Zeroizing<Vec<u8>>,
}

impl Contents {
    pub(super) fn read(pair: &Pair) -> Result<Self, TlsError> {
        Ok(Self {
            certificate: read(&pair.certificate)?,
            key: Zeroizing::new(read(&pair.key)?),
        })
    }

    /// Returns a digest of both files. Times and sizes cannot replace the digest: a file may be
    /// rewritten in place with an equal size and time.
    pub(super) fn digest(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&(self.certificate.len() as u64).to_le_bytes());
        hasher.update(&self.certificate);
        hasher.update(&self.key);
        hasher.finalize()
    }
}

/// A loaded and checked certificate chain with its key.
#[derive(Clone, Debug)]
pub struct Certificate {
    key: Arc<CertifiedKey>,
    /// Host names in lower case; the first label may be `*`.
    pub names: Vec<String>,
    /// The start of validity in seconds since 1970.
    pub not_before: i64,
    /// The end of validity in seconds since 1970.
    pub not_after: i64,
}

impl Certificate {
    /// Reads and checks a pair of PEM files.
    pub fn load(pair: &Pair) -> Result<Self, TlsError> {
        Self::of(pair, &Contents::read(pair)?)
    }

    /// Checks the contents of the files of `pair`.
    pub(super) fn of(pair: &Pair, contents: &Contents) -> Result<Self, TlsError> {
        let Pair { certificate, key } = pair;
        let chain = chain_of(&contents.certificate);
        let [leaf, ..] = &chain[..] else {
            return Err(TlsError::Pem {
                path: certificate.to_owned(),
                expected: "certificate",
                fix: "give the full chain (certbot: fullchain.pem)",
            });
        };
        let (names, not_before, not_after) = x509_parser::parse_x509_certificate(leaf)
            .map(|(_, leaf)| {
                let validity = leaf.validity();
                let (begin, end) = (&validity.not_before, &validity.not_after);
                (names(&leaf), begin.timestamp(), end.timestamp())
            })
            .unwrap_or_default();
        let private = key_of(key, &contents.key)?;
        let loaded = CertifiedKey::from_der(chain, private, &provider()).map_err(|error| {
            TlsError::Pair {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
                error,
            }
        })?;
        Ok(Self {
            key: Arc::new(loaded),
            names,
            not_before,
            not_after,
        })
    }

    /// Whether the certificate is valid at `now`, in seconds since 1970.
    pub fn is_valid_at(&self, now: i64) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Whether clients prefer the new certificate to `current`: the new certificate is valid, or
    /// neither is valid and the new certificate ends no earlier.
    pub(super) fn replaces(&self, current: &Self, now: i64) -> bool {
        self.is_valid_at(now) || (!current.is_valid_at(now) && self.not_after >= current.not_after)
    }

    /// Whether the certificate covers `name` (RFC 6125, 6.4.3: `*` is a whole label).
    pub fn is_for(&self, name: &str) -> bool {
        let rest = name.split_once('.').map(|(_, rest)| rest);
        self.names.iter().any(|own| match own.strip_prefix("*.") {
            Some(own) => rest.is_some_and(|rest| rest.eq_ignore_ascii_case(own)),
            None => name.eq_ignore_ascii_case(own),
        })
    }

    /// Whether a client with these signature schemes can verify the certificate's key.
    fn is_verified_by(&self, schemes: &[SignatureScheme]) -> bool {
        self.key.key.choose_scheme(schemes).is_some()
    }
}

/// Returns the certificate's host names; the common name counts only without alternative names.
fn names(leaf: &X509Certificate) -> Vec<String> {
    let alternative = leaf.subject_alternative_name().ok().flatten();
    let alternative = alternative
        .iter()
        .flat_map(|names| &names.value.general_names);
    let names: Vec<_> = alternative
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
            _ => None,
        })
        .collect();
    if !names.is_empty() {
        return names;
    }
    let common = leaf.subject().iter_common_name();
    let common = common.filter_map(|name| name.as_str().ok());
    common.map(str::to_ascii_lowercase).collect()
}

/// The certificates served to clients.
#[derive(Debug)]
pub struct Certificates {
    /// Sorted with RSA last, because an RSA signature costs several times as much.
    all: Vec<Certificate>,
    /// For clients that ask for no name or an unknown name.
    common: Vec<Certificate>,
}

impl Certificates {
    pub fn load(pairs: &[Pair]) -> Result<Self, TlsError> {
        let all: Result<_, _> = pairs.iter().map(Certificate::load).collect();
        Ok(Self::of(all?))
    }

    /// Clients without a known name get the first certificate, or another certificate that shares a
    /// name with the first: RSA and ECDSA variants then work side by side.
    pub(super) fn of(mut all: Vec<Certificate>) -> Self {
        let first = all.first().cloned();
        let shares = |other: &&Certificate| {
            let first = first.iter().flat_map(|first| &first.names);
            first.clone().any(|name| other.names.contains(name))
        };
        let mut common: Vec<_> = all.iter().filter(shares).cloned().collect();
        if common.is_empty() {
            common.extend(first);
        }
        let dear =
            |certificate: &Certificate| certificate.key.key.algorithm() == SignatureAlgorithm::RSA;
        all.sort_by_key(dear);
        common.sort_by_key(dear);
        Self { all, common }
    }

    /// Chooses a certificate for a client that asks for `name` and verifies `schemes`.
    pub fn choose(
        &self,
        name: Option<&str>,
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let verified = |certificate: &&Certificate| certificate.is_verified_by(schemes);
        let asked_for = |name| self.all.iter().filter(move |other| other.is_for(name));
        name.and_then(|name| asked_for(name).find(verified))
            .or_else(|| self.common.iter().find(verified))
            // No certificate fits; the handshake with the first fails with a clear reason.
            .or(self.common.first())
            .map(|certificate| certificate.key.clone())
    }

    /// Returns the earliest end of validity, in seconds since 1970.
    pub fn not_after(&self) -> i64 {
        let ends = self.all.iter().map(|certificate| certificate.not_after);
        ends.min().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};
    use tempfile::TempDir;

    use super::*;

    const ECDSA: &[SignatureScheme] = &[SignatureScheme::ECDSA_NISTP256_SHA256];
    const RSA: &[SignatureScheme] = &[SignatureScheme::RSA_PSS_SHA256];

    fn load(certificate: &Path, key: &Path) -> Result<Certificate, TlsError> {
        Certificate::load(&Pair {
            certificate: certificate.to_owned(),
            key: key.to_owned(),
        })
    }

    /// Writes a self-signed pair with a key of `kind`.
    fn pair(
        directory: &TempDir,
        file: &str,
        kind: &'static rcgen::SignatureAlgorithm,
        names: &[&str],
    ) -> Pair {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let key = KeyPair::generate_for(kind).unwrap();
        let certificate = CertificateParams::new(names)
            .unwrap()
            .self_signed(&key)
            .unwrap();
        let path = |end: &str| directory.path().join(format!("{file}.{end}"));
        fs::write(path("cert"), certificate.pem()).unwrap();
        fs::write(path("key"), key.serialize_pem()).unwrap();
        Pair {
            certificate: path("cert"),
            key: path("key"),
        }
    }

    #[test]
    fn client_gets_a_certificate_for_its_name_and_schemes() {
        let directory = tempfile::tempdir().unwrap();
        let ecdsa = &PKCS_ECDSA_P256_SHA256;
        let pairs = [
            pair(&directory, "first", &PKCS_RSA_SHA256, &["mail.test"]),
            pair(&directory, "other", ecdsa, &["Other.test", "*.wild.test"]),
            pair(&directory, "twin", ecdsa, &["mail.test", "smtp.test"]),
        ];
        let certificates = Certificates::load(&pairs).unwrap();
        let own = pairs
            .each_ref()
            .map(|pair| Certificate::load(pair).unwrap().key.cert.clone());
        let [first, other, twin] = own;
        let both = [ECDSA, RSA].concat();
        for (name, schemes, expected) in [
            (Some("mail.test"), &both[..], &twin),
            (Some("MAIL.test"), ECDSA, &twin),
            (Some("mail.test"), RSA, &first),
            (Some("other.test"), &both, &other),
            (Some("a.wild.test"), &both, &other),
            (Some("smtp.test"), &both, &twin),
            // For unknown names, the first certificate or its variant with the other kind of key.
            (Some("wild.test"), &both, &twin),
            (Some("a.b.wild.test"), &both, &twin),
            (Some("unknown.test"), RSA, &first),
            (None, &both, &twin),
            (None, RSA, &first),
            // No RSA key covers this name, so the client gets a certificate that it can verify.
            (Some("other.test"), RSA, &first),
            (None, &[], &twin),
        ] {
            let chosen = certificates.choose(name, schemes).unwrap();
            assert!(chosen.cert == *expected, "{name:?} {schemes:?}");
        }
    }

    #[test]
    fn first_certificate_is_the_default_without_shared_names() {
        let directory = tempfile::tempdir().unwrap();
        let ecdsa = &PKCS_ECDSA_P256_SHA256;
        let pairs = [
            pair(&directory, "first", ecdsa, &["192.0.2.1"]),
            pair(&directory, "other", ecdsa, &["other.test"]),
        ];
        let certificates = Certificates::load(&pairs).unwrap();
        let first = Certificate::load(&pairs[0]).unwrap().key.cert.clone();
        assert!(certificates.choose(None, ECDSA).unwrap().cert == first);
    }

    #[test]
    fn error_names_the_missing_file() {
        let directory = tempfile::tempdir().unwrap();
        let made = pair(&directory, "one", &PKCS_ECDSA_P256_SHA256, &["one.test"]);
        let (certificate, key) = (made.certificate, made.key);
        let error = load(&directory.path().join("none"), &key).unwrap_err();
        assert!(error.to_string().contains("/none: No such file"), "{error}");
        let error = load(&key, &key).unwrap_err().to_string();
        assert!(error.contains("no certificate in PEM form"), "{error}");
        let error = load(&certificate, &certificate).unwrap_err().to_string();
        assert!(error.contains("no private key in PEM form"), "{error}");
    }
}
