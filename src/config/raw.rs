//! Reading raw settings from a file or from variables.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::SettingsError;
use super::settings::{RawSettings, SETTINGS};
use super::source::{PREFIX, Source};

/// `ESTIMATOR_CONFIG` and `--config` name the TOML file, so the file can't.
const CONFIG: &str = "config";

/// Reads a TOML file.
pub(super) fn from_file(path: &Path) -> Result<(Source, RawSettings), SettingsError> {
    let failed = |error| SettingsError(format!("config: failed to read {}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(failed)?;
    let invalid = |error| SettingsError(format!("{}: {}", path.display(), describe(&error, &text)));
    let table: toml::Table = text.parse().map_err(invalid)?;
    let source = Source::File(path.to_owned());
    let pairs = table.into_iter().map(|(name, value)| match value {
        toml::Value::String(text) => Ok((name, text)),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => Ok((name, value.to_string())),
        _ => Err(SettingsError(format!("{} must be a single value", source.spelling(&name)))),
    });
    let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
    pairs.iter().try_for_each(|(name, _)| require_known(&source, name))?;
    let raw = envy::from_iter(pairs).map_err(|error| other_error(&source, &error))?;
    Ok((source, raw))
}

/// Describes a TOML error in one line. It repeats only names of `text`, which may hold a password.
fn describe(error: &toml::de::Error, text: &str) -> String {
    let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
    format!("line {line}: {}", error.message())
}

/// Reads environment variables, and returns `ESTIMATOR_CONFIG` apart.
///
/// Variables of other programs are ignored, and so are empty ones: compose files write `${ESTIMATOR_WINDOW:-}` for "not
/// set".
pub(super) fn from_variables(
    source: Source,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(Option<PathBuf>, (Source, RawSettings)), SettingsError> {
    let mut config = None;
    let mut own = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str() else { continue };
        let capitals = name.to_uppercase();
        if !capitals.starts_with(PREFIX) {
            continue;
        }
        if name != capitals {
            return Err(SettingsError(format!("{name} must be in capitals")));
        }
        let setting = name[PREFIX.len()..].to_lowercase();
        if setting != CONFIG {
            require_known(&source, &setting)?;
        }
        if value.is_empty() {
            continue;
        }
        let value = value.into_string().map_err(|_| SettingsError(format!("{name} is not UTF-8")))?;
        if setting == CONFIG {
            config = Some(PathBuf::from(value));
        } else {
            own.push((name.to_owned(), value));
        }
    }
    let raw = envy::prefixed(PREFIX).from_iter(own).map_err(|error| other_error(&source, &error))?;
    Ok((config, (source, raw)))
}

fn require_known(source: &Source, name: &str) -> Result<(), SettingsError> {
    if SETTINGS.iter().any(|setting| setting.name == name) {
        return Ok(());
    }
    Err(SettingsError(format!("{} is not a setting; --help lists them all", source.spelling(name))))
}

/// Reports the errors that remain after the checks above, such as a name that occurs twice.
fn other_error(source: &Source, error: &envy::Error) -> SettingsError {
    SettingsError(format!("{source}: {error}"))
}
