//! `segment-estimator import`: which file, how it is read, and where it goes.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;

use super::{ColumnOf, CsvForm, Form, Import, Service};
use crate::commands::data::Data;
use crate::commands::{Outcome, StopSignals};
use crate::config::Settings;
use crate::estimator::Estimator;
use crate::estimator::clock::Clock;
use crate::ingest::Ingest;

/// What to import, how it is to be read, and where it goes.
#[derive(Args)]
pub struct ImportCommand {
    /// File with visits, or - for standard input; gzip and zstd are unpacked
    file: PathBuf,
    /// What is in the file; without it, CSV if its name ends in .csv (.gz or .zst may follow), otherwise NDJSON
    #[arg(long)]
    format: Option<Format>,
    /// Columns of CSV that have names of their own, as in `user_id=uid,segment=tag,seen_at=at`; a number counts from 1
    #[arg(long, value_name = "FIELD=COLUMN", value_delimiter = ',')]
    columns: Vec<ColumnOf>,
    /// Column of CSV with the time of the visits, or `now` for the time of the import; it must be given if the header names
    /// further columns and no `seen_at`
    #[arg(long, value_name = "COLUMN|now")]
    seen_at: Option<SeenAt>,
    /// Take the first record of CSV for a visit; columns are `user_id`, `segment` and perhaps `seen_at` unless --columns gives
    /// their numbers
    #[arg(long)]
    no_header: bool,
    /// What is between the fields of CSV; `tab` for a tab [default: a comma]
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    delimiter: Option<u8>,
    /// Service to send the visits to, such as `http://localhost:8080`, instead of writing them into Redis
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// File with the token for that service
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
    /// Greatest body of a request to that service, in bytes, at least 16384 [default: 50,000 visits, about 3 MB]; a proxy may set
    /// a limit, such as 1048576
    #[arg(long, value_name = "BYTES", requires = "url", value_parser = batch_bytes)]
    batch_bytes: Option<usize>,
    /// File to write what is wrong with which line to, as NDJSON; without it, the first 20 go to standard error
    #[arg(long, value_name = "FILE")]
    errors: Option<PathBuf>,
    /// File that holds how far the import has come [default: the file's name with .import behind it]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Go on where an earlier run broke off
    #[arg(long)]
    resume: bool,
}

/// Where the time of a visit comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
enum SeenAt {
    Now,
    Column(ColumnOf),
}

impl FromStr for SeenAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "now" { Ok(Self::Now) } else { ColumnOf::of_seen_at(text).map(Self::Column) }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A visit in JSON on each line
    Ndjson,
    /// Comma-separated values
    Csv,
}

impl ImportCommand {
    /// Imports. The first signal ends it in good order, the second at once.
    ///
    /// # Errors
    ///
    /// The reason in one line, also when some lines were rejected.
    pub async fn run(&self, settings: &Settings) -> Outcome {
        let mut signals = StopSignals::new()?;
        let stop = CancellationToken::new();
        let work = self.import(settings, &stop);
        tokio::pin!(work);
        loop {
            tokio::select! {
                outcome = &mut work => return outcome,
                name = signals.next() => {
                    if stop.is_cancelled() {
                        return Err(format!("stopped at once by a second signal, {name}").into());
                    }
                    stop.cancel();
                }
            }
        }
    }

    async fn import(&self, settings: &Settings, stop: &CancellationToken) -> Outcome {
        let import = Import {
            file: self.file.clone(),
            form: self.form()?,
            errors: self.errors.clone(),
            state: self.state.clone(),
            resume: self.resume,
        };
        if let Some(url) = &self.url {
            let service = Service::new(url, self.token()?.as_deref(), self.batch_bytes);
            let service = service.map_err(|why| format!("--url: {why}"))?;
            return Ok(import.to_service(service, stop).await?);
        }
        let mut data = Data::open(settings).await?;
        let store = data.store.clone().with_partitions(settings.partitions);
        let (estimator, clock) = (Estimator::new(store, settings.window), Clock::system());
        let to = data.address.clone();
        let outcome = tokio::select! {
            outcome = import.to_redis(estimator, &to, &clock, stop) => outcome.map_err(Into::into),
            failure = data.supervise() => Err(failure),
        };
        data.close().await;
        outcome
    }

