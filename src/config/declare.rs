//! The declaration of settings.

/// A setting as its sources see it.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The name in the TOML file.
    pub name: &'static str,
    /// The value if no source sets the setting.
    pub default: Option<&'static str>,
    /// Whether the value may hold a password and is left out of messages.
    pub is_secret: bool,
}

/// Declares all settings, each once:
///
/// ```text
/// /// Help
/// name: Type, "VALUE NAME", parser, default = "text", or = expression, secret = true;
/// ```
///
/// The parser turns a text into the type, or into the type in `Option<Type>`. A setting without a value has its `default`, parsed, or the
/// value of the expression `or`, or `None`. The macro makes of this
/// - [`SETTINGS`](super::SETTINGS): the names, for errors and documents,
/// - [`Layer`](super::Layer): the texts of one source; clap and serde fill it,
/// - [`Settings`](super::Settings): the values, with `parse` from texts and `texts` for people.
macro_rules! settings {
    ($(
        $(#[doc = $help:literal])+
        $name:ident: $type:ty, $value_name:literal, $parse:expr
            $(, default = $default:literal)? $(, or = $or:expr)? $(, secret = $secret:literal)?;
    )+) => {
        /// All settings, in the order of the help.
        pub const SETTINGS: &[Setting] = &[$(
            Setting {
                name: stringify!($name),
                default: settings!(@option $($default)?),
                is_secret: matches!(settings!(@option $($secret)?), Some(true)),
            },
        )+];

        /// The settings that one source gives, as text.
        #[derive(Clone, Default, clap::Args, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        #[command(next_help_heading = "Settings")]
        #[allow(missing_docs)]
        pub struct Layer {
            $(
                #[arg(long, global = true, value_name = $value_name)]
                #[arg(help = concat!($($help),+ $(, " [default: ", $default, "]")?).trim_start())]
                pub $name: Option<String>,
            )+
        }

        impl Layer {
            /// Returns the settings that this source gives, by name.
            pub(super) fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
                let texts = [$((stringify!($name), self.$name.as_deref())),+];
                texts.into_iter().filter_map(|(name, text)| Some((name, text?)))
            }
        }

        /// What the service runs with. `Debug` shows no secret.
        #[derive(Debug, Clone)]
        pub struct Settings {
            $($(#[doc = $help])+ pub $name: $type,)+
            /// The files that settings were read from.
            pub files: Vec<SecretFile>,
        }

        impl Settings {
            /// Parses each setting by itself.
            fn parse(texts: &EffectiveTexts<'_>, files: Vec<SecretFile>) -> Result<Self, SettingsError> {
                Ok(Self {
                    $($name: settings!(@value texts.parse(stringify!($name), $parse)? $(, default = $default)? $(, or = $or)?),)+
                    files,
                })
            }

            /// Returns all values for people, in the order of `SETTINGS`.
            pub(super) fn texts(&self) -> Vec<String> {
                vec![$(Value::text(&self.$name)),+]
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
