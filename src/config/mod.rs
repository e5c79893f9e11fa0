//! Settings: read in layers, checked once, then plain values.
//!
//! Defaults are overridden by a TOML file (`--config` or `ESTIMATOR_CONFIG`), that by a `.env` file in the working
//! folder, that by the environment (`ESTIMATOR_<NAME>`), and that by flags. This is the only module that reads the
//! environment.

mod dotenv;
mod front;
mod layer;
mod parse;
mod redis;
mod secret_files;
mod shown;
mod toml_text;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use self::layer::{Layer, Source};
pub use self::secret_files::SecretFile;
pub use self::shown::Shown;
use crate::auth::{AuthConfig, JwtAlgorithm};
use crate::domain::{SegmentName, Window};
use crate::embedded_redis::MaxMemory;
use crate::estimator::history::Interval;
use crate::estimator::overlap::{OverlapLimits, Overlaps};
use crate::http::server::ConnectionLimits;
use crate::http::{AllowedHosts, Origins, RequestLimits, TlsFiles};
use crate::jobs::Schedule;
use crate::redis::{Deployment, Limits as RedisLimits, WriteAcks};
use crate::store::{KeyPrefix, Partitions};
use crate::telemetry::{LogFilter, LogFormat, TraceConfig};

/// What the service runs with. `Debug` shows no secret.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to serve HTTP.
    pub listen: SocketAddr,
    /// Where to serve probes and metrics; with the rest when there is none.
    pub admin_listen: Option<SocketAddr>,
    /// The certificate of `listen`; plain text when there is none.
    pub tls: Option<TlsFiles>,
    /// The origins whose pages may read answers.
    pub cors_origins: Option<Origins>,
    /// The hosts that requests may name; without them, any, unless nobody but this machine reaches the service and it has no keys.
    pub allowed_hosts: Option<AllowedHosts>,
    /// Which keys tokens are checked with; everybody may do everything when there are none.
    pub auth: AuthConfig,
    /// The Redis to use, and how to be let in; a private one when there is none.
    pub redis: Option<Deployment>,
    /// What the keys of the data set begin with.
    pub redis_key_prefix: KeyPrefix,
    /// How many partitions the data set has; whatever it has when there is none.
    pub partitions: Option<Partitions>,
    /// How many replicas of Redis must have a visit before it is acknowledged.
    pub write_acks: WriteAcks,
    /// The private Redis's folder.
    pub data_dir: PathBuf,
    /// How much memory the private Redis may take; none with another Redis, and where the system doesn't tell how much there is.
    pub redis_max_memory: Option<MaxMemory>,
    /// How long a user stays in a segment after the last visit.
    pub window: Window,
    /// When to prune.
    pub prune_schedule: Schedule,
    /// How many segments there may be before visits to new ones are refused.
    pub max_segments: usize,
    /// How often the counts of all segments are sampled; never if there is none.
    pub history_interval: Option<Interval>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are wanted.
    pub log_filter: LogFilter,
    /// Where traces go; nowhere when there is none.
    pub traces: Option<TraceConfig>,
    /// The segments whose users `/metrics` tells.
    pub metered_segments: Vec<SegmentName<'static>>,
    /// How long a request's head may take, a connection may idle, and an answer may wait for the client to read on.
    pub header_timeout: Duration,
    /// How long a request's body may take.
    pub body_timeout: Duration,
    /// How long a request may take in all, a stream of visits excepted.
    pub request_timeout: Duration,
    /// The longest head of a request, in bytes.
    pub max_header_bytes: usize,
    /// The longest body of a request, in bytes; of a stream of visits there is no longest.
    pub max_body_bytes: usize,
    /// Connections that may be open at a time before more must wait.
    pub max_connections: usize,
    /// Requests that may wait for their answer at a time before more are refused.
    pub max_requests: usize,
    /// How long an overlap may take.
    pub overlap_timeout: Duration,
    /// Overlaps that may be under way at a time before more are refused.
    pub max_overlaps: usize,
    /// Lists, and requests for a user, that may be under way at a time before more are refused.
    pub max_lists: usize,
    /// How long connecting to Redis may take.
    pub redis_connect_timeout: Duration,
    /// How long Redis may take to answer, connecting included.
    pub redis_timeout: Duration,
    /// Visits, and as many counts, that may wait for Redis before more are refused.
    pub max_waiting: usize,
    /// Threads that serve requests.
    pub threads: usize,
    /// How long to go on serving after a stop signal, with readyz at 503.
    pub shutdown_delay: Duration,
    /// How long requests in flight may take to finish after that.
    pub drain_timeout: Duration,
    /// The files that settings were read from.
    pub files: Vec<SecretFile>,
}

