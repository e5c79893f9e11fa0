//! The properties of a server.

use std::fmt;

use ::redis::{Value, pipe};

use super::{EvictionPolicy, HiddenSettings, Permissions, engine};
use crate::domain::counted;
use crate::redis::{self, Request, Slot, WriteAcks, info_field};
use crate::store::{Error, KeySet, Partition, Partitions, Store};

/// A primary of a [`Store`]. A property is `None` if an ACL forbids the command that returns it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Name and version: `Redis 7.0.15`, `Valkey 9.1.2`. Another engine that speaks the protocol has its own name.
    pub version: Option<String>,
    /// The managed service that it is part of, if it reports one.
    pub managed_by: Option<String>,
    /// Whether it refuses `CONFIG GET`, and why.
    pub hidden_settings: Option<HiddenSettings>,
    /// Whether it has an append-only file.
    pub append_only_file: Option<bool>,
    /// When it syncs the append-only file to disk (`appendfsync`).
    pub append_fsync: Option<String>,
    /// The number of members up to which it keeps a sorted set as a list (`zset-max-listpack-entries`).
    pub max_listpack_entries: Option<u32>,
    /// What it does when its memory is full.
    pub eviction: Option<EvictionPolicy>,
    /// The number of replicas that are online.
    pub replicas: Option<usize>,
    /// Whether it has `WAITAOF`. Also `None` if the command isn't required.
    pub has_wait_aof: Option<bool>,
    /// Whether its ACL permits what the service requires.
    pub permissions: Permissions,
}

impl Server {
    /// The sections of `INFO` that are read.
    const SECTIONS: [&str; 4] = ["server", "memory", "persistence", "replication"];

    /// Reads the concatenated answers to `INFO` for [`Self::SECTIONS`].
    fn from_info(info: &str, permissions: Permissions) -> Self {
        let field = |name| info_field(info, name).map(str::to_owned);
        Self {
            version: engine::name(info),
            managed_by: field("os").filter(|os| os.starts_with("Amazon ")),
            hidden_settings: None,
            append_only_file: field("aof_enabled").map(|enabled| enabled == "1"),
            append_fsync: None,
            max_listpack_entries: None,
            eviction: EvictionPolicy::from_info(info),
            replicas: info_field(info, "connected_slaves").map(|_| online_replicas(info)),
            has_wait_aof: None,
            permissions,
        }
    }

    /// Returns why it can't serve although it answers; `None` if it can. `acks` is the required number of replicas.
    #[must_use]
    pub fn obstacle(&self, acks: WriteAcks) -> Option<String> {
        match &self.permissions {
            Permissions::Forbidden(what) => Some(format!("its ACL forbids a required command: {what}")),
            Permissions::NoCommand(name) => {
                Some(format!("it lacks the required command `{name}`, which is renamed, disabled or not supported"))
            }
            Permissions::Enough | Permissions::Unknown => self.obstacle_to_acks(acks),
        }
    }

    /// Returns why it can't acknowledge visits; `None` if it can.
    fn obstacle_to_acks(&self, acks: WriteAcks) -> Option<String> {
        if acks.on_disk && self.has_wait_aof == Some(false) {
            return Some(redis::Error::NoWaitAof.to_string());
        }
        let replicas = self.replicas.filter(|replicas| *replicas < acks.replicas)?;
        let required = counted(acks.replicas as u64, "replica", "replicas");
        Some(format!("it has {replicas} of the {required} that write_acks requires"))
    }
}

