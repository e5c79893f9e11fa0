//! `segment-estimator restore`: replaces the data of the private Redis with a backup.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::Outcome;
use crate::config::Settings;
use crate::embedded_redis::{MayLack, Restored, restore};

/// The arguments of `restore`.
#[derive(Args)]
pub(super) struct RestoreCommand {
    /// Backup: an RDB file from `redis-cli --rdb`, or an append-only file of commands
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Accept a backup without a record of a data set, as earlier versions left them
    #[arg(long)]
    unrecorded: bool,
    /// Accept a backup without any segment or history of the data set
    #[arg(long)]
    empty: bool,
}

impl RestoreCommand {
    /// Restores the backup, and prints what it did.
    pub(super) async fn run(&self, settings: &Settings) -> Outcome {
        if let Some(servers) = settings.deployment() {
            return Err(format!(
                "restore is for the private Redis, and {} names another; for the Redis of docker compose there is \
                 scripts/restore, for others docs/backup.md",
                servers.setting()
            )
            .into());
        }
        let may_lack = MayLack { record: self.unrecorded, data: self.empty };
        let restored = restore(&settings.data_dir, &self.file, &settings.redis_key_prefix, may_lack);
        let Restored { keys, members, segments, old_data } = restored.await?;
        writeln!(
            std::io::stdout(),
            "restored {}: Redis serves its data (keys: {keys}, members: {members}, segments: {segments}); the data from before is in {}",
            self.file.display(),
            old_data.display()
        )?;
        Ok(())
    }
}
