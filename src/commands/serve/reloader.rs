//! Reloading of keys and certificates.

use std::sync::Arc;

use crate::auth::{Authenticator, KeyCounts};
use crate::config::SecretFile;
use crate::http::Tls;
use crate::telemetry::Metrics;

/// Reloads API keys, JWT keys and certificates.
#[derive(Debug, Clone)]
pub struct Reloader {
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) tls: Option<Tls>,
    pub(super) secret_files: Vec<SecretFile>,
    pub(super) metrics: Arc<Metrics>,
}

impl Reloader {
    /// Reloads the files. If one can't be used, logs that and keeps its previous content.
    pub fn reload(&self) {
        let keys = self.authenticator.reload();
        match &keys {
            Ok(()) => tracing::info!("reloaded the keys"),
            Err(error) => tracing::error!(%error, "failed to reload the keys, keeping the previous ones"),
        }
        let certificate = self.tls.as_ref().map(Tls::reload);
        match &certificate {
            None => {}
            Some(Ok(())) => tracing::info!("reloaded the certificate"),
            Some(Err(error)) => tracing::error!(%error, "failed to reload the certificate, keeping the previous one"),
        }
        self.report(keys.is_ok(), certificate.is_none_or(|certificate| certificate.is_ok()));
    }

    /// Updates the gauges of keys and reloads, and warns of exposed files.
    pub(super) fn report(&self, are_keys_loaded: bool, is_certificate_loaded: bool) {
        let http = &self.metrics.http;
        let KeyCounts { api, jwt } = self.authenticator.key_counts();
        for (kind, count) in [("api", api), ("jwt", jwt)] {
            if let Some(count) = count {
                http.set_auth_keys(kind, count);
            }
        }
        if !self.authenticator.is_open() {
            http.set_reload_successful("keys", are_keys_loaded);
        }
        if self.tls.is_some() {
            http.set_reload_successful("certificate", is_certificate_loaded);
        }
        if api == Some(0) {
            tracing::warn!("api_keys_file has no key, so every API key is refused; add keys and send SIGHUP");
        }
        for exposure in self.secret_files.iter().filter_map(SecretFile::exposure) {
            tracing::warn!("{exposure}");
        }
    }
}
