//! One layer of settings as raw text, and the places that layers are read from.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Args, Command};
use serde::{Deserialize, Serialize};

use super::{SettingsError, toml_text};

/// What every environment variable of ours starts with.
pub(super) const PREFIX: &str = "ESTIMATOR_";

/// `ESTIMATOR_CONFIG` and `--config` name the file, so it can't be set in the file.
const CONFIG: &str = "config";

/// The settings that one source gives, as text. The names are the same everywhere: `prune_schedule` in the file is
/// `ESTIMATOR_PRUNE_SCHEDULE` in the environment and `--prune-schedule` on the command line.
#[derive(Clone, Default, Args, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
#[command(next_help_heading = "Settings")]
pub struct Layer {
    /// Address and port to serve HTTP on
    #[arg(long, global = true, value_name = "IP:PORT")]
    pub listen: Option<String>,
    /// Address and port to serve probes and metrics on, apart from the API
    #[arg(long, global = true, value_name = "IP:PORT")]
    pub admin_listen: Option<String>,
    /// File with the certificate of `listen` in PEM, and those between it and its authority
    #[arg(long, global = true, value_name = "FILE")]
    pub tls_cert_file: Option<String>,
    /// File with the certificate's private key in PEM
    #[arg(long, global = true, value_name = "FILE")]
    pub tls_key_file: Option<String>,
    /// Origins whose pages may read answers, with commas between them, or *
    #[arg(long, global = true, value_name = "ORIGINS")]
    pub cors_origins: Option<String>,
    /// Hosts that requests may name, with commas between them, or *; localhost and IP addresses always may. Without it, any may,
    /// but on loopback without keys none
    #[arg(long, global = true, value_name = "HOSTS")]
    pub allowed_hosts: Option<String>,
    /// File with the digests of API keys; `segment-estimator token` makes them
    #[arg(long, global = true, value_name = "FILE")]
    pub api_keys_file: Option<String>,
    /// The one algorithm of JSON Web Tokens: HS256, RS256, ES256 or `EdDSA`
    #[arg(long, global = true, value_name = "NAME")]
    pub jwt_algorithm: Option<String>,
    /// File with the secret of HS256, or with a public key in PEM or a JSON Web Key Set
    #[arg(long, global = true, value_name = "FILE")]
    pub jwt_key_file: Option<String>,
    /// Who must have issued a JSON Web Token
    #[arg(long, global = true, value_name = "TEXT")]
    pub jwt_issuer: Option<String>,
    /// Whom a JSON Web Token must be for
    #[arg(long, global = true, value_name = "TEXT")]
    pub jwt_audience: Option<String>,
    /// How far the clocks of issuer and service may differ
    #[arg(long, global = true, value_name = "DURATION")]
    pub jwt_leeway: Option<String>,
    /// Redis to use, such as `redis://user:password@host:6379/0`, `rediss://host` for TLS, or `redis+unix:///path`; a password
    /// is percent-encoded in it; without it, a private one
    #[arg(long, global = true, value_name = "URL")]
    pub redis_url: Option<String>,
    /// Servers of the Redis Cluster to use, as URLs with commas between them; the others are found by these
    #[arg(long, global = true, value_name = "URLS")]
    pub redis_cluster: Option<String>,
    /// Sentinels that know the primary to use, as URLs with commas between them
    #[arg(long, global = true, value_name = "URLS")]
    pub redis_sentinel: Option<String>,
    /// What the sentinels call that primary; without it, `mymaster`
    #[arg(long, global = true, value_name = "NAME")]
    pub redis_sentinel_master: Option<String>,
    /// User of Redis's ACL
    #[arg(long, global = true, value_name = "NAME")]
    pub redis_username: Option<String>,
    /// File that holds the password for Redis
    #[arg(long, global = true, value_name = "FILE")]
    pub redis_password_file: Option<String>,
    /// CA that Redis's certificate must be signed by, in PEM; without it, those that the system trusts
    #[arg(long, global = true, value_name = "FILE")]
    pub redis_ca_file: Option<String>,
    /// Certificate for a Redis that asks for one, in PEM
    #[arg(long, global = true, value_name = "FILE")]
    pub redis_client_cert_file: Option<String>,
    /// Private key of that certificate, in PEM
    #[arg(long, global = true, value_name = "FILE")]
    pub redis_client_key_file: Option<String>,
    /// What the keys of the data set begin with in Redis, such as `prod:`, where other programs or other data sets use the same
    /// database
    #[arg(long, global = true, value_name = "TEXT")]
    pub redis_key_prefix: Option<String>,
    /// Partitions that users are split into, a power of two up to 1024; without it, those that the data set has, and of a new
    /// one 64 on a cluster and 1 elsewhere
    #[arg(long, global = true, value_name = "NUMBER")]
    pub partitions: Option<String>,
    /// Replicas of Redis that must have a visit before it is acknowledged; for a Redis of your own
    #[arg(long, global = true, value_name = "NUMBER")]
    pub write_acks: Option<String>,
    /// Whether they must have it on disk, `true` or `false`; needs Redis 7.2 or Valkey, and a `redis_timeout` of 9s or more
    #[arg(long, global = true, value_name = "BOOL")]
    pub write_acks_on_disk: Option<String>,
    /// Folder of the private Redis
    #[arg(long, global = true, value_name = "FOLDER")]
    pub data_dir: Option<String>,
    /// Memory that the private Redis may take before visits are refused with 503; without it, half of the machine's, or of the
    /// container's limit if that is smaller
    #[arg(long, global = true, value_name = "SIZE")]
    pub redis_max_memory: Option<String>,
    /// How long a user stays in a segment after the last visit; a data set remembers the longest, and prunes by it
    #[arg(long, global = true, value_name = "DURATION")]
    pub window: Option<String>,
    /// When to remove expired members: cron with 5 fields, or 6 with seconds first, in UTC
    #[arg(long, global = true, value_name = "CRON")]
    pub prune_schedule: Option<String>,
    /// How many segments there may be before visits to new ones are refused with 422
    #[arg(long, global = true, value_name = "NUMBER")]
    pub max_segments: Option<String>,
    /// How often the counts of all segments are sampled for their history: a part of a day, or off
    #[arg(long, global = true, value_name = "DURATION")]
    pub history_interval: Option<String>,
    /// `pretty` or `json`; without it, pretty on a terminal and json otherwise
    #[arg(long, global = true, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Log level, or a list of module=level
    #[arg(long, global = true, value_name = "FILTER")]
    pub log_filter: Option<String>,
    /// Collector that traces go to, such as `http://collector:4318` (OTLP over HTTP)
    #[arg(long, global = true, value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// The part of the requests that is traced, 0 to 1, where their `traceparent` doesn't decide it
    #[arg(long, global = true, value_name = "RATIO")]
    pub trace_ratio: Option<String>,
    /// Segments whose users /metrics tells, with commas between them
    #[arg(long, global = true, value_name = "NAMES")]
    pub metered_segments: Option<String>,
    /// How long a request's head may take, a connection may idle, and an answer may wait for the client to read on
    #[arg(long, global = true, value_name = "DURATION")]
    pub header_timeout: Option<String>,
    /// How long a request's body may take; of a stream of visits, each line
    #[arg(long, global = true, value_name = "DURATION")]
    pub body_timeout: Option<String>,
    /// How long a request may take in all; streams of visits excepted
    #[arg(long, global = true, value_name = "DURATION")]
    pub request_timeout: Option<String>,
    /// The longest head of a request
    #[arg(long, global = true, value_name = "BYTES")]
    pub max_header_bytes: Option<String>,
    /// The longest body of a request; a single visit has at most 16 KiB, a stream of visits has no limit
    #[arg(long, global = true, value_name = "BYTES")]
    pub max_body_bytes: Option<String>,
    /// How many connections may be open before more must wait
    #[arg(long, global = true, value_name = "NUMBER")]
    pub max_connections: Option<String>,
    /// How many requests may be under way before more are refused with 503
    #[arg(long, global = true, value_name = "NUMBER")]
    pub max_requests: Option<String>,
    /// How long an overlap of segments may take
    #[arg(long, global = true, value_name = "DURATION")]
    pub overlap_timeout: Option<String>,
    /// How many overlaps may be under way before more are refused with 429; each takes up to 64 MiB
    #[arg(long, global = true, value_name = "NUMBER")]
    pub max_overlaps: Option<String>,
    /// How many lists and requests for a user, which visit every segment, may be under way before more are refused with 429
    #[arg(long, global = true, value_name = "NUMBER")]
    pub max_lists: Option<String>,
    /// How long connecting to Redis may take
    #[arg(long, global = true, value_name = "DURATION")]
    pub redis_connect_timeout: Option<String>,
    /// How long Redis may take to answer, connecting included
    #[arg(long, global = true, value_name = "DURATION")]
    pub redis_timeout: Option<String>,
    /// How many visits may wait for Redis, and as many counts, before more are refused with 503
    #[arg(long, global = true, value_name = "NUMBER")]
    pub max_waiting: Option<String>,
    /// Threads that serve requests; without it, one for each core but one, which is left to Redis
    #[arg(long, global = true, value_name = "NUMBER")]
    pub threads: Option<String>,
    /// How long to go on serving, with readyz at 503, after a stop signal
    #[arg(long, global = true, value_name = "DURATION")]
    pub shutdown_delay: Option<String>,
    /// How long requests in flight may take to finish after that
    #[arg(long, global = true, value_name = "DURATION")]
    pub drain_timeout: Option<String>,
}

