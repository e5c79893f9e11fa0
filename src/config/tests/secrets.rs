//! Passwords stay out of errors and of `Debug`.

use rstest::rstest;

use super::{environment, file};

#[rstest]
#[case::no_host("redis://:hunter2@")]
#[case::another_scheme("http://:hunter2@localhost")]
#[case::invalid_database("redis://user:hunter2@localhost/notanumber")]
#[case::number_sign_in_password("redis://:secret@hunter2#rest@localhost")]
#[case::question_mark_in_password("redis://:secret@hunter2?rest@localhost")]
#[case::slash_in_password("redis://:secret@hunter2/rest@localhost")]
#[case::parameter_in_password("redis://:secret?hunter2=1@localhost")]
#[case::unknown_parameter("redis://localhost?hunter2")]
#[case::value_of_parameter("redis://localhost?protocol=hunter2")]
#[case::login_before_socket("redis+unix://me:hunter2@localhost/s")]
#[case::unknown_parameter_of_socket("redis+unix:///s?pass=hunter2&auth=hunter2")]
#[case::percent_encoding_of_no_text("redis://:hunter2%ff@localhost")]
fn error_omits_redis_url(#[case] url: &str) {
    let error = environment([("redis_url", url)]).unwrap_err().to_string();
    assert!(error.starts_with("redis_url: the value ") && error.ends_with(" (set by ESTIMATOR_REDIS_URL)"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[rstest]
#[case::of_collector("otlp_endpoint", "http://otel:hunter2@collector:4318")]
#[case::in_query_of_collector("otlp_endpoint", "http://collector:4318?key=hunter2")]
#[case::of_origin("cors_origins", "https://me:hunter2@app.example")]
#[case::of_public_url("public_url", "https://me:hunter2@app.example")]
#[case::of_host("allowed_hosts", "https://me:hunter2@app.example")]
#[case::in_wrong_setting("listen", "redis://:hunter2@localhost:6379")]
#[case::in_setting_without_effect("redis_sentinel_master", "redis://:hunter2@localhost:6379")]
#[case::in_setting_without_counterpart("jwt_issuer", "https://me:hunter2@issuer.example")]
fn error_omits_password(#[case] name: &str, #[case] value: &str) {
    let error = environment([(name, value)]).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{name}: the value ")), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[rstest]
#[case::unquoted("redis_url = redis://:hunter2@localhost")]
#[case::open_quote("redis_url = 'redis://:hunter2@localhost")]
#[case::invalid_url("redis_url = 'redis://:hunter2@localhost/x'")]
#[case::list("redis_url = ['redis://:hunter2@localhost']")]
fn error_omits_line_of_file(#[case] text: &str) {
    let error = file(text).unwrap_err().to_string();
    assert!(!error.contains("hunter2") && !error.contains('\n'), "{error}");
}

#[test]
fn debug_omits_user_and_password() {
    let settings = environment([("redis_url", "redis://user:hunter2@localhost:6379/0")]).unwrap();
    let debug = format!("{settings:?}");
    assert!(debug.contains("localhost:6379") && !debug.contains("hunter2") && !debug.contains("user:"), "{debug}");
}
