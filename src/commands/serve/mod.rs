//! `segment-estimator serve`: serves HTTP until a signal.

mod app;
mod listener;
mod reloaded_files;
mod reloader;
mod run;
mod watched_files;

use std::io;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

pub use self::app::{App, AppError};
pub use self::listener::ListenError;
pub use self::reloader::{FileChecks, Reloader};
use super::outcome::Outcome;
use super::stop_signals::StopSignals;
use crate::config::{OtelVariables, Settings};
use crate::telemetry::{self, LogFormat, Traces};

/// Serves with logs and traces.
pub(super) fn serve_traced(settings: &Settings, runtime: Runtime) -> Outcome {
    // Outside the runtime: the exporter has its own thread and runtime, which must not end inside another runtime.
    let variables = OtelVariables::read();
    let started = settings.traces().map(|config| Traces::start(&config, variables.batch_limits)).transpose();
    let (traces, failure) = started.map_or_else(|error| (None, Some(error)), |traces| (traces, None));
    let log_format = settings.log_format.unwrap_or_else(LogFormat::for_stderr);
    telemetry::init(log_format, &settings.log_filter, traces.as_ref());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), commit = crate::COMMIT, "starting");
    for warning in &variables.warnings {
        tracing::warn!("{warning}");
    }
    // Traces are worth no outage.
    if let Some(error) = failure {
        tracing::warn!(error, "failed to start the exporter of traces; nothing is traced");
    }
    let outcome = runtime.block_on(serve(settings));
    if let Some(traces) = traces {
        traces.shut_down();
    }
    end(runtime);
    outcome
}

/// Ends the runtime. A read from a network volume may hang for good, and must not keep the process alive.
fn end(runtime: Runtime) {
    const TIMEOUT: Duration = Duration::from_secs(1);
    runtime.shutdown_timeout(TIMEOUT);
}

async fn serve(settings: &Settings) -> Outcome {
    let descriptors = raise_descriptor_limit()?;
    let mut signals = StopSignals::new()?;
    // Without a handler SIGHUP would end the process.
    let mut hangups = signal(SignalKind::hangup())?;
    let app = tokio::select! {
        app = App::build(settings) => app?,
        name = signals.next() => {
            tracing::info!(signal = name, "stopped during the start");
            return Ok(());
        }
    };
    warn_of_few_descriptors(descriptors, settings.max_connections);
    let stop = CancellationToken::new();
    let reloader = app.reloader();
    let running = app.run_until(stop.cancelled());
    tokio::pin!(running);
    loop {
        tokio::select! {
            outcome = &mut running => return Ok(outcome?),
            _ = hangups.recv() => reloader.reload(),
            name = signals.next() => {
                tracing::info!(signal = name, "stopping");
                break;
            }
        }
    }
    stop.cancel();
    tokio::select! {
        outcome = running => Ok(outcome?),
        name = signals.next() => Err(format!("aborted by a second signal, {name}").into()),
    }
}

/// Raises the limit of descriptors to the hard limit of the system, and returns it. Many systems set the soft limit to
/// 1,024 for old programs.
fn raise_descriptor_limit() -> io::Result<usize> {
    let limit = rlimit::increase_nofile_limit(u64::MAX)?;
    Ok(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// Warns if the descriptors run out before `max_connections` is reached.
fn warn_of_few_descriptors(descriptors: usize, connections: usize) {
    /// Descriptors for Redis, the log, listeners and files.
    const OTHERS: usize = 100;
    if descriptors < connections.saturating_add(OTHERS) {
        tracing::warn!(descriptors, "max_connections exceeds the system's limit of descriptors");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn end_does_not_wait_for_a_read_that_hangs() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (release, released) = mpsc::channel::<()>();
        let (started, is_started) = mpsc::channel();
        runtime.spawn_blocking(move || {
            started.send(()).unwrap();
            released.recv()
        });
        is_started.recv().unwrap();
        end(runtime);
        // Without the timeout, `end` waits for this.
        drop(release);
    }
}
