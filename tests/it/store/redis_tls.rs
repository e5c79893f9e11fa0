//! TLS to Redis: certificates of both sides, and the errors of a failed handshake.

use std::fs;
use std::path::{Path, PathBuf};

use rstest::rstest;
use segment_estimator::config::RawSettings;
use serde_json::json;
use tempfile::TempDir;

use crate::helpers::{
    Authority, Redis, Service, TestApp, binary, eventually, free_port, problem, refusal, run, settings,
};

/// A Redis that requires TLS with a client certificate, and the files of both sides: `ca`, `server` and `client`.
struct TlsRedis {
    redis: Redis,
    port: String,
    folder: TempDir,
}

impl TlsRedis {
    fn start() -> Self {
        Self::start_with(|authority, folder| authority.write_certificate(folder, "server", "localhost"))
    }

    /// Starts a Redis with the certificate that `write_server` writes.
    fn start_with(write_server: impl Fn(&Authority, &Path)) -> Self {
        let folder = write_files(write_server);
        let port = free_port();
        let file = |name: &str| folder.path().join(name).display().to_string();
        let redis = Redis::start_with(&[
            "--tls-port",
            &port,
            "--tls-auth-clients",
            "yes",
            "--tls-ca-cert-file",
            &file("ca.pem"),
            "--tls-cert-file",
            &file("server.pem"),
            "--tls-key-file",
            &file("server.key"),
        ]);
        Self { redis, port, folder }
    }

    fn url(&self) -> String {
        format!("rediss://localhost:{}", self.port)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Returns the settings of a client.
    fn access(&self) -> RawSettings {
        let file = |name| self.file(name).display().to_string();
        settings([
            ("redis_ca_file", &file("ca.pem")),
            ("redis_client_cert_file", &file("client.pem")),
            ("redis_client_key_file", &file("client.key")),
        ])
    }
}

/// Writes the files of both sides, with the certificate of the server that `write_server` writes.
fn write_files(write_server: impl Fn(&Authority, &Path)) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("the right one");
    fs::write(folder.path().join("ca.pem"), &authority.pem).unwrap();
    write_server(&authority, folder.path());
    authority.write_certificate(folder.path(), "client", "estimator");
    let other = Authority::new("another one");
    fs::write(folder.path().join("other-ca.pem"), &other.pem).unwrap();
    other.write_certificate(folder.path(), "other-client", "estimator");
    folder
}

const CLIENT: [&str; 4] = ["--redis-client-cert-file", "client.pem", "--redis-client-key-file", "client.key"];
const CA: [&str; 2] = ["--redis-ca-file", "ca.pem"];

#[tokio::test]
async fn record_and_count_use_tls() {
    let tls = TlsRedis::start();
    let app = TestApp::spawn_on(tls.url(), tls.access()).await;
    app.record("u104010", "sports").await;
    assert_eq!(app.post_array(&json!([{ "user_id": "u104011", "segment": "sports" }])).await.status(), 200);
    assert_eq!(app.count("sports").await, 2);
    assert_eq!(app.status_of("/readyz").await, 200);
    let clients: String = tls.redis.call(&["CLIENT", "LIST"]);
    let remote = clients.lines().filter(|line| line.contains(&format!("laddr=127.0.0.1:{}", tls.port)));
    assert_eq!(remote.count(), 3, "every connection uses TLS: {clients}");
}

#[tokio::test]
async fn reconnect_reads_the_certificate_files_again() {
    let tls = TlsRedis::start();
    let app = TestApp::spawn_on(tls.url(), tls.access()).await;
    app.record("u104010", "sports").await;
    let break_connections = || tls.redis.call::<()>(&["CLIENT", "KILL", "TYPE", "normal"]);

    break_connections();
    assert_eq!(app.count("sports").await, 1, "no request fails");

    fs::rename(tls.file("ca.pem"), tls.file("ca.old")).unwrap();
    fs::copy(tls.file("other-ca.pem"), tls.file("ca.pem")).unwrap();
    assert_eq!(app.count("sports").await, 1, "an established connection stays");
    break_connections();
    problem(app.get("/segments/sports/count").await, 503, "store-unavailable").await;

    fs::rename(tls.file("ca.old"), tls.file("ca.pem")).unwrap();
    eventually("connected again", async || app.status_of("/readyz").await == 200).await;
    assert_eq!(app.count("sports").await, 1);
}

