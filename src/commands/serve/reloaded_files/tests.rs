//! Tests of reloads, with files.

use std::fs;
use std::path::Path;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

use super::*;
use crate::auth::{JwtAlgorithm, JwtConfig};
use crate::telemetry::tests::Captured;

/// Returns a file of keys with these names.
fn keys(names: &[&str]) -> String {
    let sha256 = |name: &str| HEXLOWER.encode(digest(&SHA256, name.as_bytes()).as_ref());
    let entry = |name: &&str| format!("[[key]]\nname = {name:?}\nsha256 = {:?}\nscopes = []\n", sha256(name));
    names.iter().map(entry).collect()
}

/// Keys in a file, and the log of their reloads.
struct Fixture {
    folder: tempfile::TempDir,
    authenticator: Arc<Authenticator>,
    files: ReloadedFiles,
    metrics: Arc<Metrics>,
}

impl Fixture {
    fn new(names: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys.toml");
        fs::write(&path, keys(names)).unwrap();
        let metrics = Arc::<Metrics>::default();
        let config = AuthConfig { api_keys_file: Some(path), jwt: None };
        let (authenticator, files) = ReloadedFiles::keys(config, &metrics).unwrap();
        Self { folder, authenticator, files: files.unwrap(), metrics }
    }

    fn write(&self, text: &str) {
        fs::write(self.folder.path().join("keys.toml"), text).unwrap();
    }

    /// Checks the files, and returns the messages of the log.
    fn check(&mut self) -> Vec<String> {
        let captured = Captured::default();
        let guard = tracing::subscriber::set_default(captured.subscriber());
        self.files.check();
        drop(guard);
        captured.lines()
    }

    /// Returns the number of keys, and the value of the metric.
    fn state(&self) -> (usize, bool) {
        let is_successful = self.metrics.render().contains("estimator_reload_successful{files=\"keys\"} 1");
        (self.authenticator.key_counts().api.unwrap(), is_successful)
    }
}

/// Checks the files `N` times.
fn changes<const N: usize>(files: &mut ReloadedFiles) -> [&'static str; N] {
    [(); N].map(|()| match files.check() {
        Change::None => "none",
        Change::Unsettled => "unsettled",
        Change::Due(_) => "due",
    })
}

#[track_caller]
fn assert_only_line(lines: &[String], text: &str) {
    assert!(lines.len() == 1 && lines[0].contains(text), "{lines:#?}");
}

#[test]
fn check_loads_a_change_once_it_is_the_same_twice() {
    let mut fixture = Fixture::new(&["one"]);
    assert!(fixture.check().is_empty());
    // Somebody empties the file and then writes it.
    fixture.write("");
    assert!(fixture.check().is_empty());
    fixture.write(&keys(&["one", "two"]));
    assert!(fixture.check().is_empty());
    assert_eq!(fixture.state(), (1, true));
    assert_only_line(&fixture.check(), "reloaded the keys api_keys=2");
    assert_eq!(fixture.state(), (2, true));
    assert!(fixture.check().is_empty());
}

#[test]
fn check_loads_a_file_that_changes_every_time() {
    let mut fixture = Fixture::new(&["one", "two"]);
    for round in 0..2 {
        let change = |fixture: &Fixture, check: u8| fixture.write(&format!("# {round} {check}\n{}", keys(&["one"])));
        for check in 0..2 {
            change(&fixture, check);
            assert!(fixture.check().is_empty());
        }
        change(&fixture, 2);
        assert_only_line(&fixture.check(), "reloaded the keys api_keys=1");
        assert_eq!(fixture.state(), (1, true));
    }
    // It is reported if it is never valid.
    for check in 0..5 {
        fixture.write(&format!("broken {check}"));
        assert!(fixture.check().is_empty());
    }
    fixture.write("broken at last");
    assert_only_line(&fixture.check(), "failed to reload the keys");
    assert_eq!(fixture.state(), (1, false));
}

#[test]
fn check_loads_no_keys_once_three_checks_have_found_none() {
    let mut fixture = Fixture::new(&["one"]);
    // A program rewrites the file again and again, and checks find it empty or complete.
    for _ in 0..3 {
        for text in ["", "", &*keys(&["one"])] {
            fixture.write(text);
            assert!(fixture.check().is_empty());
        }
    }
    assert_eq!(fixture.state(), (1, true));
    for text in ["", "", "#", &*keys(&["one", "two"])] {
        fixture.write(text);
        if text == "#" {
            assert_only_line(&fixture.check(), "reloaded the keys api_keys=0");
            assert_eq!(fixture.state(), (0, true));
        } else {
            assert!(fixture.check().is_empty());
        }
    }
    assert_only_line(&fixture.check(), "reloaded the keys api_keys=2");
    // Comments don't count.
    for comment in ["# 1", "# 2"] {
        fixture.write(comment);
        assert!(fixture.check().is_empty());
    }
    fixture.write("# 3");
    assert_only_line(&fixture.check(), "reloaded the keys api_keys=0");
}

#[test]
fn check_reports_a_lasting_failure_once_and_its_end() {
    let mut fixture = Fixture::new(&["one", "two"]);
    fixture.write("broken");
    assert!(fixture.check().is_empty() && fixture.check().is_empty());
    assert_eq!(fixture.state(), (2, true), "it may be gone at the next check");
    assert_only_line(&fixture.check(), "failed to reload the keys, keeping the previous ones");
    for _ in 0..3 {
        assert!(fixture.check().is_empty());
        assert_eq!(fixture.state(), (2, false));
    }
    fs::remove_file(fixture.folder.path().join("keys.toml")).unwrap();
    assert!(fixture.check().is_empty() && fixture.check().is_empty());
    assert_only_line(&fixture.check(), "No such file");
    assert_eq!(fixture.state(), (2, false), "a deleted file revokes no key");
    fixture.write(&keys(&["one"]));
    assert!(fixture.check().is_empty());
    assert_only_line(&fixture.check(), "reloaded the keys");
    assert_eq!(fixture.state(), (1, true));
}

