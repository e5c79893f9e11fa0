//! The format of a CSV file: the delimiter, the header, and the columns that hold the fields of a visit.

use std::fmt;
use std::str::FromStr;

/// The fields of a visit. The last one is optional.
pub(super) const FIELDS: [&str; 3] = ["user_id", "segment", "seen_at"];
pub(super) const SEEN_AT: usize = 2;

/// How a CSV file is read.
#[derive(Debug, Clone)]
pub struct CsvFormat {
    /// The delimiter between the fields of a record.
    pub delimiter: u8,
    /// Whether the first record holds the names of the columns.
    pub has_header: bool,
    /// The columns whose names differ from the fields of a visit. Each field has at most one.
    pub columns: Vec<ColumnMapping>,
    /// Whether every visit takes the time of the import.
    pub seen_at_now: bool,
}

/// Writes the options of the command. Equal texts mean equal formats.
impl fmt::Display for CsvFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { delimiter, has_header, columns, seen_at_now } = self;
        write!(f, "csv --delimiter {:?}", char::from(*delimiter))?;
        if !has_header {
            f.write_str(" --no-header")?;
        }
        let mut columns: Vec<_> = columns.iter().collect();
        columns.sort_by_key(|column| column.field);
        for ColumnMapping { field, column } in columns {
            match column {
                Column::Name(name) => write!(f, " --columns {}={name:?}", FIELDS[*field])?,
                Column::Number(number) => write!(f, " --columns {}={}", FIELDS[*field], number + 1)?,
            }
        }
        if *seen_at_now { f.write_str(" --seen-at now") } else { Ok(()) }
    }
}

/// The column of a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnMapping {
    field: usize,
    column: Column,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Column {
    Name(String),
    /// Counted from 0.
    Number(usize),
}

/// Parses `user_id=uid`, or `user_id=1` for the first column.
impl FromStr for ColumnMapping {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (field, column) = text.split_once('=').ok_or("it must be FIELD=COLUMN, as in user_id=uid")?;
        let field = FIELDS.iter().position(|name| *name == field);
        let field = field.ok_or("the field must be user_id, segment or seen_at")?;
        Ok(Self { field, column: column.parse()? })
    }
}

impl ColumnMapping {
    /// Parses the name or number of the column of `seen_at`.
    ///
    /// # Errors
    ///
    /// The reason in one line.
    pub fn of_seen_at(column: &str) -> Result<Self, String> {
        Ok(Self { field: SEEN_AT, column: column.parse()? })
    }

    /// Returns the name of the field.
    #[must_use]
    pub fn field(&self) -> &'static str {
        FIELDS[self.field]
    }
}

impl FromStr for Column {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(0) => Err("the number of a column must be at least 1".to_owned()),
            Ok(number) => Ok(Self::Number(number - 1_usize)),
            Err(_) if text.trim().is_empty() => Err("the column must be a name or a number".to_owned()),
            Err(_) => Ok(Self::Name(text.to_owned())),
        }
    }
}

/// The indices of a visit's fields in a record.
#[derive(Debug, Clone, Copy)]
pub(super) struct FieldIndices {
    pub(super) of: [Option<usize>; 3],
    /// The number of fields that every record must have.
    pub(super) width: usize,
}

