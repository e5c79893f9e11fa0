//! `segment-estimator restore`: replaces the data of the private Redis with a backup.

use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;

use super::Outcome;
use crate::config::Settings;
use crate::embedded_redis::{Restored, restore};

/// The arguments of `restore`.
#[derive(Args)]
pub(super) struct RestoreCommand {
    /// The backup: an RDB file, as `redis-cli --rdb` writes it, or an append-only file of commands
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

impl RestoreCommand {
    /// Restores the backup, and prints what it did.
    pub(super) async fn run(&self, settings: &Settings) -> Outcome {
        if let Some(servers) = &settings.redis {
            return Err(format!(
                "restore is for the private Redis, and {} names another; for the Redis of docker compose there is \
                 scripts/restore, for others docs/operating.md",
                servers.setting()
            )
            .into());
        }
        let Restored { keys, members, old_data } = restore(&settings.data_dir, &self.file).await?;
        writeln!(
            std::io::stdout(),
            "restored {}: Redis serves its {keys} keys with {members} members; the data from before is in {}",
            self.file.display(),
            old_data.display()
        )?;
        Ok(())
    }
}
