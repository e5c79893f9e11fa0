//! The page that counts an audience: the users in some segments and not in others.

use maud::{Markup, html};

use super::curl::BaseUrl;
use super::download::csv_link;
use super::estimate;
use super::fields::{number_of_fields, segment_field, suggestions};
use super::layout::{self, Counts, Page, Refresh};
use super::links::{self, BasePath, SegmentLink, audience_link, overlap_link};
use super::names::name as isolated;
use super::similar::{UnknownName, unknown_names};
use super::windows::{unless_configured, windows};
use crate::domain::{Timestamp, Window};
use crate::estimator::overlap::{AudienceCount, Overlaps};
use crate::http::extract::query::AUDIENCE_PARAMETERS;
use crate::http::format;

/// Minimum number of fields in a group of the form.
const MIN_FIELDS: usize = 2;

/// Labels of the three groups of segments.
const LABELS: [&str; 3] = ["In all of", "In at least one of", "In none of"];

/// The definition of an audience as entered, and suggestions for it.
pub struct Definition<'a> {
    /// The names for `all`, `any` and `none`.
    pub names: [Vec<&'a str>; 3],
    /// Names of existing segments.
    pub suggestions: Vec<String>,
    pub window: Window,
    /// The longest window.
    pub configured: Window,
    /// Whether large segments keep a sample of their users.
    pub is_bounded: bool,
}

impl Definition<'_> {
    fn slices(&self) -> [&[&str]; 3] {
        self.names.each_ref().map(|names| &names[..])
    }

    fn all_names(&self) -> Vec<&str> {
        self.names.concat()
    }

    /// Whether the audience is defined. Users in no segment are not known.
    pub fn is_complete(&self) -> bool {
        let [all, any, _] = &self.names;
        !(all.is_empty() && any.is_empty())
    }

    fn window(&self) -> Option<Window> {
        unless_configured(self.window, self.configured)
    }

    fn href(&self, window: Option<Window>) -> String {
        audience_link(self.slices(), window)
    }
}

/// Result of a count.
pub struct CountedAudience<'a> {
    pub count: AudienceCount,
    /// Time of the numbers.
    pub now: Timestamp,
    pub unknown: Vec<UnknownName<'a>>,
}

impl CountedAudience<'_> {
    fn counts(&self) -> Counts {
        let AudienceCount { count, counts, counts_within } = &self.count;
        Counts::of(counts.iter().chain(counts_within).copied().chain([*count]))
    }
}

/// Renders the page, with the result if there is one.
pub fn page(definition: &Definition<'_>, counted: Option<&CountedAudience<'_>>, base_url: &BaseUrl) -> Markup {
    let is_refused = !definition.is_complete() && !definition.names[2].is_empty();
    let main = html! {
        h1 { "Audience" }
        p .lead {
            "Count the users in some segments and not in others: 1–" (Overlaps::MAX_SEGMENTS) " segments together. "
            @if definition.is_bounded { "The count is an estimate if a segment is large." } @else { "The count is exact." }
        }
        @if is_refused { p .lead #one-more { "Choose at least one segment that the users are in." } }
        (form(definition))
        @if let Some(counted) = counted { (result(definition, counted, base_url)) }
    };
    let counts = counted.map_or(Counts::None, CountedAudience::counts);
    // A refresh would make Redis read all members again.
    layout::page(BasePath::Pages, Page::Audience, "Audience", Refresh::Never, counts, &main)
}

/// Renders the form with the definition.
pub fn form(definition: &Definition<'_>) -> Markup {
    html! {
        form #pick method="get" action="audience" {
            @for ((parameter, label), names) in AUDIENCE_PARAMETERS.into_iter().zip(LABELS).zip(&definition.names) {
                fieldset {
                    legend { (label) }
                    div .picks {
                        @for index in 0..number_of_fields(names.len(), MIN_FIELDS) {
                            @let name = names.get(index).copied().unwrap_or_default();
                            (segment_field(&format!("{parameter}-{}", index + 1), &format!("Segment {}", index + 1), parameter, name))
                        }
                    }
                }
            }
            (suggestions(&definition.suggestions))
            @if let Some(window) = definition.window() { input type="hidden" name="window" value=(window); }
            div .tools {
                button .chief type="submit" { "Count" }
                @if !definition.all_names().is_empty() { a .button href="audience" { "Clear" } }
            }
        }
    }
}

