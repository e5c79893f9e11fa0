//! The settings, each declared once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::declare::{Setting, settings};
use super::effective::EffectiveTexts;
use super::secret_files::SecretFile;
use super::source::Source;
use super::value::Value;
use super::{SettingsError, parse};
use crate::auth::JwtAlgorithm;
use crate::domain::{SegmentName, Window};
use crate::embedded_redis::MaxMemory;
use crate::estimator::history::Interval;
use crate::http::{AllowedHosts, Origins};
use crate::jobs::Schedule;
use crate::redis::RedisUrl;
use crate::store::{KeyPrefix, Partitions};
use crate::telemetry::{LogFilter, LogFormat, OtlpEndpoint, parse_ratio};

settings! {
    /// Address and port to serve HTTP on
    listen: SocketAddr, "IP:PORT", parse::address, default = "127.0.0.1:8080";
    /// Address and port to serve probes and metrics on, apart from the API
    admin_listen: Option<SocketAddr>, "IP:PORT", parse::address;
    /// File with the certificate of `listen` in PEM, and those between it and its authority
    tls_cert_file: Option<PathBuf>, "FILE", parse::path;
    /// File with the certificate's private key in PEM
    tls_key_file: Option<PathBuf>, "FILE", parse::path;
    /// Origins whose pages may read answers, with commas between them, or *
    cors_origins: Option<Origins>, "ORIGINS", Origins::parse;
    /// Hosts that requests may name, with commas between them, or *; localhost and IP addresses always may. Without it, any may,
    /// but on loopback without keys none
    allowed_hosts: Option<AllowedHosts>, "HOSTS", AllowedHosts::parse;
    /// File with the digests of API keys; `segment-estimator token` makes them
    api_keys_file: Option<PathBuf>, "FILE", parse::path;
    /// The one algorithm of JSON Web Tokens: HS256, RS256, ES256 or `EdDSA`
    jwt_algorithm: Option<JwtAlgorithm>, "NAME", JwtAlgorithm::parse;
    /// File with the secret of HS256, or with a public key in PEM or a JSON Web Key Set
    jwt_key_file: Option<PathBuf>, "FILE", parse::path;
    /// Who must have issued a JSON Web Token
    jwt_issuer: Option<String>, "TEXT", parse::name;
    /// Whom a JSON Web Token must be for
    jwt_audience: Option<String>, "TEXT", parse::name;
    /// How far the clocks of issuer and service may differ
    jwt_leeway: Duration, "DURATION", parse::whole_seconds, default = "30s";
    /// Redis to use, such as `redis://user:password@host:6379/0`, `rediss://host` for TLS, or `redis+unix:///path`; a password
    /// is percent-encoded in it; without it, a private one
    redis_url: Option<RedisUrl>, "URL", RedisUrl::parse, secret = true;
    /// Servers of the Redis Cluster to use, as URLs with commas between them; the others are found by these
    redis_cluster: Option<Vec<RedisUrl>>, "URLS", parse::cluster_seeds, secret = true;
    /// Sentinels that know the primary to use, as URLs with commas between them
    redis_sentinel: Option<Vec<RedisUrl>>, "URLS", parse::sentinels, secret = true;
    /// What the sentinels call that primary
    redis_sentinel_master: String, "NAME", parse::name, default = "mymaster";
    /// User of Redis's ACL
    redis_username: Option<String>, "NAME", parse::name;
    /// File that holds the password for Redis
    redis_password_file: Option<PathBuf>, "FILE", parse::path;
    /// CA that Redis's certificate must be signed by, in PEM; without it, those that the system trusts
    redis_ca_file: Option<PathBuf>, "FILE", parse::path;
    /// Certificate for a Redis that asks for one, in PEM
    redis_client_cert_file: Option<PathBuf>, "FILE", parse::path;
    /// Private key of that certificate, in PEM
    redis_client_key_file: Option<PathBuf>, "FILE", parse::path;
    /// What the keys of the data set begin with in Redis, such as `prod:`, where other programs or other data sets use the same
    /// database
    redis_key_prefix: KeyPrefix, "TEXT", KeyPrefix::parse, or = KeyPrefix::default();
    /// Partitions that users are split into, a power of two up to 1024; without it, those that the data set has, and of a new
    /// one 64 on a cluster and 1 elsewhere
    partitions: Option<Partitions>, "NUMBER", Partitions::parse;
    /// Replicas of Redis that must have a visit before it is acknowledged; for a Redis of your own
    write_acks: usize, "NUMBER", parse::number::<0, 9>, default = "0";
    /// Whether they must have it on disk, `true` or `false`; needs Redis 7.2 or Valkey, and a `redis_timeout` of 9s or more
    write_acks_on_disk: bool, "BOOL", parse::boolean, default = "false";
    /// Folder of the private Redis
    data_dir: PathBuf, "FOLDER", parse::path, default = "data";
    /// Memory that the private Redis may take before visits are refused with 503; without it, half of the machine's, or of the
    /// container's limit if that is smaller
    redis_max_memory: Option<MaxMemory>, "SIZE", MaxMemory::parse;
    /// How long a user stays in a segment after the last visit; a data set remembers the longest, and prunes by it
    window: Window, "DURATION", Window::parse, default = "14d";
    /// When to remove expired members: cron with 5 fields, or 6 with seconds first, in UTC
    prune_schedule: Schedule, "CRON", Schedule::parse, default = "0 * * * *";
    /// How many segments there may be before visits to new ones are refused with 422
    max_segments: usize, "NUMBER", parse::number::<1, 100_000_000>, default = "10000";
    /// How often the counts of all segments are sampled for their history: a part of a day, or off
    history_interval: Option<Interval>, "DURATION", Interval::parse, default = "1h";
    /// `pretty` or `json`; without it, pretty on a terminal and json otherwise
    log_format: Option<LogFormat>, "FORMAT", LogFormat::parse;
    /// Log level, or a list of module=level
    log_filter: LogFilter, "FILTER", LogFilter::parse, default = "info,tokio_cron_scheduler=warn";
    /// Collector that traces go to, such as `http://collector:4318` (OTLP over HTTP)
    otlp_endpoint: Option<OtlpEndpoint>, "URL", OtlpEndpoint::parse, secret = true;
    /// The part of the requests that is traced, 0 to 1, where their `traceparent` doesn't decide it
    trace_ratio: f64, "RATIO", parse_ratio, default = "1";
    /// Segments whose users /metrics tells, with commas between them
    metered_segments: Vec<SegmentName<'static>>, "NAMES", parse::segments, or = Vec::new();
    /// How long a request's head may take, a connection may idle, and an answer may wait for the client to read on
    header_timeout: Duration, "DURATION", parse::limit, default = "30s";
    /// How long a request's body may take; of a stream of visits, each line
    body_timeout: Duration, "DURATION", parse::limit, default = "10s";
    /// How long a request may take in all; streams of visits excepted
    request_timeout: Duration, "DURATION", parse::limit, default = "30s";
    /// The longest head of a request
    max_header_bytes: usize, "BYTES", parse::number::<8_192, 1_048_576>, default = "65536";
    /// The longest body of a request; a single visit has at most 16 KiB, a stream of visits has no limit
    max_body_bytes: usize, "BYTES", parse::number::<1, 67_108_864>, default = "1048576";
    /// How many connections may be open before more must wait
    max_connections: usize, "NUMBER", parse::number::<1, 1_000_000>, default = "10000";
    /// How many requests may be under way before more are refused with 503
    max_requests: usize, "NUMBER", parse::number::<1, 1_000_000>, default = "8000";
    /// How long an overlap of segments may take
    overlap_timeout: Duration, "DURATION", parse::limit, default = "30s";
    /// How many overlaps may be under way before more are refused with 429; each takes up to 64 MiB
    max_overlaps: usize, "NUMBER", parse::number::<1, 100>, default = "2";
    /// How many lists and requests for a user, which visit every segment, may be under way before more are refused with 429
    max_lists: usize, "NUMBER", parse::number::<1, 1_000>, default = "16";
    /// How long connecting to Redis may take
    redis_connect_timeout: Duration, "DURATION", parse::limit, default = "1s";
    /// How long Redis may take to answer, connecting included
    redis_timeout: Duration, "DURATION", parse::limit, default = "2s";
    /// How many visits may wait for Redis, and as many counts, before more are refused with 503
    max_waiting: usize, "NUMBER", parse::number::<1, 1_000_000>, default = "10000";
    /// Threads that serve requests; without it, one for each core but one, which is left to Redis
    threads: usize, "NUMBER", parse::number::<1, 1_024>, or = parse::usual_threads();
    /// How long to go on serving, with readyz at 503, after a stop signal
    shutdown_delay: Duration, "DURATION", parse::delay, default = "0s";
    /// How long requests in flight may take to finish after that
    drain_timeout: Duration, "DURATION", parse::limit, default = "10s";
}

impl Settings {
    /// Settings from `layers`, of which later ones override earlier ones.
    ///
    /// # Errors
    ///
    /// A [`SettingsError`] for the first value that won't do.
    pub fn from_layers(layers: &[(Source, Layer)]) -> Result<Self, SettingsError> {
        let texts = effective_texts(layers);
        let files = layers.iter().filter_map(|(source, _)| source.file()).collect();
        let mut settings = Self::parse(&texts, files)?;
        settings.check_access(&texts)?;
        settings.check_redis(&texts)?;
        if settings.has_private_redis() {
            settings.redis_max_memory = settings.redis_max_memory.or_else(MaxMemory::of_this_machine);
        }
        Ok(settings)
    }
}

pub(super) fn effective_texts(layers: &[(Source, Layer)]) -> EffectiveTexts<'_> {
    let texts = layers.iter().flat_map(|(source, layer)| layer.texts().map(move |(name, text)| (name, (source, text))));
    EffectiveTexts::new(SETTINGS, texts)
}
