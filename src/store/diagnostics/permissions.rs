//! The commands and keys that the service needs, and whether Redis offers them, asked without running them.

use ::redis::{Pipeline, Value, pipe};

use crate::redis::{self, Client, Request, Slot, WriteAcks};
use crate::store::keys::KeyNames;
use crate::store::{Error, Partition};

/// Whether Redis lets us do what we need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permissions {
    /// All of it.
    Enough,
    /// The ACL forbids some of it: what Redis says of the first such command.
    Forbidden(String),
    /// Redis doesn't have this command: it is renamed, switched off, or not supported.
    NoCommand(&'static str),
    /// Redis doesn't tell: `ACL DRYRUN` came with Redis 7.0, and an ACL may forbid it.
    Unknown,
}

/// Every command that the service can't do without, on keys of ours. This is the one list of them: the check asks for them,
/// [`Permissions::acl_rules`] makes an ACL of them, and tests compare the documents and the running service with that.
///
/// `segment` stands for the key of a segment, `segments` for the index, `layout` for its record, `history` for a segment's
/// history, `lease` for the lease on adding to histories, and `forgotten` for the tombstones of users who were removed while
/// data moves.
const NEEDED: [&[&str]; 29] = [
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
    // The commands of a script are checked one by one when it calls them.
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
];

/// The patterns of the keys of one partition, as an ACL has them.
const KEYS: [&str; 5] = ["~segment:*", "~segments", "~layout", "~history:*", "~forgotten"];
/// The same for several partitions.
const PARTITIONED_KEYS: [&str; 4] = ["~layout", "~history:*", "~{p*}:*", "~{q*}:*"];
/// Request that the service asks for information and can do without; `SCAN` finds keys of others before a data set is made,
/// and for `check` and `adopt`.
const OPTIONAL: [&str; 3] = ["INFO", "SCAN", "TIME"];
/// What `repartition` needs besides; it can do without `TTL`.
const TO_MOVE: [&str; 2] = ["UNLINK", "TTL"];
/// What a cluster needs besides; of `CLUSTER`, the subcommands.
const OF_A_CLUSTER: [&str; 3] = ["CLUSTER|SLOTS", "CLUSTER|INFO", "ASKING"];

impl Permissions {
    /// The names of all commands that the service can't do without, each once.
    #[must_use]
    pub fn needed_commands() -> Vec<&'static str> {
        let mut names = Vec::new();
        for command in NEEDED {
            if !names.contains(&command[0]) {
                names.push(command[0]);
            }
        }
        names
    }

    /// The ACL rules that let a user do all that the service does on one server.
    #[must_use]
    pub fn acl_rules() -> Vec<String> {
        Self::rules(&KEYS, &[])
    }

    /// The ACL rules that let a user do all that the service and `repartition` do on a cluster.
    #[must_use]
    pub fn acl_rules_of_a_cluster() -> Vec<String> {
        Self::rules(&PARTITIONED_KEYS, &[&TO_MOVE[..], &OF_A_CLUSTER].concat())
    }

    fn rules(keys: &[&str], more: &[&str]) -> Vec<String> {
        let commands = Self::needed_commands().into_iter().chain(OPTIONAL).chain(more.iter().copied());
        let commands = commands.map(|name| format!("+{}", name.to_lowercase()));
        keys.iter().map(|&keys| keys.to_owned()).chain(commands).collect()
    }

    /// Asks the server that has `slot` whether it has the commands that we need, and whether the user of `client` may run them
    /// on the keys of `partition`; with `acks`, also the one that waits for replicas.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub(in crate::store) async fn ask(
        client: &Client,
        slot: Slot,
        names: &KeyNames,
        partition: Partition,
        acks: WriteAcks,
    ) -> Result<Self, Error> {
        if let Some(name) = missing_command(client, slot).await? {
            return Ok(Self::NoCommand(name));
        }
        let mut question = pipe();
        question.cmd("ACL").arg("WHOAMI");
        let mut who = client.send(Request::new(slot, question).probe()).await?.each::<String>();
        let Some(Ok(user)) = who.next() else { return Ok(Self::Unknown) };
        let dry_run = dry_run(&user, names, partition, acks, client.is_cluster());
        let verdicts = client.send(Request::new(slot, dry_run).probe()).await?.each().collect();
        Ok(Self::from_verdicts(verdicts))
    }

    /// The sum of the answers to `ACL DRYRUN`: `OK`, a sentence, or an error. The answers to [`NEEDED`] come first.
    fn from_verdicts(verdicts: Vec<Result<String, redis::Error>>) -> Self {
        let forbidden = verdicts.iter().flatten().find(|verdict| *verdict != "OK");
        if let Some(verdict) = forbidden {
            return Self::Forbidden(verdict.clone());
        }
        // A server that answers for one command has `ACL DRYRUN`, and can only mean that it doesn't have the other.
        let answers = verdicts.iter().any(Result::is_ok);
        let mut of_needed = NEEDED.iter().zip(&verdicts);
        match of_needed.find(|(_, verdict)| verdict.as_ref().is_err_and(redis::Error::is_unknown_command)) {
            Some((command, _)) if answers => Self::NoCommand(command[0]),
            _ if verdicts.iter().all(Result::is_ok) => Self::Enough,
            _ => Self::Unknown,
        }
    }
}

