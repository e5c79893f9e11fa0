//! The engine that the tests run on.

use std::process::Command;

use crate::helpers::{Redis, RedisCluster, Sentinels, Service, private_redis_connection};

/// Returns the server program that must run: `named`, or the installed one if that is empty. A `named` that is no
/// program is an error: another program in its place would prove nothing.
fn server_program(named: &str) -> Result<String, String> {
    let find = match named {
        "" => "command -v redis-server || command -v valkey-server",
        _ => "command -v \"$1\"",
    };
    let output = Command::new("sh").args(["-c", find, "sh", named]).output().unwrap();
    let program = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    if output.status.success() { Ok(program) } else { Err(format!("REDIS_SERVER: `{named}` is no program")) }
}

/// Returns the build id that the server program prints.
fn build_of_the_program() -> String {
    let program = server_program(&std::env::var("REDIS_SERVER").unwrap_or_default()).unwrap();
    let output = Command::new(program).arg("--version").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().split("build=").nth(1).unwrap_or_else(|| panic!("no build id in {text:?}")).to_owned()
}

fn build_of(info: &str) -> String {
    info.lines().find_map(|line| line.strip_prefix("redis_build_id:")).unwrap().trim().to_owned()
}

#[test]
fn misspelled_redis_server_is_no_program() {
    for misspelled in ["/no/such/redis-server", "no-such-redis-server"] {
        assert_eq!(server_program(misspelled), Err(format!("REDIS_SERVER: `{misspelled}` is no program")));
    }
    assert!(server_program("").is_ok());
}

/// A run with a misspelled `REDIS_SERVER`, or one that a helper ignores, would prove nothing about that engine.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_server_is_the_program_of_all_servers() {
    let expected = build_of_the_program();
    let build = |redis: &Redis| build_of(&redis.call::<String>(&["INFO", "server"]));
    assert_eq!(build(&Redis::start()), expected);
    assert_eq!(build(&RedisCluster::start_without_failover(&[]).await[0]), expected);
    let sentinels = Sentinels::start().await;
    assert_eq!(build(&sentinels[0]), expected);
    let sentinel = sentinels.urls().split(',').next().unwrap().to_owned();
    let mut connection = redis::Client::open(sentinel).unwrap().get_connection().unwrap();
    assert_eq!(build_of(&redis::cmd("INFO").arg("server").query::<String>(&mut connection).unwrap()), expected);

    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let mut connection = private_redis_connection(folder.path());
    assert_eq!(build_of(&redis::cmd("INFO").arg("server").query::<String>(&mut connection).unwrap()), expected);
    assert!(service.terminate().success());
}
