//! The cryptography of this process.

use rustls::crypto::{CryptoProvider, aws_lc_rs};

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
