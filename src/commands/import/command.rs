//! The arguments of `segment-estimator import`.

use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, ValueEnum};
use tokio_util::sync::CancellationToken;

use super::{ColumnMapping, CsvFormat, Format, Import, Service};
use crate::commands::data::Data;
use crate::commands::{Outcome, StopSignals};
use crate::config::Settings;
use crate::estimator::Estimator;
use crate::estimator::clock::Clock;
use crate::ingest::Ingest;

/// The arguments of `import`.
#[derive(Args)]
pub struct ImportCommand {
    /// File with visits, or - for standard input; gzip and zstd are decompressed
    file: PathBuf,
    /// Format of the file; without it, CSV if the name ends in .csv, .csv.gz or .csv.zst, otherwise NDJSON
    #[arg(long)]
    format: Option<FormatName>,
    /// CSV columns with other names, as in `user_id=uid,segment=tag,seen_at=at`; a number counts from 1
    #[arg(long, value_name = "FIELD=COLUMN", value_delimiter = ',')]
    columns: Vec<ColumnMapping>,
    /// CSV column with the time of the visits, or `now` for the time of the import; required if there are further
    /// columns and no `seen_at`
    #[arg(long, value_name = "COLUMN|now")]
    seen_at: Option<SeenAt>,
    /// Read the first CSV record as a visit; the columns are `user_id`, `segment` and optionally `seen_at`, unless
    /// --columns gives their numbers
    #[arg(long)]
    no_header: bool,
    /// CSV delimiter; `tab` for a tab [default: a comma]
    #[arg(long, value_name = "CHARACTER", value_parser = delimiter)]
    delimiter: Option<u8>,
    /// Send the visits to the service at this URL, such as `http://localhost:8080`, instead of writing them into Redis
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// File with the token for that service
    #[arg(long, value_name = "FILE", requires = "url")]
    token_file: Option<PathBuf>,
    /// Limit on the body of a request in bytes, at least 16384 [default: 50,000 visits, about 3 MB]; a proxy may have a
    /// lower one, such as 1048576
    #[arg(long, value_name = "BYTES", requires = "url", value_parser = batch_bytes)]
    batch_bytes: Option<usize>,
    /// Write the errors of rejected lines to this file as NDJSON; without it, the first 20 go to standard error
    #[arg(long, value_name = "FILE")]
    errors: Option<PathBuf>,
    /// File for the progress of the import [default: the name of the input with .import appended]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Continue an interrupted import
    #[arg(long)]
    resume: bool,
    /// Validate the file and write no visits; needs no Redis
    #[arg(long, conflicts_with_all = ["url", "state", "resume"])]
    dry_run: bool,
}

/// The source of the time of a visit.
#[derive(Clone, PartialEq, Eq, Debug)]
enum SeenAt {
    Now,
    Column(ColumnMapping),
}

impl FromStr for SeenAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "now" { Ok(Self::Now) } else { ColumnMapping::of_seen_at(text).map(Self::Column) }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatName {
    /// A visit in JSON on each line
    Ndjson,
    /// Comma-separated values
    Csv,
}

impl ImportCommand {
    /// Imports the file. The first signal saves the progress and ends the import, the second aborts it.
    ///
    /// # Errors
    ///
    /// The reason in one line for the user, also if lines were rejected.
    pub async fn run(&self, settings: &Settings) -> Outcome {
        let mut signals = StopSignals::new()?;
        let stop = CancellationToken::new();
        let import = self.import(settings, &stop);
        tokio::pin!(import);
        loop {
            tokio::select! {
                outcome = &mut import => return outcome,
                name = signals.next() => {
                    if stop.is_cancelled() {
                        return Err(format!("aborted by a second signal, {name}").into());
                    }
                    stop.cancel();
                }
            }
        }
    }

