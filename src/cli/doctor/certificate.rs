//! The certificates that mail programs are shown: do they get the name they asked for, from
//! somebody they know, today?

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier as _;
use rustls::client::verify_server_name;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, RootCertStore};

use super::finding::Finding;
use crate::net::certificates::{Certificate, Pair};
use crate::net::tls::{TlsError, provider};

const CHECK: &str = "certificate";

/// Who renews in time does so before this many seconds are left, or a sixth of all.
const SOON: i64 = 14 * 24 * 3600;

/// Whose names are believed, and which name is asked for.
pub struct Expected {
    /// The name that mail programs are configured with.
    pub name: ServerName<'static>,
    /// The authorities that they trust.
    pub roots: Arc<RootCertStore>,
    /// Single certificates that they trust, whoever signed them.
    pub trusted: Vec<CertificateDer<'static>>,
}

/// Every certificate in a PEM file; none where it cannot be read.
pub fn in_file(path: &Path) -> Vec<CertificateDer<'static>> {
    let chain = CertificateDer::pem_file_iter(path);
    chain.map_or_else(|_| Vec::new(), |chain| chain.flatten().collect())
}

/// The authorities in `ca`, or else those that this system trusts.
pub fn roots(ca: Option<&Path>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let all = match ca {
        Some(path) => in_file(path),
        None => rustls_native_certs::load_native_certs().certs,
    };
    roots.add_parsable_certificates(all);
    roots
}