/// The file in the working folder.
const DOTENV: &str = ".env";

/// What is wrong with the settings: one line that names the setting and where it comes from.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SettingsError(String);

/// Reads all layers of this process, lowest first: `flags` and `config` come from its command line.
///
/// # Errors
///
/// A [`SettingsError`] when a layer can't be read or has a name that is no setting.
pub fn read_layers(flags: Layer, config: Option<PathBuf>) -> Result<Vec<(Source, Layer)>, SettingsError> {
    let dotenv = dotenv::read(Path::new(DOTENV))?;
    let (config_in_dotenv, dotenv) = layer::from_variables(Source::DotEnv, dotenv)?;
    let (config_in_environment, environment) = layer::from_variables(Source::Environment, std::env::vars_os())?;

    let mut layers = vec![(Source::Defaults, Layer::defaults())];
    if let Some(path) = config.or(config_in_environment).or(config_in_dotenv) {
        layers.push(layer::from_file(&path)?);
    }
    layers.extend([dotenv, environment, (Source::Flags, flags)]);
    Ok(layers)
}

impl Settings {
    /// Settings from `layers`, of which later ones override earlier ones.
    ///
    /// # Errors
    ///
    /// A [`SettingsError`] for the first value that won't do.
    pub fn from_layers(layers: &[(Source, Layer)]) -> Result<Self, SettingsError> {
        let layers = Layers(layers);
        Ok(Self {
            listen: layers.required("listen", parse::address)?,
            admin_listen: layers.optional("admin_listen", parse::address)?,
            tls: layers.tls()?,
            cors_origins: layers.optional("cors_origins", Origins::parse)?,
            allowed_hosts: layers.optional("allowed_hosts", AllowedHosts::parse)?,
            auth: layers.auth()?,
            redis: layers.redis()?,
            redis_key_prefix: layers.optional("redis_key_prefix", KeyPrefix::parse)?.unwrap_or_default(),
            partitions: layers.partitions()?,
            write_acks: layers.write_acks()?,
            data_dir: layers.required("data_dir", parse::path)?,
            redis_max_memory: layers.redis_max_memory()?,
            window: layers.required("window", Window::parse)?,
            prune_schedule: layers.required("prune_schedule", Schedule::parse)?,
            max_segments: layers.required("max_segments", parse::number::<1, 100_000_000>)?,
            history_interval: layers.required("history_interval", Interval::parse)?,
            log_format: layers.optional("log_format", LogFormat::parse)?.unwrap_or_else(LogFormat::for_stderr),
            log_filter: layers.required("log_filter", LogFilter::parse)?,
            traces: layers.traces()?,
            metered_segments: layers.optional("metered_segments", parse::segments)?.unwrap_or_default(),
            header_timeout: layers.required("header_timeout", parse::limit)?,
            body_timeout: layers.required("body_timeout", parse::limit)?,
            request_timeout: layers.required("request_timeout", parse::limit)?,
            max_header_bytes: layers.required("max_header_bytes", parse::number::<8_192, 1_048_576>)?,
            max_body_bytes: layers.required("max_body_bytes", parse::number::<1, 67_108_864>)?,
            max_connections: layers.required("max_connections", parse::number::<1, 1_000_000>)?,
            max_requests: layers.required("max_requests", parse::number::<1, 1_000_000>)?,
            overlap_timeout: layers.required("overlap_timeout", parse::limit)?,
            max_overlaps: layers.required("max_overlaps", parse::number::<1, 100>)?,
            max_lists: layers.required("max_lists", parse::number::<1, 1_000>)?,
            redis_connect_timeout: layers.required("redis_connect_timeout", parse::limit)?,
            redis_timeout: layers.required("redis_timeout", parse::limit)?,
            max_waiting: layers.required("max_waiting", parse::number::<1, 1_000_000>)?,
            threads: layers.optional("threads", parse::number::<1, 1_024>)?.unwrap_or_else(parse::usual_threads),
            shutdown_delay: layers.required("shutdown_delay", parse::delay)?,
            drain_timeout: layers.required("drain_timeout", parse::limit)?,
            files: layers.files(),
        })
    }

