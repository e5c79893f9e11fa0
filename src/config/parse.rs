//! How the texts of settings are read. Each gives a sentence without its subject when a text won't do.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::domain::{SegmentName, parse_duration};
use crate::jobs::HealthMonitor;
use crate::redis::RedisUrl;

pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "must be an IP address and a port, such as 127.0.0.1:8080 or [::]:8080".to_owned())
}

/// Names with a comma between them.
pub fn segments(text: &str) -> Result<Vec<SegmentName<'static>>, String> {
    let names = text.split(',').map(|name| SegmentName::parse(name.trim().to_owned()).map_err(|error| error.detail));
    let names = names.collect::<Result<Vec<_>, _>>().map_err(|why| format!("has a name that {why}"))?;
    if names.len() > HealthMonitor::MAX_SEGMENTS {
        return Err(format!("has {} names; at most {} are counted", names.len(), HealthMonitor::MAX_SEGMENTS));
    }
    Ok(names)
}

pub fn name(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("must not be empty".to_owned()) } else { Ok(text.to_owned()) }
}

pub fn path(text: &str) -> Result<PathBuf, String> {
    name(text).map(PathBuf::from)
}

/// A number of which fewer than `MIN` would not work, and more than `MAX` would only be a mistake.
pub fn number<const MIN: usize, const MAX: usize>(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if (MIN..=MAX).contains(&number) => Ok(number),
        _ => Err(format!("must be a whole number from {MIN} to {MAX}")),
    }
}

pub fn boolean(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| "must be true or false".to_owned())
}

/// One thread for each core but one, which is Redis's.
pub fn usual_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |cores| (cores.get() - 1).max(1))
}

/// The longest time limit. Longer ones help nobody, and might overflow a deadline.
const MAX_LIMIT: Duration = Duration::from_secs(24 * 60 * 60);

pub fn delay(text: &str) -> Result<Duration, String> {
    let duration = parse_duration(text, "500ms, 10s or 1m")?;
    if duration > MAX_LIMIT { Err("must not be longer than a day".to_owned()) } else { Ok(duration) }
}

pub fn limit(text: &str) -> Result<Duration, String> {
    let duration = delay(text)?;
    if duration.is_zero() { Err("must be longer than zero".to_owned()) } else { Ok(duration) }
}

/// A duration that may be zero and has no part of a second.
pub fn whole_seconds(text: &str) -> Result<Duration, String> {
    let duration = delay(text)?;
    if duration.subsec_nanos() == 0 { Ok(duration) } else { Err("must be a whole number of seconds".to_owned()) }
}

/// URLs with a comma between them: one at least.
fn redis_urls(text: &str) -> Result<Vec<RedisUrl>, String> {
    let url = |part: &str| RedisUrl::parse(part.trim()).map_err(|why| format!("has a part that {why}"));
    text.split(',').map(url).collect()
}

pub fn cluster_seeds(text: &str) -> Result<Vec<RedisUrl>, String> {
    let seeds = redis_urls(text)?;
    if seeds.iter().any(RedisUrl::has_database) {
        return Err("names a database, and a cluster has the first alone".to_owned());
    }
    check_alike(&seeds, "servers")?;
    Ok(seeds)
}

pub fn sentinels(text: &str) -> Result<Vec<RedisUrl>, String> {
    let sentinels = redis_urls(text)?;
    check_alike(&sentinels, "sentinels")?;
    Ok(sentinels)
}

fn check_alike(urls: &[RedisUrl], kind: &str) -> Result<(), String> {
    if urls.iter().all(|url| url.is_reached_like(&urls[0])) {
        return Ok(());
    }
    Err(format!("has URLs that differ in more than the address: all {kind} are reached in the same way, by TCP"))
}
