//! TLS of the listener, with a certificate that can be reloaded.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::stream::Stream;
use crate::small_file::Contents;
use crate::tls;

/// Files of the certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate in PEM, followed by intermediate certificates.
    pub cert: PathBuf,
    /// The private key in PEM.
    pub key: PathBuf,
}

impl TlsFiles {
    /// Returns the paths of both files.
    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        vec![self.cert.clone(), self.key.clone()]
    }
}

/// TLS with the current certificate. Clones share it.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    files: TlsFiles,
    config: ArcSwap<ServerConfig>,
}

/// Invalid certificate or key, as one line that names the setting.
#[derive(Debug, thiserror::Error)]
#[error("{setting}: {}: {why}", path.display())]
pub struct TlsError {
    setting: &'static str,
    path: PathBuf,
    why: String,
}

impl Tls {
    /// Loads the certificate from `files`.
    ///
    /// # Errors
    ///
    /// A [`TlsError`] if a file can't be used.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let contents = Contents::read(&files.paths());
        Self::load_from(files, &contents)
    }

    /// As [`Self::load`], with `contents` of the files.
    pub(crate) fn load_from(files: TlsFiles, contents: &Contents) -> Result<Self, TlsError> {
        let config = ArcSwap::from_pointee(config(&files, contents)?);
        Ok(Self(Arc::new(Inner { files, config })))
    }

    /// Reloads the certificate from `contents` of the files. Open connections keep the previous one.
    ///
    /// # Errors
    ///
    /// A [`TlsError`] if a file can't be used. The previous certificate stays.
    pub(crate) fn reload_from(&self, contents: &Contents) -> Result<(), TlsError> {
        self.0.config.store(Arc::new(config(&self.0.files, contents)?));
        Ok(())
    }

    /// Performs the handshake on `stream`. Has no timeout.
    pub(super) async fn accept(&self, stream: Stream) -> io::Result<TlsStream<Stream>> {
        TlsAcceptor::from(self.0.config.load_full()).accept(stream).await
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.0.files).finish()
    }
}

fn config(files: &TlsFiles, contents: &Contents) -> Result<ServerConfig, TlsError> {
    let cert_error = |why| TlsError { setting: "tls_cert_file", path: files.cert.clone(), why };
    let key_error = |why| TlsError { setting: "tls_key_file", path: files.key.clone(), why };
    let pem = |path| contents.of(path).map_err(PemError::Io);
    let certs = pem(&files.cert).and_then(tls::certificates).map_err(|error| cert_error(why(&error, "certificate")))?;
    let key = pem(&files.key).and_then(PrivateKeyDer::from_pem_slice);
    let key = key.map_err(|error| key_error(why(&error, "private key")))?;
    let config = ServerConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .expect("the provider has TLS 1.2 and 1.3");
    let config = config.with_no_client_auth().with_single_cert(certs, key);
    let mut config = config.map_err(|error| key_error(format!("can't be used with the certificate: {error}")))?;
    // Makes clients that also offer HTTP/2 choose HTTP/1.1.
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Describes the error without the content of the file.
fn why(error: &PemError, what: &str) -> String {
    match error {
        PemError::Io(error) => format!("can't be read: {error}"),
        PemError::NoItemsFound => format!("has no {what} in PEM"),
        _ => format!("has a {what} that is not well-formed PEM"),
    }
}
