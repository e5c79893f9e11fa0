//! Settings: read in layers, validated once, then plain values. `settings.rs` declares them.
//!
//! Later sources override earlier ones: defaults, a TOML file (`--config` or `ESTIMATOR_CONFIG`), a `.env` file in the
//! working folder, the environment (`ESTIMATOR_<NAME>`), flags. This is the only module that reads settings from
//! the environment.

mod access;
mod declare;
mod dotenv;
mod effective;
mod limits;
mod otel;
mod parse;
mod raw;
mod redis;
mod rows;
mod secret_files;
mod settings;
mod source;
mod store;
mod value;

use std::path::{Path, PathBuf};

pub use self::declare::Setting;
pub use self::otel::OtelVariables;
pub use self::rows::SettingRow;
pub use self::secret_files::SecretFile;
pub use self::settings::{RawSettings, SETTINGS, Settings};
pub use self::source::Source;

/// An invalid setting: one line that names the setting and its source.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

/// Reads the layers of this process, lowest first. `flags` and `config` come from the command line.
///
/// # Errors
///
/// A [`SettingsError`] if a layer is unreadable or has an unknown name.
pub fn read_layers(flags: RawSettings, config: Option<PathBuf>) -> Result<Vec<(Source, RawSettings)>, SettingsError> {
    let dotenv = dotenv::read(Path::new(source::DOTENV))?;
    let (config_in_dotenv, dotenv) = raw::from_variables(Source::DotEnv, dotenv)?;
    let (config_in_environment, environment) = raw::from_variables(Source::Environment, std::env::vars_os())?;

    let mut layers = Vec::new();
    if let Some(path) = config.or(config_in_environment).or(config_in_dotenv) {
        layers.push(raw::from_file(&path)?);
    }
    layers.extend([dotenv, environment, (Source::Flags, flags)]);
    Ok(otel::apply(layers, |name| std::env::var(name).ok()))
}

#[cfg(test)]
mod tests;