fn result(definition: &Definition<'_>, counted: &CountedAudience<'_>, base_url: &BaseUrl) -> Markup {
    let CountedAudience { count: AudienceCount { count, counts, counts_within }, now, unknown } = counted;
    let names = definition.all_names();
    let replaced = |unknown: &str, other: &str| {
        let replace = |names: &Vec<_>| names.iter().map(|&name| if name == unknown { other } else { name }).collect();
        let [all, any, none]: [Vec<&str>; 3] = definition.names.each_ref().map(replace);
        audience_link([&all, &any, &none], definition.window())
    };
    let call = links::with_audience("/audience/count", definition.slices(), definition.window());
    html! {
        (unknown_names(unknown, replaced))
        section #result aria-labelledby="audience" {
            h2 #audience { (words(definition)) }
            p .figure #count data-count=(count.count()) { (estimate::figure(*count)) }
            p { @if count.count() == 1 { "user was" } @else { "users were" } " seen in the " (format::last(definition.window.duration())) }
            (estimate::note(BasePath::Pages, counted.counts(), estimate::OF_COMPARISON))
            (layout::as_of(*now, None))
            (windows(definition.window, definition.configured, |window| definition.href(window)))
            (csv_link(BasePath::Pages, call.trim_start_matches('/'), "this number"))
        }
        section aria-labelledby="segments" {
            h2 #segments { "Its segments" }
            table .sizes #sizes {
                thead { tr { th scope="col" { "Segment" } th .number scope="col" { "Users" } th .number scope="col" { "In the audience" } th .number scope="col" { "Share" } } }
                tbody {
                    @for ((name, whole), within) in names.iter().zip(counts).zip(counts_within) {
                        tr {
                            th scope="row" { a href=(SegmentLink::over(name, definition.window()).href()) { (isolated(name)) } }
                            td .number { (estimate::users(*whole)) }
                            td .number { (estimate::users(*within)) }
                            td .number { (format::share_of(*within, *whole)) }
                        }
                    }
                }
            }
            @if names.len() >= Overlaps::MIN_SEGMENTS {
                p .note { a #combinations href=(overlap_link(&names, definition.window())) { "Show every combination of these segments" } }
            }
        }
        section aria-labelledby="calls" {
            h2 #calls { "Get this data from the API" }
            pre tabindex="0" { code { (base_url.get(&call)) } }
        }
    }
}

