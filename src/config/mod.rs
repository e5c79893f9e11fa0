//! Settings: read in layers, checked once, then plain values.
//!
//! Defaults are overridden by a TOML file (`--config` or `ESTIMATOR_CONFIG`), that by a `.env` file in the working
//! folder, that by the environment (`ESTIMATOR_<NAME>`), and that by flags. This is the only module that reads the
//! environment.

mod access;
mod declare;
mod dotenv;
mod effective;
mod layer;
mod limits;
mod parse;
mod redis;
mod rows;
mod secret_files;
mod settings;
mod source;
mod store;
mod toml_text;
mod value;

use std::path::{Path, PathBuf};

pub use self::declare::Setting;
pub use self::rows::SettingRow;
pub use self::secret_files::SecretFile;
pub use self::settings::{Layer, SETTINGS, Settings};
pub use self::source::Source;

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
    let dotenv = dotenv::read(Path::new(source::DOTENV))?;
    let (config_in_dotenv, dotenv) = layer::from_variables(Source::DotEnv, dotenv)?;
    let (config_in_environment, environment) = layer::from_variables(Source::Environment, std::env::vars_os())?;

    let mut layers = Vec::new();
    if let Some(path) = config.or(config_in_environment).or(config_in_dotenv) {
        layers.push(layer::from_file(&path)?);
    }
    layers.extend([dotenv, environment, (Source::Flags, flags)]);
    Ok(layers)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use rstest::rstest;

    use super::*;
    use crate::domain::Window;

    fn variables(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    pub(super) fn environment(pairs: &[(&str, &str)]) -> Result<Settings, SettingsError> {
        let (_, layer) = layer::from_variables(Source::Environment, variables(pairs))?;
        Settings::from_layers(&[layer])
    }

    fn file(text: &str) -> Result<Settings, SettingsError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("estimator.toml");
        std::fs::write(&path, text).unwrap();
        let layer = layer::from_file(&path)?;
        Settings::from_layers(&[layer])
    }

    #[test]
    fn the_defaults_are_settings() {
        let settings = Settings::from_layers(&[]).unwrap();
        assert_eq!(settings.listen.to_string(), "127.0.0.1:8080");
        assert_eq!(settings.window.as_secs(), 14 * 24 * 60 * 60);
        assert!(settings.has_private_redis());
    }

    #[test]
    fn each_layer_overrides_the_one_below() {
        let layer = |window: Option<&str>| Layer { window: window.map(str::to_owned), ..Layer::default() };
        let mut layers = Vec::new();
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
            |setting: &&Setting| setting.default.is_some_and(|text| text != "0" && parse::delay(text).is_ok());
        let names: Vec<_> = SETTINGS.iter().filter(is_duration).map(|setting| setting.name).collect();
        assert!(names.len() > 5, "{names:?}");
        for name in names.into_iter().chain(["window", "jwt_leeway"]) {
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
        "redis_cluster: the value has a part that enables TLS behind ?"
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
