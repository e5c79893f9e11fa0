//! The table of settings that `check` shows.

use super::settings::effective_texts;
use super::{Layer, SETTINGS, Settings, Source};

/// A row of the table. It has no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingRow {
    /// The name in the TOML file.
    pub name: &'static str,
    /// The parsed value.
    pub value: String,
    /// The source of the value.
    pub set_by: String,
}

impl Settings {
    /// Returns all settings in the order of the help. `layers` are the layers of these settings.
    #[must_use]
    pub fn rows(&self, layers: &[(Source, Layer)]) -> Vec<SettingRow> {
        let effective = effective_texts(layers);
        let rows = SETTINGS.iter().zip(self.texts()).map(|(setting, text)| SettingRow {
            name: setting.name,
            value: if text.is_empty() { self.text_without_value(setting.name).to_owned() } else { text },
            set_by: effective.set_by(setting.name),
        });
        rows.collect()
    }

    /// Describes the effect of the setting `name` without a value.
    fn text_without_value(&self, name: &str) -> &'static str {
        match name {
            "admin_listen" => "same as listen",
            "redis_url" if self.has_private_redis() => "a private Redis",
            "redis_max_memory" if self.has_private_redis() => "no limit",
            "partitions" => "that of the data set",
            "history_interval" => "off",
            "log_format" => "pretty on a terminal, otherwise json",
            _ => "",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_have_values_and_sources_and_no_secret() {
        let file = Layer { window: Some("7d".to_owned()), threads: Some("3".to_owned()), ..Layer::default() };
        let environment = Layer {
            redis_url: Some("redis://me:hunter2@host:1/0".to_owned()),
            threads: Some("4".to_owned()),
            ..Layer::default()
        };
        let layers = [(Source::File("estimator.toml".into()), file), (Source::Environment, environment)];
        let rows = Settings::from_layers(&layers).unwrap().rows(&layers);

        let names: Vec<_> = rows.iter().map(|row| row.name).collect();
        assert_eq!(names, SETTINGS.iter().map(|setting| setting.name).collect::<Vec<_>>());
        let of = |name| {
            let row = rows.iter().find(|row| row.name == name).unwrap();
            (row.value.as_str(), row.set_by.as_str())
        };
        assert_eq!(of("window"), ("7d", "window in estimator.toml"));
        assert_eq!(of("threads"), ("4", "ESTIMATOR_THREADS"));
        assert_eq!(of("redis_url"), ("host:1", "ESTIMATOR_REDIS_URL"));
        assert_eq!(of("max_waiting"), ("10000", "default"));
        assert_eq!(of("log_format"), ("pretty on a terminal, otherwise json", "not set"));
        assert!(!format!("{rows:?}").contains("hunter2"));
    }
}
