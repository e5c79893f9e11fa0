//! Files that are reloaded together, and the report of each reload.

use std::sync::Arc;

use super::watched_files::{Change, WatchedFiles};
use crate::auth::{AuthConfig, Authenticator, KeyCounts, KeysError};
use crate::http::{Tls, TlsError, TlsFiles};
use crate::small_file::Contents;
use crate::telemetry::Metrics;

/// Loaded files that are watched.
#[derive(Debug)]
pub(super) struct ReloadedFiles {
    content: Content,
    files: WatchedFiles,
    /// The failure of the last load, until it is reported or gone.
    unreported: Option<String>,
    metrics: Arc<Metrics>,
}

/// What the files are loaded into.
#[derive(Debug)]
enum Content {
    Keys(Arc<Authenticator>),
    Certificate(Tls),
}

impl ReloadedFiles {
    /// Loads the keys that verify tokens. Returns no files if every request is authorized.
    ///
    /// # Errors
    ///
    /// A [`KeysError`] if a file can't be used.
    pub(super) fn keys(
        config: AuthConfig,
        metrics: &Arc<Metrics>,
    ) -> Result<(Arc<Authenticator>, Option<Self>), KeysError> {
        let (files, contents) = WatchedFiles::read(config.files());
        let authenticator = Arc::new(Authenticator::load_from(config, &contents)?);
        let content = (!authenticator.is_open()).then(|| Content::Keys(Arc::clone(&authenticator)));
        Ok((authenticator, content.map(|content| Self::loaded(content, files, metrics))))
    }

    /// Loads the certificate of the listener.
    ///
    /// # Errors
    ///
    /// A [`TlsError`] if a file can't be used.
    pub(super) fn certificate(files: TlsFiles, metrics: &Arc<Metrics>) -> Result<(Tls, Self), TlsError> {
        let (watched, contents) = WatchedFiles::read(files.paths());
        let tls = Tls::load_from(files, &contents)?;
        Ok((tls.clone(), Self::loaded(Content::Certificate(tls), watched, metrics)))
    }

    fn loaded(content: Content, files: WatchedFiles, metrics: &Arc<Metrics>) -> Self {
        metrics.http.set_reload_successful(content.name(), true);
        Self { content, files, unreported: None, metrics: Arc::clone(metrics) }
    }

    /// Reloads the files, and reports the outcome.
    pub(super) fn reload(&mut self) {
        let contents = self.files.read_again();
        self.unreported = None;
        match self.content.load(&contents) {
            Ok(()) => self.report_success(),
            Err(error) => self.report_failure(&error),
        }
    }

    /// Reloads the files if they have changed. Returns what [`WatchedFiles::check`] found.
    ///
    /// A failure is reported by the next check, if it lasts until then: a certificate and its key may be replaced one
    /// after the other, and don't match in between.
    pub(super) fn check(&mut self) -> Change {
        let change = self.files.check();
        let before = if matches!(change, Change::Unsettled) { None } else { self.unreported.take() };
        match (&change, before) {
            (Change::Settled(contents), before) => match (self.content.load(contents), before) {
                (Ok(()), _) => self.report_success(),
                (Err(error), None) => self.unreported = Some(error),
                (Err(error), Some(_)) => self.report_failure(&error),
            },
            (_, Some(error)) => self.report_failure(&error),
            (_, None) => {}
        }
        change
    }

    fn report_success(&self) {
        self.metrics.http.set_reload_successful(self.content.name(), true);
        match &self.content {
            Content::Keys(authenticator) => {
                let KeyCounts { api, jwt } = authenticator.key_counts();
                tracing::info!(api_keys = api, jwt_keys = jwt, "reloaded the keys");
            }
            Content::Certificate(_) => tracing::info!("reloaded the certificate"),
        }
    }

    fn report_failure(&self, error: &str) {
        self.metrics.http.set_reload_successful(self.content.name(), false);
        match &self.content {
            Content::Keys(_) => tracing::error!(error, "failed to reload the keys, keeping the previous ones"),
            Content::Certificate(_) => {
                tracing::error!(error, "failed to reload the certificate, keeping the previous one")
            }
        }
    }
}

impl Content {
    /// Returns the label of the metric.
    const fn name(&self) -> &'static str {
        match self {
            Self::Keys(_) => "keys",
            Self::Certificate(_) => "certificate",
        }
    }

    fn load(&self, contents: &Contents) -> Result<(), String> {
        match self {
            Self::Keys(authenticator) => authenticator.reload_from(contents).map_err(|error| error.to_string()),
            Self::Certificate(tls) => tls.reload_from(contents).map_err(|error| error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use aws_lc_rs::digest::{SHA256, digest};
    use data_encoding::HEXLOWER;

    use super::*;
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
            Change::Settled(_) => "settled",
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
        assert_eq!(changes::<3>(&mut files), ["unsettled", "settled", "none"]);
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
        assert_eq!(changes::<2>(&mut files), ["unsettled", "settled"]);
        write("server.key", &key);
        assert_eq!(changes::<2>(&mut files), ["unsettled", "settled"]);
        assert_only_line(&captured.lines(), "reloaded the certificate");

        // A certificate whose key never comes is a failure.
        write("server.pem", &pair().0);
        assert_eq!(changes::<3>(&mut files), ["unsettled", "settled", "none"]);
        drop(guard);
        let lines = captured.lines();
        assert!(lines.len() == 2 && lines[1].contains("can't be used with the certificate"), "{lines:#?}");
        assert!(metrics.render().contains("estimator_reload_successful{files=\"certificate\"} 0"));
    }
}