/// The first command that we need and the server doesn't have, as far as it tells: an ACL may forbid `COMMAND INFO`.
async fn missing_command(client: &Client, slot: Slot) -> Result<Option<&'static str>, Error> {
    let names = Permissions::needed_commands();
    let mut question = pipe();
    question.cmd("COMMAND").arg("INFO").arg(&names);
    let mut answers = client.send(Request::new(slot, question).probe()).await?.each::<Vec<Value>>();
    let Some(Ok(known)) = answers.next() else { return Ok(None) };
    // A command that isn't there is null.
    Ok(names.into_iter().zip(known).find(|(_, known)| *known == Value::Nil).map(|(name, _)| name))
}

fn dry_run(user: &str, names: &KeyNames, partition: Partition, acks: WriteAcks, is_cluster: bool) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(NEEDED.len() + 1 + OF_A_CLUSTER.len());
    for command in NEEDED {
        let dry_run = pipeline.cmd("ACL").arg("DRYRUN").arg(user);
        for word in command {
            match *word {
                "segment" => dry_run.arg(names.segment(partition, "s")),
                "segments" => dry_run.arg(names.index(partition)),
                "layout" => dry_run.arg(names.layout_of(partition)),
                "history" => dry_run.arg(names.history("s")),
                "lease" => dry_run.arg(names.lease()),
                "forgotten" => dry_run.arg(names.tombstones(partition)),
                word => dry_run.arg(word),
            };
        }
    }
    if acks.is_asked() {
        pipeline.cmd("ACL").arg("DRYRUN").arg(user).arg(acks.command(1));
    }
    if is_cluster {
        // Without `CLUSTER INFO` it works, too.
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

    fn said(verdict: &str) -> Result<String, redis::Error> {
        Ok(verdict.to_owned())
    }

    #[rstest]
    #[case::all_allowed(vec![said("OK"), said("OK")], Permissions::Enough)]
    #[case::one_not_told(vec![said("OK"), refused("NOPERM")], Permissions::Unknown)]
    #[case::none_told(vec![refused("ERR"), refused("ERR")], Permissions::Unknown)]
    #[case::a_verdict_outweighs_silence(
        vec![refused("ERR"), said("no zadd"), said("no eval")],
        Permissions::Forbidden("no zadd".to_owned())
    )]
    #[case::a_command_that_is_not_there(vec![said("OK"), refused("ERR"), said("OK")], Permissions::NoCommand("ZADD"))]
    fn verdicts_add_up(#[case] verdicts: Vec<Result<String, redis::Error>>, #[case] expected: Permissions) {
        assert_eq!(Permissions::from_verdicts(verdicts), expected);
    }
}
