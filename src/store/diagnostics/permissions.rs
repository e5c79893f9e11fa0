//! The required commands and keys, and a check for them that runs none of the commands.

use ::redis::{Pipeline, Value, pipe};

use crate::redis::{self, Client, Request, Slot, WriteAcks};
use crate::store::keys::KeyNames;
use crate::store::{Error, Partition};

/// Whether Redis permits all that the service requires.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permissions {
    /// Redis has all required commands, and its ACL permits them.
    Enough,
    /// The ACL forbids a command or a key: Redis's explanation of the first such case.
    Forbidden(String),
    /// Redis lacks this command: it is renamed, disabled or not supported.
    NoCommand(&'static str),
    /// Redis is older than 7.0 and lacks `ACL DRYRUN`, or an ACL forbids it.
    Unknown,
}

/// Every required command with its keys. This is the only such list: [`Permissions::fetch`] checks it,
/// [`Permissions::acl_rules`] derives an ACL from it, and tests compare it with the documents and with the commands of
/// the running service.
///
/// [`NEEDED_IF_BOUNDED`] has those that bounded segments need in addition.
///
/// Keys have placeholders: `segment` for a segment, `segments` for the index, `layout` for the layout record, `history`
/// for a history, `change` for a change record, `lease` for the lease on sampling, `depths` for the depths of segments,
/// and `forgotten` for tombstones.
const NEEDED: [&[&str]; 34] = [
    &["PING"],
    &["ZADD", "segment", "GT", "0", "u"],
    &["ZADD", "segments", "0", "s"],
    &["ZCOUNT", "segment", "-inf", "+inf"],
    &["ZCARD", "segments"],
    &["ZRANGE", "segments", "-", "+", "BYLEX"],
    &["ZRANGE", "segment", "0", "0", "WITHSCORES"],
    &["ZSCORE", "segment", "u"],
    &["ZREMRANGEBYSCORE", "segment", "-inf", "0"],
    &["ZMSCORE", "segments", "s"],
    &["ZADD", "forgotten", "0", "u"],
    &["GET", "layout"],
    &["SET", "layout", ""],
    // Redis checks the commands of a script one by one when the script calls them.
    &["EVAL", "", "2", "segment", "segments"],
    &["ZCARD", "segment"],
    &["EXISTS", "segments"],
    &["ZREM", "segments", "s"],
    &["ZREM", "segment", "u"],
    &["XADD", "history", "MINID", "~", "0", "1-0", "n", "0"],
    &["XRANGE", "history", "0", "1", "COUNT", "1"],
    &["EXPIRE", "forgotten", "1"],
    &["RPUSH", "history", "0", "0"],
    &["LRANGE", "history", "0", "-1"],
    &["LINDEX", "history", "0"],
    &["LLEN", "history"],
    &["LPOP", "history", "2"],
    &["TYPE", "history"],
    &["EXPIRE", "history", "1"],
    &["SET", "lease", ""],
    &["GET", "change"],
    &["SET", "change", "", "EX", "1"],
    &["UNLINK", "segment"],
    &["UNLINK", "history"],
    &["UNLINK", "change"],
];

/// The commands that a data set with bounded segments requires as well. Lower depths and deletions depend on the time
/// of Redis.
const NEEDED_IF_BOUNDED: [&[&str]; 8] = [
    &["TIME"],
    &["HGET", "depths", "s"],
    &["HGETALL", "depths"],
    &["HKEYS", "depths"],
    &["HLEN", "depths"],
    &["HSET", "depths", "s", "1"],
    &["HDEL", "depths", "s"],
    &["UNLINK", "depths"],
];