    async fn import(&self, settings: &Settings, stop: &CancellationToken) -> Outcome {
        let import = Import {
            file: self.file.clone(),
            format: self.format()?,
            errors: self.errors.clone(),
            state: self.state.clone(),
            resume: self.resume,
        };
        if self.dry_run {
            return Ok(import.validate(settings.window, stop).await?);
        }
        if let Some(url) = &self.url {
            let service = Service::new(url, self.token()?.as_deref(), self.batch_bytes);
            let service = service.map_err(|why| format!("--url: {why}"))?;
            return Ok(import.to_service(service, stop).await?);
        }
        let mut data = Data::open(settings).await?;
        let store = settings.require_layout(data.store.clone());
        let (estimator, clock) = (Estimator::new(store, settings.window), Clock::system());
        let address = data.address.clone();
        let outcome = tokio::select! {
            outcome = import.to_redis(estimator, &address, &clock, stop) => outcome.map_err(Into::into),
            failure = data.supervise() => Err(failure),
        };
        data.close().await;
        outcome
    }

    fn format(&self) -> Result<Format, String> {
        let Self { file, format, columns, seen_at, no_header, delimiter, .. } = self;
        let has_csv_options = !columns.is_empty() || seen_at.is_some() || *no_header || delimiter.is_some();
        match format.unwrap_or_else(|| FormatName::of_file(file)) {
            FormatName::Csv => {}
            FormatName::Ndjson if has_csv_options => {
                return Err(
                    "--columns, --seen-at, --no-header and --delimiter are for CSV: add --format csv".to_owned()
                );
            }
            FormatName::Ndjson => return Ok(Format::Ndjson),
        }
        let mut columns = columns.clone();
        if let Some(SeenAt::Column(column)) = seen_at {
            columns.push(column.clone());
        }
        let seen_at_now = *seen_at == Some(SeenAt::Now);
        let mut fields: Vec<_> = columns.iter().map(ColumnMapping::field).collect();
        fields.extend(seen_at_now.then_some("seen_at"));
        fields.sort_unstable();
        if let Some([field, _]) = fields.array_windows().find(|[field, next]| field == next) {
            return Err(format!("the column of {field} is set twice, by --columns or --seen-at; set it once"));
        }
        let delimiter = delimiter.unwrap_or(b',');
        Ok(Format::Csv(CsvFormat { delimiter, has_header: !no_header, columns, seen_at_now }))
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

impl FormatName {
    /// Returns the format by the extension of `file`.
    fn of_file(file: &Path) -> Self {
        let name = file.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let name = [".gz", ".zst"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(&name);
        if name.ends_with(".csv") { Self::Csv } else { Self::Ndjson }
    }
}

/// Parses the limit on a request. It has room for the longest visit, since a request holds at least one.
fn batch_bytes(text: &str) -> Result<usize, String> {
    let bytes: usize = text.parse().map_err(|_| "it must be a number of bytes, such as 1048576".to_owned())?;
    if bytes < Ingest::MAX_LINE_BYTES {
        return Err(format!("it must be at least {}, the limit on a single visit", Ingest::MAX_LINE_BYTES));
    }
    Ok(bytes)
}

fn delimiter(text: &str) -> Result<u8, String> {
    match text.as_bytes() {
        [byte] if byte.is_ascii() && !byte.is_ascii_alphanumeric() && !b"\"\r\n".contains(byte) => Ok(*byte),
        b"tab" | b"\\t" => Ok(b'\t'),
        _ => Err("it must be a single character such as ; or tab".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_file_returns_the_format_of_an_extension() {
        for (file, is_csv) in [
            ("a/visits.csv", true),
            ("VISITS.CSV.GZ", true),
            ("visits.csv.zst", true),
            ("visits.ndjson", false),
            ("csv.jsonl.gz", false),
            ("-", false),
        ] {
            assert_eq!(FormatName::of_file(Path::new(file)) == FormatName::Csv, is_csv, "{file}");
        }
    }

    #[test]
    fn batch_bytes_has_room_for_any_visit() {
        assert_eq!(batch_bytes("16384"), Ok(16_384));
        for text in ["", "1MiB", "-1", "16383"] {
            assert!(batch_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn delimiter_accepts_one_character() {
        assert_eq!([delimiter(";"), delimiter("tab"), delimiter("\t")], [Ok(b';'), Ok(b'\t'), Ok(b'\t')]);
        for text in ["", ";;", "ü", "a", "\""] {
            assert!(delimiter(text).is_err(), "{text}");
        }
    }
}
