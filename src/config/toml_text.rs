//! What is wrong with a text that should be TOML, by its line.

/// The mistake in `text` that `error` is about, in one line that repeats nothing of it but names.
pub fn mistake(text: &str, error: &toml::de::Error) -> String {
    let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
    format!("line {line}: {}", error.message())
}
