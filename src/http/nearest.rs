//! The route whose path is closest to one that no route has.

/// Returns the path of a route that is closest to `path`, with the parameter of `path`. `None` if none is close.
/// `routes` are paths such as `/segments/{name}/count`.
pub fn nearest_path<'a>(path: &str, routes: impl Iterator<Item = &'a str>) -> Option<String> {
    /// Longer paths are not compared.
    const MAX_BYTES: usize = 1_024;
    let parts: Vec<_> = path.split('/').filter(|part| !part.is_empty()).collect();
    if parts.is_empty() || path.len() > MAX_BYTES {
        return None;
    }
    let fits = routes.filter_map(|route| fit(&parts, route));
    let better = |one: &Fit, other: &Fit| {
        one.literals.cmp(&other.literals).then_with(|| one.similarity.total_cmp(&other.similarity))
    };
    fits.max_by(better).map(|fit| fit.path)
}

struct Fit {
    path: String,
    /// How many literal parts the route has. With more of them, less of the path is the value of a parameter.
    literals: usize,
    /// The sum of their similarities.
    similarity: f64,
}

/// Returns how `parts` fit `route`, unless one of its literal parts differs too much. The value of a parameter takes the
/// surplus parts: a slash in a name must be encoded, and often isn't.
fn fit(parts: &[&str], route: &str) -> Option<Fit> {
    /// The least similarity of a literal part, between 0 and 1.
    const MIN_SIMILARITY: f64 = 0.6;
    let wanted: Vec<_> = route.split('/').filter(|part| !part.is_empty()).collect();
    let is_parameter = |part: &str| part.starts_with('{');
    let surplus = parts.len().checked_sub(wanted.len())?;
    // The names of files can't be guessed.
    if route.contains("{file}") || surplus > 0 && !wanted.iter().any(|part| is_parameter(part)) {
        return None;
    }
    let mut fit = Fit { path: String::new(), literals: 0, similarity: 0.0 };
    let mut rest = parts;
    for part in wanted {
        let taken;
        (taken, rest) = rest.split_at(if is_parameter(part) { 1 + surplus } else { 1 });
        fit.path.push('/');
        if is_parameter(part) {
            fit.path += &taken.join("%2F");
        } else {
            // The lengths alone limit the similarity. The comparison takes time by their product, and comes before
            // authentication.
            if shorter_share(taken[0], part) < MIN_SIMILARITY {
                return None;
            }
            let similarity = strsim::normalized_damerau_levenshtein(&taken[0].to_lowercase(), part);
            if similarity < MIN_SIMILARITY {
                return None;
            }
            fit.literals += 1;
            fit.similarity += similarity;
            fit.path += part;
        }
    }
    Some(fit)
}

/// Returns the length of the shorter text as a share of that of the longer one.
fn shorter_share(one: &str, other: &str) -> f64 {
    let (one, other) = (one.chars().count(), other.chars().count());
    one.min(other) as f64 / one.max(other).max(1) as f64
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const ROUTES: [&str; 10] = [
        "/",
        "/segments",
        "/segments/batch",
        "/segments/{name}",
        "/segments/{name}/count",
        "/segments/{name}/history",
        "/counts",
        "/overlap",
        "/users/{user_id}/segments",
        "/docs/{file}",
    ];

    #[rstest]
    #[case::plural("/segments/sports/counts", Some("/segments/sports/count"))]
    #[case::singular("/segment/sports/count", Some("/segments/sports/count"))]
    #[case::swap("/segments/sports/hisotry", Some("/segments/sports/history"))]
    #[case::upper_case("/Segments/Sports/Count", Some("/segments/Sports/count"))]
    #[case::trailing_slash("/segments/sports/count/", Some("/segments/sports/count"))]
    #[case::slash_in_a_name("/segments/news/politics/count", Some("/segments/news%2Fpolitics/count"))]
    #[case::slashes_in_a_name("/segments/a/b/c", Some("/segments/a%2Fb%2Fc"))]
    #[case::without_a_parameter("/overlaps", Some("/overlap"))]
    #[case::of_a_user("/user/u1/segments", Some("/users/u1/segments"))]
    #[case::root("//", None)]
    #[case::another("/wp-admin/setup.php", None)]
    #[case::file("/doc/start.js", None)]
    fn nearest_path_has_the_parameter(#[case] path: &str, #[case] expected: Option<&str>) {
        assert_eq!(nearest_path(path, ROUTES.into_iter()).as_deref(), expected);
    }

    #[test]
    fn nearest_path_ignores_long_paths() {
        let path = format!("/segments/{}/counts", "x".repeat(2_000));
        assert_eq!(nearest_path(&path, ROUTES.into_iter()), None);
    }
}
