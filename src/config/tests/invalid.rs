//! Invalid settings are refused in one line that names the setting and its source.

use rstest::rstest;

use super::{SETTINGS, Setting, environment, file, parse, variables};

#[rstest]
#[case::zero_window("window", "0s", r#"window: "0s" must be longer than zero (set by ESTIMATOR_WINDOW)"#)]
#[case::word_as_window("window", "soon", r#"window: "soon" is not a duration"#)]
#[case::port_alone("listen", "8080", r#"listen: "8080" must be an IP address and a port"#)]
#[case::word_as_cron("prune_schedule", "hourly", r#"prune_schedule: "hourly" is not a cron pattern"#)]
#[case::unknown_log_format("log_format", "xml", r#"log_format: "xml" must be pretty or json"#)]
#[case::unknown_log_level("log_filter", "debg", r#"log_filter: "debg" must be a level"#)]
#[case::two_log_levels("log_filter", "a=b=c", r#"log_filter: "a=b=c" must be a level"#)]
#[case::zero_timeout("redis_timeout", "0s", r#"redis_timeout: "0s" must be longer than zero"#)]
#[case::max_members_not_a_power_of_two(
    "max_members",
    "65000",
    r#"max_members: "65000" must be a power of two from 1024 to 16777216 (set by ESTIMATOR_MAX_MEMBERS)"#
)]
#[case::max_members_too_small("max_members", "512", r#"max_members: "512" must be a power of two from 1024 to"#)]
#[case::zero_maximum("max_waiting", "0", r#"max_waiting: "0" must be a whole number from 1 to 1000000"#)]
#[case::word_as_number("threads", "many", r#"threads: "many" must be a whole number"#)]
#[case::timeout_over_a_day("body_timeout", "2days", r#"body_timeout: "2days" must not be longer than a day"#)]
#[case::empty_segment_name("metered_segments", "a,,b", r#"metered_segments: "a,,b" has a name that must not be empty"#)]
#[case::star_within_a_segment_name(
    "metered_segments",
    "a*b",
    r#"metered_segments: "a*b" has "a*b" with a * before the end; at the end it stands for any text"#
)]
#[case::largest_segments_without_a_number(
    "metered_segments",
    "news, top:ten",
    r#"metered_segments: "news, top:ten" has "top:ten", but top: must have a number from 1 to 100"#
)]
#[case::too_many_largest_segments(
    "metered_segments",
    "top:101",
    r#"metered_segments: "top:101" has "top:101", but top: must have a number from 1 to 100"#
)]
#[case::no_escape(
    "metered_segments",
    r"a\b",
    r#"metered_segments: "a\\b" has a \ that is not part of \*, \:, \, or \\ (set by ESTIMATOR_METERED_SEGMENTS)"#
)]
#[case::escape_at_the_end("metered_segments", r"a\", r#"metered_segments: "a\\" has a \ that is not part of"#)]
#[case::prefix_with_a_control_character(
    "metered_segments",
    "\u{1}*",
    r#"metered_segments: "\u{1}*" has a prefix that must not contain control characters"#
)]
#[case::no_jwt_algorithm("jwt_algorithm", "none", r#"jwt_algorithm: "none" must be HS256, RS256, ES256 or EdDSA"#)]
#[case::jwt_algorithm_without_key(
    "jwt_algorithm",
    "HS256",
    r#"jwt_algorithm: "HS256" has no effect without jwt_key_file (set by ESTIMATOR_JWT_ALGORITHM)"#
)]
#[case::jwt_key_without_algorithm("jwt_key_file", "key", r#"jwt_key_file: "key" has no effect without jwt_algorithm"#)]
#[case::jwt_audience_alone("jwt_audience", "us", r#"jwt_audience: "us" has no effect without jwt_algorithm"#)]
#[case::certificate_without_key("tls_cert_file", "cert", r#"tls_cert_file: "cert" has no effect without tls_key_file"#)]
#[case::key_without_certificate("tls_key_file", "key", r#"tls_key_file: "key" has no effect without tls_cert_file"#)]
#[case::origin_without_scheme("cors_origins", "app.example", r#"cors_origins: "app.example" must be * or origins"#)]
#[case::origin_with_wildcard(
    "cors_origins",
    "https://*.example.com",
    r#"cors_origins: "https://*.example.com" has a wildcard in a host, and no browser sends one"#
)]
#[case::public_url_without_scheme("public_url", "app.example", r#"public_url: "app.example" must be a URL such as"#)]
#[case::host_with_port("allowed_hosts", "a.example:80", r#"allowed_hosts: "a.example:80" must be * or names of hosts"#)]
#[case::collector_without_scheme("otlp_endpoint", "collector", "otlp_endpoint: the value must be a URL such as")]
#[case::ratio_over_one("trace_ratio", "2", r#"trace_ratio: "2" must be a number from 0 to 1"#)]
#[case::fraction_of_a_second("jwt_leeway", "500ms", r#"jwt_leeway: "500ms" must be a whole number of seconds"#)]
#[case::too_many_acks("write_acks", "10", r#"write_acks: "10" must be a whole number from 0 to 9"#)]
#[case::yes_as_boolean("write_acks_on_disk", "yes", r#"write_acks_on_disk: "yes" must be true or false"#)]
#[case::acks_on_disk_without_acks(
    "write_acks_on_disk",
    "true",
    r#"write_acks_on_disk: "true" has no effect without write_acks, the number of replicas (set by ESTIMATOR_WRITE"#
)]
#[case::acks_of_private_redis(
    "write_acks",
    "1",
    r#"write_acks: "1" needs a Redis of your own; set redis_url, redis_cl"#
)]
#[case::unverified_tls("redis_url", "rediss://host#insecure", "redis_url: the value must not end in #insecure")]
#[case::unverified_tls_with_path("redis_url", "rediss://host/#insecure", "redis_url: the value must not end in #insec")]
#[case::unverified_plain_text("redis_url", "redis://host#insecure", "redis_url: the value must not end in #insecure")]
#[case::fragment("redis_url", "rediss://host#lax", "redis_url: the value ends in # and more, which a Redis URL")]
#[case::parameter_of_seed(
    "redis_cluster",
    "redis://a,redis://b?ssl=true",
    "redis_cluster: the value has a part that enables TLS behind ?"
)]
#[case::parameter_of_sentinel(
    "redis_sentinel",
    "redis://a?db=3",
    "redis_sentinel: the value has a part that has a database behind ?"
)]
#[case::fragment_of_sentinel(
    "redis_sentinel",
    "redis://a#b,redis://c",
    "redis_sentinel: the value has a part that ends in # and more"
)]
fn environment_refuses_invalid_value(#[case] name: &str, #[case] value: &str, #[case] message: &str) {
    let error = environment([(name, value)]).unwrap_err().to_string();
    assert!(error.starts_with(message), "{error}");
    assert!(!error.contains('\n'), "{error}");
}

