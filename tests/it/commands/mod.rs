//! The commands of the binary, run as processes.

mod adopt;
mod backup;
mod check;
mod demo;
mod export;
mod import;
mod repartition;
mod restore;
mod samples;
mod settings;
mod token;