#[test]
fn check_connects_over_tls_and_shows_it() {
    let tls = TlsRedis::start();
    let url = format!("{}/3", tls.url());
    let arguments = [&["check", "--redis-url", &url][..], &CA, &CLIENT].concat();
    let output = run(binary(tls.folder.path()).args(arguments));
    assert!(output.status.success(), "{output:?}");
    let table = String::from_utf8(output.stdout).unwrap();
    let address = format!("localhost:{} (TLS, database 3)", tls.port);
    assert!(table.lines().last().unwrap().starts_with(&format!("{address} is ")), "{table}");
    let is_shown = |line: &str| line.contains(&address) && line.ends_with("--redis-url");
    assert!(table.lines().any(is_shown) && table.contains("client.key"), "{table}");
}

/// The variable replaces the CAs of the system for one process.
#[test]
fn connect_trusts_the_cas_of_the_system_unless_a_file_names_others() {
    let tls = TlsRedis::start();
    let url = tls.url();
    let arguments = [&["check", "--redis-url", &url][..], &CLIENT].concat();
    let error = refusal(binary(tls.folder.path()).args(&arguments));
    assert!(error.contains("its certificate is not signed by a trusted CA"), "{error}");
    let output = run(binary(tls.folder.path()).args(&arguments).env("SSL_CERT_FILE", tls.file("ca.pem")));
    assert!(output.status.success(), "{output:?}");
}

/// Asserts that with `arguments` requests are 503, and that the log and `check` report `why` in one line.
async fn assert_refused(folder: &TempDir, url: &str, arguments: &[&str], why: &str) {
    let arguments = [&["--redis-url", url][..], arguments].concat();
    let why = format!("failed to connect to Redis: {why}");

    let service = Service::start(folder.path(), &arguments);
    let visit = json!({ "user_id": "u104010", "segment": "sports" });
    problem(service.post_visit(&visit).await, 503, "store-unavailable").await;
    assert_eq!(service.status_of("/segments/sports/count").await, 503);
    assert_eq!(service.status_of("/readyz").await, 503);
    assert_eq!(service.status_of("/healthz").await, 200);
    let log = service.terminate_for_log();
    let warnings: Vec<_> = log.iter().filter(|line| !line.contains(r#""INFO""#)).collect();
    let logged = serde_json::to_string(&why).unwrap();
    assert!(warnings.len() == 1 && warnings[0].contains(logged.trim_matches('"')), "{log:#?}");

    let error = refusal(binary(folder.path()).arg("check").args(arguments));
    assert!(error.starts_with("segment-estimator: redis_url: the Redis at ") && error.contains(&why), "{error}");
}

#[rstest]
#[case::untrusted_server(&["--redis-ca-file", "other-ca.pem"], &CLIENT, "its certificate is not signed by a trusted CA")]
#[case::no_client_certificate(&CA, &[], "it requires a client certificate; set redis_client_cert_file")]
#[case::untrusted_client(
    &CA,
    &["--redis-client-cert-file", "other-client.pem", "--redis-client-key-file", "other-client.key"],
    "it refused the handshake with the TLS alert UnknownCA"
)]
#[tokio::test]
async fn handshake_with_an_untrusted_side_is_503_and_one_line(
    #[case] ca: &[&str],
    #[case] client: &[&str],
    #[case] why: &str,
) {
    let tls = TlsRedis::start();
    assert_refused(&tls.folder, &tls.url(), &[ca, client].concat(), why).await;
}

