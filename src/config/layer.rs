//! One layer of settings: what a file or variables give.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::settings::{Layer, SETTINGS};
use super::source::{PREFIX, Source};
use super::{SettingsError, toml_text};

/// `ESTIMATOR_CONFIG` and `--config` name the file, so it can't be set in the file.
const CONFIG: &str = "config";

/// Reads the layer of a TOML file.
pub(super) fn from_file(path: &Path) -> Result<(Source, Layer), SettingsError> {
    let failed = |why: String| SettingsError(format!("{}: {why}", path.display()));
    let unreadable_file = |error| SettingsError(format!("config: can't read {}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(unreadable_file)?;
    let table: toml::Table = text.parse().map_err(|error| failed(toml_text::mistake(&text, &error)))?;
    let source = Source::File(path.to_owned());
    let pairs = table.into_iter().map(|(name, value)| match value {
        toml::Value::String(text) => Ok((name, text)),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => Ok((name, value.to_string())),
        _ => Err(SettingsError(format!("{} must be a single value", source.writes(&name)))),
    });
    let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
    pairs.iter().try_for_each(|(name, _)| check_name(&source, name))?;
    let layer = envy::from_iter(pairs).map_err(|error| unreadable(&source, &error))?;
    Ok((source, layer))
}

/// Reads a layer from environment variables, and beside it `ESTIMATOR_CONFIG`. Variables of other programs are passed
/// over, and so are empty ones of ours: compose files write `${ESTIMATOR_WINDOW:-}` for "not set".
pub(super) fn from_variables(
    source: Source,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(Option<PathBuf>, (Source, Layer)), SettingsError> {
    let mut config = None;
    let mut ours = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str() else { continue };
        let capitals = name.to_uppercase();
        if !capitals.starts_with(PREFIX) {
            continue;
        }
        if name != capitals {
            return Err(SettingsError(format!("{name} must be written in capitals")));
        }
        let setting = name[PREFIX.len()..].to_lowercase();
        if setting != CONFIG {
            check_name(&source, &setting)?;
        }
        if value.is_empty() {
            continue;
        }
        let value = value.into_string().map_err(|_| SettingsError(format!("{name} is not UTF-8")))?;
        if setting == CONFIG {
            config = Some(PathBuf::from(value));
        } else {
            ours.push((name.to_owned(), value));
        }
    }
    let layer = envy::prefixed(PREFIX).from_iter(ours).map_err(|error| unreadable(&source, &error))?;
    Ok((config, (source, layer)))
}

fn check_name(source: &Source, name: &str) -> Result<(), SettingsError> {
    if SETTINGS.iter().any(|setting| setting.name == name) {
        return Ok(());
    }
    Err(SettingsError(format!("{} is not a setting; --help lists them all", source.writes(name))))
}

/// Names are checked and every value is text, so this is for what remains, such as a name given twice.
fn unreadable(source: &Source, error: &envy::Error) -> SettingsError {
    SettingsError(format!("{source}: {error}"))
}
