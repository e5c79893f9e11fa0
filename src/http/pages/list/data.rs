//! The data of the page, and links to other pages of the list.

use std::time::Duration;

use maud::{Markup, html};

use super::super::change;
use super::super::layout::Counts;
use super::super::links::{window_parameter, with_query};
use super::super::windows::unless_configured;
use crate::domain::{Estimate, SegmentName, Timestamp, Window};
use crate::estimator::{Change, CountedSegment, Order};

/// Segments per page unless the reader chooses another number.
pub const DEFAULT_ROWS: usize = 100;
/// Maximum number of segments per page.
pub const MAX_ROWS: usize = 1_000;
/// Numbers of segments per page that the page offers.
pub const OFFERED_ROWS: [usize; 3] = [DEFAULT_ROWS, 500, MAX_ROWS];

/// Data of the page.
pub struct List<'a> {
    /// The segments of this page, in order.
    pub rows: Vec<Row>,
    /// Prefix of the names.
    pub prefix: &'a str,
    /// A part of the names.
    pub contains: &'a str,
    pub order: Order,
    /// Cursor of the previous page.
    pub previous: Option<String>,
    /// Cursor of the next page.
    pub next: Option<String>,
    /// Whether this is the first page.
    pub is_first: bool,
    /// Number of segments before this page, if it is known.
    pub before: Option<u64>,
    /// Number of segments on all pages, if it is known.
    pub total: Option<u64>,
    /// Maximum number of segments per page.
    pub limit: usize,
    /// Count of the largest segment, whether or not it is on this page.
    pub largest: u64,
    /// Time of the counts.
    pub now: Timestamp,
    /// Window of the counts.
    pub window: Window,
    /// The longest window.
    pub configured: Window,
    /// Names similar to a search that found nothing.
    pub similar: Vec<SegmentName<'static>>,
}

impl List<'_> {
    pub fn is_filtered(&self) -> bool {
        !(self.prefix.is_empty() && self.contains.is_empty())
    }

    /// Returns the first page of the same names in this order, without its rows.
    pub fn first_page(&self, order: Order) -> Self {
        List { order, rows: Vec::new(), next: None, previous: None, similar: Vec::new(), ..*self }
    }

    /// Whether the changes decide about the order.
    pub fn is_by_change(&self) -> bool {
        matches!(self.order, Order::Growth | Order::Decline)
    }

    /// Renders the change of `row` in a week.
    pub fn change_of(&self, row: &Row) -> Markup {
        const WEEK: Duration = Duration::from_secs(7 * 86_400);
        let changes = row.counted.changes;
        match changes.week {
            Some(week) => change::change(week),
            None if changes.first_sampled_at.is_none_or(|first| first > self.now - WEEK) => html! { "new" },
            None => html! { "–" },
        }
    }

    /// Returns whether the page shows estimates.
    pub fn counts(&self) -> Counts {
        Counts::of(self.rows.iter().flat_map(|row| {
            let CountedSegment { count, changes, .. } = &row.counted;
            let change = changes.week.map(Change::difference);
            row.trend.iter().copied().chain([*count, change]).flatten()
        }))
    }

    /// Returns the window unless it is the configured one.
    pub fn shorter_window(&self) -> Option<Window> {
        unless_configured(self.window, self.configured)
    }
}

/// Row of the list.
#[derive(Clone)]
pub struct Row {
    pub counted: CountedSegment,
    /// Past counts, in even steps until now.
    pub trend: Vec<Option<Estimate>>,
}

/// Returns the parameter `sort`, which the default order omits.
pub const fn sort_parameter(order: Order) -> &'static str {
    match order {
        Order::Count => "",
        Order::Name => "name",
        Order::Growth => "change",
        Order::Decline => "-change",
        Order::Newest => "new",
    }
}

/// Returns the parameter `limit`, which the default number omits.
pub fn limit_parameter(limit: usize) -> String {
    if limit == DEFAULT_ROWS { String::new() } else { limit.to_string() }
}

pub const fn order_label(order: Order) -> &'static str {
    match order {
        Order::Count => "largest first",
        Order::Name => "by name",
        Order::Growth => "largest gain in 7 days first",
        Order::Decline => "largest loss in 7 days first",
        Order::Newest => "newest first",
    }
}

/// Returns the call of the API for the segments of all pages, up to its maximum.
pub fn call(list: &List<'_>) -> String {
    let sort = if list.order == Order::Count { "count" } else { sort_parameter(list.order) };
    let (limit, window) = (MAX_ROWS.to_string(), window_parameter(list.shorter_window()));
    let parameters =
        [("prefix", list.prefix), ("contains", list.contains), ("sort", sort), ("window", &window), ("limit", &limit)];
    with_query("segments", parameters)
}

/// Returns the link to the page of `list` at `cursor`.
pub fn link(list: &List<'_>, cursor: Option<&str>) -> String {
    let (limit, window) = (limit_parameter(list.limit), window_parameter(list.shorter_window()));
    let parameters = [
        ("prefix", list.prefix),
        ("contains", list.contains),
        ("sort", sort_parameter(list.order)),
        ("window", &window),
        ("limit", &limit),
        ("cursor", cursor.unwrap_or_default()),
    ];
    with_query("./", parameters)
}
