//! Charts of counts. A [`Chart`] is what a chart shows: `history` and `histogram` describe the two of a segment. `plot`
//! draws one as SVG, for a page or for a `picture`.

pub mod axis;
pub mod histogram;
pub mod history;
pub mod path;
pub mod picture;
pub mod plot;

use self::axis::{Counts, Tick};
use crate::domain::Timestamp;

/// What a chart shows, wherever it is drawn.
#[derive(Debug, Clone)]
pub struct Chart {
    /// The chart in words, for screen readers.
    pub label: String,
    /// Label of the horizontal axis, with its unit.
    pub x_label: String,
    pub x_ticks: Vec<Tick>,
    pub marks: Marks,
}

/// The counts of a chart.
#[derive(Debug, Clone)]
pub enum Marks {
    /// Bars side by side. The ticks of the horizontal axis are at their bounds.
    Bars(Vec<Bar>),
    /// A line over time.
    Line(Vec<DataPoint>),
}

/// Bar of a histogram.
#[derive(Debug, Clone)]
pub struct Bar {
    /// Its height.
    pub count: u64,
    /// The bar in words.
    pub reading: String,
}

/// Point of a line.
#[derive(Debug, Clone)]
pub struct DataPoint {
    /// `None` interrupts the line.
    pub count: Option<u64>,
    /// Position on the time axis, from 0 to 1.
    pub at: f64,
    /// The start of its step, which identifies the point: a step gets further samples.
    pub step_start: Timestamp,
    /// Whether this is the count of this moment, which is no sample.
    pub is_live: bool,
    /// The point in words.
    pub reading: String,
}

impl Chart {
    /// Returns the axis of the counts.
    pub fn counts(&self) -> Counts {
        let largest = match &self.marks {
            Marks::Bars(bars) => bars.iter().map(|bar| bar.count).max(),
            Marks::Line(points) => points.iter().filter_map(|point| point.count).max(),
        };
        Counts::up_to(largest.unwrap_or_default())
    }

    /// Returns whether there is no count.
    pub fn is_empty(&self) -> bool {
        match &self.marks {
            Marks::Bars(bars) => bars.is_empty(),
            Marks::Line(points) => points.iter().all(|point| point.count.is_none()),
        }
    }

    /// Returns the index and the reading of the mark that matters most: the last point, or the bar of those who leave
    /// next.
    pub fn chief_reading(&self) -> (usize, &str) {
        let chief = match &self.marks {
            Marks::Bars(bars) => bars.first().map(|bar| (0, &bar.reading)),
            Marks::Line(points) => points.last().map(|point| (points.len() - 1, &point.reading)),
        };
        chief.map_or((0, ""), |(index, reading)| (index, reading.as_str()))
    }
}
