//! Logs: format, filter and output.

use std::fmt;
use std::io::{self, IsTerminal};
use std::str::FromStr;

use tracing_subscriber::filter::{FilterExt as _, FilterFn, LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, Registry};

use super::Traces;

/// The format of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Human-readable, coloured on a terminal.
    Pretty,
    /// One JSON object per line.
    Json,
}

impl fmt::Display for LogFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pretty => "pretty",
            Self::Json => "json",
        })
    }
}

impl LogFormat {
    /// Returns `Pretty` if standard error is a terminal, otherwise `Json`.
    #[must_use]
    pub fn for_stderr() -> Self {
        if io::stderr().is_terminal() { Self::Pretty } else { Self::Json }
    }

    /// Parses `pretty` or `json`.
    ///
    /// # Errors
    ///
    /// The predicate of a sentence about the setting.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "pretty" => Ok(Self::Pretty),
            "json" => Ok(Self::Json),
            _ => Err("must be pretty or json".to_owned()),
        }
    }
}

/// A filter of log lines: a level, or levels by module such as `warn,segment_estimator::jobs::prune=debug`.
#[derive(Clone)]
pub struct LogFilter(Targets);

impl LogFilter {
    /// Parses a level or a list of `module=level`.
    ///
    /// # Errors
    ///
    /// The predicate of a sentence about the setting.
    pub fn parse(text: &str) -> Result<Self, String> {
        const WANTED: &str = "must be a level (error, warn, info, debug, trace, off) or a list of module=level";
        // The library takes a word that is not a level for a module, enables all its lines and disables all others.
        let is_level = |word: &str| word.parse::<LevelFilter>().is_ok();
        if !text.split(',').all(|directive| directive.contains('=') || is_level(directive)) {
            return Err(WANTED.to_owned());
        }
        Targets::from_str(text).map(Self).map_err(|_| WANTED.to_owned())
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Installs the subscriber of the process: log lines go to standard error, and spans to `traces`. Standard output is
/// for the commands.
///
/// Does nothing if the process has a subscriber, as in tests.
pub fn init(format: LogFormat, filter: &LogFilter, traces: Option<&Traces>) {
    let fmt = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    // Events only: otherwise each request would create spans even without traces.
    let filter = filter.0.clone().and(FilterFn::new(|metadata| metadata.is_event()));
    let logs: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Pretty => fmt.with_ansi(io::stderr().is_terminal()).with_filter(filter).boxed(),
        LogFormat::Json => {
            fmt.json().flatten_event(true).with_current_span(false).with_span_list(false).with_filter(filter).boxed()
        }
    };
    let logs = tracing_subscriber::registry().with(logs);
    // An `Option` of a layer would disable the caching of interest in spans.
    let _ = match traces {
        None => logs.try_init(),
        Some(traces) => logs.with(traces.layer()).try_init(),
    };
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Collects log lines.
    #[derive(Clone, Default)]
    pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        pub(crate) fn subscriber(&self) -> impl tracing::Subscriber + Send + Sync + use<> {
            let writer = self.clone();
            tracing_subscriber::fmt().without_time().with_ansi(false).with_writer(move || writer.clone()).finish()
        }

        pub(crate) fn lines(&self) -> Vec<String> {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            text.lines().map(str::to_owned).collect()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
