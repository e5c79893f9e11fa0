//! The syntax of the `Authorization` header ([RFC 6750](https://www.rfc-editor.org/rfc/rfc6750), section 2.1).

/// Far more than any token needs. Longer ones are refused unread.
pub(super) const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Returns the token of an `Authorization` header.
pub(super) fn bearer_token(header: &[u8]) -> Option<&str> {
    const SCHEME: &str = "bearer ";
    let header = std::str::from_utf8(header).ok()?;
    let scheme = header.get(..SCHEME.len()).filter(|scheme| scheme.eq_ignore_ascii_case(SCHEME))?;
    let token = header[scheme.len()..].trim_matches(' ');
    let is_token =
        !token.is_empty() && token.len() <= MAX_TOKEN_BYTES && token.bytes().all(|byte| byte.is_ascii_graphic());
    is_token.then_some(token)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::usual("Bearer abc", Some("abc"))]
    #[case::lower_case("bearer abc", Some("abc"))]
    #[case::upper_case_and_spaces("BEARER  abc ", Some("abc"))]
    #[case::no_token("Bearer ", None)]
    #[case::no_space("Bearer", None)]
    #[case::two_tokens("Bearer a b", None)]
    #[case::not_ascii("Bearer a\u{e9}", None)]
    #[case::basic("Basic dXNlcjpwYXNz", None)]
    #[case::empty("", None)]
    fn bearer_token_reads_the_header(#[case] header: &str, #[case] token: Option<&str>) {
        assert_eq!(bearer_token(header.as_bytes()), token);
    }

    #[test]
    fn bearer_token_limits_the_length() {
        let header = |bytes| format!("Bearer {}", "x".repeat(bytes));
        assert!(bearer_token(header(MAX_TOKEN_BYTES).as_bytes()).is_some());
        assert!(bearer_token(header(MAX_TOKEN_BYTES + 1).as_bytes()).is_none());
    }
}
