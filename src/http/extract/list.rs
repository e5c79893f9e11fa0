//! The query parameters that choose and order the segments of a list.

use utoipa::IntoParams;

use super::query::Parameters;
use crate::domain::{SegmentName, Window};
use crate::estimator::{ListCursor, ListQuery, NameFilter, Order};
use crate::http::cursor;
use crate::http::docs::openapi::schemas;
use crate::http::problem::Result;

schemas::schema_type!(NamePart = schemas::text(SegmentName::MAX_BYTES));

/// The names, the order and the page of a list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// List only segments whose names start with this.
    #[param(inline, value_type = Option<NamePart>, example = "")]
    prefix: String,
    /// List only segments whose names contain this, in upper or lower case.
    #[param(inline, value_type = Option<NamePart>, example = "")]
    contains: String,
    /// `name` for the order of the names' bytes; `count` for the largest first; `change` for the largest growth in a
    /// week first; `-change` for the largest loss in a week first; `new` for the segments first whose histories began
    /// last, and before them those without a sample. The default is `name` in the API, and `count` on the page.
    /// Segments that have lost all users are not listed. A change within the error of its counts is none. If no history
    /// is recorded, `change` and `-change` are the order of names.
    #[param(inline, value_type = Option<schemas::SegmentOrder>, example = "name")]
    sort: Order,
    /// The `next_cursor` or `previous_cursor` of another page.
    #[param(value_type = Option<String>, example = "bjphcnQ")]
    cursor: Option<ListCursor>,
}

impl ListParams {
    /// Parses the parameters of a list whose order is `default_order` without `sort`.
    ///
    /// # Errors
    ///
    /// A [`Problem`](crate::http::problem::Problem) that names the first invalid parameter.
    pub fn parse(query: &Parameters, default_order: Order) -> Result<Self> {
        let part = |name| query.one(name, name_part).map(Option::unwrap_or_default);
        let (prefix, contains) = (part("prefix")?, part("contains")?);
        let sort = query.one("sort", order)?.unwrap_or(default_order);
        let names = NameFilter::new(&prefix, &contains);
        let cursor = query.one("cursor", |text| cursor::decode(text, sort, &names))?;
        Ok(Self { prefix, contains, sort, cursor })
    }

    /// Removes the white space around the part of the names, which people type and names don't have at their ends.
    pub fn trimmed(mut self) -> Self {
        self.contains = self.contains.trim().to_owned();
        self
    }

    /// Returns the query for up to `limit` segments, with counts over `window`.
    pub fn into_query(self, limit: usize, window: Window) -> ListQuery {
        let Self { prefix, contains, sort: order, cursor } = self;
        ListQuery { prefix, contains, order, limit, cursor, window }
    }
}

fn name_part(text: &str) -> std::result::Result<String, String> {
    const MAX_BYTES: usize = SegmentName::MAX_BYTES;
    match text.len() {
        0..=MAX_BYTES => Ok(text.to_owned()),
        _ => Err(format!("must have at most {MAX_BYTES} bytes")),
    }
}

fn order(text: &str) -> std::result::Result<Order, String> {
    match text {
        "name" => Ok(Order::Name),
        "count" => Ok(Order::Count),
        "change" => Ok(Order::Growth),
        "-change" => Ok(Order::Decline),
        "new" => Ok(Order::Newest),
        _ => Err("must be name, count, change, -change or new".to_owned()),
    }
}
