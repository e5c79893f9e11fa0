//! The listener over TLS: its certificate, reloading it, and rejected clients.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use segment_estimator::config::RawSettings;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::helpers::{
    Authority, Redis, Service, TestApp, binary, eventually, in_time, kill, refusal, run, settings, settings_with,
};

/// An authority, and a folder with its certificate for `localhost`.
struct ServerCertificate {
    authority: Authority,
    folder: TempDir,
}

impl ServerCertificate {
    fn new() -> Self {
        let certificate = Self { authority: Authority::new("ours"), folder: tempfile::tempdir().unwrap() };
        certificate.renew();
        certificate
    }

    /// Replaces the certificate by a new one.
    fn renew(&self) {
        self.authority.write_certificate(self.folder.path(), "server", "localhost");
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn settings(&self) -> RawSettings {
        let text = |name| self.file(name).display().to_string();
        settings([("tls_cert_file", &text("server.pem")), ("tls_key_file", &text("server.key"))])
    }

    fn flags(&self) -> [String; 4] {
        let text = |name| self.file(name).display().to_string();
        ["--tls-cert-file".to_owned(), text("server.pem"), "--tls-key-file".to_owned(), text("server.key")]
    }

    /// Returns the certificate in the folder.
    fn current(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.file("server.pem")).unwrap()
    }