/// Counts the replicas in `INFO replication` that have finished the initial synchronization.
fn online_replicas(info: &str) -> usize {
    let replicas =
        info.lines().filter(|line| line.strip_prefix("slave").is_some_and(|rest| rest.starts_with(char::is_numeric)));
    replicas.filter(|line| line.contains("state=online")).count()
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.version.as_deref().unwrap_or("a Redis of unknown version"))?;
        if let Some(service) = &self.managed_by {
            write!(f, " of {service}")?;
        }
        match self.append_only_file {
            Some(true) => {
                f.write_str("; it has an append-only file")?;
                f.write_str(match self.append_fsync.as_deref() {
                    Some("always") => ", synced before each answer",
                    Some("everysec") => ", synced each second: a crash may lose acknowledged visits",
                    Some("no") => ", synced when the system decides: a power failure may lose acknowledged visits",
                    _ => "",
                })?;
            }
            Some(false) => f.write_str("; it has no append-only file: a crash loses what it has not saved")?,
            None => {}
        }
        if let Some(policy) = &self.eviction {
            write!(f, "; it {policy}")?;
        }
        if let Some(entries) = self.max_listpack_entries.filter(|entries| *entries > redis::MAX_LISTPACK_ENTRIES) {
            let recommended = redis::MAX_LISTPACK_ENTRIES;
            write!(
                f,
                "; it keeps segments of up to {entries} users as lists, to which writes take several times as long; set \
                 zset-max-listpack-entries to {recommended}"
            )?;
        }
        if let Some(hidden) = self.hidden_settings {
            write!(f, "; it {hidden}")?;
        }
        match self.permissions {
            Permissions::Unknown => f.write_str("; whether its ACL permits all required commands is unknown"),
            Permissions::Enough | Permissions::Forbidden(_) | Permissions::NoCommand(_) => Ok(()),
        }
    }
}

impl Store {
    /// Fetches the properties of all primaries, with their addresses.
    ///
    /// # Errors
    ///
    /// An [`Error`] if a primary can't serve. A command that an ACL forbids is not an error.
    pub async fn servers(&self) -> Result<Vec<(String, Server)>, Error> {
        let partition = self.probable_keys().await.of(0);
        let mut servers = Vec::new();
        for (slot, address) in self.client.primaries().await? {
            servers.push((address, self.server(slot, partition).await?));
        }
        Ok(servers)
    }

    /// Returns the key set of the data set. If there is no readable record, returns the key set that a new data set
    /// would get.
    async fn probable_keys(&self) -> KeySet {
        match self.recorded_layout().await {
            Ok(Some(layout)) => layout.read(),
            _ => KeySet::first(self.partitions_for_new_set().await.unwrap_or(Partitions::ONE), self.max_members),
        }
    }

    async fn server(&self, slot: Slot, partition: Partition) -> Result<Server, Error> {
        let mut pipeline = pipe();
        pipeline.cmd("PING");
        for section in Server::SECTIONS {
            pipeline.cmd("INFO").arg(section);
        }
        let mut answers = self.client.send(Request::new(slot, pipeline).probe()).await?.each::<String>();
        answers.next().transpose()?;
        let info = answers.flatten().collect::<String>();
        let append_fsync = self.config(slot, "appendfsync").await?;
        let hidden_settings = append_fsync.as_ref().err().and_then(HiddenSettings::from_refusal);
        let append_fsync = append_fsync.ok().flatten();
        // Redis 6 calls it ziplist; later versions have both names.
        let entries = self.config(slot, "zset-max-*list*-entries").await?.ok().flatten();
        let max_listpack_entries = entries.and_then(|entries| entries.parse().ok());
        let has_wait_aof = if self.acks.on_disk { self.has_wait_aof(slot).await? } else { None };
        let permissions = Permissions::fetch(&self.client, slot, &self.key_names, partition, self.acks).await?;
        let server = Server::from_info(&info, permissions);
        Ok(Server { hidden_settings, append_fsync, max_listpack_entries, has_wait_aof, ..server })
    }

    /// Fetches the value of the parameter `name`; `None` if there is none. If several match, all have one value. The
    /// inner error is that of a Redis that doesn't show it.
    async fn config(&self, slot: Slot, name: &str) -> Result<Result<Option<String>, redis::Error>, Error> {
        let mut pipeline = pipe();
        pipeline.cmd("CONFIG").arg("GET").arg(name);
        let mut answers = self.client.send(Request::new(slot, pipeline).probe()).await?.each::<Vec<String>>();
        // The answer is the name, then the value.
        Ok(answers.next().unwrap_or(Ok(Vec::new())).map(|mut pair| pair.pop()))
    }

