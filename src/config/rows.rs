//! Settings as an operator reads them: what the service would run with, and where each value was set.

use super::settings::effective_texts;
use super::{Layer, SETTINGS, Settings, Source};

/// One setting. No secret is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingRow {
    /// Its name in the TOML file.
    pub name: &'static str,
    /// Its value, as the service understood it.
    pub value: String,
    /// Where it was set.
    pub set_by: String,
}

impl Settings {
    /// All settings, in the order of the help. `layers` are those that they were made from.
    #[must_use]
    pub fn rows(&self, layers: &[(Source, Layer)]) -> Vec<SettingRow> {
        let effective = effective_texts(layers);
        let rows = SETTINGS.iter().zip(self.texts()).map(|(setting, text)| SettingRow {
            name: setting.name,
            value: if text.is_empty() { self.without_value(setting.name).to_owned() } else { text },
            set_by: effective.set_by(setting.name),
        });
        rows.collect()
    }

    /// What holds for the setting `name` if it has no value.
    fn without_value(&self, name: &str) -> &'static str {
        match name {
            "admin_listen" => "as listen",
            "redis_url" if self.has_private_redis() => "a private Redis",
            "redis_max_memory" if self.has_private_redis() => "no limit",
            "partitions" => "as the data set has",
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
    fn every_setting_is_shown_with_its_value_and_its_source_and_without_a_secret() {
        let file = Layer { window: Some("7d".to_owned()), threads: Some("3".to_owned()), ..Layer::default() };
        let environment = Layer {
            redis_url: Some("redis://me:hunter2@host:1/0".to_owned()),
            threads: Some("4".to_owned()),
            ..Layer::default()
        };
        let layers = [(Source::File("estimator.toml".into()), file), (Source::Environment, environment)];
        let shown = Settings::from_layers(&layers).unwrap().rows(&layers);

        let names: Vec<_> = shown.iter().map(|shown| shown.name).collect();
        assert_eq!(names, SETTINGS.iter().map(|setting| setting.name).collect::<Vec<_>>());
        let of = |name| {
            let shown = shown.iter().find(|shown| shown.name == name).unwrap();
            (shown.value.as_str(), shown.set_by.as_str())
        };
        assert_eq!(of("window"), ("7d", "window in estimator.toml"));
        assert_eq!(of("threads"), ("4", "ESTIMATOR_THREADS"));
        assert_eq!(of("redis_url"), ("host:1", "ESTIMATOR_REDIS_URL"));
        assert_eq!(of("max_waiting"), ("10000", "default"));
        assert_eq!(of("log_format"), ("pretty on a terminal, otherwise json", "not set"));
        assert!(!format!("{shown:?}").contains("hunter2"));
    }
}