#[test]
fn check_loads_the_file_that_is_valid_if_the_other_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let secret = |text: &str| fs::write(path("secret"), text).unwrap();
    fs::write(path("keys.toml"), keys(&["one", "two"])).unwrap();
    secret("9d6a0c1be2f7438aa5b1c60de3f28794d05b7a1c2e3f4d5869");
    let config = AuthConfig {
        api_keys_file: Some(path("keys.toml")),
        jwt: Some(JwtConfig {
            algorithm: JwtAlgorithm::Hs256,
            key_file: path("secret"),
            issuer: None,
            audience: None,
            leeway: Duration::ZERO,
        }),
    };
    let metrics = Arc::<Metrics>::default();
    let (authenticator, files) = ReloadedFiles::keys(config, &metrics).unwrap();
    let mut files = files.unwrap();
    let counts = || (authenticator.key_counts().api.unwrap(), authenticator.key_counts().jwt.unwrap());
    let is_successful = || metrics.render().contains("estimator_reload_successful{files=\"keys\"} 1");

    fs::remove_file(path("secret")).unwrap();
    fs::write(path("keys.toml"), keys(&["one"])).unwrap();
    assert_eq!(changes::<3>(&mut files), ["unsettled", "due", "none"]);
    assert_eq!((counts(), is_successful()), ((1, 1), false), "a broken file of JWT keys delays no revocation");

    fs::write(path("keys.toml"), "broken").unwrap();
    let captured = Captured::default();
    let guard = tracing::subscriber::set_default(captured.subscriber());
    files.reload();
    drop(guard);
    assert_only_line(&captured.lines(), "keys.toml: line 1: ");
    assert_only_line(&captured.lines(), "; jwt_key_file: failed to read ");
    secret("0d6a0c1be2f7438aa5b1c60de3f28794d05b7a1c2e3f4d5869");
    fs::write(path("keys.toml"), keys(&["one", "two", "three"])).unwrap();
    assert_eq!(changes::<3>(&mut files), ["unsettled", "due", "none"]);
    assert_eq!((counts(), is_successful()), ((3, 1), true));
}

#[test]
fn check_does_not_report_a_failure_that_mends_itself() {
    let mut fixture = Fixture::new(&["one"]);
    fixture.write("broken");
    assert!(fixture.check().is_empty() && fixture.check().is_empty());
    fixture.write(&keys(&["one", "two"]));
    assert!(fixture.check().is_empty());
    assert_only_line(&fixture.check(), "reloaded the keys");
    assert_eq!(fixture.state(), (2, true));
}

#[test]
fn check_after_a_reload_reports_nothing() {
    let mut fixture = Fixture::new(&["one"]);
    fixture.write("broken");
    fixture.files.reload();
    assert_eq!(fixture.state(), (1, false));
    assert!(fixture.check().is_empty() && fixture.check().is_empty());
    assert_eq!(fixture.state(), (1, false));
}

#[test]
fn check_sees_a_symbolic_link_that_is_replaced() {
    // As Kubernetes mounts a Secret: keys.toml -> data/keys.toml, data -> a folder.
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let link = |target: &str, name: &str| std::os::unix::fs::symlink(Path::new(target), path(name)).unwrap();
    for (name, names) in [("first", vec!["one"]), ("second", vec!["one", "two"])] {
        fs::create_dir(path(name)).unwrap();
        fs::write(path(name).join("keys.toml"), keys(&names)).unwrap();
    }
    link("first", "data");
    link("data/keys.toml", "keys.toml");
    let config = AuthConfig { api_keys_file: Some(path("keys.toml")), jwt: None };
    let (authenticator, files) = ReloadedFiles::keys(config, &Arc::default()).unwrap();
    let mut files = files.unwrap();
    assert!(matches!(files.check(), Change::None));
    link("second", "next");
    fs::rename(path("next"), path("data")).unwrap();
    assert_eq!(changes::<3>(&mut files), ["unsettled", "due", "none"]);
    assert_eq!(authenticator.key_counts().api, Some(2));
}

#[test]
fn check_keeps_the_certificate_until_its_key_is_replaced_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let pair = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    let write = |name: &str, text: &str| fs::write(path(name), text).unwrap();
    let (certificate, key) = pair();
    write("server.pem", &certificate);
    write("server.key", &key);
    let metrics = Arc::<Metrics>::default();
    let files = TlsFiles { cert: path("server.pem"), key: path("server.key") };
    let (_, mut files) = ReloadedFiles::certificate(files, &metrics).unwrap();

    let captured = Captured::default();
    let guard = tracing::subscriber::set_default(captured.subscriber());
    let (certificate, key) = pair();
    write("server.pem", &certificate);
    assert_eq!(changes::<2>(&mut files), ["unsettled", "due"]);
    write("server.key", &key);
    assert_eq!(changes::<2>(&mut files), ["unsettled", "due"]);
    assert_only_line(&captured.lines(), "reloaded the certificate");

    // A certificate whose key never comes is a failure.
    write("server.pem", &pair().0);
    assert_eq!(changes::<3>(&mut files), ["unsettled", "due", "none"]);
    drop(guard);
    let lines = captured.lines();
    assert!(lines.len() == 2 && lines[1].contains("can't be used with the certificate"), "{lines:#?}");
    assert!(metrics.render().contains("estimator_reload_successful{files=\"certificate\"} 0"));
}
