//! Settings as an operator reads them: what the service would run with, and where each value was set.

use std::path::PathBuf;
use std::time::Duration;

use super::{Layer, Settings, Source};
use crate::domain::SegmentName;
use crate::redis::{Credentials, Deployment, RedisUrl, TlsFiles};

/// One setting. No secret is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its name in the TOML file.
    pub name: &'static str,
    /// Its value, as the service understood it.
    pub value: String,
    /// Where it was set.
    pub set_by: String,
}

impl Settings {
    /// All settings, in the order of the help. `layers` are those that they were made from.
    #[must_use]
    pub fn shown(&self, layers: &[(Source, Layer)]) -> Vec<Shown> {
        // Without `..`, so that a new setting can't be left out.
        let Self {
            listen,
            admin_listen,
            tls,
            cors_origins,
            allowed_hosts,
            auth,
            redis,
            redis_key_prefix,
            partitions,
            write_acks,
            data_dir,
            redis_max_memory,
            window,
            prune_schedule,
            max_segments,
            history_interval,
            log_format,
            log_filter,
            traces,
            metered_segments,
            header_timeout,
            body_timeout,
            request_timeout,
            max_header_bytes,
            max_body_bytes,
            max_connections,
            max_requests,
            overlap_timeout,
            max_overlaps,
            max_lists,
            redis_connect_timeout,
            redis_timeout,
            max_waiting,
            threads,
            shutdown_delay,
            drain_timeout,
            files: _,
        } = self;
        let duration = |duration: &Duration| humantime::format_duration(*duration).to_string();
        let server = redis.as_ref().map(Deployment::server);
        let Credentials { username, password_file } = server.map(RedisUrl::credentials).cloned().unwrap_or_default();
        let TlsFiles { ca_file, client_files } = server.map(RedisUrl::tls_files).cloned().unwrap_or_default();
        let (cert, key) = client_files.map(|files| (files.cert, files.key)).unzip();
        let list = |urls: &[RedisUrl]| urls.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
        let (mut url, mut cluster, mut sentinel, mut name) = Default::default();
        match redis {
            None => url = "a private Redis".to_owned(),
            Some(Deployment::One(one)) => url = one.to_string(),
            Some(Deployment::Cluster(seeds)) => cluster = list(seeds),
            Some(Deployment::Sentinel { sentinels, master, .. }) => {
                (sentinel, name) = (list(sentinels), master.clone())
            }
        }
        let no_limit = if redis.is_none() { "no limit" } else { "" }.to_owned();
        let segments: Vec<_> = metered_segments.iter().map(SegmentName::as_str).collect();
        let file = |path: Option<&PathBuf>| path.map(|path| path.display().to_string()).unwrap_or_default();
        let jwt = auth.jwt.as_ref();
        // Where it isn't set it depends on where the service's log goes, not on where this is read.
        let is_set = layers.iter().any(|(_, layer)| layer.log_format.is_some());
        let format = if is_set { log_format.to_string() } else { FORMAT_NOT_SET.to_owned() };
        let values = [
            ("listen", listen.to_string()),
            ("admin_listen", admin_listen.map_or_else(|| "as listen".to_owned(), |address| address.to_string())),
            ("tls_cert_file", file(tls.as_ref().map(|files| &files.cert))),
            ("tls_key_file", file(tls.as_ref().map(|files| &files.key))),
            ("cors_origins", cors_origins.as_ref().map(ToString::to_string).unwrap_or_default()),
            ("allowed_hosts", allowed_hosts.as_ref().map(ToString::to_string).unwrap_or_default()),
            ("api_keys_file", file(auth.api_keys_file.as_ref())),
            ("jwt_algorithm", jwt.map(|jwt| jwt.algorithm.to_string()).unwrap_or_default()),
            ("jwt_key_file", file(jwt.map(|jwt| &jwt.key_file))),
            ("jwt_issuer", jwt.and_then(|jwt| jwt.issuer.clone()).unwrap_or_default()),
            ("jwt_audience", jwt.and_then(|jwt| jwt.audience.clone()).unwrap_or_default()),
            ("jwt_leeway", jwt.map(|jwt| duration(&jwt.leeway)).unwrap_or_default()),
            ("redis_url", url),
            ("redis_cluster", cluster),
            ("redis_sentinel", sentinel),
            ("redis_sentinel_master", name),
            ("redis_username", username.unwrap_or_default()),
            ("redis_password_file", file(password_file.as_ref())),
            ("redis_ca_file", file(ca_file.as_ref())),
            ("redis_client_cert_file", file(cert.as_ref())),
            ("redis_client_key_file", file(key.as_ref())),
            ("redis_key_prefix", redis_key_prefix.as_str().to_owned()),
            (
                "partitions",
                partitions.map_or_else(|| "as the data set has".to_owned(), |partitions| partitions.to_string()),
            ),
            ("write_acks", write_acks.replicas.to_string()),
            ("write_acks_on_disk", write_acks.on_disk.to_string()),
            ("data_dir", data_dir.display().to_string()),
            ("redis_max_memory", redis_max_memory.map_or(no_limit, |limit| limit.to_string())),
            ("window", window.to_string()),
            ("prune_schedule", prune_schedule.to_string()),
            ("max_segments", max_segments.to_string()),
            ("history_interval", history_interval.map_or_else(|| "off".to_owned(), |interval| interval.to_string())),
            ("log_format", format),
            ("log_filter", log_filter.to_string()),
            ("otlp_endpoint", traces.as_ref().map(|traces| traces.endpoint.to_string()).unwrap_or_default()),
            ("trace_ratio", traces.as_ref().map(|traces| traces.ratio.to_string()).unwrap_or_default()),
            ("metered_segments", segments.join(",")),
            ("header_timeout", duration(header_timeout)),
            ("body_timeout", duration(body_timeout)),
            ("request_timeout", duration(request_timeout)),
            ("max_header_bytes", max_header_bytes.to_string()),
            ("max_body_bytes", max_body_bytes.to_string()),
            ("max_connections", max_connections.to_string()),
            ("max_requests", max_requests.to_string()),
            ("overlap_timeout", duration(overlap_timeout)),
            ("max_overlaps", max_overlaps.to_string()),
            ("max_lists", max_lists.to_string()),
            ("redis_connect_timeout", duration(redis_connect_timeout)),
            ("redis_timeout", duration(redis_timeout)),
            ("max_waiting", max_waiting.to_string()),
            ("threads", threads.to_string()),
            ("shutdown_delay", duration(shutdown_delay)),
            ("drain_timeout", duration(drain_timeout)),
        ];
        let shown = values.into_iter().map(|(name, value)| Shown { name, value, set_by: set_by(name, layers) });
        shown.collect()
    }
}

