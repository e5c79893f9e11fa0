//! TLS, tokens and traces.

use super::effective::EffectiveTexts;
use super::{SecretFile, Settings, SettingsError};
use crate::auth::{AuthConfig, JwtAlgorithm, JwtConfig};
use crate::http::TlsFiles;
use crate::telemetry::TraceConfig;

impl Settings {
    /// Returns the certificate of `listen` and its key; `None` for plain text.
    #[must_use]
    pub fn tls_files(&self) -> Option<TlsFiles> {
        Some(TlsFiles { cert: self.tls_cert_file.clone()?, key: self.tls_key_file.clone()? })
    }

    /// Returns the files of the keys that verify tokens. Without keys, every caller has full access.
    #[must_use]
    pub fn auth(&self) -> AuthConfig {
        AuthConfig { api_keys_file: self.api_keys_file.clone(), jwt: self.jwt() }
    }

    fn jwt(&self) -> Option<JwtConfig> {
        Some(JwtConfig {
            algorithm: self.jwt_algorithm?,
            key_file: self.jwt_key_file.clone()?,
            issuer: self.jwt_issuer.clone(),
            audience: self.jwt_audience.clone(),
            leeway: self.jwt_leeway,
        })
    }

    /// Returns the destination and the ratio of traces; `None` for no traces.
    #[must_use]
    pub fn traces(&self) -> Option<TraceConfig> {
        Some(TraceConfig { endpoint: self.otlp_endpoint.clone()?, ratio: self.trace_ratio })
    }

    /// Returns the files with secrets, settings, or keys that grant access.
    #[must_use]
    pub fn secret_files(&self) -> Vec<SecretFile> {
        let is_jwt_key_secret = self.jwt_algorithm == Some(JwtAlgorithm::Hs256);
        let files = [
            ("tls_key_file", &self.tls_key_file, true),
            ("api_keys_file", &self.api_keys_file, false),
            ("jwt_key_file", &self.jwt_key_file, is_jwt_key_secret),
            ("redis_password_file", &self.redis_password_file, true),
            ("redis_client_key_file", &self.redis_client_key_file, true),
        ];
        let files = files
            .into_iter()
            .filter_map(|(setting, path, is_secret)| Some(SecretFile { setting, path: path.clone()?, is_secret }));
        files.chain(self.files.iter().cloned()).collect()
    }

    /// Refuses settings that have no effect without another.
    pub(super) fn validate_access(&self, texts: &EffectiveTexts<'_>) -> Result<(), SettingsError> {
        texts.require_together("tls_cert_file", "tls_key_file")?;
        texts.require_together("jwt_algorithm", "jwt_key_file")?;
        if self.jwt_algorithm.is_none() {
            let why = "has no effect without jwt_algorithm and jwt_key_file";
            texts.reject_if_set(&["jwt_issuer", "jwt_audience"], why)?;
        }
        Ok(())
    }
}
