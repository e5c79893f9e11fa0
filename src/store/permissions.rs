//! What an ACL lets us do, asked without doing it.

use redis::{Pipeline, pipe};

use super::history::TURN_KEY;
use super::keys::{Slot, history_key};
use super::{Connection, Error, Partition, WriteAcks};

/// Whether Redis's ACL allows what we need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permissions {
    /// All of it.
    Enough,
    /// Not all of it: what Redis says of the first thing that is forbidden.
    Missing(String),
    /// It can't be asked: `ACL DRYRUN` came with Redis 7.0, and an ACL may forbid it.
    Unknown,
}

/// One of each command that we send, on keys of ours. `segment` stands for the key of a segment, `segments` for the index, and
/// `layout` for its record, `history` for a segment's history and `turn` for whose turn it is to add to these,
/// `forgotten` for the notes of users who were removed while data moves.
const NEEDED: [&[&str]; 28] = [
    &["ZADD", "segment", "GT", "0", "u"],
    &["ZADD", "segments", "0", "s"],
    &["ZCARD", "segments"],
    &["ZCOUNT", "segment", "-inf", "+inf"],
    &["ZRANGE", "segments", "-", "+", "BYLEX"],
    &["ZRANGE", "segment", "0", "0", "WITHSCORES"],
    &["ZREMRANGEBYSCORE", "segment", "-inf", "0"],
    &["ZSCORE", "segment", "u"],
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
    &["EXPIRE", "forgotten", "1"],
    &["XADD", "history", "MINID", "~", "0", "1-0", "n", "0"],
    &["XRANGE", "history", "0", "1", "COUNT", "1"],
    &["RPUSH", "history", "0", "0"],
    &["LRANGE", "history", "0", "-1"],
    &["LINDEX", "history", "0"],
    &["LLEN", "history"],
    &["LPOP", "history", "2"],
    &["TYPE", "history"],
    &["EXPIRE", "history", "1"],
    &["SET", "turn", ""],
];

impl Permissions {
    /// Asks the server that has `slot` whether the user that `connection` is for may do what we need with the keys of `partition`;
    /// with `acks` what waits for replicas, too.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub(super) async fn ask(
        connection: &Connection,
        slot: Slot,
        partition: Partition,
        acks: WriteAcks,
    ) -> Result<Self, Error> {
        let mut question = pipe();
        question.cmd("ACL").arg("WHOAMI");
        let who = connection.ask_each::<String>(slot, question).await?;
        let Some(Ok(user)) = who.into_iter().next() else { return Ok(Self::Unknown) };
        let mut dry_run = dry_run(&user, partition, acks);
        if connection.is_cluster() {
            dry_run.cmd("ACL").arg("DRYRUN").arg(&user).arg("CLUSTER").arg("SLOTS");
            dry_run.cmd("ACL").arg("DRYRUN").arg(&user).arg("ASKING");
        }
        let verdicts = connection.ask_each(slot, dry_run).await?;
        Ok(Self::from_verdicts(verdicts.into_iter().map(Result::ok)))
    }

    /// The sum of the answers to `ACL DRYRUN`: `OK`, or a sentence; `None` where it was refused.
    fn from_verdicts(verdicts: impl IntoIterator<Item = Option<String>>) -> Self {
        let mut sum = Self::Enough;
        for verdict in verdicts {
            match verdict {
                Some(verdict) if verdict == "OK" => {}
                Some(verdict) => return Self::Missing(verdict),
                None => sum = Self::Unknown,
            }
        }
        sum
    }
}

fn dry_run(user: &str, partition: Partition, acks: WriteAcks) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(NEEDED.len() + 1);
    for command in NEEDED {
        let dry_run = pipeline.cmd("ACL").arg("DRYRUN").arg(user);
        for word in command {
            match *word {
                "segment" => dry_run.arg(partition.segment_key("s")),
                "segments" => dry_run.arg(partition.index_key()),
                "layout" => dry_run.arg(partition.layout_key()),
                "history" => dry_run.arg(history_key("s")),
                "turn" => dry_run.arg(TURN_KEY),
                "forgotten" => dry_run.arg(partition.forgotten_key()),
                word => dry_run.arg(word),
            };
        }
    }
    if acks.is_asked() {
        pipeline.cmd("ACL").arg("DRYRUN").arg(user).arg(acks.command(1));
    }
    pipeline
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_forbidden_matters_more_than_what_is_not_told() {
        let told = |verdicts: &[Option<&str>]| {
            Permissions::from_verdicts(verdicts.iter().map(|verdict| verdict.map(str::to_owned)))
        };
        assert_eq!(told(&[Some("OK"), Some("OK")]), Permissions::Enough);
        assert_eq!(told(&[Some("OK"), None]), Permissions::Unknown);
        assert_eq!(told(&[None, Some("no zadd"), Some("no eval")]), Permissions::Missing("no zadd".to_owned()));
    }
}
