//! TLS: the box's certificate and key, and how they are renewed without a restart.
//!
//! The files are looked at every few seconds, so that whoever renews certificates (an ACME client, a script) need not know of
//! the box. Files that cannot be used are told of, and the former pair goes on being used.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use conveyor_base::{Timestamp, fault};
use parking_lot::RwLock;
use serde::Deserialize;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Where the certificate and its key lie.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsSettings {
    /// PEM: the box's certificate, and behind it those that lead to the one that clients trust.
    pub certificate: PathBuf,
    /// PEM: the certificate's private key.
    pub key: PathBuf,
}

/// Why a certificate and a key are of no use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("{} cannot be read as PEM", path.display())]
    Read { path: PathBuf, source: pem::Error },
    #[error("{} holds no certificate", .0.display())]
    Empty(PathBuf),
    #[error("the key in {} does not go with the certificate in {}", key.display(), certificate.display())]
    Unfit { certificate: PathBuf, key: PathBuf, source: rustls::Error },
}

/// Speaks TLS with whoever connects. Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    settings: TlsSettings,
    current: Arc<Current>,
    acceptor: TlsAcceptor,
    /// The files that the pair in use is of.
    seen: Look,
}

#[derive(Debug)]
struct Current(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().clone())
    }
}

impl Tls {
    /// # Errors
    /// A file cannot be read, or the two do not go together.
    pub fn load(settings: &TlsSettings) -> Result<Tls, TlsError> {
        // Before they are read: what changes meanwhile is another look's.
        let seen = look(settings);
        let current = Arc::new(Current(RwLock::new(Arc::new(read(settings)?))));
        let unfit =
            |source| TlsError::Unfit { certificate: settings.certificate.clone(), key: settings.key.clone(), source };
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(unfit)?
            .with_no_client_auth()
            .with_cert_resolver(current.clone());
        Ok(Tls { settings: settings.clone(), current, acceptor: Arc::new(config).into(), seen })
    }

    pub(super) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }

    /// Takes up files that have changed, until it is dropped.
    pub(super) async fn keep_fresh(mut self) {
        let mut told = None;
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = look(&self.settings);
            if now == self.seen {
                continue;
            }
            // A pair that is being written does not go together yet, and one that may not be read may come to be: until it can
            // be used it is tried at each look.
            match read(&self.settings) {
                Ok(renewed) => {
                    *self.current.0.write() = Arc::new(renewed);
                    tracing::info!("the certificate {} was taken up anew", self.settings.certificate.display());
                    self.seen = now;
                }
                Err(e) if told.as_ref() != Some(&now) => {
                    tracing::warn!("the former certificate goes on being used: {}", fault::chain(&e));
                    told = Some(now);
                }
                Err(_) => {}
            }
        }
    }
}

/// What tells files apart: number, length, time of change.
type Look = [Option<(u64, u64, i64, i64)>; 2];

fn look(settings: &TlsSettings) -> Look {
    let told = |meta: Metadata| (meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec());
    [&settings.certificate, &settings.key].map(|path| std::fs::metadata(path).ok().map(told))
}

/// When the certificate in a file ends.
///
/// # Errors
/// It cannot be read.
pub fn certificate_ends(path: &Path) -> Result<Timestamp, TlsError> {
    let unreadable = |source| TlsError::Read { path: path.to_owned(), source };
    let first = CertificateDer::pem_file_iter(path).map_err(unreadable)?.next();
    let first = first.ok_or_else(|| TlsError::Empty(path.to_owned()))?.map_err(unreadable)?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&first).map_err(|_| TlsError::Empty(path.to_owned()))?;
    Ok(Timestamp(certificate.validity().not_after.timestamp().saturating_mul(1000)))
}

fn read(settings: &TlsSettings) -> Result<CertifiedKey, TlsError> {
    let unreadable = |path: &Path| {
        let path = path.to_owned();
        |source| TlsError::Read { path, source }
    };
    let TlsSettings { certificate, key } = settings;
    let chain = CertificateDer::pem_file_iter(certificate).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(unreadable(certificate))?;
    if chain.is_empty() {
        return Err(TlsError::Empty(certificate.clone()));
    }
    let secret = PrivateKeyDer::from_pem_file(key).map_err(unreadable(key))?;
    let unfit = |source| TlsError::Unfit { certificate: certificate.clone(), key: key.clone(), source };
    CertifiedKey::from_der(chain, secret, &ring::default_provider()).map_err(unfit)
}
