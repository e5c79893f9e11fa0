//! The settings, each declared once, in the sections and the order of docs/settings.md. `declare.rs` lists what else a
//! new one needs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::declare::{Setting, settings};
use super::effective::EffectiveTexts;
use super::secret_files::SecretFile;
use super::source::Source;
use super::value::SettingValue;
use super::{SettingsError, parse};
use crate::auth::JwtAlgorithm;
use crate::domain::Window;
use crate::embedded_redis::MaxMemory;
use crate::estimator::history::Interval;
use crate::http::{AllowedHosts, Origins, PublicUrl};
use crate::jobs::{Schedule, SegmentPattern};
use crate::redis::RedisUrl;
use crate::store::{KeyPrefix, MaxMembers, Partitions};
use crate::telemetry::{LogFilter, LogFormat, OtlpEndpoint, parse_ratio};

settings! {
    section "Serving";

    /// Address and port to serve HTTP on
    listen: SocketAddr, "IP:PORT", parse::address, default = "127.0.0.1:8080";
    /// Address and port to serve probes and metrics on, apart from the API [default: same as listen]
    admin_listen: Option<SocketAddr>, "IP:PORT", parse::address;
    /// Certificate of `listen` and its intermediates, in PEM
    tls_cert_file: Option<PathBuf>, "FILE", parse::path;
    /// Private key of that certificate, in PEM
    tls_key_file: Option<PathBuf>, "FILE", parse::path;
    /// Comma-separated origins whose pages may read responses, or * [default: none]
    cors_origins: Option<Origins>, "ORIGINS", Origins::parse;
    /// URL of the service on pages, behind a proxy that adds a path [default: that of each request]
    public_url: Option<PublicUrl>, "URL", PublicUrl::parse;
    /// Worker threads [default: one per core but one, which is left to Redis]
    threads: usize, "NUMBER", parse::number::<1, 1_024>, or = parse::default_threads();

    section "Access";

    /// Comma-separated hosts that requests may name, or *; localhost and IP addresses are always accepted [default:
    /// any, but none on loopback without keys]
    allowed_hosts: Option<AllowedHosts>, "HOSTS", AllowedHosts::parse;
    /// TOML file with the SHA-256 digests of API keys; `segment-estimator token` makes both
    api_keys_file: Option<PathBuf>, "FILE", parse::path;
    /// Algorithm of JSON Web Tokens: HS256, RS256, ES256 or EdDSA
    jwt_algorithm: Option<JwtAlgorithm>, "NAME", JwtAlgorithm::parse;
    /// File with the secret of HS256, a public key in PEM or a JSON Web Key Set
    jwt_key_file: Option<PathBuf>, "FILE", parse::path;
    /// Required issuer (iss) of a JSON Web Token [default: any]
    jwt_issuer: Option<String>, "TEXT", parse::non_empty;
    /// Required audience (aud) of a JSON Web Token; without it, a token with an audience is refused
    jwt_audience: Option<String>, "TEXT", parse::non_empty;
    /// Tolerated clock skew between issuer and service
    jwt_leeway: Duration, "DURATION", parse::whole_seconds, default = "30s";

    section "Redis";

    /// URL of Redis: `redis://user:password@host:6379/0`, `rediss://host` for TLS, or `redis+unix:///path`; the
    /// password is percent-encoded [default: a private Redis]
    redis_url: Option<RedisUrl>, "URL", RedisUrl::parse, secret = true;
    /// Comma-separated URLs of Redis Cluster servers; one that answers is enough to find the others
    redis_cluster: Option<Vec<RedisUrl>>, "URLS", parse::cluster_seeds, secret = true;
    /// Comma-separated URLs of the sentinels of a primary
    redis_sentinel: Option<Vec<RedisUrl>>, "URLS", parse::sentinels, secret = true;
    /// Sentinel master name
    redis_sentinel_master: String, "NAME", parse::non_empty, default = "mymaster";
    /// User of the Redis ACL, unless the URL has one
    redis_username: Option<String>, "NAME", parse::non_empty;
    /// File with the Redis password, unless the URL has one
    redis_password_file: Option<PathBuf>, "FILE", parse::path;
    /// CA certificates that verify Redis, in PEM [default: the system's]
    redis_ca_file: Option<PathBuf>, "FILE", parse::path;
    /// Client certificate for Redis, in PEM
    redis_client_cert_file: Option<PathBuf>, "FILE", parse::path;
    /// Private key of the client certificate, in PEM
    redis_client_key_file: Option<PathBuf>, "FILE", parse::path;
    /// Prefix of the keys of the data set, such as `prod:`, in a Redis database that others use
    redis_key_prefix: KeyPrefix, "TEXT", KeyPrefix::parse, or = KeyPrefix::default();
    /// Number of partitions of the users, a power of two up to 1024 [default: that of the data set; of a new one, 64 on
    /// a cluster and 1 elsewhere]
    partitions: Option<Partitions>, "NUMBER", Partitions::parse;
    /// Maximum number of users that a segment keeps, a power of two, such as 65536; a larger segment is estimated from
    /// a sample [default: that of the data set; a new one keeps all users]
    max_members: Option<MaxMembers>, "NUMBER", MaxMembers::parse;
    /// Number of Redis replicas that must have a visit before it is acknowledged, 0 to 9; not for the private Redis
    write_acks: usize, "NUMBER", parse::number::<0, 9>, default = "0";
    /// Whether the replicas must have it on disk, `true` or `false`; needs Redis 7.2 or Valkey, and a `redis_timeout`
    /// of at least 9s
    write_acks_on_disk: bool, "BOOL", parse::boolean, default = "false";
    /// Folder of the private Redis
    data_dir: PathBuf, "FOLDER", parse::path, default = "data";
    /// Memory limit of the private Redis, such as 512mb or 2gb; visits beyond it get 503 [default: half of the
    /// machine's memory, or of the container's limit if that is smaller]
    redis_max_memory: Option<MaxMemory>, "SIZE", MaxMemory::parse;
    /// Timeout of connecting to Redis
    redis_connect_timeout: Duration, "DURATION", parse::timeout, default = "1s";
    /// Timeout of Redis's answer, connecting included
    redis_timeout: Duration, "DURATION", parse::timeout, default = "2s";

    section "Visits";

    /// Time that a user stays in a segment after the last visit; a data set keeps the longest one and is pruned by it
    window: Window, "DURATION", Window::parse, default = "14d";
    /// Schedule of removing expired members: cron with 5 fields, or 6 with seconds first, in UTC
    prune_schedule: Schedule, "CRON", Schedule::parse, default = "0 * * * *";
    /// Maximum number of segments; a visit to a further one gets 422
    max_segments: usize, "NUMBER", parse::number::<1, 100_000_000>, default = "10000";
    /// Sampling interval of the history of all segments: a part of a day, such as 15m or 1h, or off
    history_interval: Option<Interval>, "DURATION", Interval::parse, default = "1h";

    section "Limits";

    /// Timeout of a request's head, an idle connection, and a client that stops reading its answer
    header_timeout: Duration, "DURATION", parse::timeout, default = "30s";
    /// Timeout of a request's body; in a stream of visits, of each line; in a list of users, of the next 500
    body_timeout: Duration, "DURATION", parse::timeout, default = "10s";
    /// Timeout of a whole request; not of a stream of visits, nor of a list of users after its first line
    request_timeout: Duration, "DURATION", parse::timeout, default = "30s";
    /// Maximum size of a request's head
    max_header_bytes: usize, "BYTES", parse::number::<8_192, 1_048_576>, default = "65536";
    /// Maximum size of a request's body; a single visit has at most 16 KiB, a stream of visits has no limit
    max_body_bytes: usize, "BYTES", parse::number::<1, 67_108_864>, default = "1048576";
    /// Maximum number of open connections; further ones wait
    max_connections: usize, "NUMBER", parse::number::<1, 1_000_000>, default = "10000";
    /// Maximum number of requests in flight; further ones get 503
    max_requests: usize, "NUMBER", parse::number::<1, 1_000_000>, default = "8000";
    /// Timeout of an overlap of segments, or of the count of an audience
    overlap_timeout: Duration, "DURATION", parse::timeout, default = "30s";
    /// Maximum number of overlaps and audiences in flight, of up to 64 MiB each; further ones wait, then get 429
    max_overlaps: usize, "NUMBER", parse::number::<1, 100>, default = "2";
    /// Maximum number of lists, and requests for a user, in flight, as each reads every segment; further ones get 429
    max_lists: usize, "NUMBER", parse::number::<1, 1_000>, default = "16";
    /// Maximum number of lists of a segment's users in flight; further ones get 429
    max_member_lists: usize, "NUMBER", parse::number::<1, 1_000>, default = "4";
    /// Maximum number of visits that wait for Redis, and of counts; further ones get 503
    max_waiting: usize, "NUMBER", parse::number::<1, 1_000_000>, default = "10000";

    section "Stopping";

    /// Time to keep serving after a stop signal, with readyz at 503
    shutdown_delay: Duration, "DURATION", parse::duration_or_zero, default = "0s";
    /// Timeout of the requests in flight after that
    drain_timeout: Duration, "DURATION", parse::timeout, default = "10s";

    section "Logs, traces and metrics";

    /// Log format, `pretty` or `json` [default: pretty on a terminal, otherwise json]
    log_format: Option<LogFormat>, "FORMAT", LogFormat::parse;
    /// Log level, or a comma-separated list of module=level
    log_filter: LogFilter, "FILTER", LogFilter::parse, default = "info,tokio_cron_scheduler=warn";
    /// Collector of traces (OTLP over HTTP), such as `http://collector:4318` [default: no traces]
    otlp_endpoint: Option<OtlpEndpoint>, "URL", OtlpEndpoint::parse, secret = true;
    /// Ratio of traced requests, 0 to 1, among those without a `traceparent`
    trace_ratio: f64, "RATIO", parse_ratio, default = "1";
    /// Segments, at most 100, whose numbers of users /metrics reports: comma-separated names, `news*`, `top:20`
    metered_segments: Vec<SegmentPattern>, "PATTERNS", SegmentPattern::parse_list, or = Vec::new();
}

impl Settings {
    /// Makes settings of `layers`. Later layers override earlier ones.
    ///
    /// # Errors
    ///
    /// A [`SettingsError`] for the first invalid value.
    pub fn from_layers(layers: &[(Source, RawSettings)]) -> Result<Self, SettingsError> {
        let texts = effective_texts(layers);
        let files = layers.iter().filter_map(|(source, _)| source.file()).collect();
        let mut settings = Self::parse(&texts, files)?;
        settings.validate_access(&texts)?;
        settings.validate_redis(&texts)?;
        if settings.has_private_redis() {
            settings.redis_max_memory = settings.redis_max_memory.or_else(MaxMemory::of_this_machine);
        }
        Ok(settings)
    }
}

/// Merges the texts of `layers`.
pub(super) fn effective_texts(layers: &[(Source, RawSettings)]) -> EffectiveTexts<'_> {
    let texts = layers.iter().flat_map(|(source, raw)| raw.texts().map(move |(name, text)| (name, (source, text))));
    EffectiveTexts::new(SETTINGS, texts)
}
