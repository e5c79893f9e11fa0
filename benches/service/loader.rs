//! The bare loader: the minimum work of a program that writes visits in bulk.
//!
//! It sends variadic `ZADD`s that were built in advance, keeps a few pipelines in flight, and reads the replies. Parts
//! that need a full Redis use it as well.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;

use crate::Result;
use crate::requests::score;

/// Visits per pipeline, and pipelines in flight, the same as those of a batch in the service: `Ingest::CHUNK_VISITS`
/// and `Ingest::MAX_CHUNKS_IN_FLIGHT` in `src/ingest/mod.rs`. Otherwise the comparison would be unfair.
pub const VISITS: usize = 8_192;
const IN_FLIGHT: usize = 4;

/// Commands that are sent together.
pub struct Pipeline {
    bytes: Vec<u8>,
    replies: usize,
}

/// A member to write: the segment's key, the time in milliseconds, the user.
pub struct Member {
    pub key: String,
    pub millis: i64,
    pub user: String,
}

impl Pipeline {
    /// One `ZADD GT` for each key.
    pub fn of(members: &[Member]) -> Self {
        let mut commands: BTreeMap<&str, Vec<&Member>> = BTreeMap::new();
        for member in members {
            commands.entry(&member.key).or_default().push(member);
        }
        let mut bytes = Vec::with_capacity(members.len() * 48);
        for (key, members) in &commands {
            bytes.extend_from_slice(format!("*{}\r\n$4\r\nZADD\r\n", 3 + 2 * members.len()).as_bytes());
            add_word(&mut bytes, key);
            add_word(&mut bytes, "GT");
            for member in members {
                add_word(&mut bytes, &score(member.millis));
                add_word(&mut bytes, &member.user);
            }
        }
        Self { bytes, replies: commands.len() }
    }
}

fn add_word(bytes: &mut Vec<u8>, word: &str) {
    bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
}

/// Sends all pipelines over one connection and reads all replies. Fails if one is an error.
pub fn send(redis: SocketAddr, pipelines: impl Iterator<Item = Pipeline>) -> Result<()> {
    let mut stream = TcpStream::connect(redis)?;
    stream.set_nodelay(true)?;
    let mut replies = BufReader::with_capacity(64 * 1024, stream.try_clone()?);
    let mut in_flight = std::collections::VecDeque::new();
    for pipeline in pipelines {
        if in_flight.len() == IN_FLIGHT {
            read_replies(&mut replies, in_flight.pop_front().unwrap_or_default())?;
        }
        stream.write_all(&pipeline.bytes)?;
        in_flight.push_back(pipeline.replies);
    }
    in_flight.into_iter().try_for_each(|expected| read_replies(&mut replies, expected))
}

fn read_replies(replies: &mut BufReader<TcpStream>, expected: usize) -> Result<()> {
    let mut line = Vec::new();
    for _ in 0..expected {
        line.clear();
        replies.read_until(b'\n', &mut line)?;
        if line.first() != Some(&b':') {
            return Err(format!("Redis refused a ZADD: {}", String::from_utf8_lossy(&line)).into());
        }
    }
    Ok(())
}

/// Fills a key with `count` members `m0000000`, `m0000001` and so on, whose times `millis` returns.
pub fn fill(redis: SocketAddr, key: &str, count: u64, millis: impl FnMut(u64) -> i64) -> Result<()> {
    fill_with(redis, key, 0..count, millis)
}

/// As `fill`, with the members of these numbers.
pub fn fill_with(redis: SocketAddr, key: &str, members: Range<u64>, mut millis: impl FnMut(u64) -> i64) -> Result<()> {
    let mut next = members.start;
    let pipelines = std::iter::from_fn(|| {
        let end = members.end.min(next + VISITS as u64);
        let members: Vec<_> = (next..end)
            .map(|number| Member { key: key.to_owned(), millis: millis(number), user: format!("m{number:07}") })
            .collect();
        next = end;
        (!members.is_empty()).then(|| Pipeline::of(&members))
    });
    send(redis, pipelines)
}
