//! Waiting for replicas before a visit is acknowledged.
//!
//! `WAIT` and `WAITAOF` wait for the writes of their own connection, and since Redis 7.2 a command that changes nothing
//! is not a write. A visit that is repeated on another connection would therefore wait for nothing, even if no replica
//! has it. So a script that always writes precedes the wait. Replication is one stream: a replica that has the script's
//! writes has all earlier ones.

use std::time::Duration;

use redis::{Pipeline, Value};

use super::Error;

/// The number of replicas that must have a visit before it is acknowledged. The default is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WriteAcks {
    /// The number of replicas.
    pub replicas: usize,
    /// Whether they must have synced it to disk, in their append-only files. Requires Redis 7.2 or Valkey.
    pub on_disk: bool,
}

/// Adds the empty member, which is not a user or a segment, and removes it. The script is atomic: two writes with no
/// visible effect.
const WRITE_SOMETHING: &str = "\
redis.call('ZADD', KEYS[1], 0, '')
return redis.call('ZREM', KEYS[1], '')";

impl WriteAcks {
    /// Minimum timeout of an answer with [`Self::on_disk`]. Replicas report a sync once a second, even with
    /// `appendfsync always`, and a visit may just miss a report: 1.9 s were measured with Valkey 9.1. A third of this
    /// minimum is 3 s.
    pub const MIN_ANSWER_ON_DISK: Duration = Duration::from_secs(9);

    /// Whether any replica must acknowledge.
    #[must_use]
    pub fn is_required(self) -> bool {
        self.replicas > 0
    }

    /// Returns the timeout of the wait: a third of `answer`, the timeout of the whole answer. A visit may have to wait
    /// for the batch before its own, and a caller should learn of missing replicas before the request times out.
    fn limit(answer: Duration) -> Duration {
        (answer / 3).max(Duration::from_millis(1))
    }

    /// Returns the command that waits for `millis`.
    pub(crate) fn command(self, millis: u128) -> Vec<String> {
        let (replicas, millis) = (self.replicas.to_string(), millis.to_string());
        if self.on_disk {
            // 0: don't wait for the primary's own file, which `appendfsync` controls.
            ["WAITAOF".to_owned(), "0".to_owned(), replicas, millis].into()
        } else {
            ["WAIT".to_owned(), replicas, millis].into()
        }
    }

    /// Adds two commands that wait for all writes of `pipeline`. The first changes the sorted set `key` and restores
    /// it.
    pub(crate) fn add_to(self, pipeline: &mut Pipeline, key: &[u8], answer: Duration) {
        pipeline.cmd("EVAL").arg(WRITE_SOMETHING).arg(1).arg(key);
        let mut words = self.command(Self::limit(answer).as_millis()).into_iter();
        pipeline.cmd(&words.next().expect("a command has a name")).arg(words.collect::<Vec<_>>());
    }

    /// Checks the answer to the wait.
    ///
    /// # Errors
    ///
    /// [`Error::NotReplicated`] if too few replicas have the writes. The error of the wait, if it failed.
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

/// Returns the number of replicas in an answer to `WAIT` or `WAITAOF`.
pub(crate) fn replicas_reached(waited: &Value) -> i64 {
    match waited {
        Value::Int(replicas) => *replicas,
        // `WAITAOF` returns the number of local files first.
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
    #[case::enough(TWO, Ok(Value::Int(2)), None)]
    #[case::more(TWO, Ok(Value::Int(3)), None)]
    #[case::too_few(TWO, Ok(Value::Int(1)), Some("only 1 of 2 replicas"))]
    #[case::below_zero(TWO, Ok(Value::Int(-1)), Some("only 0 of 2 replicas"))]
    #[case::nil(TWO, Ok(Value::Nil), Some("only 0 of 2 replicas"))]
    #[case::forbidden(TWO, refused("NOPERM"), Some("NOPERM"))]
    #[case::enough_on_disk(TWO_ON_DISK, numbers(&[0, 2]), None)]
    #[case::too_few_on_disk(TWO_ON_DISK, numbers(&[2, 1]), Some("only 1 of 2 replicas"))]
    #[case::no_numbers(TWO_ON_DISK, numbers(&[]), Some("only 0 of 2 replicas"))]
    #[case::no_waitaof(TWO_ON_DISK, refused("ERR"), Some("upgrade to 7.2"))]
    #[case::forbidden_on_disk(TWO_ON_DISK, refused("NOPERM"), Some("NOPERM"))]
    fn check_fails_if_too_few_replicas_have_the_writes(
        #[case] acks: WriteAcks,
        #[case] waited: Result<Value, Error>,
        #[case] error: Option<&str>,
    ) {
        let outcome = acks.check(waited).err().map(|error| error.to_string());
        match (&outcome, error) {
            (None, None) => {}
            (Some(message), Some(error)) => assert!(message.contains(error), "{message}"),
            _ => panic!("{outcome:?}"),
        }
    }

    #[test]
    fn limit_is_a_third_of_the_timeout_of_an_answer() {
        assert_eq!(WriteAcks::limit(Duration::from_secs(3)), Duration::from_secs(1));
        assert_eq!(WriteAcks::limit(Duration::from_millis(1)), Duration::from_millis(1), "0 would wait forever");
    }
}
