//! The header `Prefer` ([RFC 7240](https://www.rfc-editor.org/rfc/rfc7240)). Unknown preferences are ignored, as the
//! RFC demands.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue};

/// Request header with preferences.
pub const PREFER: HeaderName = HeaderName::from_static("prefer");
/// Response header with the applied preference.
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");
/// Preference for a response that contains the result of the request.
pub const RETURN_REPRESENTATION: HeaderValue = HeaderValue::from_static("return=representation");

/// Whether the caller prefers `return=representation` (section 4.2).
pub struct WantsRepresentation(pub bool);

impl<S: Send + Sync> FromRequestParts<S> for WantsRepresentation {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(wants_representation(&parts.headers)))
    }
}

fn wants_representation(headers: &HeaderMap) -> bool {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let mut returns = values.flat_map(|value| split_unquoted(value, ',')).filter_map(|preference| {
        // Parameters may follow a preference; `return` has none.
        let (name, value) = split_unquoted(preference, ';').next()?.split_once('=')?;
        let value = value.trim();
        let quoted = value.strip_prefix('"').and_then(|value| value.strip_suffix('"'));
        name.trim().eq_ignore_ascii_case("return").then(|| quoted.unwrap_or(value))
    });
    // The first of several counts (section 2).
    returns.next() == Some("representation")
}

/// Splits `text` at separators outside quoted strings (RFC 9110, section 5.6.4). An open string extends to the end.
fn split_unquoted(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    text.split(move |char| {
        let is_separator = char == separator && !is_quoted;
        is_quoted ^= char == '"' && !is_escaped;
        is_escaped = is_quoted && char == '\\' && !is_escaped;
        is_separator
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain(&["return=representation"], true)]
    #[case::name_in_capitals(&["Return=representation"], true)]
    #[case::quoted(&["return=\"representation\""], true)]
    #[case::white_space(&[" return = representation "], true)]
    #[case::parameter(&["return=representation; lang=en"], true)]
    #[case::among_others(&["respond-async, wait=10, return=representation"], true)]
    #[case::in_another_header(&["wait=10", "return=representation"], true)]
    #[case::first_of_two(&["return=representation, return=minimal"], true)]
    #[case::second_of_two(&["return=minimal", "return=representation"], false)]
    #[case::minimal(&["return=minimal"], false)]
    #[case::value_in_capitals(&["return=REPRESENTATION"], false)]
    #[case::no_value(&["return"], false)]
    #[case::other_name(&["returns=representation"], false)]
    #[case::parameter_of_another(&["wait=10; return=representation"], false)]
    #[case::within_quotes(&["foo=\"a, return=representation\""], false)]
    #[case::within_quotes_of_a_parameter(&["foo; bar=\", return=representation\""], false)]
    #[case::behind_quotes(&["foo=\"a, return=minimal\", return=representation"], true)]
    #[case::behind_an_escaped_quote(&[r#"foo="\", return=representation, \\", return=minimal"#], false)]
    #[case::behind_an_escaped_backslash(&[r#"foo="\\", return=representation"#], true)]
    #[case::in_an_open_quote(&["foo=\"a, return=representation"], false)]
    #[case::a_semicolon_within_quotes(&["return=\"representation;\""], false)]
    #[case::one_quote(&["return=\"representation"], false)]
    #[case::two_quotes(&["return=\"\"representation\"\""], false)]
    #[case::empty(&[""], false)]
    #[case::none(&[], false)]
    fn first_return_preference_decides(#[case] values: &[&'static str], #[case] expected: bool) {
        let values = values.iter().map(|value| (PREFER, HeaderValue::from_static(value)));
        assert_eq!(wants_representation(&values.collect()), expected);
    }
}