    /// The files with secrets, and with what lets callers in.
    #[must_use]
    pub fn secret_files(&self) -> Vec<SecretFile> {
        let redis = self.redis.as_ref().map(Deployment::server);
        let jwt = self.auth.jwt.as_ref();
        let has_secret = jwt.is_some_and(|jwt| jwt.algorithm == JwtAlgorithm::Hs256);
        let files = [
            ("tls_key_file", self.tls.as_ref().map(|files| &files.key), true),
            ("api_keys_file", self.auth.api_keys_file.as_ref(), false),
            ("jwt_key_file", jwt.map(|jwt| &jwt.key_file), has_secret),
            ("redis_password_file", redis.and_then(|url| url.credentials().password_file.as_ref()), true),
            (
                "redis_client_key_file",
                redis.and_then(|url| url.tls_files().client_files.as_ref()).map(|files| &files.key),
                true,
            ),
        ];
        let files = files.into_iter().filter_map(|(setting, path, is_secret)| {
            path.map(|path| SecretFile { setting, path: path.clone(), is_secret })
        });
        files.chain(self.files.iter().cloned()).collect()
    }

    /// How long to wait for Redis, and how many may.
    #[must_use]
    pub fn store_limits(&self) -> RedisLimits {
        RedisLimits { connect: self.redis_connect_timeout, answer: self.redis_timeout, max_pending: self.max_waiting }
    }

    /// What a request may take.
    #[must_use]
    pub fn request_limits(&self) -> RequestLimits {
        RequestLimits {
            body: self.body_timeout,
            request: self.request_timeout,
            // Each part of it has a limit of its own: its body, Redis's clock, its turn at Redis, Redis's answer. A timer that can't
            // go off would cost each visit and each count for nothing.
            round_trip: Some(self.request_timeout).filter(|limit| *limit < self.body_timeout + 3 * self.redis_timeout),
            body_bytes: self.max_body_bytes,
            requests: self.max_requests,
        }
    }

    /// What overlaps may take.
    #[must_use]
    pub fn overlap_limits(&self) -> OverlapLimits {
        OverlapLimits { timeout: self.overlap_timeout, concurrency: self.max_overlaps, memory: Overlaps::MAX_MEMORY }
    }

    /// What connections may take.
    #[must_use]
    pub fn server_limits(&self) -> ConnectionLimits {
        ConnectionLimits {
            header: self.header_timeout,
            drain: self.drain_timeout,
            head_bytes: self.max_header_bytes,
            connections: self.max_connections,
        }
    }
}

/// All layers, lowest first.
struct Layers<'a>(&'a [(Source, Layer)]);

