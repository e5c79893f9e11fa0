//! The arguments of `segment-estimator export`, and its output file.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use clap::Args;

use super::{Export, ExportCounts};
use crate::commands::data::Data;
use crate::commands::progress::{Progress, Unit};
use crate::commands::{Failure, Outcome};
use crate::config::Settings;
use crate::domain::{SegmentName, counted};
use crate::estimator::clock::Clock;

/// The arguments of `export`.
// Signals aren't handled: each ends the command, and the output file keeps its earlier content until the end.
#[derive(Args)]
pub struct ExportCommand {
    /// Export only this segment; may be repeated
    #[arg(long = "segment", value_name = "NAME", value_parser = segment)]
    segments: Vec<SegmentName<'static>>,
    /// Output file, created when the export is complete; - is standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// Export segments that keep a sample as well, and add a `weight` to each line: how many users it stands for
    ///
    /// Without it, a data set with such segments is refused. `import` refuses lines with another weight than 1.
    #[arg(long)]
    sample: bool,
}

impl ExportCommand {
    /// Exports to the output.
    ///
    /// # Errors
    ///
    /// The reason in one line for the user.
    pub async fn run(&self, settings: &Settings) -> Outcome {
        let mut data = Data::open_existing(settings).await?;
        let store = settings.require_layout(data.store.clone());
        let export = Export::new(store, settings.window, self.segments.clone());
        let export = if self.sample { export.with_weights() } else { export };
        let exported = tokio::select! {
            exported = self.write(&export) => exported,
            failure = data.supervise() => Err(failure),
        };
        data.close().await;
        let ExportCounts { visits, segments_failed } = exported?;
        // An error here means that standard error is closed.
        let _ = writeln!(io::stderr(), "{} exported", counted(visits, "visit", "visits"));
        match segments_failed {
            0 => Ok(()),
            failed => Err(format!("skipped keys of segments that are not sorted sets: {failed}").into()),
        }
    }

    async fn write(&self, export: &Export) -> Result<ExportCounts, Failure> {
        let clock = Clock::system();
        if self.output == Path::new("-") {
            // No bar: an import at the other end of the pipe shows one on the same terminal.
            let mut out = BufWriter::with_capacity(256 * 1024, io::stdout().lock());
            return Ok(export.write_to(&mut out, &clock, None).await?);
        }
        let mut part = self.output.clone().into_os_string();
        part.push(".part");
        let failed = |error: io::Error| format!("--output: failed to write {}: {error}", self.output.display());
        let file = File::create(&part).map_err(failed)?;
        let mut out = BufWriter::with_capacity(256 * 1024, file);
        let progress = Progress::start(Unit::Items, None, "visits");
        let exported = export.write_to(&mut out, &clock, Some(&progress)).await;
        progress.finish();
        let exported = exported.inspect_err(|_| {
            // An incomplete file is useless.
            let _ = fs::remove_file(&part);
        })?;
        out.get_ref().sync_all().map_err(failed)?;
        fs::rename(&part, &self.output).map_err(failed)?;
        Ok(exported)
    }
}

fn segment(text: &str) -> Result<SegmentName<'static>, String> {
    SegmentName::parse(text.to_owned()).map_err(|error| error.detail)
}