#[tokio::test]
async fn certificate_for_another_host_is_503_and_one_line() {
    let tls = TlsRedis::start();
    let url = format!("rediss://127.0.0.1:{}", tls.port);
    let why =
        r#"its certificate is invalid: certificate not valid for name "127.0.0.1"; certificate is only valid for "#;
    assert_refused(&tls.folder, &url, &[&CA[..], &CLIENT].concat(), why).await;
}

#[tokio::test]
async fn expired_certificate_is_503_and_one_line() {
    let tls =
        TlsRedis::start_with(|authority, folder| authority.write_expired_certificate(folder, "server", "localhost"));
    let why = "its certificate is invalid: certificate expired: ";
    assert_refused(&tls.folder, &tls.url(), &[&CA[..], &CLIENT].concat(), why).await;
}

#[tokio::test]
async fn certificate_of_a_ca_is_503_and_one_line() {
    let tls = TlsRedis::start_with(|_, folder| Authority::write_self_signed_authority(folder, "server", "localhost"));
    let why = "its certificate is invalid: it is the certificate of a CA (CA:TRUE), not of a server; ";
    assert_refused(&tls.folder, &tls.url(), &[&["--redis-ca-file", "server.pem"][..], &CLIENT].concat(), why).await;
}

#[tokio::test]
async fn plain_url_of_a_tls_port_is_503_and_one_line() {
    let tls = TlsRedis::start();
    let url = format!("redis://localhost:{}", tls.port);
    assert_refused(&tls.folder, &url, &[], "it hung up at the first command (").await;
    let error = refusal(binary(tls.folder.path()).args(["check", "--redis-url", &url]));
    assert!(error.contains("it may require TLS on this port (set rediss://)"), "{error}");
}

#[tokio::test]
async fn tls_url_of_a_plain_port_is_503_and_one_line() {
    let folder = write_files(|_, _| ());
    let port = free_port();
    let _plain = Redis::start_with(&["--port", &port]);
    let arguments = [&CA[..], &["--redis-connect-timeout", "200ms"]].concat();
    let why = "not connected within 200ms; it may speak no TLS on this port";
    assert_refused(&folder, &format!("rediss://localhost:{port}"), &arguments, why).await;
}

/// The other server must answer while this test waits for the check. Therefore they need separate threads.
#[tokio::test(flavor = "multi_thread")]
async fn tls_url_of_an_http_server_is_503_and_one_line() {
    let (redis, folder) = (Redis::start(), write_files(|_, _| ()));
    let other = TestApp::spawn(&redis).await;
    let url = format!("rediss://localhost:{}", other.address.port());
    assert_refused(&folder, &url, &CA, "it doesn't speak TLS").await;
}

#[rstest]
#[case::missing_ca(&["--redis-ca-file", "nowhere"], "redis_ca_file: failed to read nowhere: No such file")]
#[case::ca_without_a_certificate(&["--redis-ca-file", "client.key"], "redis_ca_file: client.key has no certificate in PEM")]
#[case::key_of_another_certificate(
    &["--redis-client-cert-file", "client.pem", "--redis-client-key-file", "server.key"],
    "redis_client_key_file: server.key doesn't match redis_client_cert_file: "
)]
#[case::key_file_without_a_key(
    &["--redis-client-cert-file", "client.pem", "--redis-client-key-file", "client.pem"],
    "redis_client_key_file: client.pem has no private key in PEM"
)]
#[case::certificate_file_without_a_certificate(
    &["--redis-client-cert-file", "client.key", "--redis-client-key-file", "client.key"],
    "redis_client_cert_file: client.key has no certificate in PEM"
)]
fn start_refuses_an_unusable_certificate_file(#[case] files: &[&str], #[case] message: &str) {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("the right one");
    authority.write_certificate(folder.path(), "client", "estimator");
    authority.write_certificate(folder.path(), "server", "localhost");
    let arguments = ["--listen", "127.0.0.1:0", "--log-filter", "off", "--redis-url", "rediss://localhost:1"];
    let error = refusal(binary(folder.path()).args(arguments).args(files));
    assert!(error.starts_with(&format!("segment-estimator: {message}")), "{error}");
}
