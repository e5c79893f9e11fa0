//! The owner of a token.

use std::sync::Arc;

use super::scope::Scopes;
use super::usage::KeyUsage;

/// The owner of a token, and what the token allows.
#[derive(Debug)]
pub struct Principal {
    /// The name of the API key, or the subject of the JSON Web Token if it may be logged.
    pub name: String,
    pub(super) scopes: Scopes,
    /// The last Unix second at which the token is valid.
    pub(super) valid_until: Option<u64>,
    /// The counters of the key.
    pub usage: Arc<KeyUsage>,
}

impl Principal {
    /// Creates the owner of an API key.
    #[must_use]
    pub fn new(name: String, scopes: Scopes) -> Self {
        Self { name, scopes, valid_until: None, usage: Arc::default() }
    }
}

/// Compares everything but the counters.
impl PartialEq for Principal {
    fn eq(&self, other: &Self) -> bool {
        (&self.name, &self.scopes, self.valid_until) == (&other.name, &other.scopes, other.valid_until)
    }
}

impl Eq for Principal {}

/// The name for a token whose subject is missing or must not be logged.
pub(super) const UNNAMED: &str = "this subject";

/// The longest name, in bytes.
const MAX_NAME_BYTES: usize = 64;

/// Checks that `name` has plain characters only: names are shown to callers and written to files.
pub(super) fn check_name(name: &str) -> Result<(), String> {
    let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.@".contains(&byte));
    if is_plain && (1..=MAX_NAME_BYTES).contains(&name.len()) {
        return Ok(());
    }
    Err(format!("the name must have 1 to {MAX_NAME_BYTES} letters, digits or any of - _ . @"))
}
