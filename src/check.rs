//! `segment-estimator check`: what the service would run with, and whether Redis can serve it.

use std::io::{self, Write};
use std::sync::Arc;

use crate::auth::{Gate, KeysError};
use crate::clock::{Clock, Skew};
use crate::http::{Tls, TlsError};
use crate::settings::{Settings, Shown};
use crate::store::embedded::{EmbeddedError, EmbeddedRedis};
use crate::store::{self, Connection, RedisUrl, Server, Store};

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
        what: &'static str,
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
    Gate::load(settings.auth.clone())?;
    settings.tls.clone().map(Tls::load).transpose()?;
    let (url, Found { server, skew }) = match &settings.redis_url {
        Some(url) => (url.clone(), ask("redis_url: the Redis", url, settings, clock).await?),
        None => ask_private(settings, clock).await?,
    };
    write!(out, "\n{url} is {server}")?;
    if let Some(skew) = skew.filter(|skew| !skew.is_tolerable()) {
        write!(out, "; this machine's clock is {skew}, so the service goes by Redis's")?;
    }
    Ok(writeln!(out)?)
}

/// A Redis that can serve.
struct Found {
    server: Server,
    /// How far this machine's clock is ahead of its own; `None` when it doesn't tell its time.
    skew: Option<Skew>,
}

async fn ask_private(settings: &Settings, clock: &Clock) -> Result<(RedisUrl, Found), CheckError> {
    let (redis, url) = match EmbeddedRedis::start(&settings.data_dir).await {
        Ok(redis) => {
            let url = redis.url();
            (Some(redis), url)
        }
        Err(EmbeddedError::InUse(data_dir)) => (None, EmbeddedRedis::of_running_service(&data_dir).await?),
        Err(error) => return Err(error.into()),
    };
    let answer = ask("the private Redis", &url, settings, clock).await;
    if let Some(redis) = redis {
        redis.stop().await;
    }
    Ok((url, answer?))
}

async fn ask(what: &'static str, url: &RedisUrl, settings: &Settings, clock: &Clock) -> Result<Found, CheckError> {
    let connection = Connection::new(url.clone(), settings.store_limits(), Arc::default()).map_err(CheckError::File)?;
    let store = Store::new(connection).with_acks(settings.write_acks);
    let answer = async { Ok::<_, store::Error>((store.server().await?, clock.compare_with(&store).await?.skew)) }.await;
    let why = match answer {
        Err(error) => error.to_string(),
        Ok((server, skew)) => match server.obstacle(settings.write_acks) {
            Some(obstacle) => obstacle,
            None => return Ok(Found { server, skew }),
        },
    };
    Err(CheckError::CantServe { what, address: url.to_string(), why })
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