impl Layer {
    /// The lowest layer. What is not in it has no default, or one that is found out at the start.
    #[must_use]
    pub fn defaults() -> Self {
        let some = |text: &str| Some(text.to_owned());
        Self {
            listen: some("127.0.0.1:8080"),
            admin_listen: None,
            tls_cert_file: None,
            tls_key_file: None,
            cors_origins: None,
            allowed_hosts: None,
            api_keys_file: None,
            jwt_algorithm: None,
            jwt_key_file: None,
            jwt_issuer: None,
            jwt_audience: None,
            jwt_leeway: some("30s"),
            redis_url: None,
            redis_cluster: None,
            redis_sentinel: None,
            redis_sentinel_master: None,
            redis_username: None,
            redis_password_file: None,
            redis_ca_file: None,
            redis_client_cert_file: None,
            redis_client_key_file: None,
            redis_key_prefix: None,
            partitions: None,
            write_acks: some("0"),
            write_acks_on_disk: some("false"),
            data_dir: some("data"),
            redis_max_memory: None,
            window: some("14d"),
            prune_schedule: some("0 * * * *"),
            max_segments: some("10000"),
            history_interval: some("1h"),
            log_format: None,
            log_filter: some("info,tokio_cron_scheduler=warn"),
            otlp_endpoint: None,
            trace_ratio: some("1"),
            metered_segments: None,
            header_timeout: some("30s"),
            body_timeout: some("10s"),
            request_timeout: some("30s"),
            max_header_bytes: some("65536"),
            max_body_bytes: some("1048576"),
            max_connections: some("10000"),
            max_requests: some("8000"),
            overlap_timeout: some("30s"),
            max_overlaps: some("2"),
            max_lists: some("16"),
            redis_connect_timeout: some("1s"),
            redis_timeout: some("2s"),
            max_waiting: some("10000"),
            threads: None,
            shutdown_delay: some("0s"),
            drain_timeout: some("10s"),
        }
    }

