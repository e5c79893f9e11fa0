//! How far a long piece of work is: a bar on a terminal, and a plain line now and then on anything else.
//!
//! It goes to standard error, so that standard output stays clean for what the work gives.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Tells how far a piece of work is. It may be told at any rate: what is shown changes a few times a second, or every
/// [`Self::EVERY`].
#[derive(Debug)]
pub struct Progress {
    measure: Measure,
    /// What the work deals with, such as `visits`.
    things: &'static str,
    total: Option<u64>,
    started: Instant,
    shown: Shown,
}

/// What tells how much is left of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Bytes of a file, while its things are counted apart.
    Bytes,
    /// The things themselves.
    Things,
}

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    /// When the last was written, or the work began.
    Lines(Mutex<Instant>),
}

impl Progress {
    /// How often there is a plain line.
    pub const EVERY: Duration = Duration::from_secs(5);

    /// Begins a piece of work of `total` bytes, or things such as `visits`; `None` if nobody knows how many.
    #[must_use]
    pub fn start(measure: Measure, total: Option<u64>, things: &'static str) -> Self {
        let started = Instant::now();
        let shown = if io::stderr().is_terminal() {
            // Ten times a second: who waits sees it move.
            let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(10));
            Shown::Bar(bar.with_style(style(total.is_some())))
        } else {
            Shown::Lines(Mutex::new(started))
        };
        Self { measure, things, total, started, shown }
    }

    /// The work has come to `position` of its total, in bytes or in things, and has dealt with so many `things` since it began.
    pub fn tell(&self, position: u64, things: u64) {
        let now = Instant::now();
        let text = || self.text(position, things, now.duration_since(self.started));
        match &self.shown {
            Shown::Bar(bar) => {
                bar.set_position(position);
                bar.set_message(text());
            }
            Shown::Lines(last) => {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                if now.duration_since(*last) >= Self::EVERY {
                    *last = now;
                    write_line(text());
                }
            }
        }
    }

    /// Writes a line of its own, above the bar if there is one.
    pub fn note(&self, line: impl Display) {
        match &self.shown {
            Shown::Bar(bar) => bar.suspend(|| write_line(line)),
            Shown::Lines(_) => write_line(line),
        }
    }

    /// Takes the bar away: the work is done, or broken off.
    pub fn end(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }

    /// `1.00 MiB of 4.00 MiB, 12,345 visits, 6,172 visits/s, 6 s left` after `elapsed`.
    fn text(&self, position: u64, things: u64, elapsed: Duration) -> String {
        let amount = |amount| match self.measure {
            Measure::Bytes => BinaryBytes(amount).to_string(),
            Measure::Things => HumanCount(amount).to_string(),
        };
        let mut text = amount(position);
        if let Some(total) = self.total {
            text += &format!(" of {}", amount(total));
        }
        match self.measure {
            Measure::Bytes => text += &format!(", {} {}", HumanCount(things), self.things),
            Measure::Things => text += &format!(" {}", self.things),
        }
        let seconds = elapsed.as_secs_f64();
        if seconds > 0.0 {
            text += &format!(", {} {}/s", HumanCount((things as f64 / seconds) as u64), self.things);
        }
        if let Some(total) = self.total
            && position > 0
        {
            let left = seconds * total.saturating_sub(position) as f64 / position as f64;
            text += &format!(", {} left", humantime::format_duration(Duration::from_secs(left as u64)));
        }
        text
    }
}

/// How the bar looks.
fn style(has_total: bool) -> ProgressStyle {
    let template = if has_total { "{wide_bar} {percent:>3} %  {msg}" } else { "{spinner}  {msg}" };
    ProgressStyle::with_template(template).expect("a test has made it")
}

/// Writes a line to standard error. Nobody is left to tell if that is closed.
fn write_line(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(measure: Measure, total: Option<u64>, position: u64, things: u64, seconds: u64) -> String {
        let (started, shown) = (Instant::now(), Shown::Lines(Mutex::new(Instant::now())));
        let progress = Progress { measure, things: "visits", total, started, shown };
        progress.text(position, things, Duration::from_secs(seconds))
    }

    #[test]
    fn it_tells_amount_rate_and_the_time_that_is_left() {
        let bytes = text(Measure::Bytes, Some(4 << 20), 1 << 20, 12_345, 2);
        assert_eq!(bytes, "1.00 MiB of 4.00 MiB, 12,345 visits, 6,172 visits/s, 6s left");
        let things = text(Measure::Things, Some(1_000), 250, 250, 100);
        assert_eq!(things, "250 of 1,000 visits, 2 visits/s, 5m left");
    }

    #[test]
    fn what_nobody_knows_is_left_out() {
        assert_eq!(text(Measure::Bytes, None, 1 << 10, 5, 1), "1.00 KiB, 5 visits, 5 visits/s");
        assert_eq!(text(Measure::Things, Some(1_000), 0, 0, 0), "0 of 1,000 visits");
    }

    #[test]
    fn the_bar_can_be_drawn() {
        for has_total in [false, true] {
            style(has_total);
        }
    }
}
