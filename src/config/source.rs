//! The sources of settings.

use std::fmt;
use std::path::{Path, PathBuf};

use super::secret_files::SecretFile;

/// The prefix of our environment variables.
pub(super) const PREFIX: &str = "ESTIMATOR_";

/// The file of variables in the working folder.
pub(super) const DOTENV: &str = ".env";

/// The source of raw settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A TOML file.
    File(PathBuf),
    /// `.env` in the working folder.
    DotEnv,
    /// A variable of OpenTelemetry's, by its name.
    OpenTelemetry(&'static str),
    /// The environment.
    Environment,
    /// The command line.
    Flags,
}

impl Source {
    /// Returns the setting `name` as this source spells it, for messages.
    pub(super) fn spelling(&self, name: &str) -> String {
        match self {
            Self::File(path) => format!("{name} in {}", path.display()),
            Self::DotEnv => format!("{PREFIX}{} in .env", name.to_uppercase()),
            Self::Environment => format!("{PREFIX}{}", name.to_uppercase()),
            Self::OpenTelemetry(variable) => (*variable).to_owned(),
            Self::Flags => format!("--{}", name.replace('_', "-")),
        }
    }

    /// Returns the file of this source. A user who can write it controls every setting.
    pub(super) fn file(&self) -> Option<SecretFile> {
        let (setting, path) = match self {
            Self::DotEnv => ("settings", Path::new(DOTENV)),
            Self::File(path) => ("config", path.as_path()),
            Self::OpenTelemetry(_) | Self::Environment | Self::Flags => return None,
        };
        Some(SecretFile { setting, path: path.to_owned(), is_secret: false })
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::DotEnv => f.write_str(".env"),
            Self::OpenTelemetry(variable) => f.write_str(variable),
            Self::Environment => f.write_str("the environment"),
            Self::Flags => f.write_str("the command line"),
        }
    }
}
