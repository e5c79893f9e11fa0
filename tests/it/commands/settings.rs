//! Settings of the binary: their sources, and the error line of an invalid one.

use std::fs;
use std::path::Path;

use rstest::rstest;
use segment_estimator::COMMIT;
use serde_json::{Value, json};

use crate::helpers::{Redis, Service, binary, refusal, run};

/// Returns the error line of the binary for these arguments and this environment.
fn error_of(folder: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> String {
    refusal(binary(folder).args(arguments).envs(environment.iter().copied()))
}

#[rstest]
#[case::window("ESTIMATOR_WINDOW", "0s", r#"window: "0s" must be longer than zero (set by ESTIMATOR_WINDOW)"#)]
#[case::prune_schedule("ESTIMATOR_PRUNE_SCHEDULE", "often", r#"prune_schedule: "often" is not a cron pattern"#)]
#[case::prune_schedule_without_a_match(
    "ESTIMATOR_PRUNE_SCHEDULE",
    "0 0 31 2 *",
    r#"prune_schedule: "0 0 31 2 *" is a cron pattern that matches no time"#
)]
#[case::listen("ESTIMATOR_LISTEN", "localhost", r#"listen: "localhost" must be an IP address and a port"#)]
#[case::unknown_setting("ESTIMATOR_WINDOWS", "7d", "ESTIMATOR_WINDOWS is not a setting")]
#[case::redis_url_without_scheme("ESTIMATOR_REDIS_URL", "redis:6379", "redis_url: the value is not a usable Redis URL")]
#[case::redis_url_with_database(
    "ESTIMATOR_REDIS_URL",
    "redis://host?db=3",
    "redis_url: the value has a database behind ?"
)]
#[case::redis_cluster_with_fragment(
    "ESTIMATOR_REDIS_CLUSTER",
    "redis://host#3",
    "redis_cluster: the value has a part that ends in # and more"
)]
#[case::redis_sentinel_with_tls(
    "ESTIMATOR_REDIS_SENTINEL",
    "redis://host?tls=1",
    "redis_sentinel: the value has a part that enables TLS behind ?"
)]
#[case::redis_url_without_verification(
    "ESTIMATOR_REDIS_URL",
    "rediss://host#insecure",
    "redis_url: the value must not end in #insecure"
)]
#[case::log_filter("ESTIMATOR_LOG_FILTER", "loud", r#"log_filter: "loud" must be a level"#)]
fn start_refuses_an_invalid_setting(#[case] name: &str, #[case] value: &str, #[case] message: &str) {
    let folder = tempfile::tempdir().unwrap();
    let error = error_of(folder.path(), &[], &[(name, value)]);
    assert!(error.starts_with(&format!("segment-estimator: {message}")), "{error}");
}

#[rstest]
#[case::unknown_flag(&["--bogus"], "unexpected argument '--bogus' found; see --help")]
#[case::misspelled_flag(
    &["--windw", "3d"],
    "unexpected argument '--windw' found; a similar argument exists: '--window'; see --help"
)]
#[case::unknown_command(&["bogus"], "unrecognized subcommand 'bogus'; see --help")]
#[case::no_value(&["--window"], "a value is required for '--window <DURATION>' but none was supplied; see --help")]
#[case::flag_as_value(
    &["--window", "--listen", "127.0.0.1:0"],
    "a value is required for '--window <DURATION>' but none was supplied; see --help"
)]
#[case::value_with_hyphen(
    &["check", "--window", "-1d"],
    "unexpected argument '-1' found; to give a value that begins with a hyphen, write --SETTING=-1; see --help"
)]
#[case::negative_duration(
    &["check", "--window=-1d"],
    r#"window: "-1d" is not a duration such as 14d, 36h or 1h 30m (set by --window)"#
)]
fn command_line_mistakes_are_reported_in_one_line(#[case] arguments: &[&str], #[case] message: &str) {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(error_of(folder.path(), arguments, &[]), format!("segment-estimator: {message}\n"));
}

#[rstest]
#[case::reference("ESTIMATOR_WINDOW=$X\n", ".env: line 1: ESTIMATOR_WINDOW: a value with $ or a backslash must be")]
#[case::spaces(
    "A=1\nESTIMATOR_WINDOW=1h 30m\n",
    ".env: line 2: ESTIMATOR_WINDOW: a value with spaces, quotes or # must be"
)]
#[case::duplicate(
    "ESTIMATOR_WINDOW=7d\n\nESTIMATOR_WINDOW=\n",
    ".env: lines 1 and 3 both set ESTIMATOR_WINDOW; remove one of them"
)]
fn start_refuses_an_invalid_line_of_dotenv(#[case] text: &str, #[case] message: &str) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(".env"), text).unwrap();
    let error = error_of(folder.path(), &["check"], &[]);
    assert!(error.starts_with(&format!("segment-estimator: {message}")), "{error}");
}

#[test]
fn start_refuses_a_pipe_called_dotenv() {
    let folder = tempfile::tempdir().unwrap();
    assert!(std::process::Command::new("mkfifo").arg(folder.path().join(".env")).status().unwrap().success());
    let error = error_of(folder.path(), &["check"], &[]);
    assert!(error.starts_with("segment-estimator: .env: it is a pipe or a device, and must be a file"), "{error}");
}