#[rstest]
#[case::unknown("ESTIMATOR_WNDOW", "4s", "ESTIMATOR_WNDOW is not a setting; --help lists them all")]
#[case::unknown_and_empty("ESTIMATOR_WNDOW", "", "ESTIMATOR_WNDOW is not a setting; --help lists them all")]
#[case::lower_case("estimator_window", "4s", "estimator_window must be in capitals")]
fn environment_refuses_invalid_name(#[case] name: &str, #[case] value: &str, #[case] message: &str) {
    assert_eq!(variables([(name, value)]).unwrap_err().to_string(), message);
}

#[rstest]
#[case::months(
    "M",
    r#""1M" is in months or years, which differ in length: give it in days, such as 30d; minutes are m"#
)]
#[case::years("y", r#""1y" is in months or years"#)]
fn environment_refuses_months_and_years(#[case] unit: &str, #[case] why: &str) {
    let is_duration =
        |setting: &&Setting| setting.default.is_some_and(|text| text != "0" && parse::duration_or_zero(text).is_ok());
    let names: Vec<_> = SETTINGS.iter().filter(is_duration).map(|setting| setting.name).collect();
    assert!(names.len() > 5, "{names:?}");
    for name in names.into_iter().chain(["window", "jwt_leeway"]) {
        let error = environment([(name, &*format!("1{unit}"))]).unwrap_err().to_string();
        assert!(error.contains(why), "{name}: {error}");
    }
}

#[rstest]
#[case::zero_window("window = '0s'", r#"window: "0s" must be longer than zero (set by window in "#)]
#[case::number_as_duration("window = 4", r#"window: "4" is not a duration such as 14d"#)]
#[case::unknown_name("wndow = '4s'", "is not a setting")]
#[case::name_of_the_file("config = 'x'", "is not a setting")]
#[case::list("window = ['4s']", "must be a single value")]
#[case::no_toml("listen = '0.0.0.0:80'\nwindow = 4s", "line 2: ")]
fn file_refuses_invalid_line(#[case] text: &str, #[case] message: &str) {
    let error = file(text).unwrap_err().to_string();
    assert!(error.contains(message) && error.contains("estimator.toml"), "{error}");
    assert!(!error.contains('\n'), "{error}");
}