    /// Returns whether Redis has `WAITAOF`. It answers at once if it waits for no replica.
    async fn has_wait_aof(&self, slot: Slot) -> Result<Option<bool>, Error> {
        let mut pipeline = pipe();
        pipeline.cmd("WAITAOF").arg(0).arg(0).arg(1);
        let mut answers = self.client.send(Request::new(slot, pipeline).probe()).await?.each::<Value>();
        Ok(match answers.next() {
            Some(Err(error)) if error.is_unknown_command() => Some(false),
            Some(Err(_)) | None => None,
            Some(Ok(_)) => Some(true),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_describes_redis() {
        let info = "# Server\r\nredis_version:7.0.15\r\nmaxmemory_policy:allkeys-lru\r\naof_enabled:0\r\n";
        let expected = "Redis 7.0.15; it has no append-only file: a crash loses what it has not saved; it evicts whole \
                        segments when its memory is full, which makes counts wrong (allkeys-lru); set maxmemory-policy to \
                        noeviction";
        assert_eq!(Server::from_info(info, Permissions::Enough).to_string(), expected);
    }

    #[test]
    fn display_recommends_skiplists() {
        let with = |entries| Server { max_listpack_entries: entries, ..Server::from_info("", Permissions::Enough) };
        let expected = "a Redis of unknown version; it keeps segments of up to 128 users as lists, to which writes take \
                        several times as long; set zset-max-listpack-entries to 16";
        assert_eq!(with(Some(128)).to_string(), expected);
        for fine in [None, Some(0), Some(16)] {
            assert_eq!(with(fine).to_string(), "a Redis of unknown version");
        }
    }

    #[test]
    fn display_shows_the_version_of_valkey() {
        let info = "redis_version:7.2.4\r\nvalkey_version:9.1.2\r\naof_enabled:1\r\nmaxmemory_policy:noeviction\r\n";
        let expected = "Valkey 9.1.2; it has an append-only file; it refuses writes when its memory is full";
        assert_eq!(Server::from_info(info, Permissions::Enough).to_string(), expected);
    }

    #[test]
    fn display_names_the_managed_service() {
        let info = "redis_version:6.2.5\r\nos:Amazon ElastiCache\r\ngcc_version:0.0.0\r\n";
        let expected = "Redis 6.2.5 of Amazon ElastiCache";
        assert_eq!(Server::from_info(info, Permissions::Enough).to_string(), expected);
    }

    #[test]
    fn display_describes_a_server_without_info() {
        let server = Server::from_info("", Permissions::Unknown);
        let expected = "a Redis of unknown version; whether its ACL permits all required commands is unknown";
        assert_eq!((server.to_string().as_str(), server.obstacle(WriteAcks::default())), (expected, None));
    }

    #[test]
    fn obstacle_is_a_forbidden_command() {
        let obstacle = |permissions| Server::from_info("", permissions).obstacle(WriteAcks::default());
        assert_eq!(obstacle(Permissions::Enough), None);
        let expected = "its ACL forbids a required command: no zadd";
        assert_eq!(obstacle(Permissions::Forbidden("no zadd".to_owned())).as_deref(), Some(expected));
    }

    #[test]
    fn obstacle_is_too_few_replicas() {
        let info = "role:master\r\nconnected_slaves:2\r\nslave0:ip=a,port=1,state=online,offset=7,lag=0\r\n\
                    slave1:ip=b,port=1,state=wait_bgsave,offset=0,lag=0\r\nslave_read_only:1\r\n";
        let obstacle = |info, has_wait_aof, replicas, on_disk| {
            let acks = WriteAcks { replicas, on_disk };
            Server { has_wait_aof, ..Server::from_info(info, Permissions::Enough) }.obstacle(acks)
        };
        assert_eq!(obstacle(info, None, 1, false), None);
        let expected = "it has 1 of the 2 replicas that write_acks requires";
        assert_eq!(obstacle(info, None, 2, false).as_deref(), Some(expected));
        assert_eq!(obstacle("", None, 2, false), None, "the number is unknown");
        assert_eq!(obstacle(info, Some(true), 1, true), None);
        assert_eq!(obstacle(info, Some(false), 1, true), Some(redis::Error::NoWaitAof.to_string()));
    }
}
