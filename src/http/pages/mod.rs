//! HTML pages with the numbers, rendered by maud. They work without JavaScript and load nothing from other hosts.
//!
//! `handlers` reads the data. `list` (with `welcome`), `segment` (with `histogram` and `history`), `unknown`, `overlap` and
//! `audience` each render a page, `error` an error page. They share `layout`, `chart`, `spark`, `change`, `names`, `links`,
//! `download`, `ranges`, `estimate` and `curl`. `/docs` has the same layout.

mod audience;
mod auth;
mod change;
mod chart;
mod curl;
mod download;
pub mod error;
mod estimate;
mod fields;
mod files;
mod handlers;
mod histogram;
mod history;
pub mod layout;
mod links;
mod list;
pub mod names;
mod overlap;
mod ranges;
mod response;
mod segment;
mod similar;
mod spark;
mod unknown;
mod welcome;
mod windows;

pub use self::files::{__path_file, file};
pub use self::handlers::{
    __path_audience, __path_list, __path_overlap, __path_segment, audience, list, overlap, segment,
};
pub use self::links::{BasePath, base_path};