#[test]
fn help_and_version_exit_with_0() {
    let folder = tempfile::tempdir().unwrap();
    for (arguments, start) in [
        ("--help", "Counts how many users"),
        ("help --help", "Counts how many users"),
        ("help -h", "Counts how many users"),
        ("help serve", "Serve HTTP until"),
        ("help serve --help", "Serve HTTP until"),
        ("help window set -h", "Set the window"),
        ("--version", "segment-estimator 1."),
        ("serve --version", "segment-estimator 1."),
        ("window set -V", "segment-estimator 1."),
        ("help --version", "segment-estimator 1."),
    ] {
        let output = run(binary(folder.path()).args(arguments.split(' ')));
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        assert!(String::from_utf8(output.stdout).unwrap().starts_with(start), "{arguments}");
    }
    for (arguments, message) in
        [("help nothing", "unrecognized subcommand 'nothing'"), ("help --nothing", "unexpected argument '--nothing'")]
    {
        let arguments: Vec<_> = arguments.split(' ').collect();
        let error = error_of(folder.path(), &arguments, &[]);
        assert!(error.starts_with(&format!("segment-estimator: {message}")), "{error}");
    }
}

#[test]
fn help_and_version_that_cannot_be_written_fail() {
    let folder = tempfile::tempdir().unwrap();
    for arguments in ["--help", "help", "serve -h", "--version"] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = run(binary(folder.path()).args(arguments.split(' ')).stdout(full));
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{arguments}: {error}");
        assert!(error.starts_with("segment-estimator: No space left on device"), "{arguments}: {error}");
    }
}

#[test]
fn version_has_the_commit_if_the_build_got_one() {
    let folder = tempfile::tempdir().unwrap();
    let printed = run(binary(folder.path()).arg("--version")).stdout;
    let version = env!("CARGO_PKG_VERSION");
    let expected = COMMIT.map_or_else(
        || format!("segment-estimator {version}\n"),
        |commit| format!("segment-estimator {version} ({commit})\n"),
    );
    assert_eq!(String::from_utf8(printed).unwrap(), expected);
}

#[test]
fn first_line_of_the_log_has_the_version_and_the_commit() {
    let folder = tempfile::tempdir().unwrap();
    let redis = Redis::start();
    let log = Service::start(folder.path(), &["--redis-url", &redis.url()]).terminate_for_log();
    let first: Value = serde_json::from_str(&log[0]).unwrap();
    assert_eq!((&first["message"], &first["version"]), (&json!("starting"), &json!(env!("CARGO_PKG_VERSION"))));
    assert_eq!(first.get("commit").and_then(Value::as_str), COMMIT);
}

#[test]
fn start_prefers_flags_to_environment_to_dotenv_to_file() {
    let folder = tempfile::tempdir().unwrap();
    let listen = |n| format!("nowhere-{n}");
    let listen_of = |refusal: String| refusal.split('"').nth(1).unwrap().to_owned();

    fs::write(folder.path().join("estimator.toml"), format!("listen = '{}'", listen(1))).unwrap();
    assert_eq!(listen_of(error_of(folder.path(), &["--config", "estimator.toml"], &[])), listen(1));

    fs::write(folder.path().join(".env"), format!("ESTIMATOR_LISTEN={}\nESTIMATOR_CONFIG=estimator.toml\n", listen(2)))
        .unwrap();
    assert_eq!(listen_of(error_of(folder.path(), &[], &[])), listen(2));

    let environment = [("ESTIMATOR_LISTEN", "nowhere-3")];
    assert_eq!(listen_of(error_of(folder.path(), &[], &environment)), listen(3));
    assert_eq!(listen_of(error_of(folder.path(), &["--listen", "nowhere-4"], &environment)), listen(4));
}

#[test]
fn start_ignores_variables_of_other_programs_in_dotenv() {
    let folder = tempfile::tempdir().unwrap();
    let content = "\u{feff}DATABASE_URL=postgres://x y z\r\nMOTD='it is\r\nexport ESTIMATOR_LISTEN=nowhere\r\n";
    fs::write(folder.path().join(".env"), content).unwrap();
    let error = error_of(folder.path(), &[], &[]);
    assert!(error.starts_with(r#"segment-estimator: listen: "nowhere" must be an IP address"#), "{error}");
    assert!(error.ends_with("(set by ESTIMATOR_LISTEN in .env)\n"), "{error}");
}

#[test]
fn start_ignores_a_folder_called_dotenv() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(".env")).unwrap();
    let error = error_of(folder.path(), &["--listen", "nowhere"], &[]);
    assert!(error.ends_with("(set by --listen)\n"), "{error}");
}

#[test]
fn start_names_a_missing_config_file() {
    let folder = tempfile::tempdir().unwrap();
    let error = error_of(folder.path(), &["--config", "nowhere.toml"], &[]);
    assert!(error.starts_with("segment-estimator: config: failed to read nowhere.toml: No such file"), "{error}");
}

#[test]
fn start_names_an_address_that_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = error_of(folder.path(), &["--listen", &address, "--log-filter", "off"], &[]);
    assert!(error.starts_with(&format!("segment-estimator: listen: failed to listen on {address}: ")), "{error}");
}

#[test]
fn serve_never_logs_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let url = "redis://someone:hunter2@127.0.0.1:1/0";
    let mut service = binary(folder.path())
        .args(["--listen", "127.0.0.1:0", "--log-filter", "trace", "--redis-url", url])
        .env("ESTIMATOR_REDIS_TIMEOUT", "200ms")
        .env("ESTIMATOR_PRUNE_SCHEDULE", "* * * * * *")
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut log = String::new();
    for line in std::io::BufRead::lines(std::io::BufReader::new(service.stderr.take().unwrap())) {
        let line = line.unwrap();
        log.push_str(&line);
        if line.contains("pruning failed") {
            break;
        }
    }
    service.kill().unwrap();
    service.wait().unwrap();
    assert!(log.contains("127.0.0.1:1") && !log.contains("hunter2"), "{log}");
}