/// What a mail program will make of a chain, which `shown` says the place of.
pub fn judge(
    chain: &[CertificateDer<'static>],
    shown: &str,
    expected: &Expected,
    now: Timestamp,
) -> Vec<Finding> {
    let problem = |found: String, next: &str| Finding::problem(CHECK, found, next);
    let Some((leaf, others)) = chain.split_first() else {
        let found = format!("{shown}: there is none");
        let next = "gatepost check says what is wrong with the files in [tls]";
        return vec![problem(found, next)];
    };
    let Ok((_, parsed)) = x509_parser::parse_x509_certificate(leaf) else {
        let found = format!("{shown}: it cannot be read");
        return vec![problem(found, "have it issued again")];
    };
    let validity = parsed.validity();
    let (begin, end) = (
        validity.not_before.timestamp(),
        validity.not_after.timestamp(),
    );
    let mut findings = Vec::new();
    let day = |second| {
        let time = Timestamp::from_second(second).unwrap_or_default();
        time.strftime("%Y-%m-%d %H:%M UTC").to_string()
    };
    let left = end - now.as_second();
    if left < 0 {
        findings.push(problem(
            format!("{shown}: expired on {}; mail programs refuse it", day(end)),
            "renew it (certbot renew), see that the deploy hook ran, then: systemctl reload gatepost",
        ));
    } else if now.as_second() < begin {
        findings.push(problem(
            format!("{shown}: not valid before {}", day(begin)),
            "is this machine's clock right? else have it issued again",
        ));
    } else if left < SOON.min((end - begin) / 6) {
        findings.push(Finding::warning(
            CHECK,
            format!(
                "{shown}: expires in {} days, on {}, renewal is late",
                left / 86_400,
                day(end)
            ),
            "look why it was not renewed (certbot renew --dry-run)",
        ));
    }
    let name = expected.name.to_str();
    let named = ParsedCertificate::try_from(leaf)
        .and_then(|parsed| verify_server_name(&parsed, &expected.name));
    if named.is_err() {
        findings.push(problem(
            format!(
                "{shown}: it is not for {name} but for {}; mail programs that are told {name} refuse it",
                names(&parsed)
            ),
            "have it issued for that name, or correct hostname in config.toml; another name that mail programs use: --name NAME",
        ));
    }
    let self_signed = parsed.issuer() == parsed.subject();
    findings.extend(judge_issuer(
        leaf,
        others,
        shown,
        self_signed,
        expected,
        now,
    ));
    if findings.is_empty() {
        let found = format!("{shown}: for {name}, trusted, until {}", day(end));
        findings.push(Finding::ok(CHECK, found));
    }
    findings
}

/// Whether the chain leads to somebody trusted.
fn judge_issuer(
    leaf: &CertificateDer<'_>,
    others: &[CertificateDer<'_>],
    shown: &str,
    self_signed: bool,
    expected: &Expected,
    now: Timestamp,
) -> Option<Finding> {
    let provider = Arc::new(provider());
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::clone(&expected.roots), provider).build();
    let Ok(verifier) = verifier else {
        let found = format!(
            "{shown}: whether mail programs trust it could not be told, no authority is known here"
        );
        let next = "install ca-certificates, or name who signed it: --ca FILE";
        return Some(Finding {
            next: Some(next.to_owned()),
            ..Finding::unknown(CHECK, found)
        });
    };
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    let verified = verifier.verify_server_cert(leaf, others, &expected.name, &[], now);
    use CertificateError as Bad;
    match verified {
        Ok(_) => None,
        // One that openssl made says that it is an authority's, which rustls takes for no server's.
        Err(_) if expected.trusted.contains(leaf) => None,
        // Said already.
        Err(rustls::Error::InvalidCertificate(
            Bad::Expired
            | Bad::ExpiredContext { .. }
            | Bad::NotValidYet
            | Bad::NotValidYetContext { .. }
            | Bad::NotValidForName
            | Bad::NotValidForNameContext { .. },
        )) => None,
        Err(_) if self_signed => Some(Finding::warning(
            CHECK,
            format!("{shown}: it is signed by itself, and trusted only where somebody said so"),
            "if mail programs complain, have one issued by an authority; if they were told to trust it: --ca FILE",
        )),
        Err(_) if others.is_empty() => Some(Finding::problem(
            CHECK,
            format!(
                "{shown}: the chain is incomplete, it has the server's own certificate and not who signed it"
            ),
            "name the full chain in tls.certificate (certbot: fullchain.pem, not cert.pem), then: systemctl reload gatepost",
        )),
        Err(error) => Some(Finding::warning(
            CHECK,
            format!("{shown}: nobody trusted here has signed it ({error})"),
            "if mail programs are told to trust whoever has: --ca FILE; else have it issued by an authority they know",
        )),
    }
}

/// A listener shows another certificate than the file has.
pub fn differs(shown: &str, path: &Path) -> Finding {
    Finding::warning(
        CHECK,
        format!("{shown}: it is another one than in {}", path.display()),
        "if it stays so for longer than tls.reload_interval: gatepost check says what is wrong with the file; then systemctl reload gatepost",
    )
}

/// What keeps the files of a pair from being served, while the listeners show an earlier one.
pub fn unusable(pair: &Pair, now: Timestamp) -> Option<Finding> {
    let kept = "a running Gatepost keeps the certificate that it has";
    let next = "correct the files: gatepost check tries them; then: systemctl reload gatepost";
    match Certificate::load(pair) {
        Ok(loaded) if loaded.is_valid_at(now.as_second()) => None,
        Ok(_) => {
            let shown = pair.certificate.display();
            let found = format!("{shown}: it is not valid now; {kept} if that is valid");
            Some(Finding::warning(CHECK, found, next))
        }
        Err(TlsError::Read { path, error }) if error.kind() == ErrorKind::PermissionDenied => {
            let found = format!("{} cannot be read by this user", path.display());
            Some(Finding::unknown(CHECK, found))
        }
        Err(error) => {
            let found = format!("{error}; {kept} and a start ends with 78");
            Some(Finding::warning(CHECK, found, next))
        }
    }
}

/// The names that a certificate is for.
fn names(certificate: &x509_parser::certificate::X509Certificate) -> String {
    use x509_parser::extensions::GeneralName;
    let alternatives = certificate.subject_alternative_name().ok().flatten();
    let names = alternatives.map(|found| &found.value.general_names);
    let names: Vec<_> = names
        .into_iter()
        .flatten()
        .filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            GeneralName::IPAddress([a, b, c, d]) => Some(format!("{a}.{b}.{c}.{d}")),
            GeneralName::IPAddress(bytes) => {
                let bytes: [u8; 16] = (*bytes).try_into().ok()?;
                Some(std::net::Ipv6Addr::from(bytes).to_string())
            }
            _ => None,
        })
        .collect();
    match names.is_empty() {
        true => "no name at all".to_owned(),
        false => names.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};

    use super::super::finding::Level;
    use super::*;

    const NOW: &str = "2026-06-01T00:00:00Z";

    struct Authority {
        issuer: Issuer<'static, KeyPair>,
        certificate: CertificateDer<'static>,
    }

    fn authority(name: &str, above: Option<&Authority>) -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = match above {
            None => params.self_signed(&key),
            Some(above) => params.signed_by(&key, &above.issuer),
        };
        let certificate = certificate.unwrap().der().clone();
        Authority {
            issuer: Issuer::new(params, key),
            certificate,
        }
    }

    fn leaf(by: Option<&Authority>, name: &str, begin: i32, end: i32) -> CertificateDer<'static> {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(begin, 1, 1);
        params.not_after = date_time_ymd(end, 6, 3);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let made = match by {
            None => params.self_signed(&key),
            Some(by) => params.signed_by(&key, &by.issuer),
        };
        made.unwrap().der().clone()
    }

    fn judged(
        chain: &[CertificateDer<'static>],
        root: Option<&CertificateDer<'static>>,
    ) -> Vec<(Level, String)> {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(root.cloned());
        let expected = Expected {
            name: ServerName::try_from("mail.test").unwrap(),
            roots: Arc::new(roots),
            trusted: root.cloned().into_iter().collect(),
        };
        let findings = judge(chain, "shown", &expected, NOW.parse().unwrap());
        findings
            .into_iter()
            .map(|finding| (finding.level, finding.found))
            .collect()
    }

    #[track_caller]
    fn assert_found(found: &[(Level, String)], level: Level, words: &str) {
        let fits = |(of, text): &(Level, String)| *of == level && text.contains(words);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(fits(&found[0]), "{found:?}");
    }

    #[test]
    fn a_whole_chain_to_a_trusted_authority_is_fine() {
        let root = authority("root", None);
        let middle = authority("middle", Some(&root));
        let leaf = leaf(Some(&middle), "mail.test", 2026, 2027);
        let root = Some(&root.certificate);
        let whole = [leaf.clone(), middle.certificate.clone()];
        assert_found(&judged(&whole, root), Level::Ok, "until 2027-06-03");
        assert_found(&judged(&[leaf], root), Level::Problem, "incomplete");
        let other = authority("other", None).certificate;
        assert_found(&judged(&whole, Some(&other)), Level::Warning, "nobody");
        assert_found(&judged(&whole, None), Level::Unknown, "could not be told");
    }

    #[test]
    fn names_and_times_are_told() {
        let own = |name, begin, end| {
            let leaf = leaf(None, name, begin, end);
            judged(std::slice::from_ref(&leaf), Some(&leaf))
        };
        assert_found(&own("mail.test", 2026, 2027), Level::Ok, "trusted");
        let other = own("www.test", 2026, 2027);
        assert_found(&other, Level::Problem, "not for mail.test but for www.test");
        let expired = own("mail.test", 2020, 2025);
        assert_found(&expired, Level::Problem, "expired on 2025-06-03");
        let late = own("mail.test", 2026, 2026);
        assert_found(&late, Level::Warning, "renewal is late");
        let early = own("mail.test", 2027, 2028);
        assert_found(&early, Level::Problem, "not valid before 2027-01-01");
        let (own, other) = (
            leaf(None, "mail.test", 2026, 2027),
            leaf(None, "x.test", 2026, 2027),
        );
        let authority = authority("mail.test", None).certificate;
        let authority = judged(std::slice::from_ref(&authority), Some(&authority));
        assert_found(&authority, Level::Problem, "but for no name at all");
        let stranger = judged(&[own], Some(&other));
        assert_found(&stranger, Level::Warning, "signed by itself");
        assert_found(&judged(&[], None), Level::Problem, "there is none");
    }
}
