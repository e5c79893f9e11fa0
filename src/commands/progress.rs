//! The progress of a long command: a bar on a terminal, otherwise a line every few seconds.
//!
//! It goes to standard error, so that standard output holds only the command's result.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{BinaryBytes, HumanCount, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shows the progress of a command. [`Self::update`] is cheap and may be called at any rate.
#[derive(Debug)]
pub struct Progress {
    unit: Unit,
    /// The noun for what is counted, such as `visits`.
    items: &'static str,
    total: Option<u64>,
    started: Instant,
    output: Output,
}

/// The unit of the position and the total.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Items,
}

#[derive(Debug)]
enum Output {
    Bar(ProgressBar),
    /// The time of the last line.
    Lines(Mutex<Instant>),
}

impl Progress {
    /// The time between two lines.
    pub const LINE_INTERVAL: Duration = Duration::from_secs(5);
    /// Redraws of the bar in a second.
    const BAR_HZ: u8 = 10;

    /// Begins the progress of `items`, such as `visits`, towards `total`. `None` if the total is unknown.
    #[must_use]
    pub fn start(unit: Unit, total: Option<u64>, items: &'static str) -> Self {
        let started = Instant::now();
        let output = if io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(Self::BAR_HZ));
            Output::Bar(bar.with_style(style(total.is_some())))
        } else {
            Output::Lines(Mutex::new(started))
        };
        Self { unit, items, total, started, output }
    }

    /// Updates the position and the number of items since the start.
    pub fn update(&self, position: u64, items: u64) {
        let now = Instant::now();
        let text = || self.text(position, items, now.duration_since(self.started));
        match &self.output {
            Output::Bar(bar) => {
                bar.set_position(position);
                bar.set_message(text());
            }
            Output::Lines(last) => {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                if now.duration_since(*last) >= Self::LINE_INTERVAL {
                    *last = now;
                    write_line(text());
                }
            }
        }
    }

    /// Writes a line, above the bar if there is one.
    pub fn println(&self, line: impl Display) {
        match &self.output {
            Output::Bar(bar) => bar.suspend(|| write_line(line)),
            Output::Lines(_) => write_line(line),
        }
    }

    /// Removes the bar.
    pub fn finish(&self) {
        if let Output::Bar(bar) = &self.output {
            bar.finish_and_clear();
        }
    }

    /// Formats the progress after `elapsed`, as in `1.00 MiB of 4.00 MiB, 12,345 visits, 6,172 visits/s, 6 s left`.
    fn text(&self, position: u64, items: u64, elapsed: Duration) -> String {
        let amount = |amount| match self.unit {
            Unit::Bytes => BinaryBytes(amount).to_string(),
            Unit::Items => HumanCount(amount).to_string(),
        };
        let mut text = amount(position);
        if let Some(total) = self.total {
            text += &format!(" of {}", amount(total));
        }
        match self.unit {
            Unit::Bytes => text += &format!(", {} {}", HumanCount(items), self.items),
            Unit::Items => text += &format!(" {}", self.items),
        }
        let seconds = elapsed.as_secs_f64();
        if seconds > 0.0 {
            text += &format!(", {} {}/s", HumanCount((items as f64 / seconds) as u64), self.items);
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

fn style(has_total: bool) -> ProgressStyle {
    let template = if has_total { "{wide_bar} {percent:>3} %  {msg}" } else { "{spinner}  {msg}" };
    ProgressStyle::with_template(template).expect("the template is valid")
}

/// Writes a line to standard error. An error here means that standard error is closed.
fn write_line(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(unit: Unit, total: Option<u64>, position: u64, items: u64, seconds: u64) -> String {
        let (started, output) = (Instant::now(), Output::Lines(Mutex::new(Instant::now())));
        let progress = Progress { unit, items: "visits", total, started, output };
        progress.text(position, items, Duration::from_secs(seconds))
    }

    #[test]
    fn text_has_amount_rate_and_remaining_time() {
        let bytes = text(Unit::Bytes, Some(4 << 20), 1 << 20, 12_345, 2);
        assert_eq!(bytes, "1.00 MiB of 4.00 MiB, 12,345 visits, 6,172 visits/s, 6s left");
        let items = text(Unit::Items, Some(1_000), 250, 250, 100);
        assert_eq!(items, "250 of 1,000 visits, 2 visits/s, 5m left");
    }

    #[test]
    fn text_leaves_out_unknown_parts() {
        assert_eq!(text(Unit::Bytes, None, 1 << 10, 5, 1), "1.00 KiB, 5 visits, 5 visits/s");
        assert_eq!(text(Unit::Items, Some(1_000), 0, 0, 0), "0 of 1,000 visits");
    }

    #[test]
    fn style_accepts_its_templates() {
        for has_total in [false, true] {
            style(has_total);
        }
    }
}
