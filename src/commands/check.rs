//! `segment-estimator check`: what the service would run with, and whether Redis can serve it.

use std::io::{self, Write};
use std::sync::Arc;

use crate::auth::{Authenticator, KeysError};
use crate::config::{Settings, Shown};
use crate::domain::Window;
use crate::embedded_redis::{EmbeddedError, EmbeddedRedis};
use crate::estimator::clock::{Clock, Skew};
use crate::http::{Tls, TlsError};
use crate::redis::{Client, Deployment};
use crate::store::diagnostics::{Server, list_first};
use crate::store::{self, Coverage, Layout, Partitions, Resharding, Store};

/// Why the check failed: one line, made to be shown as it is.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The table can't be written.
    #[error("can't write the settings: {0}")]
    Output(#[from] io::Error),
    /// A file for the connection to Redis can't be used; the text names the setting.
    #[error("{0}")]
    File(String),
    /// The keys that tokens are checked with can't be used.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// The certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The private Redis doesn't run.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// Redis can't serve.
    #[error("{what} at {address} can't serve: {why}")]
    CantServe {
        /// Which Redis, with the setting that names it if one does.
        what: String,
        /// Where it was looked for.
        address: String,
        /// Why not.
        why: String,
    },
}

/// Writes the settings to `out` as a table, reaches Redis, and writes what it is, and whether its clock agrees with `clock`. A
/// private Redis is started for that and stopped again; if a service uses it already, that one is asked, as soon as it serves.
///
/// # Errors
///
/// A [`CheckError`] when Redis can't be reached, doesn't answer, is a replica, has fewer replicas than must have a visit, or has
/// an ACL that forbids what is needed. Nothing is written to find out.
pub async fn check(
    settings: &Settings,
    shown: &[Shown],
    clock: &Clock,
    out: &mut impl Write,
) -> Result<(), CheckError> {
    write_table(shown, out)?;
    let authenticator = Authenticator::load(settings.auth.clone())?;
    settings.tls.clone().map(Tls::load).transpose()?;
    write_warnings(settings, &authenticator, out)?;
    let Found { servers, key_patterns, layout, foreign_keys, coverage, skew } = match &settings.redis {
        Some(servers) => ask(&format!("{}: the Redis", servers.setting()), servers, settings, clock).await?,
        None => ask_private(settings, clock).await?,
    };
    writeln!(out)?;
    writeln!(out, "the keys of the data set are {}", key_patterns.join(" "))?;
    if !foreign_keys.is_empty() {
        let count = foreign_keys.len();
        let are = if count == 1 { "1 of them holds" } else { &format!("{count} of them hold") };
        let names = list_first(&foreign_keys);
        writeln!(out, "{are} what this service has not written, and will be left alone: {names}")?;
    }
    match coverage {
        Coverage::Complete => {}
        Coverage::Limited => writeln!(out, "not all keys were looked at: a server has more than a million")?,
        Coverage::Refused => writeln!(out, "not all keys were looked at: Redis refuses `SCAN`; grant +scan")?,
    }
    for (address, server) in servers {
        writeln!(out, "{address} is {server}")?;
    }
    if let Some(layout) = layout {
        write_window(settings.window, layout.window(), out)?;
        let partitions = layout.read().partitions();
        if partitions != Partitions::ONE {
            writeln!(out, "the users are split into {partitions} partitions")?;
        }
        if let Some(Resharding { to, .. }) = layout.resharding() {
            let to = to.partitions();
            writeln!(out, "a move to {} is under way: `repartition --to {to}` takes it up", to.in_words())?;
        }
    }
    if let Some(skew) = skew.filter(|skew| !skew.is_tolerable()) {
        writeln!(out, "this machine's clock is {skew}, so the service goes by Redis's")?;
    }
    Ok(())
}

