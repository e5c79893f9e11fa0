//! How many replicas must have a visit before it is acknowledged, and how Redis is asked to wait for them.
//!
//! `WAIT` and `WAITAOF` wait for what their own connection wrote, and since Redis 7.2 a command that changed nothing is no
//! write. So whoever repeats a visit on another connection would wait for nothing, and take for replicated what no replica
//! has. A script that always writes goes before the waiting: the replication is one stream, so a replica that has the
//! script's writes has all that came before them.

use std::time::Duration;

use redis::{Pipeline, Value};

use super::Error;

/// How many replicas must have a visit before it is acknowledged. The default asks none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteAcks {
    /// The number of replicas; 0 for none.
    pub replicas: usize,
    /// Whether they must have it in their append-only files, on disk. Needs Redis 7.2 or Valkey.
    pub on_disk: bool,
}

/// Adds a member that no user and no segment can be, and removes it again: two writes, which change nothing in the end and
/// which nobody sees apart.
const WRITE_SOMETHING: &str = "\
redis.call('ZADD', KEYS[1], 0, '')
return redis.call('ZREM', KEYS[1], '')";

impl WriteAcks {
    /// The shortest time for an answer where replicas must have it on disk. They tell of that once a second, also with
    /// `appendfsync always`, and a visit may just miss it: 1.9 s were measured (Valkey 9.1). A third of this is 3 s.
    pub const MIN_ANSWER_ON_DISK: Duration = Duration::from_secs(9);

    /// Whether any replica is asked.
    #[must_use]
    pub fn is_asked(self) -> bool {
        self.replicas > 0
    }

    /// How long Redis may wait for replicas when it may take `answer` for all: a third. A visit may have to wait for the
    /// round before its own, and shall hear that replicas are missing before its caller's time is over.
    fn limit(answer: Duration) -> Duration {
        (answer / 3).max(Duration::from_millis(1))
    }

    /// The command that waits so long.
    pub(crate) fn command(self, millis: u128) -> Vec<String> {
        let (replicas, millis) = (self.replicas.to_string(), millis.to_string());
        if self.on_disk {
            // The 0 is for this server's own file: `appendfsync` says when that is synced.
            ["WAITAOF".to_owned(), "0".to_owned(), replicas, millis].into()
        } else {
            ["WAIT".to_owned(), replicas, millis].into()
        }
    }

    /// Adds what waits for all that `pipeline` writes: two commands. The first changes the sorted set `key`, and changes it back.
    pub(crate) fn add_to(self, pipeline: &mut Pipeline, key: &[u8], answer: Duration) {
        pipeline.cmd("EVAL").arg(WRITE_SOMETHING).arg(1).arg(key);
        let mut words = self.command(Self::limit(answer).as_millis()).into_iter();
        pipeline.cmd(&words.next().expect("a command has a name")).arg(words.collect::<Vec<_>>());
    }

    /// Checks the answer to the wait.
    ///
    /// # Errors
    ///
    /// [`Error::NotReplicated`] if fewer replicas have the writes than asked; why waiting failed otherwise.
    pub(crate) fn check(self, waited: Result<Value, Error>) -> Result<(), Error> {
        let reached = match waited {
            Ok(waited) => replicas_reached(&waited),
            Err(error) if self.on_disk && error.is_unknown_command() => return Err(Error::NoWaitAof),
            Err(error) => return Err(error),
        };
        let reached = usize::try_from(reached).unwrap_or_default();
        if reached >= self.replicas { Ok(()) } else { Err(Error::NotReplicated { reached, needed: self.replicas }) }
    }
}

/// The number of replicas in an answer to `WAIT` or `WAITAOF`.
pub(crate) fn replicas_reached(waited: &Value) -> i64 {
    match waited {
        Value::Int(replicas) => *replicas,
        // This server's own file stands first.
        Value::Array(reached) => match reached.last() {
            Some(Value::Int(replicas)) => *replicas,
            _ => 0,
        },
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const TWO: WriteAcks = WriteAcks { replicas: 2, on_disk: false };
    const TWO_ON_DISK: WriteAcks = WriteAcks { on_disk: true, ..TWO };

    fn refused(code: &str) -> Result<Value, Error> {
        Err(Error::Refused { command: "X".to_owned(), code: code.to_owned(), detail: String::new() })
    }

    fn numbers(numbers: &[i64]) -> Result<Value, Error> {
        Ok(Value::Array(numbers.iter().copied().map(Value::Int).collect()))
    }

    #[rstest]
    #[case(TWO, Ok(Value::Int(2)), None)]
    #[case(TWO, Ok(Value::Int(3)), None)]
    #[case(TWO, Ok(Value::Int(1)), Some("only 1 of 2 replicas"))]
    #[case(TWO, Ok(Value::Int(-1)), Some("only 0 of 2 replicas"))]
    #[case(TWO, Ok(Value::Nil), Some("only 0 of 2 replicas"))]
    #[case(TWO, refused("NOPERM"), Some("NOPERM"))]
    #[case(TWO_ON_DISK, numbers(&[0, 2]), None)]
    #[case(TWO_ON_DISK, numbers(&[2, 1]), Some("only 1 of 2 replicas"))]
    #[case(TWO_ON_DISK, numbers(&[]), Some("only 0 of 2 replicas"))]
    #[case(TWO_ON_DISK, refused("ERR"), Some("7.2 or later"))]
    #[case(TWO_ON_DISK, refused("NOPERM"), Some("NOPERM"))]
    fn fewer_replicas_than_asked_are_an_error(
        #[case] acks: WriteAcks,
        #[case] waited: Result<Value, Error>,
        #[case] error: Option<&str>,
    ) {
        let outcome = acks.check(waited).err().map(|error| error.to_string());
        match (&outcome, error) {
            (None, None) => {}
            (Some(told), Some(error)) => assert!(told.contains(error), "{told}"),
            _ => panic!("{outcome:?}"),
        }
    }

    #[test]
    fn redis_waits_for_less_than_half_of_the_time_for_an_answer() {
        assert_eq!(WriteAcks::limit(Duration::from_secs(3)), Duration::from_secs(1));
        assert_eq!(WriteAcks::limit(Duration::from_millis(1)), Duration::from_millis(1), "0 would be for ever");
    }
}
