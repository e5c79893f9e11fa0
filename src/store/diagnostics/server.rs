//! What Redis says of itself.

use std::fmt;

use ::redis::{Value, pipe};

use super::{EvictionPolicy, Permissions};
use crate::redis::{self, Request, info_field};
use crate::redis::{Slot, WriteAcks};
use crate::store::Error;
use crate::store::{KeySet, Partition, Partitions, Store};

/// The server that a [`Store`] leads to, as far as it tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// `Redis 7.0.15` or `Valkey 9.1.2`; `None` when an ACL forbids `INFO`.
    pub version: Option<String>,
    /// Whether writes go to an append-only file.
    pub append_only_file: Option<bool>,
    /// When that is synced to the disk (`appendfsync`); `None` when an ACL forbids `CONFIG GET`.
    pub append_fsync: Option<String>,
    /// What becomes of keys when memory is full; `None` when an ACL forbids `INFO`.
    pub eviction: Option<EvictionPolicy>,
    /// Replicas that are connected and in step.
    pub replicas: Option<usize>,
    /// Whether it can wait for what replicas have on disk; `None` when it wasn't asked, or doesn't tell.
    pub has_wait_aof: Option<bool>,
    /// Whether its ACL allows what we need.
    pub permissions: Permissions,
}

impl Server {
    /// The sections of `INFO` that are asked for.
    const SECTIONS: [&str; 4] = ["server", "memory", "persistence", "replication"];

    /// Reads the answers to `INFO` for each of the sections, one after the other.
    fn from_info(info: &str, permissions: Permissions) -> Self {
        let field = |name| info_field(info, name).map(str::to_owned);
        // Valkey gives the version of Redis that it is compatible with, beside its own.
        let valkey = field("valkey_version").map(|version| format!("Valkey {version}"));
        Self {
            version: valkey.or_else(|| field("redis_version").map(|version| format!("Redis {version}"))),
            append_only_file: field("aof_enabled").map(|enabled| enabled == "1"),
            append_fsync: None,
            eviction: EvictionPolicy::from_info(info),
            replicas: info_field(info, "connected_slaves").map(|_| replicas_in_step(info)),
            has_wait_aof: None,
            permissions,
        }
    }

    /// Why it can't take visits although it answers, if so. `acks` says how many replicas must have each.
    #[must_use]
    pub fn obstacle(&self, acks: WriteAcks) -> Option<String> {
        match &self.permissions {
            Permissions::Forbidden(what) => Some(format!("its ACL forbids what is needed: {what}")),
            Permissions::NoCommand(name) => Some(format!(
                "it has no command `{name}`, which the service needs: the command is renamed, switched off, or not supported"
            )),
            Permissions::Enough | Permissions::Unknown => self.obstacle_to_acks(acks),
        }
    }

    /// Why no visit would be acknowledged, if so.
    fn obstacle_to_acks(&self, acks: WriteAcks) -> Option<String> {
        if acks.on_disk && self.has_wait_aof == Some(false) {
            return Some(redis::Error::NoWaitAof.to_string());
        }
        let replicas = self.replicas.filter(|replicas| *replicas < acks.replicas)?;
        Some(format!("it has {replicas} of the {} replicas that write_acks needs", acks.replicas))
    }
}

/// How many replicas `INFO replication` names that have all data and get what is written.
fn replicas_in_step(info: &str) -> usize {
    let replicas =
        info.lines().filter(|line| line.strip_prefix("slave").is_some_and(|rest| rest.starts_with(char::is_numeric)));
    replicas.filter(|line| line.contains("state=online")).count()
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.version.as_deref().unwrap_or("a Redis that doesn't tell its version"))?;
        match self.append_only_file {
            Some(true) => {
                f.write_str("; it has an append-only file")?;
                f.write_str(match self.append_fsync.as_deref() {
                    Some("always") => ", synced before each answer",
                    Some("everysec") => ", synced each second: a crash takes acknowledged visits along",
                    Some("no") => ", synced when the system wants: lost power takes acknowledged visits along",
                    _ => "",
                })?;
            }
            Some(false) => f.write_str("; it has no append-only file, and forgets at a crash what it has not saved")?,
            None => {}
        }
        if let Some(policy) = &self.eviction {
            write!(f, "; it {policy}")?;
        }
        match self.permissions {
            Permissions::Unknown => f.write_str("; it doesn't tell whether its ACL allows what is needed"),
            Permissions::Enough | Permissions::Forbidden(_) | Permissions::NoCommand(_) => Ok(()),
        }
    }
}