    /// Connects as a client that trusts the authority and expects `name`.
    async fn connect(&self, address: SocketAddr, name: &'static str) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(name).unwrap();
        in_time("the handshake ends", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
    }
}

/// Returns the certificate that the service presented.
fn presented(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// Requests `path` and returns the status.
async fn status_of(stream: &mut TlsStream<TcpStream>, path: &str) -> u16 {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = vec![0; 4_096];
    let length = in_time("the response", stream.read(&mut answer)).await.unwrap();
    std::str::from_utf8(&answer[..length]).unwrap().split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn tls_serves_clients_that_trust_the_certificate() {
    let (redis, certificate) = (Redis::start(), ServerCertificate::new());
    let app = TestApp::spawn_with(&redis, certificate.settings()).await;
    let mut stream = certificate.connect(app.address, "localhost").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
    assert_eq!(status_of(&mut stream, "/segments/sports/count").await, 200);
    assert_eq!(status_of(&mut stream, "/segments/news/count").await, 200, "the connection is kept");

    certificate.connect(app.address, "other.example").await.unwrap_err();
    ServerCertificate::new().connect(app.address, "localhost").await.unwrap_err();
    // A plain HTTP request gets no response, and TLS clients are still served.
    let mut plain = TcpStream::connect(app.address).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = in_time("the connection ends", plain.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert_eq!(status_of(&mut stream, "/healthz").await, 200);
}

#[tokio::test]
async fn tls_leaves_the_admin_listener_plain() {
    let (redis, certificate) = (Redis::start(), ServerCertificate::new());
    let settings = settings_with(certificate.settings(), [("admin_listen", "127.0.0.1:0")]);
    let app = TestApp::spawn_with(&redis, settings).await;
    let probe = reqwest::get(format!("http://{}/readyz", app.admin_address.unwrap())).await.unwrap();
    assert_eq!(probe.status(), 200);
}

#[tokio::test]
async fn tls_closes_an_unfinished_handshake() {
    let (redis, certificate) = (Redis::start(), ServerCertificate::new());
    let settings = settings_with(certificate.settings(), [("header_timeout", "100ms")]);
    let app = TestApp::spawn_with(&redis, settings).await;
    let mut silent = TcpStream::connect(app.address).await.unwrap();
    assert_eq!(in_time("the connection ends", silent.read(&mut [0; 1])).await.unwrap(), 0);
}

#[tokio::test]
async fn reload_replaces_the_certificate_and_keeps_open_connections() {
    let certificate = ServerCertificate::new();
    let folder = tempfile::tempdir().unwrap();
    let flags = certificate.flags();
    let service = Service::start(folder.path(), &flags.each_ref().map(String::as_str));
    let connect = || certificate.connect(service.address, "localhost");
    let mut old = connect().await.unwrap();
    assert_eq!(status_of(&mut old, "/healthz").await, 200);

    let before = certificate.current();
    certificate.renew();
    assert_eq!(presented(&connect().await.unwrap()), before, "the files are not read before the signal");
    kill("-HUP", service.pid());
    eventually("the new certificate is presented", async || {
        presented(&connect().await.unwrap()) == certificate.current()
    })
    .await;
    assert_eq!(status_of(&mut old, "/healthz").await, 200);

    let after = certificate.current();
    std::fs::write(certificate.file("server.pem"), "broken").unwrap();
    kill("-HUP", service.pid());
    eventually("the failure is logged", async || service.has_logged("failed to reload the certificate")).await;
    assert_eq!(presented(&connect().await.unwrap()), after);
    drop(old);
    assert!(service.terminate().success());
}

#[tokio::test]
async fn changed_certificate_is_presented_without_a_signal() {
    let (redis, certificate) = (Redis::start(), ServerCertificate::new());
    let app = TestApp::spawn_with_file_checks(&redis, certificate.settings()).await;
    let connect = async || presented(&certificate.connect(app.address, "localhost").await.unwrap());
    let before = certificate.current();
    assert_eq!(connect().await, before);

    // The certificate and its key are replaced one after the other.
    let renewed = tempfile::tempdir().unwrap();
    certificate.authority.write_certificate(renewed.path(), "server", "localhost");
    let replace = |name: &str| std::fs::copy(renewed.path().join(name), certificate.file(name)).unwrap();
    replace("server.pem");
    assert_eq!(connect().await, before, "the key is that of the previous certificate");
    replace("server.key");
    eventually("the new certificate is presented", async || connect().await == certificate.current()).await;
}

#[test]
fn healthcheck_uses_tls() {
    let certificate = ServerCertificate::new();
    let folder = tempfile::tempdir().unwrap();
    let flags = certificate.flags();
    let service = Service::start(folder.path(), &flags.each_ref().map(String::as_str));
    let listen = service.address.to_string();
    let check = |flags: &[String]| {
        run(binary(folder.path()).args(["healthcheck", "--listen", &listen]).args(flags)).status.success()
    };
    assert!(check(&flags));
    assert!(!check(&[]), "in plain text");
    service.terminate();

    // The health check uses the admin listener if there is one.
    let service = Service::start(folder.path(), &["--admin-listen", "127.0.0.1:0"]);
    let admin = service.admin_address.unwrap().to_string();
    assert!(check(&[&flags[..], &["--admin-listen".to_owned(), admin]].concat()));
}

#[test]
fn start_refuses_an_unusable_certificate() {
    let (certificate, other) = (ServerCertificate::new(), ServerCertificate::new());
    let folder = tempfile::tempdir().unwrap();
    let refused = |cert: &Path, key: &Path| {
        refusal(binary(folder.path()).arg("--tls-cert-file").arg(cert).arg("--tls-key-file").arg(key))
    };
    let (cert, key, empty) =
        (certificate.file("server.pem"), certificate.file("server.key"), certificate.file("empty"));
    std::fs::write(&empty, "").unwrap();
    for (message, expected) in [
        (refused(Path::new("missing"), &key), "tls_cert_file: missing: can't be read: No such file"),
        (refused(&empty, &key), "empty: has no certificate in PEM"),
        (refused(&key, &key), "has no certificate in PEM"),
        (refused(&cert, &empty), "empty: has no private key in PEM"),
        (refused(&cert, &other.file("server.key")), "can't be used with the certificate"),
    ] {
        assert!(message.contains(expected), "{message}");
    }
}

#[tokio::test]
async fn shutdown_ends_a_handshake_that_has_not_begun() {
    let (certificate, folder) = (ServerCertificate::new(), tempfile::tempdir().unwrap());
    let flags = certificate.flags();
    let flags: Vec<&str> = flags.iter().map(String::as_str).chain(["--drain-timeout", "1s"]).collect();
    let service = Service::start(folder.path(), &flags);
    let _silent = TcpStream::connect(service.address).await.unwrap();
    // The service accepts in order, so it has accepted the silent one once it answers.
    certificate.connect(service.address, "localhost").await.unwrap();
    let log = service.terminate_for_log();
    assert!(!log.iter().any(|line| line.contains("aborting requests in flight")), "{log:?}");
}
