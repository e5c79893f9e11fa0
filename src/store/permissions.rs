//! What an ACL lets us do, asked without doing it.

use redis::{Pipeline, pipe};

use super::{Connection, Error, INDEX_KEY, WriteAcks, segment_key};

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

/// One of each command that we send, on keys of ours. `segment` stands for the key of a segment, `segments` is the index.
const NEEDED: [&[&str]; 10] = [
    &["ZADD", "segment", "GT", "0", "u"],
    &["ZADD", INDEX_KEY, "0", "s"],
    &["ZCARD", INDEX_KEY],
    &["ZCOUNT", "segment", "-inf", "+inf"],
    &["ZRANGE", INDEX_KEY, "-", "+", "BYLEX"],
    &["ZRANGE", "segment", "0", "0", "WITHSCORES"],
    &["ZREMRANGEBYSCORE", "segment", "-inf", "0"],
    // The commands of a script are checked one by one when it calls them.
    &["EVAL", "", "2", "segment", INDEX_KEY],
    &["EXISTS", "segment"],
    &["ZREM", INDEX_KEY, "s"],
];

impl Permissions {
    /// Asks whether the user that `connection` is for may do what we need, with `acks` what waits for replicas, too.
    ///
    /// # Errors
    ///
    /// An [`Error`] when Redis didn't answer.
    pub(super) async fn ask(connection: &Connection, acks: WriteAcks) -> Result<Self, Error> {
        let who = connection.ask_each::<String>(pipe().cmd("ACL").arg("WHOAMI")).await?;
        let Some(Ok(user)) = who.into_iter().next() else { return Ok(Self::Unknown) };
        let verdicts = connection.ask_each(&mut dry_run(&user, acks)).await?;
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

fn dry_run(user: &str, acks: WriteAcks) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(NEEDED.len() + 1);
    for command in NEEDED {
        let dry_run = pipeline.cmd("ACL").arg("DRYRUN").arg(user);
        for word in command {
            match *word {
                "segment" => dry_run.arg(segment_key("s")),
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