/// What becomes of log lines when `log_format` is not set.
const FORMAT_NOT_SET: &str = "pretty on a terminal, otherwise json";

fn set_by(name: &str, layers: &[(Source, Layer)]) -> String {
    match layers.iter().rev().find(|(_, layer)| layer.text_of(name).is_some()) {
        None => "not set".to_owned(),
        Some((Source::Defaults, _)) => "default".to_owned(),
        Some((source, _)) => source.writes(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_shown_with_its_value_and_its_source_and_without_a_secret() {
        let file = Layer { window: Some("7d".to_owned()), threads: Some("3".to_owned()), ..Layer::default() };
        let environment = Layer {
            redis_url: Some("redis://me:hunter2@host:1/0".to_owned()),
            threads: Some("4".to_owned()),
            ..Layer::default()
        };
        let layers = [
            (Source::Defaults, Layer::defaults()),
            (Source::File("estimator.toml".into()), file),
            (Source::Environment, environment),
        ];
        let shown = Settings::from_layers(&layers).unwrap().shown(&layers);

        let names: Vec<_> = shown.iter().map(|shown| shown.name).collect();
        assert_eq!(names, Layer::names());
        let of = |name| {
            let shown = shown.iter().find(|shown| shown.name == name).unwrap();
            (shown.value.as_str(), shown.set_by.as_str())
        };
        assert_eq!(of("window"), ("7d", "window in estimator.toml"));
        assert_eq!(of("threads"), ("4", "ESTIMATOR_THREADS"));
        assert_eq!(of("redis_url"), ("host:1", "ESTIMATOR_REDIS_URL"));
        assert_eq!(of("max_waiting"), ("10000", "default"));
        assert_eq!(of("log_format"), ("pretty on a terminal, otherwise json", "not set"));
        assert!(!format!("{shown:?}").contains("hunter2"));
    }
}
