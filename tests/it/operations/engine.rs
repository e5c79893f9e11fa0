//! The engine that the tests run on.

use std::process::Command;

use crate::helpers::{Redis, RedisCluster, Sentinels, Service, private_redis_connection};

/// Returns the build id that the server program prints: that of `REDIS_SERVER`, or that of the installed one.
fn build_of_the_program() -> String {
    let named = std::env::var("REDIS_SERVER").ok().filter(|server| !server.is_empty());
    let find = "server=$(command -v \"$1\" || command -v redis-server || command -v valkey-server)
                exec \"$server\" --version";
    let output =
        Command::new("sh").args(["-c", find, "sh", named.as_deref().unwrap_or("redis-server")]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.trim().split("build=").nth(1).unwrap_or_else(|| panic!("no build id in {text:?}")).to_owned()
}

fn build_of(info: &str) -> String {
    info.lines().find_map(|line| line.strip_prefix("redis_build_id:")).unwrap().trim().to_owned()
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
