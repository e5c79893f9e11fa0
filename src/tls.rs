//! The TLS provider of this process, and certificates in PEM.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};

/// The provider for all TLS: the listener, Redis and the commands.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// Reads the certificates in a PEM text.
///
/// # Errors
///
/// [`PemError::NoItemsFound`] if there is none, and any other if the text isn't PEM.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()?;
    if certificates.is_empty() { Err(PemError::NoItemsFound) } else { Ok(certificates) }
}

/// Installs aws-lc-rs as the default provider, for libraries that take no other, such as the `redis` crate. Must run
/// before their first TLS handshake, and may run again.
///
/// rustls would find the only provider that is built in. If a dependency turned a second one on, the first handshake
/// would panic.
pub fn use_aws_lc() {
    if CryptoProvider::get_default().is_none() {
        // Fails if another thread has installed one in the meantime.
        let _ = aws_lc_rs::default_provider().install_default();
    }
}