impl CsvFormat {
    /// Finds the fields in records of `width` fields. `names` are those of the header, if there is one.
    ///
    /// # Errors
    ///
    /// The reason in one line.
    pub(super) fn field_indices(&self, names: Option<&[&str]>, width: usize) -> Result<FieldIndices, String> {
        let mut of = [None; 3];
        for (field, index) in of.iter_mut().enumerate() {
            if field == SEEN_AT && self.seen_at_now {
                continue;
            }
            let set = self.columns.iter().find(|column| column.field == field).map(|column| &column.column);
            *index = match (set, names) {
                (Some(Column::Number(number)), _) if *number < width => Some(*number),
                (Some(Column::Number(number)), _) => {
                    let (number, name) = (number + 1, FIELDS[field]);
                    return Err(format!("there is no column {number} for {name}; the number of columns is {width}"));
                }
                (Some(Column::Name(name)), Some(names)) => find_column(field, name, names)?,
                (Some(Column::Name(_)), None) => {
                    let name = FIELDS[field];
                    return Err(format!("a file without a header needs the number of a column, as in {name}=1"));
                }
                (None, Some(names)) => find_column(field, FIELDS[field], names)?,
                // If other columns are set, the usual position of the time means nothing.
                (None, None) if field == SEEN_AT && !self.columns.is_empty() => None,
                (None, None) => Some(field).filter(|index| *index < width),
            };
            if index.is_none() && (field != SEEN_AT || set.is_some()) {
                let name = FIELDS[field];
                return Err(match (names, set) {
                    (Some(_), set) => format!(
                        "the header has no column {} for {name}; set the column with --columns, the delimiter with --delimiter, \
                         or --no-header if there is no header",
                        if let Some(Column::Name(column)) = set { column } else { name },
                    ),
                    (None, _) => format!("there is no column for {name}; the number of columns is {width}"),
                });
            }
        }
        for (later, index) in of.iter().enumerate().filter(|(_, index)| index.is_some()) {
            if let Some(earlier) = of[..later].iter().position(|other| other == index) {
                let column = index.map_or(0, |index| index + 1);
                let (earlier, later) = (FIELDS[earlier], FIELDS[later]);
                return Err(format!("{earlier} and {later} both use column {column}; set both with --columns"));
            }
        }
        if of[SEEN_AT].is_none() && !self.seen_at_now {
            self.refuse_further_columns(of, names, width)?;
        }
        Ok(FieldIndices { of, width })
    }

    /// Refuses records with columns that may hold the time under another name. A visit that takes the time of the
    /// import by mistake can't be corrected, since the latest time of a user counts.
    fn refuse_further_columns(
        &self,
        of: [Option<usize>; 3],
        names: Option<&[&str]>,
        width: usize,
    ) -> Result<(), String> {
        const MAX_NAMES: usize = 10;
        const MAX_NAME_CHARS: usize = 64;
        let further: Vec<_> = (0..width).filter(|index| !of.contains(&Some(*index))).collect();
        if further.is_empty() {
            return Ok(());
        }
        // If both fields are set by number, the first record may hold a user instead of names, so it isn't quoted.
        let is_number = |column: &&ColumnMapping| matches!(column.column, Column::Number(_));
        let names = names.filter(|_| self.columns.iter().filter(is_number).count() < SEEN_AT);
        let name = |index: &usize| match names.map(|names| names[*index]) {
            None | Some("") => format!("column {}", index + 1),
            Some(name) => name.chars().take(MAX_NAME_CHARS).flat_map(char::escape_debug).collect(),
        };
        let more = if further.len() > MAX_NAMES { ", ..." } else { "" };
        let further: Vec<_> = further.iter().take(MAX_NAMES).map(name).collect();
        Err(format!(
            "no column is named seen_at, but there are further columns: {}{more}; use --seen-at COLUMN for the column with the \
             time, or --seen-at now for the time of the import",
            further.join(", ")
        ))
    }
}

