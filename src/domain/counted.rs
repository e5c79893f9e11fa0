//! A number with its noun.

/// Returns `1 member` or `2 members`.
pub(crate) fn counted(number: u64, singular: &str, plural: &str) -> String {
    format!("{number} {}", if number == 1 { singular } else { plural })
}
