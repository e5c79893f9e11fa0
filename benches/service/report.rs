//! The report as Markdown: first every target and whether it is reached, then the figures of each part.

use std::fmt::{self, Write as _};

/// The report of a part.
pub struct Part {
    pub title: &'static str,
    /// The description of the measurement.
    pub note: String,
    pub columns: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
    pub checks: Vec<Check>,
}

/// A figure and its target.
pub struct Check {
    measure: String,
    figure: String,
    target: String,
    /// What the table says of the target.
    reached: &'static str,
}

impl Check {
    /// `values` must be at least `limit` times `against`; see [`Ratio`].
    pub fn at_least(measure: impl AsRef<str>, values: &[f64], against: &[f64], limit: f64) -> Self {
        let ratio = Ratio::of(values, against);
        Self::with_ratio(measure.as_ref(), &ratio, format!("≥ {limit:.2} x"), |ratio| ratio >= limit)
    }

    /// `values` must be at most `limit` times `against`; see [`Ratio`].
    pub fn at_most(measure: impl AsRef<str>, values: &[f64], against: &[f64], limit: f64) -> Self {
        let ratio = Ratio::of(values, against);
        Self::with_ratio(measure.as_ref(), &ratio, format!("≤ {limit:.2} x"), |ratio| ratio <= limit)
    }

    /// Distinguishes targets that each round reaches, the median, some rounds, or none.
    fn with_ratio(measure: &str, ratio: &Ratio, target: String, is_reached: impl Fn(f64) -> bool) -> Self {
        let of_rounds = [ratio.least, ratio.most].map(&is_reached);
        let reached = match (is_reached(ratio.median), of_rounds) {
            (true, [true, true]) => "yes",
            (true, _) => "yes, by the median",
            (false, [false, false]) => "**no**",
            (false, _) => "no, by the median",
        };
        Self { measure: measure.to_owned(), figure: ratio.to_string(), target, reached }
    }

    /// Returns a check with formatted texts.
    pub fn of(measure: &str, figure: String, target: &str, is_reached: bool) -> Self {
        let reached = if is_reached { "yes" } else { "**no**" };
        Self { measure: measure.to_owned(), figure, target: target.to_owned(), reached }
    }

    /// Returns a ratio without a target.
    pub fn without_target(measure: &str, values: &[f64], against: &[f64]) -> Self {
        let figure = Ratio::of(values, against).to_string();
        Self { measure: measure.to_owned(), figure, target: "none".to_owned(), reached: "" }
    }
}

/// The median, minimum and maximum of the rounds' ratios. A temporary disturbance of the machine affects both sides of
/// a round, so it affects these ratios less than the ratio of the medians.
struct Ratio {
    median: f64,
    least: f64,
    most: f64,
}

impl Ratio {
    fn of(values: &[f64], against: &[f64]) -> Self {
        let ratios: Vec<_> = values.iter().zip(against).map(|(value, against)| value / against).collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        Self { median: median(ratios), least, most }
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.2} x", self.median)?;
        if self.least < self.most { write!(f, " ({:.2}–{:.2})", self.least, self.most) } else { Ok(()) }
    }
}

/// Returns the value in the middle, or the mean of the two in the middle.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { values[middle - 1].midpoint(values[middle]) }
}

/// Formats all parts as Markdown.
pub fn markdown(parts: &[Part]) -> String {
    let mut checks = Vec::new();
    for part in parts {
        for check in &part.checks {
            let row = [part.title, &check.measure, &check.figure, &check.target, check.reached];
            checks.push(row.map(str::to_owned).to_vec());
        }
    }
    let mut text = table(&["part", "measure", "figure", "target", "reached"], &checks);
    text.push_str("\nA ratio is the median of the rounds' ratios, with their minimum and maximum in brackets. *By the median* means \
                   that not all rounds agree.\n");
    for part in parts {
        let _ = write!(text, "\n### {}\n\n{}\n\n", part.title, part.note);
        text.push_str(&table(&part.columns, &part.rows));
    }
    text
}

fn table(columns: &[&str], rows: &[Vec<String>]) -> String {
    let mut text = format!("| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len()));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

/// Formats a number with separators: `61,500`.
pub fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats microseconds as milliseconds: `1.25`.
pub fn milliseconds(microseconds: f64) -> String {
    format!("{:.2}", microseconds / 1e3)
}

/// Formats bytes as mebibytes: `12.3 MiB`.
pub fn mebibytes(bytes: f64) -> String {
    format!("{:.1} MiB", bytes / 1024.0 / 1024.0)
}
