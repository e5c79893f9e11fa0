//! `segment-estimator check`: prints the effective settings and checks Redis.

use std::io::{self, Write};

use super::data::Data;
use super::outcome::Failure;
use super::repartition::arguments;
use crate::auth::{Authenticator, KeysError};
use crate::config::{SettingRow, Settings};
use crate::domain::{Window, counted};
use crate::estimator::clock::{Clock, Skew};
use crate::http::{Tls, TlsError};
use crate::store::diagnostics::{SampledSegments, Server, list_first};
use crate::store::{self, Coverage, Layout, MaxMembers, Partitions, Resharding};

/// Why the check failed, in one line for the user.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Standard output failed.
    #[error("failed to write the settings: {0}")]
    Output(#[from] io::Error),
    /// The keys that verify tokens can't be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// A file for the connection to Redis can't be used, or the private Redis doesn't run.
    #[error("{0}")]
    Open(Failure),
    /// Redis can't serve.
    #[error("{what} at {address} can't serve: {why}")]
    CantServe {
        /// The Redis, with the setting that names it if there is one.
        what: String,
        /// Its address.
        address: String,
        /// The reason.
        why: String,
    },
}

/// Writes a table of the settings to `out`, then a description of Redis and of the data set, and how far `clock` is
/// off. Starts the private Redis for that and stops it again, or uses that of a running service. Writes nothing into
/// Redis.
///
/// # Errors
///
/// A [`CheckError`] if Redis doesn't answer, is a replica, has too few replicas for the write acknowledgements, or has
/// an ACL that forbids a needed command.
pub async fn check(
    settings: &Settings,
    rows: &[SettingRow],
    clock: &Clock,
    out: &mut impl Write,
) -> Result<(), CheckError> {
    write_table(rows, out)?;
    let authenticator = Authenticator::load(settings.auth())?;
    settings.tls_files().map(Tls::load).transpose()?;
    write_warnings(settings, &authenticator, out)?;
    let data = Data::open(settings).await.map_err(CheckError::Open)?;
    let report = examine(&data, settings, clock).await;
    data.close().await;
    let RedisReport { servers, key_patterns, layout, samples, foreign_keys, coverage, skew } = report?;
    writeln!(out)?;
    writeln!(out, "the keys of the data set are {}", key_patterns.join(" "))?;
    if !foreign_keys.is_empty() {
        let count = foreign_keys.len();
        let hold = if count == 1 { "1 of them holds" } else { &format!("{count} of them hold") };
        let names = list_first(&foreign_keys);
        writeln!(out, "{hold} data that this service did not write, and will be left alone: {names}")?;
    }
    match coverage {
        Coverage::Complete => {}
        Coverage::Limited => writeln!(out, "not all keys were scanned: a server has more than a million")?,
        Coverage::Refused => writeln!(out, "not all keys were scanned: Redis refuses `SCAN`; grant +scan")?,
    }
    for (address, server) in servers {
        writeln!(out, "{address} is {server}")?;
    }
    if let Some(layout) = layout {
        write_window(settings.window, layout.window(), out)?;
        let partitions = layout.read().partitions();
        if partitions != Partitions::ONE {
            writeln!(out, "the users are split into {}", partitions.in_words())?;
        }
        if let Some(max_members) = layout.read().max_members() {
            write_samples(max_members, samples.as_ref(), out)?;
        }
        if let Some(Resharding { to, .. }) = layout.resharding() {
            writeln!(out, "a move to {} is in progress: `repartition {}` resumes it", to.in_words(), arguments(to))?;
        }
    }
    if let Some(skew) = skew.filter(|skew| !skew.is_tolerable()) {
        writeln!(out, "this machine's clock is {skew}, so the service uses Redis's clock")?;
    }
    Ok(())
}

/// The findings about a Redis that can serve.
struct RedisReport {
    /// The servers that take writes, by address.
    servers: Vec<(String, Server)>,
    /// Patterns of the service's keys.
    key_patterns: Vec<String>,
    /// Keys that match these patterns and hold data that the service did not write.
    foreign_keys: Vec<String>,
    /// How many keys the search for them covered.
    coverage: Coverage,
    /// The layout of the data set, if there is one.
    layout: Option<Layout>,
    /// The samples that its segments keep. `None` if they keep all members, or if an ACL forbids a command.
    samples: Option<SampledSegments>,
    /// How far this machine's clock is ahead of Redis's. `None` if Redis doesn't report its time.
    skew: Option<Skew>,
}

