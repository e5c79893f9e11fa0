//! Links to the other pages of a list (RFC 8288).

use axum::http::HeaderValue;

use crate::http::percent::encoded;

/// The cursors of the pages beside this one.
#[derive(Debug, Default, Clone, Copy)]
pub struct Cursors<'a> {
    pub next: Option<&'a str>,
    pub previous: Option<&'a str>,
}

/// Returns the value of `Link`. Its targets are relative, so that they keep the prefix of a proxy, and have the
/// `parameters` of the request but for the cursor.
pub fn links(parameters: &[(String, String)], cursors: Cursors<'_>) -> Option<HeaderValue> {
    let others = parameters.iter().filter(|(name, _)| name != "cursor");
    let others: String = others.map(|(name, value)| format!("{}={}&", encoded(name), encoded(value))).collect();
    let link = |cursor: &str, relation: &str| format!("<?{others}cursor={}>; rel=\"{relation}\"", encoded(cursor));
    let links = [cursors.next.map(|cursor| link(cursor, "next")), cursors.previous.map(|cursor| link(cursor, "prev"))];
    let links: Vec<_> = links.into_iter().flatten().collect();
    let header = || HeaderValue::try_from(links.join(", ")).expect("an encoded query is valid in a header");
    (!links.is_empty()).then(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_keep_the_other_parameters() {
        let parameters = [("prefix", "a&b>\""), ("cursor", "old"), ("format", "csv")];
        let parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let cursors = Cursors { next: Some("bjphcnQ"), previous: Some("Tjph") };
        assert_eq!(
            links(&parameters, cursors).unwrap(),
            "<?prefix=a%26b%3E%22&format=csv&cursor=bjphcnQ>; rel=\"next\", \
             <?prefix=a%26b%3E%22&format=csv&cursor=Tjph>; rel=\"prev\""
        );
        assert_eq!(links(&parameters, Cursors::default()), None);
    }
}
