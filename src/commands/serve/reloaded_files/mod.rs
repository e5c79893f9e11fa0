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

    /// Returns the label of the metric.
    pub(super) const fn name(&self) -> &'static str {
        self.content.name()
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
        let change = self.files.check(|contents| self.content.is_drastic(contents));
        let before = if matches!(change, Change::Unsettled) { None } else { self.unreported.take() };
        match (&change, before) {
            (Change::Due(contents), before) => match (self.content.load(contents), before) {
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

    /// Returns whether `contents` have no API key: they revoke all, and a file that is being written is empty at first.
    fn is_drastic(&self, contents: &Contents) -> bool {
        match self {
            Self::Keys(authenticator) => authenticator.revokes_all(contents),
            Self::Certificate(_) => false,
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
mod tests;