/// Renders the definition in words: `In sports, and in news or blogs, not in premium`.
fn words(definition: &Definition<'_>) -> Markup {
    let [all, any, none] = &definition.names;
    let list = |names: &[&str], conjunction: &str| {
        html! {
            @for (index, name) in names.iter().enumerate() {
                @if index > 0 { @if index + 1 == names.len() { " " (conjunction) " " } @else { ", " } }
                "“" (isolated(name)) "”"
            }
        }
    };
    html! {
        "In " (list(all, "and"))
        @if !all.is_empty() && !any.is_empty() { ", and in " }
        (list(any, "or"))
        @if !none.is_empty() { ", not in " (list(none, "or")) }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::domain::{Depth, Estimate};

    fn definition<'a>(all: &[&'a str], any: &[&'a str], none: &[&'a str]) -> Definition<'a> {
        let configured = Window::parse("14d").unwrap();
        let names = [all.to_vec(), any.to_vec(), none.to_vec()];
        Definition { names, suggestions: Vec::new(), window: configured, configured, is_bounded: false }
    }

    fn html(definition: &Definition<'_>, counted: Option<&CountedAudience<'_>>) -> String {
        page(definition, counted, &BaseUrl::at("http://localhost:8080")).into_string()
    }

    #[test]
    fn result_has_the_count_the_segments_and_the_request() {
        let definition = Definition { window: Window::parse("7d").unwrap(), ..definition(&["a & b"], &["c"], &["d"]) };
        let counted = CountedAudience {
            count: AudienceCount {
                count: 120.into(),
                counts: [480, 1_000, 0].map(Into::into).to_vec(),
                counts_within: [120, 90, 0].map(Into::into).to_vec(),
            },
            now: Timestamp::from_rfc3339("2026-11-22T10:00:00Z").unwrap(),
            unknown: Vec::new(),
        };
        let page = html(&definition, Some(&counted));
        for part in [
            "data-count=\"120\">120</p>",
            "users were seen in the last 7 days",
            "<td class=\"number\">480</td><td class=\"number\">120</td><td class=\"number\">25.0%</td>",
            "<td class=\"number\">1,000</td><td class=\"number\">90</td><td class=\"number\">9.0%</td>",
            "'http://localhost:8080/audience/count?all=a%20%26%20b&amp;any=c&amp;none=d&amp;window=7d'",
            "href=\"overlap?segment=a%20%26%20b&amp;segment=c&amp;segment=d&amp;window=7d\"",
            "href=\"audience?all=a%20%26%20b&amp;any=c&amp;none=d\">14 days</a>",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        assert!(!page.contains("data-refresh"), "it does not refresh periodically");
    }

    #[test]
    fn result_of_sampled_segments_has_its_error_and_explains_it_once() {
        let estimate = |kept| Estimate::sampled(kept, Depth::from_number(7).unwrap());
        let definition = Definition { is_bounded: true, ..definition(&["a"], &[], &["d"]) };
        let counted = CountedAudience {
            count: AudienceCount {
                count: estimate(120),
                counts: vec![estimate(480), estimate(20)],
                counts_within: vec![estimate(120), estimate(0)],
            },
            now: Timestamp::from_millis(0),
            unknown: Vec::new(),
        };
        let page = html(&definition, Some(&counted));
        for part in [
            "The count is an estimate if a segment is large.",
            "data-count=\"15360\">≈ 15,400 <small>± 18 %</small></p>",
            "<span title=\"± 8.9 %\">≈ 61,400</span></td>",
            "<td class=\"number\">≈ 25.0%</td>",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        assert_eq!(page.matches("≈ marks an estimate").count(), 1, "{page}");
    }

    #[rstest]
    #[case::all(&["a", "b"], &[], &[], "In “a” and “b”")]
    #[case::any(&[], &["a", "b", "c"], &[], "In “a”, “b” or “c”")]
    #[case::all_and_any(&["a"], &["b", "c"], &[], "In “a”, and in “b” or “c”")]
    #[case::all_and_none(&["a"], &[], &["b", "c"], "In “a”, not in “b” or “c”")]
    fn words_name_the_segments(
        #[case] all: &[&str],
        #[case] any: &[&str],
        #[case] none: &[&str],
        #[case] expected: &str,
    ) {
        let words = words(&definition(all, any, none)).into_string();
        assert_eq!(words.replace("<bdi>", "").replace("</bdi>", ""), expected);
    }

    #[test]
    fn page_without_a_segment_that_users_are_in_asks_for_one() {
        assert!(html(&definition(&[], &[], &["a"]), None).contains("id=\"one-more\""));
        assert!(!html(&definition(&[], &[], &[]), None).contains("id=\"one-more\""));
    }

    #[test]
    fn form_has_a_field_more_than_names_in_each_group() {
        let page = html(&definition(&["a", "b", "c"], &[], &["d"]), None);
        let fields = ["all", "any", "none"].map(|group| page.matches(&format!("name=\"{group}\"")).count());
        assert_eq!(fields, [4, 2, 2], "{page}");
    }
}
