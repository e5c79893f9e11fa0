//! The table that `check` shows.

use super::settings;
use crate::config::{SETTINGS, Settings, Source};

#[test]
fn rows_have_values_and_sources_and_no_secret() {
    let file = settings([("window", "7d"), ("threads", "3")]);
    let environment = settings([("redis_url", "redis://me:hunter2@host:1/0"), ("threads", "4")]);
    let layers = [(Source::File("estimator.toml".into()), file), (Source::Environment, environment)];
    let rows = Settings::from_layers(&layers).unwrap().rows(&layers);

    let names: Vec<_> = rows.iter().map(|row| row.name).collect();
    assert_eq!(names, SETTINGS.iter().map(|setting| setting.name).collect::<Vec<_>>());
    let of = |name| {
        let row = rows.iter().find(|row| row.name == name).unwrap();
        (row.value.as_str(), row.set_by.as_str())
    };
    assert_eq!(of("window"), ("7d", "window in estimator.toml"));
    assert_eq!(of("threads"), ("4", "ESTIMATOR_THREADS"));
    assert_eq!(of("redis_url"), ("host:1", "ESTIMATOR_REDIS_URL"));
    assert_eq!(of("max_waiting"), ("10000", "default"));
    assert_eq!(of("log_format"), ("pretty on a terminal, otherwise json", "not set"));
    assert!(!format!("{rows:?}").contains("hunter2"));
}

#[test]
fn rows_have_no_blank_value() {
    for layer in [[("window", "7d")], [("redis_url", "redis://host")], [("redis_cluster", "redis://host")]] {
        let layers = [(Source::Flags, settings(layer))];
        let rows = Settings::from_layers(&layers).unwrap().rows(&layers);
        for row in &rows {
            assert!(!row.value.trim().is_empty(), "{row:?}");
        }
        let of = |name| rows.iter().find(|row| row.name == name).unwrap().value.as_str();
        assert_eq!((of("jwt_leeway"), of("trace_ratio"), of("jwt_key_file")), ("30s", "1", "none"));
    }
}
