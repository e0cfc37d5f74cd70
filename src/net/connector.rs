//! TLS towards the upstream: verification of its certificate, and the optional client certificate.

use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use super::stream::{LocalStream, UpstreamStream};
use super::tls::{TlsError, provider, read_chain, read_key};

/// Performs the handshake with an upstream and verifies its certificate.
#[derive(Clone)]
pub struct Connector {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Connector {
    /// Builds a connector that accepts certificates for `name` from an authority in `ca`, or else
    /// from an authority of the system. `own` is the client certificate chain and its key.
    pub fn load(
        name: &str,
        ca: Option<&Path>,
        own: Option<(&Path, &Path)>,
    ) -> Result<Self, TlsError> {
        let name =
            ServerName::try_from(name.to_owned()).map_err(|_| TlsError::Name(name.to_owned()))?;
        let roots = match ca {
            Some(path) => roots_of_file(path)?,
            None => roots_of_system()?,
        };
        let config = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_root_certificates(roots);
        let config = match own {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => config
                .with_client_auth_cert(read_chain(certificate)?, read_key(key)?)
                .map_err(|error| TlsError::Pair {
                    certificate: certificate.to_owned(),
                    key: key.to_owned(),
                    error,
                })?,
        };
        Ok(Self {
            connector: TlsConnector::from(Arc::new(config)),
            name,
        })
    }

    /// Performs the handshake; fails unless the upstream's certificate verifies.
    pub async fn connect(&self, stream: LocalStream) -> io::Result<UpstreamStream> {
        let stream = self.connector.connect(self.name.clone(), stream).await?;
        Ok(UpstreamStream::Tls(Box::new(stream)))
    }
}

fn roots_of_file(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_chain(path)? {
        roots.add(certificate).map_err(|error| TlsError::Root {
            path: path.to_owned(),
            error,
        })?;
    }
    if roots.is_empty() {
        return Err(TlsError::Pem {
            path: path.to_owned(),
            expected: "certificate",
            fix: "give the certificates of the authorities that may sign the MTA's",
        });
    }
    Ok(roots)
}

fn roots_of_system() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    // Skips system certificates that rustls cannot parse; upstreams signed by such an authority
    // fail the handshake with a clear reason.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(TlsError::NoRoots);
    }
    Ok(roots)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn error_names_the_unusable_authority() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let made = rcgen::generate_simple_self_signed(["mx.test".to_owned()]).unwrap();
        let other = rcgen::generate_simple_self_signed(["mx.test".to_owned()]).unwrap();
        fs::write(path("cert"), made.cert.pem()).unwrap();
        fs::write(path("key"), other.signing_key.serialize_pem()).unwrap();
        fs::write(path("empty"), "").unwrap();
        let (cert, key, empty) = (path("cert"), path("key"), path("empty"));

        assert!(Connector::load("mx.test", Some(&cert), None).is_ok());
        assert!(Connector::load("192.0.2.1", Some(&cert), None).is_ok());
        let refused = |name: &str, ca: &Path, own| {
            let loaded = Connector::load(name, Some(ca), own);
            loaded.err().expect("refused").to_string()
        };
        let error = refused("a b", &cert, None);
        assert!(error.contains("\"a b\" is not a name"), "{error}");
        let error = refused("mx.test", &empty, None);
        assert!(error.contains("/empty: no certificate"), "{error}");
        let error = refused("mx.test", &path("none"), None);
        assert!(error.contains("/none: No such file"), "{error}");
        let error = refused("mx.test", &cert, Some((&cert, &key)));
        assert!(error.contains("cannot be used together"), "{error}");
    }
}
