//! The data of the page, and links to other pages of the list.

use super::super::links::with_query;
use crate::domain::{Timestamp, Window};
use crate::estimator::{CountedSegment, Order};

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
}

impl List<'_> {
    pub fn is_filtered(&self) -> bool {
        !(self.prefix.is_empty() && self.contains.is_empty())
    }

    /// Returns the first page of the same names in this order, without its rows.
    pub fn first_page(&self, order: Order) -> Self {
        List { order, rows: Vec::new(), next: None, previous: None, ..*self }
    }
}

/// Row of the list.
#[derive(Clone)]
pub struct Row {
    pub counted: CountedSegment,
    /// Past counts, in even steps until now.
    pub trend: Vec<Option<u64>>,
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
        Order::Growth => "the fastest growing first",
        Order::Decline => "the fastest shrinking first",
        Order::Newest => "the newest first",
    }
}

/// Returns the call of the API for the segments of all pages, up to its maximum.
pub fn call(list: &List<'_>) -> String {
    let sort = if list.order == Order::Count { "count" } else { sort_parameter(list.order) };
    let limit = MAX_ROWS.to_string();
    let parameters = [("prefix", list.prefix), ("contains", list.contains), ("sort", sort), ("limit", &limit)];
    with_query("segments", parameters)
}

/// Returns the link to the page of `list` at `cursor`.
pub fn link(list: &List<'_>, cursor: Option<&str>) -> String {
    let limit = limit_parameter(list.limit);
    let parameters = [
        ("prefix", list.prefix),
        ("contains", list.contains),
        ("sort", sort_parameter(list.order)),
        ("limit", &limit),
        ("cursor", cursor.unwrap_or_default()),
    ];
    with_query("./", parameters)
}