/// The ACL rules for the keys of a single partition.
const KEYS: [&str; 5] = ["~segment:*", "~segments", "~layout", "~history:*", "~forgotten"];
/// The ACL rules for the keys of bounded segments in a single partition.
const BOUNDED_KEYS: [&str; 2] = ["~depths", "~segment@*"];
/// The ACL rules for the keys of several partitions.
const PARTITIONED_KEYS: [&str; 4] = ["~layout", "~history:*", "~{p*}:*", "~{q*}:*"];
/// Commands that improve the service, but are not required. `SCAN` finds keys of other programs before the first data
/// set is created, and for `check` and `adopt`.
const OPTIONAL: [&str; 3] = ["INFO", "SCAN", "TIME"];
/// Additional commands of `repartition`, which are optional.
const REPARTITION_COMMANDS: [&str; 1] = ["TTL"];
/// Additional commands on a cluster, with the subcommands of `CLUSTER`.
const CLUSTER_COMMANDS: [&str; 3] = ["CLUSTER|SLOTS", "CLUSTER|INFO", "ASKING"];

impl Permissions {
    /// Returns the names of all required commands, each once. `is_bounded` is whether segments are bounded.
    #[must_use]
    pub fn needed_commands(is_bounded: bool) -> Vec<&'static str> {
        let mut names = Vec::new();
        for command in needed(is_bounded) {
            if !names.contains(&command[0]) {
                names.push(command[0]);
            }
        }
        names
    }

    /// Returns the ACL rules that permit all that the service does on one server.
    #[must_use]
    pub fn acl_rules(is_bounded: bool) -> Vec<String> {
        let bounded = if is_bounded { &BOUNDED_KEYS[..] } else { &[] };
        Self::rules(&[&KEYS, bounded].concat(), &[], is_bounded)
    }

    /// Returns the ACL rules that permit all that the service and `repartition` do on a cluster.
    #[must_use]
    pub fn acl_rules_of_a_cluster(is_bounded: bool) -> Vec<String> {
        Self::rules(&PARTITIONED_KEYS, &[&REPARTITION_COMMANDS[..], &CLUSTER_COMMANDS].concat(), is_bounded)
    }

    fn rules(keys: &[&str], more: &[&str], is_bounded: bool) -> Vec<String> {
        let needed = Self::needed_commands(is_bounded);
        let optional = OPTIONAL.into_iter().filter(|name| !needed.contains(name));
        let commands = needed.iter().copied().chain(optional).chain(more.iter().copied());
        let commands = commands.map(|name| format!("+{}", name.to_lowercase()));
        keys.iter().map(|&keys| keys.to_owned()).chain(commands).collect()
    }

    /// Checks whether the server of `slot` has all required commands, and whether the user of `client` may run them on
    /// the keys of `partition`. If `acks` requires replicas, the wait for them is included.
    ///
    /// # Errors
    ///
    /// An [`Error`] if Redis didn't answer.
    pub(in crate::store) async fn fetch(
        client: &Client,
        slot: Slot,
        key_names: &KeyNames,
        partition: Partition,
        acks: WriteAcks,
    ) -> Result<Self, Error> {
        let is_bounded = partition.bound().is_some();
        if let Some(name) = missing_command(client, slot, is_bounded).await? {
            return Ok(Self::NoCommand(name));
        }
        let mut pipeline = pipe();
        pipeline.cmd("ACL").arg("WHOAMI");
        let mut answers = client.send(Request::new(slot, pipeline).probe()).await?.each::<String>();
        let Some(Ok(user)) = answers.next() else { return Ok(Self::Unknown) };
        let dry_run = dry_run(&user, key_names, partition, acks, client.is_cluster());
        let verdicts = client.send(Request::new(slot, dry_run).probe()).await?.each().collect();
        Ok(Self::from_verdicts(verdicts, is_bounded))
    }

    /// Combines the answers to `ACL DRYRUN`, each of which is `OK`, a sentence, or an error. The answers for the
    /// required commands come first.
    fn from_verdicts(verdicts: Vec<Result<String, redis::Error>>, is_bounded: bool) -> Self {
        let forbidden = verdicts.iter().flatten().find(|verdict| *verdict != "OK");
        if let Some(verdict) = forbidden {
            return Self::Forbidden(verdict.clone());
        }
        // If the server accepts one dry run, it has `ACL DRYRUN`. An unknown command is then the one that was checked.
        let has_dry_run = verdicts.iter().any(Result::is_ok);
        let mut needed = needed(is_bounded).zip(&verdicts);
        match needed.find(|(_, verdict)| verdict.as_ref().is_err_and(redis::Error::is_unknown_command)) {
            Some((command, _)) if has_dry_run => Self::NoCommand(command[0]),
            _ if verdicts.iter().all(Result::is_ok) => Self::Enough,
            _ => Self::Unknown,
        }
    }
}