/// A Redis that can serve.
struct Found {
    /// Its servers that take writes, with their addresses.
    servers: Vec<(String, Server)>,
    /// Patterns of the keys that are the service's.
    key_patterns: Vec<String>,
    /// Keys that these match and that hold something else.
    foreign_keys: Vec<String>,
    /// Whether all keys were looked at for them.
    coverage: Coverage,
    /// How the data set is laid out, if there is one.
    layout: Option<Layout>,
    /// How far this machine's clock is ahead of its own; `None` when it doesn't tell its time.
    skew: Option<Skew>,
}

async fn ask_private(settings: &Settings, clock: &Clock) -> Result<Found, CheckError> {
    let (url, redis) = EmbeddedRedis::start_or_join(&settings.data_dir, settings.redis_max_memory).await?;
    let answer = ask("the private Redis", &url.into(), settings, clock).await;
    if let Some(redis) = redis {
        redis.stop().await;
    }
    answer
}

async fn ask(what: &str, deployment: &Deployment, settings: &Settings, clock: &Clock) -> Result<Found, CheckError> {
    let cant_serve = |address, why| CheckError::CantServe { what: what.to_owned(), address, why };
    let connection = Client::new(deployment.clone(), settings.store_limits(), Arc::default());
    let store = Store::new(connection.map_err(CheckError::File)?);
    let store = store.with_acks(settings.write_acks).with_partitions(settings.partitions);
    let store = store.with_key_prefix(settings.redis_key_prefix.clone());
    let store = if settings.redis.is_none() { store.on_private_redis() } else { store };
    let failed = |error: store::Error| cant_serve(deployment.to_string(), error.to_string());
    let found = store.servers().await.map_err(failed)?;
    for (address, server) in &found {
        if let Some(obstacle) = server.obstacle(settings.write_acks) {
            return Err(cant_serve(address.clone(), obstacle));
        }
    }
    let layout = store.existing_layout().await.map_err(failed)?;
    let skew = clock.sync(&store).await.map_err(failed)?.skew;
    let (foreign_keys, coverage) = store.foreign_keys(layout.as_ref()).await.map_err(failed)?;
    let key_patterns = store.key_patterns(layout.as_ref());
    Ok(Found { servers: found, key_patterns, foreign_keys, coverage, layout, skew })
}

/// Tells where the window that is set and that of the data set differ.
fn write_window(own: Window, data: Option<Window>, out: &mut impl Write) -> io::Result<()> {
    match data {
        Some(data) if data > own => writeln!(
            out,
            "the data set keeps visits for {data}, and window is {own}: counts go by {own}, and pruning by {data} until \
             `segment-estimator window set {own}`"
        ),
        Some(data) if data < own => {
            writeln!(out, "the data set keeps visits for {data}; the service will extend that to {own}")
        }
        _ => Ok(()),
    }
}

/// Writes what keeps nothing from serving, and is likely not meant.
fn write_warnings(settings: &Settings, authenticator: &Authenticator, out: &mut impl Write) -> io::Result<()> {
    let exposures = settings.secret_files().into_iter().filter_map(|file| file.exposure());
    let mut warnings: Vec<_> = exposures.map(|exposure| exposure.to_string()).collect();
    if authenticator.key_counts().api == Some(0) {
        warnings.push("api_keys_file has no key, so that every API key is refused".to_owned());
    }
    if !warnings.is_empty() {
        writeln!(out)?;
    }
    warnings.iter().try_for_each(|warning| writeln!(out, "{warning}"))
}

fn write_table(shown: &[Shown], out: &mut impl Write) -> io::Result<()> {
    let widest = |column: fn(&Shown) -> usize| shown.iter().map(column).max().unwrap_or_default();
    let (names, values) = (widest(|shown| shown.name.len()), widest(|shown| shown.value.chars().count()));
    let (names, values) = (names.max("setting".len()), values.max("value".len()));
    writeln!(out, "{:names$}  {:values$}  set by", "setting", "value")?;
    for Shown { name, value, set_by } in shown {
        writeln!(out, "{name:names$}  {value:values$}  {set_by}")?;
    }
    Ok(())
}
