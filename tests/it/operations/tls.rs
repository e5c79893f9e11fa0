//! The listener over TLS: its certificate, a change of it, and who is not let in.

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

/// An authority, and the certificate for `localhost` in a folder.
struct Certified {
    authority: Authority,
    folder: TempDir,
}

impl Certified {
    fn new() -> Self {
        let certified = Self { authority: Authority::new("ours"), folder: tempfile::tempdir().unwrap() };
        certified.renew();
        certified
    }

    /// Writes another certificate in its place.
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

    /// The certificate that is in the folder now.
    fn current(&self) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.file("server.pem")).unwrap()
    }

    /// Connects as a client that trusts the authority and looks for `name`.
    async fn connect(&self, address: SocketAddr, name: &'static str) -> io::Result<TlsStream<TcpStream>> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.authority.pem.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let stream = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from(name).unwrap();
        in_time("the handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
    }
}

/// The certificate that the service showed.
fn shown(stream: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// Asks for `path` and gives the status.
async fn status_of(stream: &mut TlsStream<TcpStream>, path: &str) -> u16 {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    let mut answer = vec![0; 4_096];
    let length = in_time("the answer", stream.read(&mut answer)).await.unwrap();
    std::str::from_utf8(&answer[..length]).unwrap().split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_api_is_served_over_tls_to_those_who_trust_the_certificate() {
    let (redis, certified) = (Redis::start(), Certified::new());
    let app = TestApp::spawn_with(&redis, certified.settings()).await;
    let mut stream = certified.connect(app.address, "localhost").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
    assert_eq!(status_of(&mut stream, "/segments/sports/count").await, 200);
    assert_eq!(status_of(&mut stream, "/segments/news/count").await, 200, "the connection is kept");

    certified.connect(app.address, "other.example").await.unwrap_err();
    Certified::new().connect(app.address, "localhost").await.unwrap_err();
    // Who speaks plain HTTP gets no answer, and nothing breaks.
    let mut plain = TcpStream::connect(app.address).await.unwrap();
    plain.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = in_time("the end of the connection", plain.read_to_end(&mut answer)).await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert_eq!(status_of(&mut stream, "/healthz").await, 200);
}

#[tokio::test]
async fn probes_on_their_own_listener_stay_plain() {
    let (redis, certified) = (Redis::start(), Certified::new());
    let settings = settings_with(certified.settings(), [("admin_listen", "127.0.0.1:0")]);
    let app = TestApp::spawn_with(&redis, settings).await;
    let probe = reqwest::get(format!("http://{}/readyz", app.admin_address.unwrap())).await.unwrap();
    assert_eq!(probe.status(), 200);
}

#[tokio::test]
async fn a_handshake_that_is_not_finished_is_cut_off() {
    let (redis, certified) = (Redis::start(), Certified::new());
    let settings = settings_with(certified.settings(), [("header_timeout", "100ms")]);
    let app = TestApp::spawn_with(&redis, settings).await;
    let mut silent = TcpStream::connect(app.address).await.unwrap();
    assert_eq!(in_time("the end of the connection", silent.read(&mut [0; 1])).await.unwrap(), 0);
}

#[tokio::test]
async fn the_certificate_changes_at_a_hangup_and_open_connections_stay() {
    let certified = Certified::new();
    let folder = tempfile::tempdir().unwrap();
    let flags = certified.flags();
    let service = Service::start(folder.path(), &flags.each_ref().map(String::as_str));
    let connect = || certified.connect(service.address, "localhost");
    let mut old = connect().await.unwrap();
    assert_eq!(status_of(&mut old, "/healthz").await, 200);

    let before = certified.current();
    certified.renew();
    assert_eq!(shown(&connect().await.unwrap()), before, "not before the signal");
    kill("-HUP", service.pid());
    eventually("the new certificate is shown", async || shown(&connect().await.unwrap()) == certified.current()).await;
    assert_eq!(status_of(&mut old, "/healthz").await, 200);

    let after = certified.current();
    std::fs::write(certified.file("server.pem"), "broken").unwrap();
    kill("-HUP", service.pid());
    eventually("it says so", async || service.has_logged("failed to reload the certificate")).await;
    assert_eq!(shown(&connect().await.unwrap()), after);
    drop(old);
    assert!(service.terminate().success());
}

#[test]
fn the_health_check_asks_over_tls() {
    let certified = Certified::new();
    let folder = tempfile::tempdir().unwrap();
    let flags = certified.flags();
    let service = Service::start(folder.path(), &flags.each_ref().map(String::as_str));
    let listen = service.address.to_string();
    let check = |flags: &[String]| {
        run(binary(folder.path()).args(["healthcheck", "--listen", &listen]).args(flags)).status.success()
    };
    assert!(check(&flags));
    assert!(!check(&[]), "in plain text");
    service.terminate();

    // Where probes have a listener of their own, it asks that, which is plain.
    let service = Service::start(folder.path(), &["--admin-listen", "127.0.0.1:0"]);
    let admin = service.admin_address.unwrap().to_string();
    assert!(check(&[&flags[..], &["--admin-listen".to_owned(), admin]].concat()));
}

#[test]
fn a_certificate_that_cannot_be_used_stops_the_start() {
    let (certified, other) = (Certified::new(), Certified::new());
    let folder = tempfile::tempdir().unwrap();
    let refused = |cert: &Path, key: &Path| {
        refusal(binary(folder.path()).arg("--tls-cert-file").arg(cert).arg("--tls-key-file").arg(key))
    };
    let (cert, key, empty) = (certified.file("server.pem"), certified.file("server.key"), certified.file("empty"));
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
