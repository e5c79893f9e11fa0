//! Memory and persistence of the primaries.

use super::Eviction;
use crate::redis::info_field;
use crate::store::{Error, Store};

/// The memory and the persistence of all primaries, and what they evict. A value is `None` if it is unknown for one of
/// them, for instance because an ACL forbids `INFO`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resources {
    /// What is evicted when memory is full.
    pub eviction: Eviction,
    /// The memory in use, in bytes, in total.
    pub used_memory: Option<u64>,
    /// The sum of the limits (`maxmemory`) in bytes. `None` also if a primary has no limit.
    pub max_memory: Option<u64>,
    /// The used fraction of the limit, of the fullest primary that has one.
    pub memory_ratio: Option<f64>,
    /// The size of the append-only files, in bytes, in total. `None` also if a primary has none.
    pub append_only_file: Option<u64>,
    /// Whether the last write of each append-only file succeeded.
    pub is_append_ok: Option<bool>,
    /// Whether the last rewrite of each append-only file succeeded.
    pub is_rewrite_ok: Option<bool>,
    /// Whether the last snapshot of each primary succeeded.
    pub is_snapshot_ok: Option<bool>,
}

impl Resources {
    /// Reads the answers of all primaries to `INFO`.
    fn from_infos(infos: &[String]) -> Self {
        let number = |info: &String, name| info_field(info, name)?.parse::<u64>().ok();
        let sum = |name| infos.iter().map(|info| number(info, name)).sum();
        let all_ok = |name| {
            let states = infos.iter().map(|info| info_field(info, name).map(|state| state == "ok"));
            states.reduce(|all, one| Some(all? && one?)).flatten()
        };
        let limit = |info| number(info, "maxmemory").filter(|limit| *limit > 0);
        let ratio = |info| {
            let limit = limit(info)?;
            // Buffers of replicas and of the append-only file don't count against the limit.
            let uncounted = number(info, "mem_not_counted_for_evict").unwrap_or_default();
            let used = number(info, "used_memory")?.saturating_sub(uncounted);
            #[expect(clippy::cast_precision_loss, reason = "sizes of memory are far below 2^53")]
            Some(used as f64 / limit as f64)
        };
        Self {
            eviction: Eviction::from_infos(infos),
            used_memory: sum("used_memory"),
            max_memory: infos.iter().map(limit).sum(),
            memory_ratio: infos.iter().filter_map(ratio).reduce(f64::max),
            append_only_file: sum("aof_current_size"),
            is_append_ok: all_ok("aof_last_write_status"),
            is_rewrite_ok: all_ok("aof_last_bgrewrite_status"),
            is_snapshot_ok: all_ok("rdb_last_bgsave_status"),
        }
    }
}

impl Store {
    /// Fetches the memory and the persistence of all primaries.
    ///
    /// # Errors
    ///
    /// An [`Error`] if a primary didn't answer. A command that an ACL forbids is not an error.
    pub async fn resources(&self) -> Result<Resources, Error> {
        Ok(Resources::from_infos(&self.infos(&["memory", "stats", "persistence"]).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTHY: &str = "used_memory:300\r\nmaxmemory:1000\r\nmem_not_counted_for_evict:100\r\naof_current_size:7\r\n\
                           aof_last_write_status:ok\r\naof_last_bgrewrite_status:ok\r\nrdb_last_bgsave_status:ok\r\n";

    #[test]
    fn from_infos_adds_memory_and_takes_the_fullest_primary() {
        let fuller = HEALTHY.replace("used_memory:300", "used_memory:900");
        let resources = Resources::from_infos(&[HEALTHY.to_owned(), fuller]);
        assert_eq!((resources.used_memory, resources.max_memory), (Some(1_200), Some(2_000)));
        assert_eq!((resources.memory_ratio, resources.append_only_file), (Some(0.8), Some(14)));
    }

    #[test]
    fn from_infos_is_ok_if_all_primaries_are() {
        let failing = HEALTHY.replace("aof_last_write_status:ok", "aof_last_write_status:err");
        let resources = Resources::from_infos(&[HEALTHY.to_owned(), failing]);
        let states = [resources.is_append_ok, resources.is_rewrite_ok, resources.is_snapshot_ok];
        assert_eq!(states, [Some(false), Some(true), Some(true)]);
        let unknown = Resources::from_infos(&[HEALTHY.to_owned(), String::new()]);
        assert_eq!((unknown.used_memory, unknown.is_append_ok), (None, None));
    }

    #[test]
    fn from_infos_knows_no_ratio_without_a_limit() {
        let unlimited = HEALTHY.replace("maxmemory:1000", "maxmemory:0");
        let resources = Resources::from_infos(std::slice::from_ref(&unlimited));
        assert_eq!((resources.max_memory, resources.memory_ratio), (None, None));
        let mixed = Resources::from_infos(&[unlimited, HEALTHY.to_owned()]);
        assert_eq!((mixed.max_memory, mixed.memory_ratio), (None, Some(0.2)));
    }
}