    /// The default of the setting `name`, if it has one.
    #[must_use]
    pub fn default_of(name: &str) -> Option<String> {
        Self::defaults().text_of(name)
    }

    /// What this layer sets `name` to, if it does.
    pub(super) fn text_of(&self, name: &str) -> Option<String> {
        let texts = serde_json::to_value(self).expect("a struct of texts serializes");
        texts.get(name)?.as_str().map(str::to_owned)
    }

    /// The names of all settings.
    #[must_use]
    pub fn names() -> Vec<String> {
        let command = Self::augment_args(Command::new("settings"));
        command.get_arguments().map(|argument| argument.get_id().to_string()).collect()
    }
}

/// Where a layer comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// This program.
    Defaults,
    /// A TOML file.
    File(PathBuf),
    /// `.env` in the working folder.
    DotEnv,
    /// The environment.
    Environment,
    /// The command line.
    Flags,
}

impl Source {
    /// How this source writes the setting `name`.
    pub(super) fn writes(&self, name: &str) -> String {
        match self {
            Self::Defaults => format!("the default of {name}"),
            Self::File(path) => format!("{name} in {}", path.display()),
            Self::DotEnv => format!("{PREFIX}{} in .env", name.to_uppercase()),
            Self::Environment => format!("{PREFIX}{}", name.to_uppercase()),
            Self::Flags => format!("--{}", name.replace('_', "-")),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Defaults => f.write_str("defaults"),
            Self::File(path) => path.display().fmt(f),
            Self::DotEnv => f.write_str(".env"),
            Self::Environment => f.write_str("the environment"),
            Self::Flags => f.write_str("the command line"),
        }
    }
}

