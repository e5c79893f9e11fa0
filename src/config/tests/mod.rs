//! Sources of settings, and their precedence.

mod invalid;
mod redis;
mod rows;
mod secrets;

use std::ffi::OsString;
use std::path::PathBuf;

use super::*;
use crate::domain::Window;

/// Returns raw settings by name.
fn settings<const N: usize>(settings: [(&str, &str); N]) -> RawSettings {
    envy::from_iter(settings.map(|(name, text)| (name.to_owned(), text.to_owned()))).unwrap()
}

/// Reads variables as the environment has them, `ESTIMATOR_WINDOW`.
fn variables<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Settings, SettingsError> {
    let pairs = pairs.into_iter().map(|(name, value)| (name.into(), value.into()));
    let (_, layer) = raw::from_variables(Source::Environment, pairs)?;
    Settings::from_layers(&[layer])
}

/// Reads settings by name from the environment.
fn environment<'a>(settings: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Settings, SettingsError> {
    let settings = settings.into_iter().map(|(name, value)| (format!("ESTIMATOR_{}", name.to_uppercase()), value));
    let settings: Vec<_> = settings.collect();
    variables(settings.iter().map(|(name, value)| (name.as_str(), *value)))
}

fn file(text: &str) -> Result<Settings, SettingsError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("estimator.toml");
    std::fs::write(&path, text).unwrap();
    let layer = raw::from_file(&path)?;
    Settings::from_layers(&[layer])
}

#[test]
fn defaults_are_valid() {
    let settings = Settings::from_layers(&[]).unwrap();
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.window.as_secs(), 14 * 24 * 60 * 60);
    assert!(settings.has_private_redis());
}

#[test]
fn later_layers_override_earlier_ones() {
    let mut layers = Vec::new();
    for (source, window) in [
        (Source::File("estimator.toml".into()), "1d"),
        (Source::DotEnv, "2d"),
        (Source::Environment, "3d"),
        (Source::Flags, "4d"),
    ] {
        layers.push((source, settings([("window", window)])));
        assert_eq!(Settings::from_layers(&layers).unwrap().window, Window::parse(window).unwrap());
    }
    layers.push((Source::Flags, settings([])));
    assert_eq!(Settings::from_layers(&layers).unwrap().window, Window::parse("4d").unwrap());
}

#[test]
fn environment_ignores_empty_and_foreign_variables() {
    let settings = variables([
        ("ESTIMATOR_WINDOW", "4s"),
        ("ESTIMATOR_LISTEN", ""),
        ("ESTIMATOR_REDIS_URL", ""),
        ("PATH", "/bin"),
    ]);
    let settings = settings.unwrap();
    assert_eq!(settings.window.as_secs(), 4);
    assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
}

#[test]
fn environment_may_name_the_file() {
    let pairs = [(OsString::from("ESTIMATOR_CONFIG"), OsString::from("/etc/estimator.toml"))];
    let (config, _) = raw::from_variables(Source::Environment, pairs).unwrap();
    assert_eq!(config, Some(PathBuf::from("/etc/estimator.toml")));
}

#[test]
fn file_sets_settings() {
    assert_eq!(file("window = '1h'\nlisten = '0.0.0.0:80'").unwrap().window.as_secs(), 3_600);
}