/// Returns the index of the column with the name `name`, ignoring case.
fn find_column(field: usize, name: &str, names: &[&str]) -> Result<Option<usize>, String> {
    let wanted = name.trim().to_lowercase();
    let mut found = (0..names.len()).filter(|index| names[*index].to_lowercase() == wanted);
    let first = found.next();
    match (first, found.next()) {
        (Some(first), Some(second)) => Err(format!(
            "the header has the column {name} twice, as column {} and as column {}; choose one by its number, as in --columns {}={}",
            first + 1,
            second + 1,
            FIELDS[field],
            first + 1,
        )),
        _ => Ok(first),
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn format(has_header: bool, columns: &[&str]) -> CsvFormat {
        let columns = columns.iter().map(|column| column.parse().unwrap()).collect();
        CsvFormat { delimiter: b',', has_header, columns, seen_at_now: false }
    }

    const NO_COLUMN: &str =
        "set the column with --columns, the delimiter with --delimiter, or --no-header if there is no header";
    const NO_TIME: &str =
        "use --seen-at COLUMN for the column with the time, or --seen-at now for the time of the import";

    #[rstest]
    #[case::no_user_id(true, &[], "uid,segment", format!("the header has no column user_id for user_id; {NO_COLUMN}"))]
    #[case::no_such_name(true, &["seen_at=at"], "user_id,segment", format!("the header has no column at for seen_at; {NO_COLUMN}"))]
    #[case::one_column_without_header(false, &[], "u1", "there is no column for segment; the number of columns is 1")]
    #[case::name_without_header(false, &["user_id=uid"], "u1,x", "a file without a header needs the number of a column, as in user_id=1")]
    #[case::number_beyond_the_last(false, &["seen_at=3"], "u1,x", "there is no column 3 for seen_at; the number of columns is 2")]
    #[case::same_number(false, &["user_id=2"], "x,u1", "user_id and segment both use column 2; set both with --columns")]
    #[case::same_name(true, &["segment=user_id"], "user_id", "user_id and segment both use column 1; set both with --columns")]
    #[case::seen_at_twice(true, &[], "user_id,segment,seen_at,Seen_At", "the header has the column seen_at twice, as column 3 and as column 4; choose one by its number, as in --columns seen_at=3")]
    #[case::user_id_twice(true, &[], "user_id,user_id,segment", "the header has the column user_id twice, as column 1 and as column 2; choose one by its number, as in --columns user_id=1")]
    #[case::chosen_name_twice(true, &["segment=Tag"], "user_id,tag,TAG", "the header has the column Tag twice, as column 2 and as column 3; choose one by its number, as in --columns segment=2")]
    #[case::time_of_another_name(true, &[], "user_id,segment,timestamp", format!("no column is named seen_at, but there are further columns: timestamp; {NO_TIME}"))]
    #[case::several_further_columns(true, &["user_id=uid"], "last_seen,uid,segment,,\u{1b}x", format!("no column is named seen_at, but there are further columns: last_seen, column 4, \\u{{1b}}x; {NO_TIME}"))]
    #[case::many_further_columns(true, &[], "user_id,segment,1,2,3,4,5,6,7,8,9,10,11", format!("no column is named seen_at, but there are further columns: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ...; {NO_TIME}"))]
    #[case::numbers_and_a_further_column(true, &["user_id=1", "segment=2"], "u1,sports,me@example.org", format!("no column is named seen_at, but there are further columns: column 3; {NO_TIME}"))]
    #[case::further_column_without_header(false, &["user_id=1", "segment=2"], "u1,sports,2", format!("no column is named seen_at, but there are further columns: column 3; {NO_TIME}"))]
    fn field_indices_names_what_is_missing_or_ambiguous(
        #[case] has_header: bool,
        #[case] columns: &[&str],
        #[case] first_record: &str,
        #[case] expected: impl AsRef<str>,
    ) {
        let names: Vec<_> = first_record.split(',').collect();
        let indices = format(has_header, columns).field_indices(has_header.then_some(&names), names.len());
        assert_eq!(indices.unwrap_err(), expected.as_ref());
    }

    #[test]
    fn display_has_the_options_in_a_fixed_order() {
        let by_name = format(false, &["segment=tag", "user_id=2"]);
        assert_eq!(
            by_name.to_string(),
            "csv --delimiter ',' --no-header --columns user_id=2 --columns segment=\"tag\""
        );
        let now = CsvFormat { delimiter: b'\t', seen_at_now: true, ..format(true, &[]) };
        assert_eq!(now.to_string(), "csv --delimiter '\\t' --seen-at now");
    }

    #[rstest]
    #[case::no_column("uid")]
    #[case::unknown_field("uid=user_id")]
    #[case::number_0("user_id=0")]
    #[case::empty_name("user_id=")]
    #[case::blank_name("user_id= ")]
    fn parse_refuses_an_invalid_mapping(#[case] text: &str) {
        assert!(text.parse::<ColumnMapping>().is_err());
    }
}
