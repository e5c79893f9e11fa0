//! The cryptography of this process, and certificates as files hold them.

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{Error as PemError, PemObject as _};

/// The provider of all TLS, the listener's and Redis's.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The certificates in a text in PEM.
///
/// # Errors
///
/// When it is not PEM; [`PemError::NoItemsFound`] when there is none in it.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let certificates = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>()?;
    if certificates.is_empty() { Err(PemError::NoItemsFound) } else { Ok(certificates) }
}

/// Makes aws-lc-rs what rustls uses where nothing else is said, as in the `redis` crate. Needed before any TLS, and safe
/// to repeat.
///
/// rustls finds it by itself as long as no other provider is built in. A dependency that turns another one on would make
/// that a panic at the first handshake, so it is said here.
pub fn use_aws_lc() {
    if CryptoProvider::get_default().is_none() {
        // Somebody else may be first; then there is one, too.
        let _ = aws_lc_rs::default_provider().install_default();
    }
}
