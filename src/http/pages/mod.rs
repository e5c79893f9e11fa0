//! The pages for people who look at the numbers: HTML made here, by maud. They work without JavaScript, and ask no other host for
//! anything.
//!
//! `list.rs`, `segment.rs` (with `histogram.rs` and `history.rs`) and `overlap.rs` have a page each, `handlers.rs` what is asked for them,
//! `error.rs` what is shown instead when something is wrong, `files.rs` what all of them load. `layout.rs` has what surrounds each page, `chart.rs` the charts, `axis.rs` their ticks, `format.rs` numbers and times as
//! people read them, `names.rs` names, `links.rs` where links lead, `curl.rs` the calls behind a page. `auth.rs` says who may look.

mod auth;
mod axis;
mod chart;
mod curl;
pub(super) mod error;
mod files;
mod format;
mod handlers;
mod histogram;
mod history;
mod layout;
mod links;
mod list;
mod names;
mod overlap;
mod response;
mod segment;

pub use self::files::NAMES;
pub(super) use self::files::{__path_file, file};
pub(super) use self::handlers::{
    __path_of_list, __path_of_overlap, __path_of_segment, of_list, of_overlap, of_segment,
};
pub(super) use self::links::{BasePath, base_path};
