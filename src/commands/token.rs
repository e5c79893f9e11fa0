//! `segment-estimator token`: creates API keys and JSON Web Tokens, and revokes API keys.

use std::io::Write;
use std::time::Duration;

use clap::Args;

use super::Outcome;
use crate::auth::mint::{self, NewKey};
use crate::auth::{AuthConfig, Scope, revoke};
use crate::domain::{Timestamp, parse_duration};

/// The arguments of `token`.
#[derive(Args)]
pub(super) struct TokenCommand {
    /// Name of the holder
    #[arg(long, required_unless_present = "revoke")]
    name: Option<String>,
    /// Comma-separated scopes: segments:write, segments:read, segments:delete, users:read, users:delete
    #[arg(long, required_unless_present = "revoke", value_delimiter = ',')]
    scope: Vec<Scope>,
    /// Remove the API key of this name from the file instead
    #[arg(long, value_name = "NAME", conflicts_with_all = ["name", "scope", "jwt"])]
    revoke: Option<String>,
    /// Create a JSON Web Token, signed with the secret in `jwt_key_file`, instead of an API key
    #[arg(long)]
    jwt: bool,
    /// Lifetime of the JSON Web Token
    #[arg(long, default_value = "30d", value_name = "DURATION", value_parser = |text: &str| parse_duration(text, "30d or 12h"))]
    lifetime: Duration,
}

impl TokenCommand {
    /// Creates the token and writes it to `out`. Without a file of API keys, the key goes to `err` and its entry for
    /// such a file to `out`, so that the output can be appended to the file.
    ///
    /// # Errors
    ///
    /// The reason in one line for the user.
    pub(super) fn run(&self, auth: &AuthConfig, out: &mut impl Write, err: &mut impl Write) -> Outcome {
        let Self { name, scope, jwt, lifetime, revoke } = self;
        if let Some(name) = revoke {
            let path = auth.api_keys_file.as_ref().ok_or("--revoke needs api_keys_file")?;
            revoke::api_key(path, name)?;
            let file = path.display();
            return Ok(writeln!(err, "removed {name} from {file}; running instances refuse it within 15 seconds")?);
        }
        let name = name.as_deref().unwrap_or_default();
        match (jwt, &auth.jwt, &auth.api_keys_file) {
            (true, Some(config), _) => {
                writeln!(out, "{}", mint::jwt(config, name, scope, *lifetime, Timestamp::now())?)?;
            }
            (true, None, _) => return Err("--jwt needs jwt_algorithm and jwt_key_file".into()),
            (false, _, Some(path)) => writeln!(out, "{}", mint::api_key_into(path, name, scope)?)?,
            (false, _, None) => {
                let NewKey { key, entry } = mint::api_key(name, scope)?;
                writeln!(err, "API key (shown only once): {key}\nEntry for the file of api_keys_file:")?;
                writeln!(out, "{entry}")?;
            }
        }
        Ok(())
    }
}
