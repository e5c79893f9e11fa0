//! The table of settings that `check` shows.

use super::settings::effective_texts;
use super::{RawSettings, SETTINGS, Settings, Source};

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
    pub fn rows(&self, layers: &[(Source, RawSettings)]) -> Vec<SettingRow> {
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
            "partitions" | "max_members" => "that of the data set",
            "history_interval" => "off",
            "log_format" => "pretty on a terminal, otherwise json",
            "public_url" => "that of each request",
            "allowed_hosts" => "any, but none on loopback without keys",
            "jwt_issuer" => "any",
            "redis_ca_file" => "the system's",
            _ => "none",
        }
    }
}
