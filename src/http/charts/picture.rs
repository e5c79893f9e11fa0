//! A chart as a picture of its own, an SVG document for reports. It says what it shows, and loads nothing.

use std::borrow::Cow;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::BASE64;
use maud::{PreEscaped, html};

use super::Chart;
use super::plot::{self, BOTTOM, Canvas, LABEL_WIDTH, TOP};

/// A chart with its texts.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    pub title: &'a str,
    /// What is counted, and when.
    pub subtitles: [&'a str; 2],
    pub chart: &'a Chart,
    pub look: Look,
}

/// The looks of a picture.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    pub theme: Theme,
    /// In pixels.
    pub width: u16,
    /// In pixels.
    pub height: u16,
}

/// The colors of a picture, those of the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Theme {
    Light,
    Dark,
}

/// Colors by their names in the style sheet of the pages.
struct Palette {
    ground: &'static str,
    ink: &'static str,
    muted: &'static str,
    rule: &'static str,
    strong_rule: &'static str,
    accent: &'static str,
    fill: &'static str,
    gap: &'static str,
}

const MARGIN: f64 = 16.0;
/// Height of the title and the subtitles.
const HEAD: f64 = 76.0;
/// Height of the labels of the axes.
const FOOT: f64 = 26.0;
const FONTS: &str =
    "ui-sans-serif, system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'Noto Sans', Arial, sans-serif";

impl Look {
    pub const WIDTHS: [u16; 2] = [480, 2_000];
    pub const HEIGHTS: [u16; 2] = [240, 1_200];
    pub const DEFAULT: Self = Self { theme: Theme::Light, width: 800, height: 400 };
}

impl Theme {
    pub const NAMES: [&'static str; 2] = ["light", "dark"];

    /// Returns the theme of this name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Light, Self::Dark].into_iter().find(|theme| theme.name() == name)
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Light => Self::NAMES[0],
            Self::Dark => Self::NAMES[1],
        }
    }

    const fn palette(self) -> Palette {
        match self {
            Self::Light => Palette {
                ground: "#ffffff",
                ink: "#1b1f24",
                muted: "#59616b",
                rule: "#e2e3df",
                strong_rule: "#8a9099",
                accent: "#1d5c84",
                fill: "#4a86ad",
                gap: "#ededea",
            },
            Self::Dark => Palette {
                ground: "#13161a",
                ink: "#e7e9ec",
                muted: "#9da6b0",
                rule: "#2b3138",
                strong_rule: "#6b7580",
                accent: "#86bfe4",
                fill: "#5b9cc7",
                gap: "#20252b",
            },
        }
    }

    /// Returns the styles. Each begins with the class of the theme, so that pictures of both may be parts of one page.
    fn styles(self) -> String {
        let Palette { ground, ink, muted, rule, strong_rule, accent, fill, gap } = self.palette();
        let styles = [
            ("text", format!("fill:{muted};font-size:12px;font-variant-numeric:tabular-nums")),
            (".title", format!("fill:{ink};font-size:18px;font-weight:600")),
            (".ground", format!("fill:{ground}")),
            (".grid", format!("stroke:{rule};shape-rendering:crispEdges")),
            (".base", format!("stroke:{strong_rule}")),
            (".gap", format!("fill:{gap}")),
            (".fill", format!("fill:{fill}")),
            (".area", format!("fill:{fill};opacity:0.16")),
            (".line", format!("fill:none;stroke:{fill};stroke-width:2;stroke-linecap:round;stroke-linejoin:round")),
            (".live", format!("fill:{ground};stroke:{accent};stroke-width:2")),
        ];
        styles.map(|(selector, style)| format!(".{}-chart {selector}{{{style}}}", self.name())).concat()
    }

    /// Returns the policy of a picture: it may have its own styles, and nothing else.
    pub fn content_security_policy(self) -> String {
        let hash = BASE64.encode(digest(&SHA256, self.styles().as_bytes()).as_ref());
        format!("default-src 'none'; style-src 'sha256-{hash}'")
    }
}

