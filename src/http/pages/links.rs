//! Links. They are relative, so that they work behind a proxy that adds a prefix.

use axum::http::Method;

use super::ranges::DEFAULT_DAYS;
use crate::domain::Window;

/// The folder of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BasePath {
    /// `/`
    Root,
    /// `/pages/`
    Pages,
    /// `/docs/`
    Docs,
}

impl BasePath {
    /// Returns the relative path to `/`.
    pub const fn root(self) -> &'static str {
        match self {
            Self::Root => "./",
            Self::Pages | Self::Docs => "../",
        }
    }

    /// Returns the relative path to `/pages/`.
    pub const fn pages(self) -> &'static str {
        match self {
            Self::Root => "pages/",
            Self::Pages => "./",
            Self::Docs => "../pages/",
        }
    }

    /// Returns the relative path to `/docs/`.
    pub const fn docs(self) -> &'static str {
        match self {
            Self::Root => "docs/",
            Self::Pages => "../docs/",
            Self::Docs => "./",
        }
    }
}

/// Returns the folder of the requested page, or `None` if the request is not for a page. Errors of a page are pages,
/// too.
pub fn base_path(method: &Method, path: &str) -> Option<BasePath> {
    if ![Method::GET, Method::HEAD].contains(method) {
        return None;
    }
    match path {
        "/" => Some(BasePath::Root),
        path => path.strip_prefix("/pages/").filter(|rest| !rest.contains('/')).map(|_| BasePath::Pages),
    }
}

/// Parameters of a segment's page.
#[derive(Debug, Clone, Copy)]
pub struct SegmentLink<'a> {
    pub name: &'a str,
    /// `None` for the configured window.
    pub window: Option<Window>,
    /// Range of the history.
    pub days: u64,
}

impl SegmentLink<'_> {
    pub fn with_window(self, window: Option<Window>) -> Self {
        Self { window, ..self }
    }

    pub fn with_days(self, days: u64) -> Self {
        Self { days, ..self }
    }

    /// Returns the link, for a page in `/pages/`.
    pub fn href(self) -> String {
        let window = window_parameter(self.window);
        let days = if self.days == DEFAULT_DAYS { String::new() } else { self.days.to_string() };
        with_query("segment", [("name", self.name), ("window", &window), ("days", &days)])
    }
}

/// Returns the link to the comparison of segments over `window`, for a page in `/pages/`. `None` is the configured
/// window.
pub fn overlap_link(names: &[&str], window: Option<Window>) -> String {
    let window = window_parameter(window);
    with_query("overlap", names.iter().map(|name| ("segment", *name)).chain([("window", window.as_str())]))
}

/// Parameters of an audience.
pub const AUDIENCE_PARAMETERS: [&str; 3] = ["all", "any", "none"];

/// Returns the link to an audience over `window`, for a page in `/pages/`. `None` is the configured window.
pub fn audience_link(names: [&[&str]; 3], window: Option<Window>) -> String {
    audience("audience", names, window)
}

/// Returns `path` with the parameters of an audience.
pub fn audience(path: &str, names: [&[&str]; 3], window: Option<Window>) -> String {
    let window = window_parameter(window);
    let named = AUDIENCE_PARAMETERS.into_iter().zip(names);
    let named = named.flat_map(|(parameter, names)| names.iter().map(move |name| (parameter, *name)));
    with_query(path, named.chain([("window", window.as_str())]))
}

fn window_parameter(window: Option<Window>) -> String {
    window.map(|window| window.to_string()).unwrap_or_default()
}

/// Appends those of `parameters` to `path` that have a value.
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

/// Percent-encodes `text` for a path or a query. Only the unreserved characters of RFC 3986 stay.
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
    fn base_path_finds_pages(#[case] path: &str, #[case] expected: Option<BasePath>) {
        assert_eq!(base_path(&Method::GET, path), expected);
        assert_eq!(base_path(&Method::HEAD, path), expected);
        assert_eq!(base_path(&Method::POST, path), None);
    }

    #[test]
    fn with_query_omits_empty_parameters() {
        let link = with_query("segment", [("name", "a b&c=d/é"), ("window", ""), ("days", "7")]);
        assert_eq!(link, "segment?name=a%20b%26c%3Dd%2F%C3%A9&days=7");
        assert_eq!(with_query("./", [("prefix", "")]), "./");
    }
}
