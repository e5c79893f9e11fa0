//! `segment-estimator healthcheck`: probes a running service, for the health check of a container.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::client::conn::http1;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::Outcome;
use crate::config::Settings;
use crate::tls;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Requests `/readyz` from the service that runs with the same settings.
///
/// # Errors
///
/// One line if the service isn't ready, or doesn't answer within 5 s.
pub(super) async fn healthcheck(settings: &Settings) -> Outcome {
    const TIMEOUT: Duration = Duration::from_secs(5);
    let (listen, has_tls) = match settings.admin_listen {
        Some(listen) => (listen, false),
        None => (settings.listen, settings.tls_files().is_some()),
    };
    let address = local_address(listen);
    let status = tokio::time::timeout(TIMEOUT, get_readyz(address, has_tls));
    let status = status.await.map_err(|_| format!("no answer from {address} within {TIMEOUT:?}"))?;
    match status.map_err(|error| format!("no answer from {address}: {error}"))? {
        status if status.is_success() => Ok(()),
        status => Err(format!("{address} is not ready: {status}").into()),
    }
}

async fn get_readyz(address: SocketAddr, has_tls: bool) -> Result<StatusCode, BoxError> {
    let stream = TcpStream::connect(address).await?;
    if has_tls {
        let name = ServerName::from(address.ip());
        send_request(TlsConnector::from(Arc::new(unverified_tls()?)).connect(name, stream).await?, address).await
    } else {
        send_request(stream, address).await
    }
}

async fn send_request(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    to: SocketAddr,
) -> Result<StatusCode, BoxError> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/readyz").header("host", to.to_string()).body(Body::empty())?;
    Ok(sender.send_request(request).await?.status())
}

/// Returns a TLS configuration that accepts any certificate. The probe connects by address and sends no secret.
fn unverified_tls() -> Result<ClientConfig, BoxError> {
    let provider = tls::provider();
    let verifier = Arc::new(AnyCertificate(Arc::clone(&provider)));
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Returns the address that reaches a service on this machine that listens on `address`. `0.0.0.0` and `[::]` become
/// 127.0.0.1: `[::]` accepts IPv4 too, and a container may have no IPv6.
pub(super) fn local_address(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address = (Ipv4Addr::LOCALHOST, address.port()).into();
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_address_replaces_unspecified_addresses() {
        for (listen, expected) in
            [("0.0.0.0:80", "127.0.0.1:80"), ("[::]:80", "127.0.0.1:80"), ("[::1]:80", "[::1]:80")]
        {
            assert_eq!(local_address(listen.parse().unwrap()), expected.parse().unwrap());
        }
    }
}
