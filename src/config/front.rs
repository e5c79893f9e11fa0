//! The settings of the front door, which have to fit together: certificates, tokens, traces.

use super::{Layers, SettingsError, parse};
use crate::auth::{AuthConfig, JwtAlgorithm, JwtConfig};
use crate::http::TlsFiles;
use crate::telemetry::{OtlpEndpoint, TraceConfig, parse_ratio};

impl Layers<'_> {
    /// Where traces go. How many there are matters only then.
    pub(super) fn traces(&self) -> Result<Option<TraceConfig>, SettingsError> {
        let ratio = self.required("trace_ratio", parse_ratio)?;
        // It may hold a password, or a key in its query: that is why it is refused.
        let endpoint = self.secret("otlp_endpoint", OtlpEndpoint::parse)?;
        Ok(endpoint.map(|endpoint| TraceConfig { endpoint, ratio }))
    }

    /// The certificate of the listener and its key.
    pub(super) fn tls(&self) -> Result<Option<TlsFiles>, SettingsError> {
        let files = self.both("tls_cert_file", parse::path, "tls_key_file", parse::path)?;
        Ok(files.map(|(cert, key)| TlsFiles { cert, key }))
    }

    /// The keys that tokens are checked with.
    pub(super) fn auth(&self) -> Result<AuthConfig, SettingsError> {
        let api_keys_file = self.optional("api_keys_file", parse::path)?;
        let jwt = self.both("jwt_algorithm", JwtAlgorithm::parse, "jwt_key_file", parse::path)?;
        if jwt.is_none() {
            self.none_of(&["jwt_issuer", "jwt_audience"], "is of no use without jwt_algorithm and jwt_key_file")?;
        }
        let (issuer, audience) =
            (self.optional("jwt_issuer", parse::name)?, self.optional("jwt_audience", parse::name)?);
        let leeway = self.required("jwt_leeway", parse::whole_seconds)?;
        let jwt = jwt.map(|(algorithm, key_file)| JwtConfig { algorithm, key_file, issuer, audience, leeway });
        Ok(AuthConfig { api_keys_file, jwt })
    }
}
