//! Parsers of settings. An error is a predicate: the caller puts the setting and its text in front.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::parse_duration;
use crate::redis::RedisUrl;

pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "must be an IP address and a port, such as 127.0.0.1:8080 or [::]:8080".to_owned())
}

pub fn boolean(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "must be true or false".to_owned())
}

pub fn non_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}

pub fn path(text: &str) -> Result<PathBuf, String> {
    non_empty(text).map(PathBuf::from)
}

/// Parses a number from `MIN`, the least that works, to `MAX`. A larger one is a mistake.
pub fn number<const MIN: usize, const MAX: usize>(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (MIN..=MAX).contains(&number) => Ok(number),
        _ => Err(format!("must be a whole number from {MIN} to {MAX}")),
    }
}

/// Returns one thread for each core but one, which is left to Redis.
pub fn default_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() - 1).max(1))
}

/// A longer duration is a mistake, and might overflow a deadline.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

pub fn duration_or_zero(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text, "500ms, 10s or 1m")?;
    if duration > MAX_DURATION { Err("must not be longer than a day".to_owned()) } else { Ok(duration) }
}

/// Parses a duration longer than zero.
pub fn timeout(text: &str) -> Result<Duration, String> {
    let duration = duration_or_zero(text)?;
    if duration.is_zero() { Err("must be longer than zero".to_owned()) } else { Ok(duration) }
}

pub fn whole_seconds(text: &str) -> Result<Duration, String> {
    let duration = duration_or_zero(text)?;
    if duration.subsec_nanos() == 0 { Ok(duration) } else { Err("must be a whole number of seconds".to_owned()) }
}

pub fn cluster_seeds(text: &str) -> Result<Vec<RedisUrl>, String> {
    let seeds = redis_urls(text)?;
    if seeds.iter().any(RedisUrl::has_database) {
        return Err("names a database; a cluster has only database 0".to_owned());
    }
    require_alike(&seeds)?;
    Ok(seeds)
}

pub fn sentinels(text: &str) -> Result<Vec<RedisUrl>, String> {
    let sentinels = redis_urls(text)?;
    require_alike(&sentinels)?;
    Ok(sentinels)
}

/// Parses a comma-separated list of at least one URL.
fn redis_urls(text: &str) -> Result<Vec<RedisUrl>, String> {
    let url = |part: &str| RedisUrl::parse(part.trim()).map_err(|why| format!("has a part that {why}"));
    text.split(',').map(url).collect()
}

fn require_alike(urls: &[RedisUrl]) -> Result<(), String> {
    if urls.iter().all(|url| url.is_reached_like(&urls[0])) {
        return Ok(());
    }
    Err("has URLs that differ in more than host and port; all are reached by TCP, in the same way".to_owned())
}
