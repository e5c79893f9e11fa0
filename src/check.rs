//! `segment-estimator check`: what the service would run with, and whether Redis answers.

use std::io::{self, Write};

use crate::settings::{Settings, Shown};
use crate::store::embedded::{EmbeddedError, EmbeddedRedis};
use crate::store::{self, Connection, Store};

/// Why the check failed: one line, made to be shown as it is.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The table can't be written.
    #[error("can't write the settings: {0}")]
    Output(#[from] io::Error),
    /// A file for the connection to Redis can't be used; the text names the setting.
    #[error("{0}")]
    File(String),
    /// The private Redis doesn't run.
    #[error(transparent)]
    Embedded(#[from] EmbeddedError),
    /// Redis can't serve.
    #[error("redis_url: the Redis at {address} can't serve: {error}")]
    Redis {
        /// Where it was looked for.
        address: String,
        /// Why not.
        error: store::Error,
    },
}

/// Writes the settings to `out` as a table, reaches Redis, and writes what it is. A private Redis is started for that and
/// stopped again; if a service uses it already, that one is asked.
///
/// # Errors
///
/// A [`CheckError`] when Redis can't be reached or doesn't answer. Whether it would take writes is not tried.
pub async fn check(settings: &Settings, shown: &[Shown], out: &mut impl Write) -> Result<(), CheckError> {
    write_table(shown, out)?;
    let (redis, url) = match &settings.redis_url {
        Some(url) => (None, url.clone()),
        None => match EmbeddedRedis::start(&settings.data_dir).await {
            Ok(redis) => {
                let url = redis.url();
                (Some(redis), url)
            }
            Err(EmbeddedError::InUse(data_dir)) => (None, EmbeddedRedis::url_in(&data_dir)?),
            Err(error) => return Err(error.into()),
        },
    };
    let answer = async {
        let connection = Connection::new(url.clone(), settings.store_limits()).map_err(CheckError::File)?;
        Store::new(connection).server().await.map_err(|error| CheckError::Redis { address: url.to_string(), error })
    };
    let answer = answer.await;
    if let Some(redis) = redis {
        redis.stop().await;
    }
    Ok(writeln!(out, "\n{url} is {}", answer?)?)
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
