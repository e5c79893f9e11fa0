//! The reply to a request.

use redis::{FromRedisValue, RedisResult, Value};

use super::Error;
use super::request::{Request, Step};

/// A result for each command of a request.
#[derive(Debug)]
pub(crate) struct Reply {
    steps: Vec<Step>,
    results: Vec<Result<Value, Error>>,
    /// `Ok` if enough replicas have the writes, or if none is required. If the last write failed, its error.
    pub(crate) replicated: Result<(), Error>,
    /// Whether the last write succeeded but the wait for replicas failed.
    failed_to_replicate: bool,
}

impl Reply {
    /// Interprets the answers to `request`.
    pub(crate) fn new(request: Request, answers: Vec<RedisResult<Value>>) -> Self {
        let mut results = Vec::with_capacity(answers.len());
        for (index, answer) in answers.into_iter().enumerate() {
            let result = answer.map_err(|error| Error::from_command(error, request.as_sent(), index));
            results.push(match result {
                Err(error) if request.is_nil(&error, index) => Ok(Value::Nil),
                result => result,
            });
        }
        let (mut replicated, mut failed_to_replicate) = (Ok(()), false);
        let acks = request.acks().filter(|acks| acks.start > 0 && acks.end <= results.len());
        if let (Some(acks), Some(range)) = (request.write_acks(), acks) {
            let mut waits = results.drain(range.clone());
            let (written, waited) = (waits.next(), waits.next());
            drop(waits);
            replicated = match (&results[range.start - 1], written, waited) {
                // If the write was refused, the result of the wait is meaningless.
                (Err(error), ..) => Err(error.clone()),
                (Ok(_), Some(written), Some(waited)) => written.and_then(|_| acks.check(waited)),
                (Ok(_), ..) => Ok(()),
            };
            failed_to_replicate = replicated.is_err() && results[range.start - 1].is_ok();
        }
        Self { steps: request.into_steps(), results, replicated, failed_to_replicate }
    }

    /// Returns the errors among the results, and why too few replicas have the writes.
    pub(crate) fn errors(&self) -> impl Iterator<Item = &Error> {
        let of_commands = self.results.iter().filter_map(|result| result.as_ref().err());
        let of_replication = self.replicated.as_ref().err().filter(|_| self.failed_to_replicate);
        of_commands.chain(of_replication)
    }

    /// Returns an error that affects Redis, or else one that affects one key.
    pub(crate) fn worst_error(&self) -> Option<&Error> {
        self.errors().find(|error| error.is_outage()).or_else(|| self.errors().next())
    }

    /// Returns the results of all commands.
    pub(crate) fn results(self) -> Vec<Result<Value, Error>> {
        self.results
    }

    /// Returns the results of each of the `N` steps.
    pub(crate) fn into_steps<const N: usize>(mut self) -> [Vec<Result<Value, Error>>; N] {
        let mut steps = [const { Vec::new() }; N];
        for (results, step) in steps.iter_mut().zip(self.steps).skip(1).rev() {
            *results = self.results.split_off(self.results.len() - step.commands.len());
        }
        steps[0] = self.results;
        steps
    }

    /// Returns the results of all commands as values of one type.
    pub(crate) fn each<T: FromRedisValue>(self) -> impl ExactSizeIterator<Item = Result<T, Error>> {
        self.results.into_iter().map(|result| result.and_then(parse))
    }

    /// Returns the results of all commands as one tuple.
    ///
    /// # Errors
    ///
    /// The most severe [`Error`]. A wrong type affects one key; any other error affects Redis and takes precedence.
    pub(crate) fn all<T: FromRedisValue>(self) -> Result<T, Error> {
        let mut values = Vec::with_capacity(self.results.len());
        let mut failure = None::<Error>;
        for result in self.results {
            match result {
                Ok(value) => values.push(value),
                Err(error) if failure.as_ref().is_none_or(|before| !before.is_outage() && error.is_outage()) => {
                    failure = Some(error);
                }
                Err(_) => {}
            }
        }
        failure.map_or_else(|| parse(Value::Array(values)), Err)
    }
}

/// Converts a value to `T`.
///
/// # Errors
///
/// [`Error::Lost`] if the value has another type. No later reply on the connection can be trusted then.
pub(crate) fn parse<T: FromRedisValue>(value: Value) -> Result<T, Error> {
    T::from_redis_value(value).map_err(|error| Error::Lost(error.to_string()))
}
