//! The format of an answer.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

use crate::http::accept::preferences;

/// The format of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    Csv,
}

impl Format {
    /// Parses the parameter `format`.
    ///
    /// # Errors
    ///
    /// A predicate about the parameter.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(Self::Json),
            "csv" => Ok(Self::Csv),
            _ => Err("must be json or csv".to_owned()),
        }
    }

    /// Returns the format that `Accept` prefers. Without a preference, and for callers that accept neither, it is JSON.
    pub fn negotiate(headers: &HeaderMap) -> Self {
        let csv = Preference::for_type(headers, "text/csv", "text/*");
        let json = Preference::for_type(headers, "application/json", "application/*");
        if csv.quality > 0.0 && csv > json { Self::Csv } else { Self::Json }
    }
}

/// How much a caller wants a media type. Between types of the same quality, the one that the caller names wins.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
struct Preference {
    quality: f32,
    specificity: u8,
}

impl Preference {
    /// Returns the preference for `media_type`: that of the most specific range of `Accept` (RFC 9110, section
    /// 12.5.1).
    fn for_type(headers: &HeaderMap, media_type: &str, range: &str) -> Self {
        let ranges = preferences(headers, ACCEPT).filter_map(|(accepted, quality)| {
            let specificity = match accepted.as_str() {
                "*/*" => 1,
                accepted if accepted == range => 2,
                accepted if accepted == media_type => 3,
                _ => return None,
            };
            Some(Self { quality, specificity })
        });
        ranges.max_by_key(|range| range.specificity).unwrap_or(Self { quality: 0.0, specificity: 0 })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::none(&[], Format::Json)]
    #[case::any(&["*/*"], Format::Json)]
    #[case::csv(&["text/csv"], Format::Csv)]
    #[case::upper_case(&["Text/CSV"], Format::Csv)]
    #[case::parameters(&["text/csv; charset=utf-8; header=present"], Format::Csv)]
    #[case::json(&["application/json"], Format::Json)]
    #[case::both(&["text/csv, application/json"], Format::Json)]
    #[case::both_and_csv_more(&["application/json;q=0.8, text/csv"], Format::Csv)]
    #[case::both_and_json_more(&["application/json, text/csv;q=0.9"], Format::Json)]
    #[case::two_lines(&["application/json;q=0.8", "text/csv;q=0.9"], Format::Csv)]
    #[case::csv_and_the_rest(&["text/csv, */*"], Format::Csv)]
    #[case::csv_and_the_rest_more(&["text/csv;q=0.5, */*;q=0.9"], Format::Json)]
    #[case::any_text(&["text/*"], Format::Csv)]
    #[case::any_text_but_csv(&["text/*, text/csv;q=0, application/json;q=0.1"], Format::Json)]
    #[case::refused(&["text/csv;q=0"], Format::Json)]
    #[case::parameter_before_the_quality(&["text/csv;header=present;q=0.1, application/json;q=0.2"], Format::Json)]
    #[case::wrong_quality(&["text/csv;q=high, application/json;q=0.1"], Format::Json)]
    #[case::excessive_quality(&["text/csv;q=5, application/json;q=0.1"], Format::Json)]
    #[case::browser(&["text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"], Format::Json)]
    #[case::grafana_csv(&["text/csv; charset=utf-8"], Format::Csv)]
    #[case::grafana_json(&["application/json;q=0.9,text/plain"], Format::Json)]
    #[case::neither(&["image/png"], Format::Json)]
    #[case::empty(&[""], Format::Json)]
    fn negotiate_takes_the_preferred_format(#[case] accept: &[&'static str], #[case] expected: Format) {
        let headers = accept.iter().map(|value| (ACCEPT, HeaderValue::from_static(value)));
        assert_eq!(Format::negotiate(&headers.collect()), expected);
    }
}
