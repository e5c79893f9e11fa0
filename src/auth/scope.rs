//! Scopes.

use std::fmt;
use std::str::FromStr;

/// A permission that a token may carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// `segments:write`: record visits.
    WriteSegments,
    /// `segments:read`: read counts.
    ReadSegments,
    /// `segments:delete`: delete a segment.
    DeleteSegments,
    /// `users:read`: read a user's segments.
    ReadUsers,
    /// `users:delete`: delete a user.
    DeleteUsers,
}

impl Scope {
    /// All scopes.
    pub const ALL: [Self; 5] =
        [Self::WriteSegments, Self::ReadSegments, Self::DeleteSegments, Self::ReadUsers, Self::DeleteUsers];

    /// Returns the scope as tokens spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WriteSegments => "segments:write",
            Self::ReadSegments => "segments:read",
            Self::DeleteSegments => "segments:delete",
            Self::ReadUsers => "users:read",
            Self::DeleteUsers => "users:delete",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text).ok_or_else(|| {
            let known = Self::ALL.map(Self::as_str).join(", ");
            format!("{text:?} is not a scope; those are {known}")
        })
    }
}

/// The scopes of a token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scopes(Vec<Scope>);

impl Scopes {
    /// Keeps those of `names` that are scopes of this service. A token may carry others, for other services.
    pub(super) fn of_ours<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self(names.into_iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Returns whether the token carries `scope`.
    #[must_use]
    pub fn contains(&self, scope: Scope) -> bool {
        self.0.contains(&scope)
    }
}

impl From<Vec<Scope>> for Scopes {
    fn from(scopes: Vec<Scope>) -> Self {
        Self(scopes)
    }
}