    fn form(&self) -> Result<Form, String> {
        let Self { file, format, columns, seen_at, no_header, delimiter, .. } = self;
        let is_csv_told = !columns.is_empty() || seen_at.is_some() || *no_header || delimiter.is_some();
        match format.unwrap_or_else(|| format_of(file)) {
            Format::Csv => {}
            Format::Ndjson if is_csv_told => {
                return Err(
                    "--columns, --seen-at, --no-header and --delimiter are for CSV: add --format csv".to_owned()
                );
            }
            Format::Ndjson => return Ok(Form::Ndjson),
        }
        let mut columns = columns.clone();
        if let Some(SeenAt::Column(column)) = seen_at {
            columns.push(column.clone());
        }
        let seen_at_now = *seen_at == Some(SeenAt::Now);
        let mut fields: Vec<_> = columns.iter().map(ColumnOf::field).collect();
        fields.extend(seen_at_now.then_some("seen_at"));
        fields.sort_unstable();
        if let Some([field, _]) = fields.array_windows().find(|[field, next]| field == next) {
            return Err(format!("the column of {field} is given twice, by --columns or --seen-at: give it once"));
        }
        let delimiter = delimiter.unwrap_or(b',');
        Ok(Form::Csv(CsvForm { delimiter, has_header: !no_header, columns, seen_at_now }))
    }

    fn token(&self) -> Result<Option<String>, String> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let token = fs::read_to_string(path).map_err(|error| format!("--token-file: {}: {error}", path.display()))?;
        match token.trim() {
            "" => Err(format!("--token-file: {} is empty", path.display())),
            token => Ok(Some(token.to_owned())),
        }
    }
}

/// What the name of a file tells of what is in it.
fn format_of(file: &Path) -> Format {
    let name = file.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let name = [".gz", ".zst"].iter().find_map(|packed| name.strip_suffix(packed)).unwrap_or(&name);
    if name.ends_with(".csv") { Format::Csv } else { Format::Ndjson }
}

/// A request holds at least one visit, and so must have room for the longest.
fn batch_bytes(text: &str) -> Result<usize, String> {
    let bytes: usize = text.parse().map_err(|_| "it must be a number of bytes, such as 1048576".to_owned())?;
    if bytes < Ingest::MAX_LINE_BYTES {
        return Err(format!("it must be at least {}, for a single visit may take as much", Ingest::MAX_LINE_BYTES));
    }
    Ok(bytes)
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [byte] if byte.is_ascii() && !byte.is_ascii_alphanumeric() && !b"\"\r\n".contains(byte) => Ok(*byte),
        b"tab" | b"\\t" => Ok(b'\t'),
        _ => Err("it is no single character such as ; or tab".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_file_tells_its_format() {
        for (file, is_csv) in [
            ("a/visits.csv", true),
            ("VISITS.CSV.GZ", true),
            ("visits.csv.zst", true),
            ("visits.ndjson", false),
            ("csv.jsonl.gz", false),
            ("-", false),
        ] {
            assert_eq!(format_of(Path::new(file)) == Format::Csv, is_csv, "{file}");
        }
    }

    #[test]
    fn the_size_of_a_request_has_room_for_any_visit() {
        assert_eq!(batch_bytes("16384"), Ok(16_384));
        for text in ["", "1MiB", "-1", "16383"] {
            assert!(batch_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_delimiter_is_one_character() {
        assert_eq!([delimiter(";"), delimiter("tab"), delimiter("\t")], [Ok(b';'), Ok(b'\t'), Ok(b'\t')]);
        for text in ["", ";;", "ü", "a", "\""] {
            assert!(delimiter(text).is_err(), "{text}");
        }
    }
}
