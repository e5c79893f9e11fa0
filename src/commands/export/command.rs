//! `segment-estimator export`: which segments, and where they go.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Export, Exported};
use crate::commands::data::Data;
use crate::commands::progress::{Measure, Progress};
use crate::commands::{Failure, Outcome};
use crate::config::Settings;
use crate::domain::SegmentName;
use crate::estimator::clock::Clock;

/// What to export, and where to.
// No signal is handled: each ends it at once, and leaves the file that is replaced at the end as it was.
#[derive(Args)]
pub struct ExportCommand {
    /// Segment to export, and no others; may be repeated
    #[arg(long = "segment", value_name = "NAME", value_parser = segment)]
    segments: Vec<SegmentName<'static>>,
    /// File to write, which is there when it is complete; - is standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
}

impl ExportCommand {
    /// Exports.
    ///
    /// # Errors
    ///
    /// The reason in one line.
    pub async fn run(&self, settings: &Settings) -> Outcome {
        let mut data = Data::open(settings).await?;
        let store = data.store.clone().with_partitions(settings.partitions);
        let export = Export::new(store, settings.window, self.segments.clone());
        let exported = tokio::select! {
            exported = self.write(&export) => exported,
            failure = data.supervise() => Err(failure),
        };
        data.close().await;
        let Exported { visits, segments_failed } = exported?;
        // Nobody is left to tell if standard error is closed.
        let _ = writeln!(io::stderr(), "{visits} visits exported");
        match segments_failed {
            0 => Ok(()),
            failed => Err(format!("{failed} keys of segments hold something else than a sorted set").into()),
        }
    }

    async fn write(&self, export: &Export) -> Result<Exported, Failure> {
        let clock = Clock::system();
        if self.output == Path::new("-") {
            // No bar: the import at the other end of a pipe has one on the same terminal.
            let mut out = BufWriter::with_capacity(256 * 1024, io::stdout().lock());
            return Ok(export.write_to(&mut out, &clock, None).await?);
        }
        let mut part = self.output.clone().into_os_string();
        part.push(".part");
        let cant_write = |error: io::Error| format!("--output: can't write {}: {error}", self.output.display());
        let file = File::create(&part).map_err(cant_write)?;
        let mut out = BufWriter::with_capacity(256 * 1024, file);
        let progress = Progress::start(Measure::Things, None, "visits");
        let exported = export.write_to(&mut out, &clock, Some(&progress)).await;
        progress.end();
        let exported = exported.inspect_err(|_| {
            // What is not complete is of no use.
            let _ = fs::remove_file(&part);
        })?;
        out.get_ref().sync_all().map_err(cant_write)?;
        fs::rename(&part, &self.output).map_err(cant_write)?;
        Ok(exported)
    }
}

fn segment(text: &str) -> Result<SegmentName<'static>, String> {
    SegmentName::parse(text.to_owned()).map_err(|error| error.detail)
}
