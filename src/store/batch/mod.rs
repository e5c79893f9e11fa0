//! Visits that are written together, and the commands that write them.

mod commands;
mod partition_batch;
mod visits;

pub(super) use self::partition_batch::PartitionBatch;
pub use self::visits::Batch;
