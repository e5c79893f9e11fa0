//! `segment-estimator token`: makes API keys and JSON Web Tokens.

use std::io::Write;
use std::time::Duration;

use clap::Args;

use super::Outcome;
use crate::auth::mint::{self, NewKey};
use crate::auth::{AuthConfig, Scope};
use crate::domain::{Timestamp, parse_duration};

/// What token to make.
#[derive(Args)]
pub struct Token {
    /// Whose it is
    #[arg(long)]
    name: String,
    /// What it allows: segments:write, segments:read, users:read, users:delete; several with commas between them
    #[arg(long, required = true, value_delimiter = ',')]
    scope: Vec<Scope>,
    /// Make a JSON Web Token, signed with the secret in `jwt_key_file`, instead of an API key
    #[arg(long)]
    jwt: bool,
    /// How long a JSON Web Token is valid
    #[arg(long, default_value = "30d", value_name = "DURATION", value_parser = |text: &str| parse_duration(text, "30d or 12h"))]
    lifetime: Duration,
}

impl Token {
    /// Makes it and writes it to `out`. Of an API key that was not added to the file of keys, it is the entry that goes there,
    /// so that it can be appended to the file, and the key to `aside`.
    ///
    /// # Errors
    ///
    /// The reason in one line, made to be shown as it is.
    pub fn make(&self, auth: &AuthConfig, out: &mut impl Write, aside: &mut impl Write) -> Outcome {
        let Self { name, scope, jwt, lifetime } = self;
        match (jwt, &auth.jwt, &auth.api_keys_file) {
            (true, Some(config), _) => {
                writeln!(out, "{}", mint::jwt(config, name, scope, *lifetime, Timestamp::now())?)?;
            }
            (true, None, _) => return Err("--jwt needs jwt_algorithm and jwt_key_file".into()),
            (false, _, Some(path)) => writeln!(out, "{}", mint::api_key_into(path, name, scope)?)?,
            (false, _, None) => {
                let NewKey { key, entry } = mint::api_key(name, scope)?;
                writeln!(
                    aside,
                    "The key, which is shown this once: {key}\nIts entry for the file that api_keys_file names:"
                )?;
                writeln!(out, "{entry}")?;
            }
        }
        Ok(())
    }
}
