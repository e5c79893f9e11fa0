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
    let mut returns = values.flat_map(|value| value.split(',')).filter_map(|preference| {
        // Parameters may follow a preference; `return` has none.
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("return").then(|| value.trim().trim_matches('"'))
    });
    // The first of several counts (section 2).
    returns.next() == Some("representation")
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
    #[case::empty(&[""], false)]
    #[case::none(&[], false)]
    fn first_return_preference_decides(#[case] values: &[&'static str], #[case] expected: bool) {
        let values = values.iter().map(|value| (PREFER, HeaderValue::from_static(value)));
        assert_eq!(wants_representation(&values.collect()), expected);
    }
}
