//! Where links lead: relative to the page, so that they work behind a proxy that adds a prefix.

use axum::http::Method;

/// The folder of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BasePath {
    /// `/`
    Root,
    /// `/pages/`
    Pages,
}

impl BasePath {
    /// Returns the relative path to `/`.
    pub const fn root(self) -> &'static str {
        match self {
            Self::Root => "./",
            Self::Pages => "../",
        }
    }

    /// Returns the relative path to `/pages/`.
    pub const fn pages(self) -> &'static str {
        match self {
            Self::Root => "pages/",
            Self::Pages => "./",
        }
    }
}

/// Returns the folder of the page that a request asks for. Returns `None` if the request asks for no page; its errors are
/// JSON then.
pub fn base_path(method: &Method, path: &str) -> Option<BasePath> {
    if ![Method::GET, Method::HEAD].contains(method) {
        return None;
    }
    match path {
        "/" => Some(BasePath::Root),
        path => path.strip_prefix("/pages/").filter(|rest| !rest.contains('/')).map(|_| BasePath::Pages),
    }
}

/// `path` with `parameters`, as far as they have values.
pub fn with_query<'a>(path: &str, parameters: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut link = path.to_owned();
    let mut separator = '?';
    for (name, value) in parameters.into_iter().filter(|(_, value)| !value.is_empty()) {
        link.push(separator);
        link.push_str(name);
        link.push('=');
        link.push_str(&encoded(value));
        separator = '&';
    }
    link
}

/// `text` percent-encoded, for a path or a query: all but what is unreserved in RFC 3986.
pub fn encoded(text: &str) -> String {
    let mut link = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            link.push(char::from(byte));
        } else {
            link.push_str(&format!("%{byte:02X}"));
        }
    }
    link
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("/", Some(BasePath::Root))]
    #[case("/pages/segment", Some(BasePath::Pages))]
    #[case("/pages/nothing", Some(BasePath::Pages))]
    #[case("/pages/a/b", None)]
    #[case("/pages", None)]
    #[case("/segments/sports/count", None)]
    #[case("/docs", None)]
    fn errors_are_pages_where_pages_are(#[case] path: &str, #[case] expected: Option<BasePath>) {
        assert_eq!(base_path(&Method::GET, path), expected);
        assert_eq!(base_path(&Method::HEAD, path), expected);
        assert_eq!(base_path(&Method::POST, path), None);
    }

    #[test]
    fn a_link_has_the_parameters_that_have_values() {
        let link = with_query("segment", [("name", "a b&c=d/é"), ("window", ""), ("days", "7")]);
        assert_eq!(link, "segment?name=a%20b%26c%3Dd%2F%C3%A9&days=7");
        assert_eq!(with_query("./", [("prefix", "")]), "./");
    }
}
