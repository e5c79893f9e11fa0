//! The macro that declares settings.

/// A setting, apart from its value.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The name in the TOML file.
    pub name: &'static str,
    /// The section of the documents and of the help.
    pub section: &'static str,
    /// The text if no source sets it.
    pub default: Option<&'static str>,
    /// Whether messages omit the value, which may hold a password.
    pub is_secret: bool,
}

/// Declares all settings, each in one place, in sections:
///
/// ```text
/// section "Heading";
/// /// Help
/// name: Type, "VALUE NAME", parser, default = "text", or = expression, secret = true;
/// ```
///
/// The parser returns the type, or the `T` of `Option<T>`. A setting that no source sets has its parsed `default`, or
/// the value of `or`, or `None`. The macro generates
/// - [`SETTINGS`](super::SETTINGS), the list for errors and for tests of the documents,
/// - [`RawSettings`](super::RawSettings), the texts of one source, which clap and envy fill,
/// - [`Settings`](super::Settings), the values, with their parsing and printing.
///
/// A new setting also needs
/// - a parser in `parse.rs` and an `impl` in `value.rs`, if its type is new,
/// - a place that passes its value on, such as `limits.rs`, and a check in `access.rs` or `redis.rs` if it excludes or needs another one,
/// - the commands that use it in `commands/help.rs`, if not all of its section do,
/// - a row in docs/settings.md and an entry in `.env.example`, at the same position,
/// - a line in `docker-compose.yml`, and one in `docker-compose-debug.yml` if it is a timeout that ends before a breakpoint does,
/// - an entry in CHANGELOG.md.
///
/// `tests/it/contracts/documents.rs` checks the documents and `docker-compose.yml`, and `commands/help.rs` the help. No
/// test checks the debug file and the changelog. A parser's refusals are cases of `config/tests/invalid.rs`.
macro_rules! settings {
    ($(section $section:literal; $(
        $(#[doc = $help:literal])+
        $name:ident: $type:ty, $value_name:literal, $parse:expr
            $(, default = $default:literal)? $(, or = $or:expr)? $(, secret = $secret:literal)?;
    )+)+) => {
        /// All settings, in the order of the help.
        pub const SETTINGS: &[Setting] = &[$($(
            Setting {
                name: stringify!($name),
                section: $section,
                default: settings!(@option $($default)?),
                is_secret: matches!(settings!(@option $($secret)?), Some(true)),
            },
        )+)+];

        /// The settings of one source, as text.
        #[derive(Clone, Default, clap::Args, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct RawSettings {
            $($(
                #[arg(long, global = true, value_name = $value_name, help_heading = $section)]
                #[arg(help = concat!($($help),+ $(, " [default: ", $default, "]")?).trim_start())]
                $name: Option<String>,
            )+)+
        }

        impl RawSettings {
            /// Returns the settings that are set, by name.
            pub fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
                let texts = [$($((stringify!($name), self.$name.as_deref())),+),+];
                texts.into_iter().filter_map(|(name, text)| Some((name, text?)))
            }

            /// Returns these settings without `name`.
            #[must_use]
            pub fn without(self, name: &str) -> Self {
                Self { $($($name: self.$name.filter(|_| name != stringify!($name))),+),+ }
            }
        }

        /// The settings of the service. `Debug` shows no secret.
        #[derive(Debug, Clone)]
        pub struct Settings {
            $($($(#[doc = $help])+ pub $name: $type,)+)+
            /// The files that settings were read from.
            pub files: Vec<SecretFile>,
        }

        impl Settings {
            /// Parses each setting on its own.
            fn parse(texts: &EffectiveTexts<'_>, files: Vec<SecretFile>) -> Result<Self, SettingsError> {
                Ok(Self {
                    $($($name: settings!(@value texts.parse(stringify!($name), $parse)? $(, default = $default)? $(, or = $or)?),)+)+
                    files,
                })
            }

            /// Returns all values as text, in the order of `SETTINGS`.
            pub(super) fn texts(&self) -> Vec<String> {
                vec![$($(SettingValue::text(&self.$name)),+),+]
            }
        }
    };

    (@option) => { None };
    (@option $value:literal) => { Some($value) };
    (@value $parsed:expr) => { $parsed };
    (@value $parsed:expr, default = $default:literal) => { $parsed.expect("it has a default") };
    (@value $parsed:expr, or = $or:expr) => { $parsed.unwrap_or_else(|| $or) };
}

pub(super) use settings;