impl Store {
    /// Asks every server that takes writes whether it can serve, and what it is; gives its address, too.
    ///
    /// # Errors
    ///
    /// An [`Error`] when one can't serve. What an ACL doesn't let it tell is no error.
    pub async fn servers(&self) -> Result<Vec<(String, Server)>, Error> {
        let some = self.keys_for_now().await.of(0);
        let mut servers = Vec::new();
        for (slot, address) in self.client.masters().await? {
            servers.push((address, self.server(slot, some).await?));
        }
        Ok(servers)
    }

    /// The keys that the data set has, or will have if it isn't made yet, or isn't ours to see.
    async fn keys_for_now(&self) -> KeySet {
        match self.recorded_layout().await {
            Ok(Some(layout)) => layout.read(),
            _ => KeySet::first(self.partitions_for_new_set().await.unwrap_or(Partitions::ONE)),
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
        let append_fsync = self.append_fsync(slot).await?;
        let has_wait_aof = if self.acks.on_disk { self.has_wait_aof(slot).await? } else { None };
        let permissions = Permissions::ask(&self.client, slot, &self.names, partition, self.acks).await?;
        Ok(Server { append_fsync, has_wait_aof, ..Server::from_info(&info, permissions) })
    }

    /// When Redis syncs its append-only file, if it tells.
    async fn append_fsync(&self, slot: Slot) -> Result<Option<String>, Error> {
        let mut question = pipe();
        question.cmd("CONFIG").arg("GET").arg("appendfsync");
        let mut answers = self.client.send(Request::new(slot, question).probe()).await?.each::<Vec<String>>();
        // The name stands before the value.
        Ok(answers.next().and_then(Result::ok).and_then(|mut pair| pair.pop()))
    }

    /// Whether Redis has `WAITAOF`: asked to wait for nobody, it answers at once.
    async fn has_wait_aof(&self, slot: Slot) -> Result<Option<bool>, Error> {
        let mut question = pipe();
        question.cmd("WAITAOF").arg(0).arg(0).arg(1);
        let mut answers = self.client.send(Request::new(slot, question).probe()).await?.each::<Value>();
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
    fn redis_is_described() {
        let info = "# Server\r\nredis_version:7.0.15\r\nmaxmemory_policy:allkeys-lru\r\naof_enabled:0\r\n";
        let expected = "Redis 7.0.15; it has no append-only file, and forgets at a crash what it has not saved; it drops \
                        whole segments when its memory is full, and counts are wrong then (allkeys-lru); set \
                        maxmemory-policy to noeviction";
        assert_eq!(Server::from_info(info, Permissions::Enough).to_string(), expected);
    }

    #[test]
    fn valkey_is_named_by_its_own_version() {
        let info = "redis_version:7.2.4\r\nvalkey_version:9.1.2\r\naof_enabled:1\r\nmaxmemory_policy:noeviction\r\n";
        let expected = "Valkey 9.1.2; it has an append-only file; it refuses writes when its memory is full";
        assert_eq!(Server::from_info(info, Permissions::Enough).to_string(), expected);
    }

    #[test]
    fn a_server_that_tells_nothing_is_described_too() {
        let server = Server::from_info("", Permissions::Unknown);
        let expected = "a Redis that doesn't tell its version; it doesn't tell whether its ACL allows what is needed";
        assert_eq!((server.to_string().as_str(), server.obstacle(WriteAcks::default())), (expected, None));
    }

    #[test]
    fn a_user_that_may_not_write_is_an_obstacle() {
        let obstacle = |permissions| Server::from_info("", permissions).obstacle(WriteAcks::default());
        assert_eq!(obstacle(Permissions::Enough), None);
        let expected = "its ACL forbids what is needed: no zadd";
        assert_eq!(obstacle(Permissions::Forbidden("no zadd".to_owned())).as_deref(), Some(expected));
    }

    #[test]
    fn too_few_replicas_are_an_obstacle_to_acknowledging() {
        let info = "role:master\r\nconnected_slaves:2\r\nslave0:ip=a,port=1,state=online,offset=7,lag=0\r\n\
                    slave1:ip=b,port=1,state=wait_bgsave,offset=0,lag=0\r\nslave_read_only:1\r\n";
        let obstacle = |info, has_wait_aof, replicas, on_disk| {
            let acks = WriteAcks { replicas, on_disk };
            Server { has_wait_aof, ..Server::from_info(info, Permissions::Enough) }.obstacle(acks)
        };
        assert_eq!(obstacle(info, None, 1, false), None);
        let expected = "it has 1 of the 2 replicas that write_acks needs";
        assert_eq!(obstacle(info, None, 2, false).as_deref(), Some(expected));
        assert_eq!(obstacle("", None, 2, false), None, "it doesn't tell");
        assert_eq!(obstacle(info, Some(true), 1, true), None);
        assert_eq!(obstacle(info, Some(false), 1, true), Some(redis::Error::NoWaitAof.to_string()));
    }
}