impl Layers<'_> {
    /// The files that a layer was read from. Whoever writes them sets everything.
    fn files(&self) -> Vec<SecretFile> {
        let files = self.0.iter().filter_map(|(source, _)| match source {
            Source::DotEnv => Some(("settings", Path::new(DOTENV))),
            Source::File(path) => Some(("config", path.as_path())),
            Source::Defaults | Source::Environment | Source::Flags => None,
        });
        files.map(|(setting, path)| SecretFile { setting, path: path.to_owned(), is_secret: false }).collect()
    }

    /// The topmost value of the setting `name`, and where it is.
    fn topmost(&self, name: &str) -> Option<(&Source, String)> {
        debug_assert!(Layer::names().iter().any(|known| known == name), "{name} is no setting");
        self.0.iter().rev().find_map(|(source, layer)| layer.text_of(name).map(|text| (source, text)))
    }

    /// The topmost value, parsed; `show` is how a message repeats it.
    fn parsed<T>(
        &self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
        show: impl Fn(&str) -> String,
    ) -> Result<Option<T>, SettingsError> {
        let Some((source, text)) = self.topmost(name) else { return Ok(None) };
        let failed = |why| SettingsError(format!("{name}: {} {why} (set by {})", show(&text), source.writes(name)));
        parse(&text).map(Some).map_err(failed)
    }

    fn optional<T>(&self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, SettingsError> {
        // A URL with a password may stand in the wrong setting.
        let may_hold_password = |text: &str| text.split_once("://").is_some_and(|(_, rest)| rest.contains('@'));
        let show = |text: &str| if may_hold_password(text) { "the value".to_owned() } else { format!("{text:?}") };
        self.parsed(name, parse, show)
    }

    /// As `optional`, for a value that must not be repeated.
    fn secret<T>(&self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, SettingsError> {
        self.parsed(name, parse, |_| "the value".to_owned())
    }

    /// Two settings of which each is of no use without the other.
    fn both<A, B>(
        &self,
        first: &str,
        parse_first: impl Fn(&str) -> Result<A, String>,
        second: &str,
        parse_second: impl Fn(&str) -> Result<B, String>,
    ) -> Result<Option<(A, B)>, SettingsError> {
        match (self.optional(first, parse_first)?, self.optional(second, parse_second)?) {
            (Some(first), Some(second)) => return Ok(Some((first, second))),
            (Some(_), None) => self.none_of(&[first], &format!("is of no use without {second}"))?,
            (None, _) => self.none_of(&[second], &format!("is of no use without {first}"))?,
        }
        Ok(None)
    }

    /// Refuses the first of `names` that is set.
    fn none_of(&self, names: &[&str], why: &str) -> Result<(), SettingsError> {
        names.iter().try_for_each(|name| self.optional(name, |_| Err::<(), _>(why.to_owned())).map(drop))
    }

    fn required<T>(&self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Result<T, SettingsError> {
        self.optional(name, parse)?.ok_or_else(|| SettingsError(format!("{name} is not set")))
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use rstest::rstest;

    use super::*;

    fn defaults() -> (Source, Layer) {
        (Source::Defaults, Layer::defaults())
    }

    fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    pub(super) fn environment(pairs: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let (_, layer) = layer::from_variables(Source::Environment, variables(pairs))?;
        Settings::from_layers(&[defaults(), layer])
    }

    fn file(text: &str) -> Result<Settings, SettingsError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("estimator.toml");
        std::fs::write(&path, text).unwrap();
        let layer = layer::from_file(&path)?;
        Settings::from_layers(&[defaults(), layer])
    }

    #[test]
    fn the_defaults_are_settings() {
        let settings = Settings::from_layers(&[defaults()]).unwrap();
        assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(settings.window.as_secs(), 14 * 24 * 60 * 60);
        assert!(settings.redis.is_none());
    }

    #[test]
    fn each_layer_overrides_the_one_below() {
        let layer = |window: Option<&str>| Layer { window: window.map(str::to_owned), ..Layer::default() };
        let mut layers = vec![defaults()];
        for (source, window) in [
            (Source::File("estimator.toml".into()), "1d"),
            (Source::DotEnv, "2d"),
            (Source::Environment, "3d"),
            (Source::Flags, "4d"),
        ] {
            layers.push((source, layer(Some(window))));
            let settings = Settings::from_layers(&layers).unwrap();
            assert_eq!(settings.window, Window::parse(window).unwrap());
        }
        layers.push((Source::Flags, layer(None)));
        assert_eq!(Settings::from_layers(&layers).unwrap().window, Window::parse("4d").unwrap());
    }

    #[test]
    fn the_environment_is_read_and_empty_variables_are_not_set() {
        let settings = environment(&[
            ("ESTIMATOR_WINDOW", "4s"),
            ("ESTIMATOR_LISTEN", ""),
            ("ESTIMATOR_REDIS_URL", ""),
            ("PATH", "/bin"),
        ]);
        let settings = settings.unwrap();
        assert_eq!(settings.window.as_secs(), 4);
        assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
    }

    #[test]
    fn the_environment_may_name_the_file() {
        let pairs = variables(&[("ESTIMATOR_CONFIG", "/etc/estimator.toml")]);
        let (config, _) = layer::from_variables(Source::Environment, pairs).unwrap();
        assert_eq!(config, Some(PathBuf::from("/etc/estimator.toml")));
    }

    #[rstest]
    #[case::months(
        "M",
        r#""1M" is in months or years, which differ in length: give it in days, such as 30d; minutes are m"#
    )]
    #[case::years("y", r#""1y" is in months or years"#)]
    fn no_duration_is_in_months_or_years(#[case] unit: &str, #[case] why: &str) {
        let is_duration =
            |name: &String| Layer::default_of(name).is_some_and(|text| text != "0" && parse::delay(&text).is_ok());
        let names: Vec<_> = Layer::names().into_iter().filter(is_duration).collect();
        assert!(names.len() > 5, "{names:?}");
        for name in names.iter().map(String::as_str).chain(["window", "jwt_leeway"]) {
            let variable = (&*format!("ESTIMATOR_{}", name.to_uppercase()), &*format!("1{unit}"));
            let error = environment(&[variable]).unwrap_err().to_string();
            assert!(error.contains(why), "{name}: {error}");
        }
    }

    #[rstest]
    #[case("ESTIMATOR_WINDOW", "0s", r#"window: "0s" must be longer than zero (set by ESTIMATOR_WINDOW)"#)]
    #[case("ESTIMATOR_WINDOW", "soon", r#"window: "soon" is not a duration"#)]
    #[case("ESTIMATOR_LISTEN", "8080", r#"listen: "8080" must be an IP address and a port"#)]
    #[case("ESTIMATOR_PRUNE_SCHEDULE", "hourly", r#"prune_schedule: "hourly" is not a cron pattern"#)]
    #[case("ESTIMATOR_LOG_FORMAT", "xml", r#"log_format: "xml" must be pretty or json"#)]
    #[case("ESTIMATOR_LOG_FILTER", "debg", r#"log_filter: "debg" must be a level"#)]
    #[case("ESTIMATOR_LOG_FILTER", "a=b=c", r#"log_filter: "a=b=c" must be a level"#)]
    #[case("ESTIMATOR_REDIS_TIMEOUT", "0s", r#"redis_timeout: "0s" must be longer than zero"#)]
    #[case("ESTIMATOR_MAX_WAITING", "0", r#"max_waiting: "0" must be a whole number from 1 to 1000000"#)]
    #[case("ESTIMATOR_THREADS", "many", r#"threads: "many" must be a whole number"#)]
    #[case("ESTIMATOR_BODY_TIMEOUT", "2days", r#"body_timeout: "2days" must not be longer than a day"#)]
    #[case("ESTIMATOR_METERED_SEGMENTS", "a,,b", r#"metered_segments: "a,,b" has a name that must not be empty"#)]
    #[case("ESTIMATOR_JWT_ALGORITHM", "none", r#"jwt_algorithm: "none" must be HS256, RS256, ES256 or EdDSA"#)]
    #[case(
        "ESTIMATOR_JWT_ALGORITHM",
        "HS256",
        r#"jwt_algorithm: "HS256" is of no use without jwt_key_file (set by ESTIMATOR_JWT_ALGORITHM)"#
    )]
    #[case("ESTIMATOR_JWT_KEY_FILE", "key", r#"jwt_key_file: "key" is of no use without jwt_algorithm"#)]
    #[case("ESTIMATOR_JWT_AUDIENCE", "us", r#"jwt_audience: "us" is of no use without jwt_algorithm"#)]
    #[case("ESTIMATOR_TLS_CERT_FILE", "cert", r#"tls_cert_file: "cert" is of no use without tls_key_file"#)]
    #[case("ESTIMATOR_TLS_KEY_FILE", "key", r#"tls_key_file: "key" is of no use without tls_cert_file"#)]
    #[case("ESTIMATOR_CORS_ORIGINS", "app.example", r#"cors_origins: "app.example" must be * or origins"#)]
    #[case(
        "ESTIMATOR_CORS_ORIGINS",
        "https://*.example.com",
        r#"cors_origins: "https://*.example.com" has a wildcard in a host, and no browser sends one"#
    )]
    #[case("ESTIMATOR_ALLOWED_HOSTS", "a.example:80", r#"allowed_hosts: "a.example:80" must be * or names of hosts"#)]
    #[case("ESTIMATOR_OTLP_ENDPOINT", "collector", "otlp_endpoint: the value must be a URL such as")]
    #[case("ESTIMATOR_TRACE_RATIO", "2", r#"trace_ratio: "2" must be a number from 0 to 1"#)]
    #[case("ESTIMATOR_JWT_LEEWAY", "500ms", r#"jwt_leeway: "500ms" must be a whole number of seconds"#)]
    #[case("ESTIMATOR_WRITE_ACKS", "10", r#"write_acks: "10" must be a whole number from 0 to 9"#)]
    #[case("ESTIMATOR_WRITE_ACKS_ON_DISK", "yes", r#"write_acks_on_disk: "yes" must be true or false"#)]
    #[case(
        "ESTIMATOR_WRITE_ACKS_ON_DISK",
        "true",
        r#"write_acks_on_disk: "true" is of no use without write_acks, which says how many replicas (set by ESTIMATOR_WRITE"#
    )]
    #[case("ESTIMATOR_WRITE_ACKS", "1", r#"write_acks: "1" is for a Redis of your own, and none of redis_url"#)]
    #[case("ESTIMATOR_WNDOW", "4s", "ESTIMATOR_WNDOW is not a setting; --help lists them all")]
    #[case("ESTIMATOR_WNDOW", "", "ESTIMATOR_WNDOW is not a setting; --help lists them all")]
    #[case("estimator_window", "4s", "estimator_window must be written in capitals")]
    #[case("ESTIMATOR_REDIS_URL", "rediss://host#insecure", "redis_url: the value must not end in #insecure")]
    #[case("ESTIMATOR_REDIS_URL", "rediss://host/#insecure", "redis_url: the value must not end in #insecure")]
    #[case("ESTIMATOR_REDIS_URL", "redis://host#insecure", "redis_url: the value must not end in #insecure")]
    #[case("ESTIMATOR_REDIS_URL", "rediss://host#lax", "redis_url: the value ends in # and more, which a Redis URL")]
    #[case(
        "ESTIMATOR_REDIS_CLUSTER",
        "redis://a,redis://b?ssl=true",
        "redis_cluster: the value has a part that asks for TLS behind ?"
    )]
    #[case(
        "ESTIMATOR_REDIS_SENTINEL",
        "redis://a?db=3",
        "redis_sentinel: the value has a part that has a database behind ?"
    )]
    #[case(
        "ESTIMATOR_REDIS_SENTINEL",
        "redis://a#b,redis://c",
        "redis_sentinel: the value has a part that ends in # and more"
    )]
    fn a_bad_variable_is_named_in_one_line(#[case] name: &str, #[case] value: &str, #[case] message: &str) {
        let error = environment(&[(name, value)]).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[test]
    fn a_file_is_read() {
        assert_eq!(file("window = '1h'\nlisten = '0.0.0.0:80'").unwrap().window.as_secs(), 3_600);
    }

    #[rstest]
    #[case("window = '0s'", r#"window: "0s" must be longer than zero (set by window in "#)]
    #[case("window = 4", r#"window: "4" is not a duration such as 14d"#)]
    #[case("wndow = '4s'", "is not a setting")]
    #[case("config = 'x'", "is not a setting")]
    #[case("window = ['4s']", "must be a single value")]
    #[case("listen = '0.0.0.0:80'\nwindow = 4s", "line 2: ")]
    fn a_bad_file_is_named_in_one_line(#[case] text: &str, #[case] message: &str) {
        let error = file(text).unwrap_err().to_string();
        assert!(error.contains(message) && error.contains("estimator.toml"), "{error}");
        assert!(!error.contains('\n'), "{error}");
    }

    #[rstest]
    #[case("redis://:hunter2@")]
    #[case("http://:hunter2@localhost")]
    #[case("redis://user:hunter2@localhost/notanumber")]
    #[case::a_number_sign_in_the_password("redis://:secret@hunter2#rest@localhost")]
    #[case::a_question_mark_in_the_password("redis://:secret@hunter2?rest@localhost")]
    #[case::a_slash_in_the_password("redis://:secret@hunter2/rest@localhost")]
    #[case::a_question_mark_before_the_password_ends("redis://:secret?hunter2=1@localhost")]
    #[case::a_parameter_that_has_it("redis://localhost?hunter2")]
    #[case::a_protocol_that_has_it("redis://localhost?protocol=hunter2")]
    #[case::a_socket_with_a_user_in_front("redis+unix://me:hunter2@localhost/s")]
    #[case::a_socket_with_a_parameter_too_many("redis+unix:///s?pass=hunter2&auth=hunter2")]
    #[case::a_percent_sign_that_makes_no_text("redis://:hunter2%ff@localhost")]
    fn a_bad_redis_url_is_not_repeated(#[case] url: &str) {
        let error = environment(&[("ESTIMATOR_REDIS_URL", url)]).unwrap_err().to_string();
        assert!(
            error.starts_with("redis_url: the value ") && error.ends_with(" (set by ESTIMATOR_REDIS_URL)"),
            "{error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[rstest]
    #[case::of_traces("OTLP_ENDPOINT", "http://otel:hunter2@collector:4318")]
    #[case::in_a_query_of_traces("OTLP_ENDPOINT", "http://collector:4318?key=hunter2")]
    #[case::of_an_origin("CORS_ORIGINS", "https://me:hunter2@app.example")]
    #[case::of_a_host("ALLOWED_HOSTS", "https://me:hunter2@app.example")]
    #[case::in_another_setting("LISTEN", "redis://:hunter2@localhost:6379")]
    #[case::in_a_setting_of_no_use("REDIS_SENTINEL_MASTER", "redis://:hunter2@localhost:6379")]
    #[case::in_one_of_two("JWT_ISSUER", "https://me:hunter2@issuer.example")]
    fn password_is_not_repeated(#[case] name: &str, #[case] value: &str) {
        let error = environment(&[(&format!("ESTIMATOR_{name}"), value)]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{}: the value ", name.to_lowercase())), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[rstest]
    #[case("redis_url = redis://:hunter2@localhost")]
    #[case("redis_url = 'redis://:hunter2@localhost")]
    #[case("redis_url = 'redis://:hunter2@localhost/x'")]
    #[case("redis_url = ['redis://:hunter2@localhost']")]
    fn a_bad_line_of_a_file_is_not_repeated(#[case] text: &str) {
        let error = file(text).unwrap_err().to_string();
        assert!(!error.contains("hunter2") && !error.contains('\n'), "{error}");
    }

    #[test]
    fn a_password_is_not_shown() {
        let settings = environment(&[("ESTIMATOR_REDIS_URL", "redis://user:hunter2@localhost:6379/0")]).unwrap();
        let shown = format!("{settings:?}");
        assert!(shown.contains("localhost:6379") && !shown.contains("hunter2") && !shown.contains("user:"), "{shown}");
    }
}