impl Picture<'_> {
    /// Returns the SVG document.
    pub fn svg(&self) -> String {
        let Self { title, subtitles, chart, look } = *self;
        let (width, height) = (f64::from(look.width), f64::from(look.height));
        let counts = chart.counts();
        let left = MARGIN + LABEL_WIDTH;
        // Half of a label is beside the plot.
        let right = width - MARGIN - 8.0;
        let canvas = Canvas::Picture { width: right - left, height: height - HEAD - TOP - BOTTOM - FOOT };
        let svg = html! {
            svg xmlns="http://www.w3.org/2000/svg" width=(width) height=(height) viewBox={ "0 0 " (width) " " (height) }
                class={ (look.theme.name()) "-chart" } role="img" font-family=(FONTS) {
                title { (title) ": " (subtitles[0]) ", " (subtitles[1]) }
                desc { (chart.label) }
                style { (PreEscaped(look.theme.styles())) }
                rect .ground width=(width) height=(height) {}
                text .title x=(MARGIN) y="30" { (shortened(title, width - 2.0 * MARGIN)) }
                text x=(MARGIN) y="50" { (subtitles[0]) }
                text x=(MARGIN) y="67" { (subtitles[1]) }
                g transform={ "translate(" (MARGIN) " " (HEAD) ")" } { (plot::count_labels(&counts, canvas)) }
                g transform={ "translate(" (left) " " (HEAD) ")" } {
                    (plot::plot(chart, &counts, canvas))
                    @if chart.is_empty() {
                        text x=((right - left) / 2.0) y=(TOP + (height - HEAD - BOTTOM - FOOT) / 2.0) text-anchor="middle" { "No data" }
                    }
                }
                text x=(MARGIN) y=(height - 12.0) { "↑ Users" }
                text x=(right) y=(height - 12.0) text-anchor="end" { (chart.x_label) }
            }
        };
        svg.into_string()
    }
}

/// Cuts `title` to `width` pixels, by the usual widths of its characters.
fn shortened(title: &str, width: f64) -> Cow<'_, str> {
    let usual = |character| match character {
        'm' | 'w' | 'M' | 'W' | '@' | '%' => 17.0,
        'A'..='Z' => 13.0,
        ' '..='~' => 11.0,
        _ => 19.0,
    };
    let mut end = 0.0;
    let fitting = title.char_indices().find(|(_, character)| {
        end += usual(*character);
        end > width
    });
    match fitting {
        None => Cow::Borrowed(title),
        Some((index, _)) => Cow::Owned(format!("{}…", &title[..index])),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::http::charts::{Bar, Marks};

    fn picture(look: Look, bars: &[u64]) -> String {
        let bar = |count: &u64| Bar { count: *count, reading: "not shown".into() };
        let chart = Chart {
            label: "Bar chart.".into(),
            x_label: "days ago".into(),
            x_ticks: Vec::new(),
            marks: Marks::Bars(bars.iter().map(bar).collect()),
        };
        Picture { title: "a & <b>", subtitles: ["users", "as of now"], chart: &chart, look }.svg()
    }

    #[rstest]
    #[case::light(Theme::Light, "fill:#ffffff")]
    #[case::dark(Theme::Dark, "fill:#13161a")]
    fn picture_has_its_texts_its_size_and_the_styles_of_its_policy(#[case] theme: Theme, #[case] ground: &str) {
        let svg = picture(Look { theme, width: 600, height: 300 }, &[0, 50, 100]);
        let size = "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"600\" height=\"300\" viewBox=\"0 0 600 300\"";
        assert!(svg.starts_with(size), "{svg}");
        for text in [
            "<title>a &amp; &lt;b&gt;: users, as of now</title>",
            "<desc>Bar chart.</desc>",
            ">days ago</text>",
            ground,
        ] {
            assert!(svg.contains(text), "{text}: {svg}");
        }
        // The bars fill the plot: 300 pixels less the head, the foot and the labels.
        assert!(svg.contains(" height=\"164.0\"") && svg.contains(" height=\"82.0\""), "{svg}");
        assert!(!svg.contains("not shown") && !svg.contains("No data"), "{svg}");
        let styles = svg.split("<style>").nth(1).unwrap().split("</style>").next().unwrap();
        let hash = BASE64.encode(digest(&SHA256, styles.as_bytes()).as_ref());
        assert!(theme.content_security_policy().ends_with(&format!("style-src 'sha256-{hash}'")));
    }

    #[test]
    fn picture_without_counts_says_so() {
        assert!(picture(Look::DEFAULT, &[]).contains(">No data</text>"));
        assert!(!picture(Look::DEFAULT, &[0]).contains("No data"));
    }

    #[test]
    fn palettes_are_those_of_the_pages() {
        let sheet = include_str!("../pages/files/style.css");
        for theme in [Theme::Light, Theme::Dark] {
            let Palette { ink, muted, rule, strong_rule, accent, fill, gap, .. } = theme.palette();
            let colors = [
                ("ink", ink),
                ("muted", muted),
                ("rule", rule),
                ("strong-rule", strong_rule),
                ("accent", accent),
                ("fill", fill),
                ("gap", gap),
            ];
            for (name, color) in colors {
                assert!(sheet.contains(&format!("--{name}: {color};")), "{theme:?}: {name}");
            }
        }
    }

    #[rstest]
    #[case::short("sports", "sports")]
    #[case::long("wwwwwwwwwwwwwww", "wwwww…")]
    #[case::wide("音楽音楽音楽音楽", "音楽音楽音…")]
    fn title_is_cut_at_the_edge(#[case] title: &str, #[case] expected: &str) {
        assert_eq!(shortened(title, 100.0), expected);
    }
}