/// Reads the layer of a TOML file.
pub(super) fn from_file(path: &Path) -> Result<(Source, Layer), SettingsError> {
    let failed = |why: String| SettingsError(format!("{}: {why}", path.display()));
    let unreadable_file = |error| SettingsError(format!("config: can't read {}: {error}", path.display()));
    let text = std::fs::read_to_string(path).map_err(unreadable_file)?;
    let table: toml::Table = text.parse().map_err(|error| failed(toml_text::mistake(&text, &error)))?;
    let source = Source::File(path.to_owned());
    let pairs = table.into_iter().map(|(name, value)| match value {
        toml::Value::String(text) => Ok((name, text)),
        toml::Value::Integer(_) | toml::Value::Float(_) | toml::Value::Boolean(_) => Ok((name, value.to_string())),
        _ => Err(SettingsError(format!("{} must be a single value", source.writes(&name)))),
    });
    let pairs = pairs.collect::<Result<Vec<_>, _>>()?;
    pairs.iter().try_for_each(|(name, _)| check_name(&source, name))?;
    let layer = envy::from_iter(pairs).map_err(|error| unreadable(&source, &error))?;
    Ok((source, layer))
}

/// Reads a layer from environment variables, and beside it `ESTIMATOR_CONFIG`. Variables of other programs are passed
/// over, and so are empty ones of ours: compose files write `${ESTIMATOR_WINDOW:-}` for "not set".
pub(super) fn from_variables(
    source: Source,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(Option<PathBuf>, (Source, Layer)), SettingsError> {
    let mut config = None;
    let mut ours = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str() else { continue };
        let capitals = name.to_uppercase();
        if !capitals.starts_with(PREFIX) {
            continue;
        }
        if name != capitals {
            return Err(SettingsError(format!("{name} must be written in capitals")));
        }
        let setting = name[PREFIX.len()..].to_lowercase();
        if setting != CONFIG {
            check_name(&source, &setting)?;
        }
        if value.is_empty() {
            continue;
        }
        let value = value.into_string().map_err(|_| SettingsError(format!("{name} is not UTF-8")))?;
        if setting == CONFIG {
            config = Some(PathBuf::from(value));
        } else {
            ours.push((name.to_owned(), value));
        }
    }
    let layer = envy::prefixed(PREFIX).from_iter(ours).map_err(|error| unreadable(&source, &error))?;
    Ok((config, (source, layer)))
}

fn check_name(source: &Source, name: &str) -> Result<(), SettingsError> {
    if Layer::names().iter().any(|known| known == name) {
        return Ok(());
    }
    Err(SettingsError(format!("{} is not a setting; --help lists them all", source.writes(name))))
}

/// Names are checked and every value is text, so this is for what remains, such as a name given twice.
fn unreadable(source: &Source, error: &envy::Error) -> SettingsError {
    SettingsError(format!("{source}: {error}"))
}
