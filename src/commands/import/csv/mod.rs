//! CSV: the format of a file, and its records as visits.

mod format;
mod records;

pub use self::format::{ColumnMapping, CsvFormat};
pub(super) use self::records::{CsvRecord, CsvRecords};
