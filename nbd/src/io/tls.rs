//! TLS for clients of other machines: certificates on both sides, since whoever may connect may
//! read the disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject as _};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig, ServerConnection};

/// What a server needs to speak TLS.
#[derive(Clone, Debug)]
pub struct Tls(Arc<ServerConfig>);

/// Why these files are not enough for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that can't be read, or holds something else.
    #[error("reading {path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: pem::Error,
    },
    /// Certificate and key don't do.
    #[error("certificate or key: {0}")]
    Certificate(#[from] rustls::Error),
    /// There is nobody whose certificates clients could show.
    #[error("the authority of the clients: {0}")]
    Authority(#[from] VerifierBuilderError),
}

impl Tls {
    /// TLS with the certificate chain and key in two PEM files, for clients whose certificates
    /// were made by an authority in a third.
    pub fn from_files(chain: &Path, key: &Path, clients: &Path) -> Result<Self, TlsError> {
        let certificates = certificates(chain)?;
        let private_key = PrivateKeyDer::from_pem_file(key)
            .map_err(|source| TlsError::File { path: key.to_owned(), source })?;
        let mut roots = RootCertStore::empty();
        for authority in self::certificates(clients)? {
            roots.add(authority)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .build()?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates, private_key)?;
        Ok(Self(Arc::new(config)))
    }

    pub(super) fn connection(&self) -> Result<ServerConnection, rustls::Error> {
        ServerConnection::new(Arc::clone(&self.0))
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|source| TlsError::File { path: path.to_owned(), source })
}
