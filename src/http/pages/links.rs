//! Links. They are relative, so that they work behind a proxy that adds a prefix.

use std::borrow::Cow;

use axum::http::Method;

use super::ranges::DEFAULT_DAYS;
use crate::domain::Window;
use crate::http::extract::query::AUDIENCE_PARAMETERS;
pub use crate::http::percent::encoded;

/// The folder of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BasePath {
    /// `/`
    Root,
    /// `/pages/`
    Pages,
    /// A folder that is this deep below `/`.
    Depth(u8),
}

/// The relative path to `/pages/` from the deepest folder.
const PAGES: &str = "../../../../../../../../pages/";
const UP: &str = "../";
const FOLDER: &str = "pages/";
const MAX_DEPTH: usize = (PAGES.len() - FOLDER.len()) / UP.len();

impl BasePath {
    /// Returns the folder of `path`, or `None` if it is deeper than eight.
    pub fn of(path: &str) -> Option<Self> {
        let depth = path.matches('/').count().checked_sub(1)?;
        match depth {
            0 => Some(Self::Root),
            1 if path.starts_with("/pages/") => Some(Self::Pages),
            1..=MAX_DEPTH => Some(Self::Depth(depth as u8)),
            _ => None,
        }
    }

    /// Returns the relative path to `/`.
    pub fn root(self) -> &'static str {
        match self {
            Self::Root => "./",
            Self::Pages => UP,
            Self::Depth(depth) => &PAGES[..usize::from(depth) * UP.len()],
        }
    }

    /// Returns the relative path to `/pages/`.
    pub fn pages(self) -> &'static str {
        match self {
            Self::Root => FOLDER,
            Self::Pages => "./",
            Self::Depth(depth) => &PAGES[(MAX_DEPTH - usize::from(depth)) * UP.len()..],
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

/// Returns the page that shows what the route of `path` returns, or `path` if there is none.
pub fn page_of(path: &str) -> Cow<'_, str> {
    let mut parts = path.split('/').skip(1);
    match (parts.next().unwrap_or_default(), parts.next()) {
        ("overlap", _) => "/pages/overlap".into(),
        ("audience", _) => "/pages/audience".into(),
        ("segments", None | Some("batch")) | ("counts" | "history", _) => "/".into(),
        ("segments", Some(name)) => format!("/pages/segment?name={name}").into(),
        _ => path.into(),
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

impl<'a> SegmentLink<'a> {
    /// Returns the link to a segment over `window`, with the usual history.
    pub fn over(name: &'a str, window: Option<Window>) -> Self {
        Self { name, window, days: DEFAULT_DAYS }
    }

    pub fn with_window(self, window: Option<Window>) -> Self {
        Self { window, ..self }
    }

    pub fn with_days(self, days: u64) -> Self {
        Self { days, ..self }
    }

    /// Returns the link, for a page in `/pages/`.
    pub fn href(self) -> String {
        let parameters = self.parameters();
        with_query("segment", parameters.iter().map(|(name, value)| (*name, value.as_str())))
    }

    /// Returns the parameters that differ from the defaults.
    pub fn parameters(self) -> Vec<(&'static str, String)> {
        let window = self.window.map(|window| ("window", window.to_string()));
        let days = (self.days != DEFAULT_DAYS).then(|| ("days", self.days.to_string()));
        [Some(("name", self.name.to_owned())), window, days].into_iter().flatten().collect()
    }
}

/// Returns the link to the comparison of segments over `window`, for a page in `/pages/`. `None` is the configured
/// window.
pub fn overlap_link(names: &[&str], window: Option<Window>) -> String {
    with_segments("overlap", names, window)
}

/// Adds segments and a window to `path`.
pub fn with_segments(path: &str, names: &[&str], window: Option<Window>) -> String {
    let window = window_parameter(window);
    with_query(path, names.iter().map(|name| ("segment", *name)).chain([("window", window.as_str())]))
}

/// Returns the link to an audience over `window`, for a page in `/pages/`. `None` is the configured window.
pub fn audience_link(names: [&[&str]; 3], window: Option<Window>) -> String {
    with_audience("audience", names, window)
}

/// Adds the segments of an audience and a window to `path`.
pub fn with_audience(path: &str, names: [&[&str]; 3], window: Option<Window>) -> String {
    let window = window_parameter(window);
    let named = AUDIENCE_PARAMETERS.into_iter().zip(names);
    let named = named.flat_map(|(parameter, names)| names.iter().map(move |name| (parameter, *name)));
    with_query(path, named.chain([("window", window.as_str())]))
}

/// Returns the path of a segment's `resource` in the API, from `/`, with those of `parameters` that have a value.
pub fn segment_call<'a>(
    name: &str,
    resource: &str,
    parameters: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> String {
    with_query(&format!("segments/{}/{resource}", encoded(name)), parameters)
}

/// Returns the parameter `window`. It is empty for the configured window.
pub fn window_parameter(window: Option<Window>) -> String {
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
        // A colon may stand in a query as it is, where times have some.
        link.push_str(&encoded(value).replace("%3A", ":"));
        separator = '&';
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

    #[rstest]
    #[case::root("/nowhere", "./", "pages/")]
    #[case::page("/pages/nowhere", "../", "./")]
    #[case::api("/segments/nowhere", "../", "../pages/")]
    #[case::deep("/a/b/c", "../../", "../../pages/")]
    #[case::deepest("/1/2/3/4/5/6/7/8/9", "../../../../../../../../", "../../../../../../../../pages/")]
    fn base_path_leads_back(#[case] path: &str, #[case] root: &str, #[case] pages: &str) {
        let base = BasePath::of(path).unwrap();
        assert_eq!((base.root(), base.pages()), (root, pages));
    }

    #[rstest]
    #[case::too_deep("/1/2/3/4/5/6/7/8/9/10")]
    #[case::asterisk("*")]
    fn base_path_of_other_paths_is_none(#[case] path: &str) {
        assert_eq!(BasePath::of(path), None);
    }

    #[rstest]
    #[case::segment("/segments/a%26b/count", "/pages/segment?name=a%26b")]
    #[case::segments("/segments", "/")]
    #[case::batch("/segments/batch", "/")]
    #[case::overlap("/overlap", "/pages/overlap")]
    #[case::audience("/audience/count", "/pages/audience")]
    #[case::page("/pages/overlap", "/pages/overlap")]
    #[case::docs("/docs", "/docs")]
    fn page_of_shows_what_a_route_returns(#[case] path: &str, #[case] page: &str) {
        assert_eq!(page_of(path), page);
    }

    #[test]
    fn with_query_omits_empty_parameters() {
        let link = with_query("segment", [("name", "a b&c=d/é"), ("window", ""), ("days", "7")]);
        assert_eq!(link, "segment?name=a%20b%26c%3Dd%2F%C3%A9&days=7");
        assert_eq!(with_query("./", [("prefix", "")]), "./");
        assert_eq!(with_query("./", [("from", "10:00"), ("name", "%3A")]), "./?from=10:00&name=%253A");
    }
}
