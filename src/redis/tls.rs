//! TLS to Redis: trusted CAs, the client certificate, and explanations of failed handshakes.

use std::error::Error;
use std::io;
use std::path::Path;
use std::sync::Arc;

use redis::{ClientTlsConfig, RedisError, TlsCertificates};
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, CertificateError, RootCertStore};

use super::ClientFiles;
use super::credentials::read_file;
use crate::tls;

/// Reads and checks the files. The library would accept an empty CA file, and would report a key of another certificate
/// only when it connects.
///
/// # Errors
///
/// A line that names the setting and the file.
pub(crate) fn read_certificates(
    ca_file: Option<&Path>,
    client_files: Option<&ClientFiles>,
) -> Result<TlsCertificates, String> {
    let root_cert = ca_file.map(read_ca).transpose()?;
    let client_tls = client_files.map(read_client).transpose()?;
    Ok(TlsCertificates { client_tls, root_cert })
}

fn read_ca(path: &Path) -> Result<Vec<u8>, String> {
    const NAME: &str = "redis_ca_file";
    let pem = read_file(NAME, path)?;
    let mut roots = RootCertStore::empty();
    for certificate in parse_certificates(NAME, path, &pem)? {
        let added = roots.add(certificate);
        added.map_err(|error| format!("{NAME}: {} can't be used: {error}", path.display()))?;
    }
    Ok(pem)
}

fn read_client(files: &ClientFiles) -> Result<ClientTlsConfig, String> {
    const CERT: &str = "redis_client_cert_file";
    const KEY: &str = "redis_client_key_file";
    let ClientFiles { cert, key } = files;
    let client_cert = read_file(CERT, cert)?;
    let client_key = read_file(KEY, key)?;
    let chain = parse_certificates(CERT, cert, &client_cert)?;
    let parsed_key = PrivateKeyDer::from_pem_slice(&client_key);
    let parsed_key = parsed_key.map_err(|_| format!("{KEY}: {} has no private key in PEM", key.display()))?;
    CertifiedKey::from_der(chain, parsed_key, &tls::provider())
        .map_err(|error| format!("{KEY}: {} doesn't match {CERT}: {error}", key.display()))?;
    Ok(ClientTlsConfig { client_cert, client_key })
}

fn parse_certificates(name: &str, path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    tls::certificates(pem).map_err(|error| match error {
        PemError::NoItemsFound => format!("{name}: {} has no certificate in PEM", path.display()),
        error => format!("{name}: {} is not PEM: {error}", path.display()),
    })
}

/// Describes why a certificate was refused. For webpki's own reasons, rustls displays the name alone.
fn describe(why: &CertificateError) -> String {
    let CertificateError::Other(other) = why else { return why.to_string() };
    match other.to_string().as_str() {
        "CaUsedAsEndEntity" => {
            "it is the certificate of a CA (CA:TRUE), not of a server; use one that the CA has signed, or \
                                create it again with `openssl req -x509 -addext \
                                basicConstraints=critical,CA:FALSE` and the previous options"
                .to_owned()
        }
        "UnsupportedCertVersion" => {
            "it is an X.509 version 1 certificate, which names no host; create it again with `openssl req -x509 \
                                     -addext subjectAltName=DNS:HOST -addext basicConstraints=critical,CA:FALSE`"
                .to_owned()
        }
        name => name.to_owned(),
    }
}

/// Explains why the TLS handshake failed; `None` if `error` is of another kind.
pub(crate) fn explain(error: &RedisError) -> Option<String> {
    let cause = error.source()?.downcast_ref::<Arc<dyn Error + Send + Sync>>()?;
    let cause = cause.downcast_ref::<io::Error>()?.get_ref()?.downcast_ref::<rustls::Error>()?;
    Some(match cause {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "its certificate is not signed by a trusted CA; set redis_ca_file to the CA that signed it".to_owned()
        }
        rustls::Error::InvalidCertificate(why) => format!("its certificate is invalid: {}", describe(why)),
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "it requires a client certificate; set redis_client_cert_file".to_owned()
        }
        rustls::Error::AlertReceived(alert) => format!("it refused the handshake with the TLS alert {alert:?}"),
        rustls::Error::InvalidMessage(_) => "it doesn't speak TLS".to_owned(),
        other => format!("the TLS handshake failed: {other}"),
    })
}