async fn examine(data: &Data, settings: &Settings, clock: &Clock) -> Result<RedisReport, CheckError> {
    let what = || match settings.deployment() {
        Some(deployment) => format!("{}: the Redis", deployment.setting()),
        None => "the private Redis".to_owned(),
    };
    let cant_serve = |address, why| CheckError::CantServe { what: what(), address, why };
    let failed = |error: store::Error| cant_serve(data.address.clone(), error.to_string());
    let store = settings.require_layout(data.store.clone());
    let servers = store.servers().await.map_err(failed)?;
    for (address, server) in &servers {
        if let Some(obstacle) = server.obstacle(settings.acks()) {
            return Err(cant_serve(address.clone(), obstacle));
        }
    }
    let layout = store.existing_layout().await.map_err(failed)?;
    let skew = clock.sync(&store).await.map_err(failed)?.skew;
    let samples = match &layout {
        Some(layout) if layout.read().max_members().is_some() => {
            match store.sampled_segments(layout.read(), settings.window.cutoff(clock.now())).await {
                Err(error) if error.is_refused_command() => None,
                samples => Some(samples.map_err(failed)?),
            }
        }
        _ => None,
    };
    let (foreign_keys, coverage) = store.foreign_keys(layout.as_ref()).await.map_err(failed)?;
    let key_patterns = store.key_patterns(layout.as_ref());
    Ok(RedisReport { servers, key_patterns, foreign_keys, coverage, layout, samples, skew })
}

/// Writes how many users segments keep, and which of them keep a sample.
fn write_samples(max_members: MaxMembers, samples: Option<&SampledSegments>, out: &mut impl Write) -> io::Result<()> {
    write!(out, "a segment keeps up to {max_members} users")?;
    let Some(SampledSegments { segments, deepest, overfull }) = samples else { return writeln!(out) };
    match deepest {
        Some((name, depth)) => {
            let keep = if *segments == 1 { "keeps" } else { "keep" };
            let segments = counted(*segments, "segment", "segments");
            writeln!(out, "; {segments} {keep} a sample, the coarsest one user in {} ({name})", depth.weight())?;
        }
        None => writeln!(out, "; no segment has more")?,
    }
    if !overfull.is_empty() {
        writeln!(
            out,
            "segments that keep more than twice as many: {}; see the log of the service, which removes users from a segment that has \
             grown",
            list_first(overfull)
        )?;
    }
    Ok(())
}

/// Writes how the window of the settings differs from that of the data set.
fn write_window(own: Window, data: Option<Window>, out: &mut impl Write) -> io::Result<()> {
    match data {
        Some(data) if data > own => writeln!(
            out,
            "the data set keeps visits for {data}, and window is {own}: counts use {own}, and pruning uses {data} until \
             `segment-estimator window set {own}`"
        ),
        Some(data) if data < own => {
            writeln!(out, "the data set keeps visits for {data}; the service will extend that to {own}")
        }
        _ => Ok(()),
    }
}

/// Writes warnings about settings that are valid but probably a mistake.
fn write_warnings(settings: &Settings, authenticator: &Authenticator, out: &mut impl Write) -> io::Result<()> {
    let exposures = settings.secret_files().into_iter().filter_map(|file| file.exposure());
    let mut warnings: Vec<_> = exposures.map(|exposure| exposure.to_string()).collect();
    if authenticator.key_counts().api == Some(0) {
        warnings.push("api_keys_file has no key, so every API key is refused".to_owned());
    }
    if !warnings.is_empty() {
        writeln!(out)?;
    }
    warnings.iter().try_for_each(|warning| writeln!(out, "{warning}"))
}

fn write_table(rows: &[SettingRow], out: &mut impl Write) -> io::Result<()> {
    let widest = |column: fn(&SettingRow) -> usize| rows.iter().map(column).max().unwrap_or_default();
    let (names, values) = (widest(|row| row.name.len()), widest(|row| row.value.chars().count()));
    let (names, values) = (names.max("setting".len()), values.max("value".len()));
    writeln!(out, "{:names$}  {:values$}  set by", "setting", "value")?;
    for SettingRow { name, value, set_by } in rows {
        writeln!(out, "{name:names$}  {value:values$}  {set_by}")?;
    }
    Ok(())
}
