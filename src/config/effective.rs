//! Merging: the last source that sets a setting wins.

use std::collections::BTreeMap;

use super::SettingsError;
use super::declare::Setting;
use super::source::Source;

/// The effective text of each setting, with its source.
pub(super) struct EffectiveTexts<'a> {
    settings: &'static [Setting],
    texts: BTreeMap<&'static str, (&'a Source, &'a str)>,
}

impl<'a> EffectiveTexts<'a> {
    /// Keeps the last of `texts` for each of `settings`.
    pub(super) fn new(
        settings: &'static [Setting],
        texts: impl Iterator<Item = (&'static str, (&'a Source, &'a str))>,
    ) -> Self {
        Self { settings, texts: texts.collect() }
    }

    fn setting(&self, name: &str) -> &'static Setting {
        self.settings.iter().find(|setting| setting.name == name).unwrap_or_else(|| panic!("{name} is not a setting"))
    }

    /// Whether a source sets `name`.
    pub(super) fn is_set(&self, name: &str) -> bool {
        self.texts.contains_key(self.setting(name).name)
    }

    /// Describes the source of `name` for messages.
    pub(super) fn set_by(&self, name: &str) -> String {
        match (self.texts.get(name), self.setting(name).default) {
            (Some((source, _)), _) => source.spelling(name),
            (None, Some(_)) => "default".to_owned(),
            (None, None) => "not set".to_owned(),
        }
    }

    /// Parses the text of `name` or its default. `None` without either.
    pub(super) fn parse<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, SettingsError> {
        let set = self.texts.get(name).map(|(_, text)| *text);
        let text = set.or(self.setting(name).default);
        text.map(|text| parse(text).map_err(|why| self.refusal(name, text, &why))).transpose()
    }

    /// Refuses the first of `names` that is set.
    pub(super) fn reject_if_set(&self, names: &[&str], why: &str) -> Result<(), SettingsError> {
        let set = names.iter().find_map(|name| Some((self.setting(name).name, self.texts.get(name)?)));
        set.map_or(Ok(()), |(name, (_, text))| Err(self.refusal(name, text, why)))
    }

    /// Refuses a setting without its counterpart.
    pub(super) fn require_together(&self, first: &str, second: &str) -> Result<(), SettingsError> {
        match (self.is_set(first), self.is_set(second)) {
            (true, false) => self.reject_if_set(&[first], &format!("has no effect without {second}")),
            (false, true) => self.reject_if_set(&[second], &format!("has no effect without {first}")),
            _ => Ok(()),
        }
    }

    fn refusal(&self, name: &str, text: &str, why: &str) -> SettingsError {
        // A URL with a password may stand in the wrong setting.
        let may_hold_password = text.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
        let is_secret = self.setting(name).is_secret || may_hold_password;
        let shown = if is_secret { "the value".to_owned() } else { format!("{text:?}") };
        SettingsError(format!("{name}: {shown} {why} (set by {})", self.set_by(name)))
    }
}
