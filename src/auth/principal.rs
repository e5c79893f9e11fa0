//! Whom a token belongs to.

use super::scope::Scopes;

/// Whom a token belongs to, and what it allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Principal {
    pub(super) name: String,
    pub(super) scopes: Scopes,
    /// The last Unix second at which the token is valid.
    pub(super) valid_until: Option<u64>,
}

/// What a token is called whose subject is missing, or is not to be repeated.
pub(super) const UNNAMED: &str = "this subject";

/// The longest name of a key, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// Names are shown to callers and written into files, so they are plain.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte));
    if is_plain && (1..=MAX_NAME_BYTES).contains(&name.len()) {
        return Ok(());
    }
    Err(format!("the name must have 1 to {MAX_NAME_BYTES} letters, digits or any of - _ . @"))
}