/// Returns every required command with its keys.
fn needed(is_bounded: bool) -> impl Iterator<Item = &'static [&'static str]> {
    let bounded = if is_bounded { &NEEDED_IF_BOUNDED[..] } else { &[] };
    NEEDED.iter().chain(bounded).copied()
}

/// Returns the first required command that the server lacks; `None` if it has all of them, or if an ACL forbids
/// `COMMAND INFO`.
async fn missing_command(client: &Client, slot: Slot, is_bounded: bool) -> Result<Option<&'static str>, Error> {
    let names = Permissions::needed_commands(is_bounded);
    let mut pipeline = pipe();
    pipeline.cmd("COMMAND").arg("INFO").arg(&names);
    let mut answers = client.send(Request::new(slot, pipeline).probe()).await?.each::<Vec<Value>>();
    let Some(Ok(known)) = answers.next() else { return Ok(None) };
    // The answer for an unknown command is nil.
    Ok(names.into_iter().zip(known).find(|(_, known)| *known == Value::Nil).map(|(name, _)| name))
}

fn dry_run(user: &str, key_names: &KeyNames, partition: Partition, acks: WriteAcks, is_cluster: bool) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(NEEDED.len() + NEEDED_IF_BOUNDED.len() + 1 + CLUSTER_COMMANDS.len());
    for command in needed(partition.bound().is_some()) {
        let dry_run = pipeline.cmd("ACL").arg("DRYRUN").arg(user);
        for word in command {
            match *word {
                "segment" => dry_run.arg(key_names.segment(partition.key_of("u"), "s")),
                "segments" => dry_run.arg(key_names.index(partition)),
                "layout" => dry_run.arg(key_names.layout_of(partition)),
                "history" => dry_run.arg(key_names.history("s")),
                "change" => dry_run.arg(key_names.change("s")),
                "lease" => dry_run.arg(key_names.lease()),
                "depths" => dry_run.arg(key_names.depths(partition)),
                "forgotten" => dry_run.arg(key_names.tombstones(partition)),
                word => dry_run.arg(word),
            };
        }
    }
    if acks.is_required() {
        pipeline.cmd("ACL").arg("DRYRUN").arg(user).arg(acks.command(1));
    }
    if is_cluster {
        // `CLUSTER INFO` is not required.
        pipeline.cmd("ACL").arg("DRYRUN").arg(user).arg("CLUSTER").arg("SLOTS");
        pipeline.cmd("ACL").arg("DRYRUN").arg(user).arg("ASKING");
    }
    pipeline
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn refused(code: &str) -> Result<String, redis::Error> {
        Err(redis::Error::Refused { command: "ACL DRYRUN".to_owned(), code: code.to_owned(), detail: String::new() })
    }

    fn answered(verdict: &str) -> Result<String, redis::Error> {
        Ok(verdict.to_owned())
    }

    #[rstest]
    #[case::all_allowed(vec![answered("OK"), answered("OK")], Permissions::Enough)]
    #[case::one_refused(vec![answered("OK"), refused("NOPERM")], Permissions::Unknown)]
    #[case::all_refused(vec![refused("ERR"), refused("ERR")], Permissions::Unknown)]
    #[case::forbidden_takes_precedence(
        vec![refused("ERR"), answered("no zadd"), answered("no eval")],
        Permissions::Forbidden("no zadd".to_owned())
    )]
    #[case::missing_command(vec![answered("OK"), refused("ERR"), answered("OK")], Permissions::NoCommand("ZADD"))]
    fn from_verdicts_combines_answers(
        #[case] verdicts: Vec<Result<String, redis::Error>>,
        #[case] expected: Permissions,
    ) {
        assert_eq!(Permissions::from_verdicts(verdicts, false), expected);
    }
}
