//! Reloading of keys and certificates, when their files change and at SIGHUP.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{JoinHandle, spawn_blocking};

use super::reloaded_files::ReloadedFiles;
use super::watched_files::Change;
use crate::auth::{Authenticator, KeyCounts};
use crate::config::SecretFile;
use crate::telemetry::Metrics;

/// Requests reloads.
#[derive(Debug, Clone, Default)]
pub struct Reloader(Arc<Notify>);

impl Reloader {
    /// Requests a reload of all files, whether they changed or not.
    pub fn reload(&self) {
        self.0.notify_one();
    }
}

/// How often files are checked. A change takes effect after at most `interval` and two times `settle`.
#[derive(Debug, Clone, Copy)]
pub struct FileChecks {
    /// The time between two checks.
    pub interval: Duration,
    /// The time between two checks while a change is not loaded yet.
    pub settle: Duration,
}

impl Default for FileChecks {
    fn default() -> Self {
        Self { interval: Duration::from_secs(13), settle: Duration::from_secs(1) }
    }
}

/// How long reading the files may take until it is reported. A network volume may hang.
const READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Waits for `work`, and calls `on_timeout` once it has taken `timeout`. Returns whether it has.
async fn observe<T>(mut work: JoinHandle<T>, timeout: Duration, on_timeout: impl FnOnce()) -> (T, bool) {
    const PANIC: &str = "a reload doesn't panic";
    if let Ok(outcome) = tokio::time::timeout(timeout, &mut work).await {
        return (outcome.expect(PANIC), false);
    }
    on_timeout();
    (work.await.expect(PANIC), true)
}

/// Reloads API keys, JWT keys and certificates.
#[derive(Debug)]
pub(super) struct ReloadJob {
    requests: Reloader,
    authenticator: Arc<Authenticator>,
    files: Vec<ReloadedFiles>,
    secret_files: Vec<SecretFile>,
    metrics: Arc<Metrics>,
}

impl ReloadJob {
    /// Creates the job for loaded `files`.
    pub(super) fn new(
        authenticator: Arc<Authenticator>,
        files: Vec<ReloadedFiles>,
        secret_files: Vec<SecretFile>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let job = Self { requests: Reloader::default(), authenticator, files, secret_files, metrics };
        if !job.authenticator.is_open() {
            let KeyCounts { api, jwt } = job.authenticator.key_counts();
            tracing::info!(api_keys = api, jwt_keys = jwt, "requests need a token");
        }
        job.report();
        job
    }

    /// Returns the handle that requests reloads.
    pub(super) fn reloader(&self) -> Reloader {
        self.requests.clone()
    }

    /// Checks the files at intervals, and reloads them at requests. Runs without end.
    pub(super) async fn run(mut self, checks: FileChecks) {
        let (requests, mut pause) = (self.reloader(), checks.interval);
        loop {
            let is_requested = tokio::select! {
                () = tokio::time::sleep(pause) => false,
                () = requests.0.notified() => true,
            };
            // A file may be on a network, and the keys of a large set take milliseconds to check.
            let names: Vec<_> = self.files.iter().map(ReloadedFiles::name).collect();
            let metrics = Arc::clone(&self.metrics);
            let work = spawn_blocking(move || {
                let is_unsettled = if is_requested { self.reload() } else { self.check() };
                (self, if is_unsettled { checks.settle } else { checks.interval })
            });
            let ((job, next), is_late) = observe(work, READ_TIMEOUT, || {
                tracing::error!(
                    "reading the files of keys and certificates hangs; changes have no effect until it ends"
                );
                for name in names {
                    metrics.http.set_reload_successful(name, false);
                }
            })
            .await;
            (self, pause) = (job, next);
            if is_late {
                // Reports the outcome.
                requests.reload();
            }
        }
    }

    /// Reloads all files. Returns that none is changing.
    fn reload(&mut self) -> bool {
        for files in &mut self.files {
            files.reload();
        }
        self.report();
        false
    }

    /// Reloads the files that have changed. Returns whether some may still be changing.
    fn check(&mut self) -> bool {
        let (mut is_due, mut is_unsettled) = (false, false);
        for files in &mut self.files {
            match files.check() {
                Change::None => {}
                Change::Unsettled => is_unsettled = true,
                Change::Due(_) => is_due = true,
            }
        }
        if is_due {
            self.report();
        }
        is_unsettled
    }

    /// Updates the gauges of keys, and warns of exposed files.
    fn report(&self) {
        let KeyCounts { api, jwt } = self.authenticator.key_counts();
        for (kind, count) in [("api", api), ("jwt", jwt)] {
            if let Some(count) = count {
                self.metrics.http.set_auth_keys(kind, count);
            }
        }
        if api == Some(0) {
            tracing::warn!("api_keys_file has no key, so every API key is refused; add keys to it");
        }
        for exposure in self.secret_files.iter().filter_map(SecretFile::exposure) {
            tracing::warn!("{exposure}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn observe_reports_work_that_hangs_and_waits_for_its_end() {
        let (release, released) = mpsc::channel();
        let hung = spawn_blocking(move || released.recv().unwrap());
        assert_eq!(observe(hung, Duration::ZERO, || release.send(7).unwrap()).await, (7, true));
        let quick = spawn_blocking(|| 7);
        assert_eq!(observe(quick, READ_TIMEOUT, || unreachable!("it ends in time")).await, (7, false));
    }
}
