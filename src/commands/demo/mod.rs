//! `segment-estimator demo`: fills an empty data set with a generated population, to try out the pages.

mod command;
mod fill;
mod generator;
mod interests;
mod names;
mod parameters;
mod population;

pub(super) use self::command::DemoCommand;
