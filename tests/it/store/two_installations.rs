//! Two installations with different prefixes and numbers of partitions share one Redis, with an ACL user each.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::process::Output;

use reqwest::StatusCode;
use segment_estimator::domain::Timestamp;
use serde_json::{Value, json};

use crate::helpers::{Redis, RedisCluster, Sentinels, Service, binary, eventually, run, success};

/// An installation: its prefix without the colon is also the name of its user.
struct Installation {
    name: &'static str,
    /// Numbers of partitions, before and after the move.
    partitions: [&'static str; 2],
    users: u64,
}

const INSTALLATIONS: [Installation; 2] = [
    Installation { name: "prod", partitions: ["4", "8"], users: 20 },
    Installation { name: "test", partitions: ["16", "2"], users: 30 },
];

/// Returns the ACL rules in `page` behind `start`, with `name` in the place of the shell's variable.
fn rules_in(page: &str, start: &str, name: &str) -> Vec<String> {
    let rules = page.split_once(start).unwrap().1.split_once("\n  done\n").unwrap().0;
    let words = rules.split_whitespace().filter(|word| *word != "\\");
    words.map(|word| word.trim_matches(['\'', '"']).replace("\\|", "|").replace("$name", name)).collect()
}

/// Creates the users on a server as docs/operating.md says, and those of a cluster as docs/scaling.md says.
fn create_users(redis: &Redis, is_cluster: bool) {
    for Installation { name, .. } in INSTALLATIONS {
        let mut rules = rules_in(include_str!("../../../docs/operating.md"), "redis-cli ACL SETUSER \"$name\"", name);
        if is_cluster {
            rules.extend(["+cluster|slots", "+cluster|info", "+asking"].map(str::to_owned));
        }
        let rules: Vec<_> = rules.iter().map(String::as_str).collect();
        redis.call::<()>(&[&["ACL", "SETUSER", name], &rules[..], &redis.acl_rules_of_the_version()].concat());
    }
}

/// Returns all keys that begin with `prefix`, with their values.
fn contents(servers: &[&Redis], prefix: &str) -> Vec<(String, Vec<u8>)> {
    let pattern = format!("{prefix}*");
    let of = |redis: &&Redis| {
        let keys: Vec<String> = redis.call(&["KEYS", &pattern]);
        keys.into_iter().map(|key| (key.clone(), redis.call(&["DUMP", &key]))).collect::<Vec<_>>()
    };
    let mut all: Vec<_> = servers.iter().flat_map(of).collect();
    all.sort();
    all
}

/// Returns the commands and keys in `ACL LOG`, without subcommands.
fn refused_commands(redis: &Redis) -> Vec<String> {
    let log: Vec<HashMap<String, redis::Value>> = redis.call(&["ACL", "LOG", "128"]);
    let object =
        |entry: HashMap<String, redis::Value>| redis::from_redis_value::<String>(entry["object"].clone()).unwrap();
    log.into_iter().map(|entry| object(entry).split('|').next().unwrap().to_owned()).collect()
}

/// What an installation runs, with the settings of its user and its prefix.
struct Runner<'a> {
    folder: &'a Path,
    deployment: &'a [&'a str; 2],
    name: &'a str,
    prefix: String,
    password_file: String,
}

impl<'a> Runner<'a> {
    fn new(folder: &'a Path, deployment: &'a [&'a str; 2], name: &'a str) -> Self {
        let password_file = format!("{name}.password");
        fs::write(folder.join(&password_file), format!("{name}-secret")).unwrap();
        Self { folder, deployment, name, prefix: format!("{name}:"), password_file }
    }

    fn arguments(&self) -> [&str; 8] {
        let [option, urls] = *self.deployment;
        let (prefix, file) = (&self.prefix, &self.password_file);
        [option, urls, "--redis-username", self.name, "--redis-password-file", file, "--redis-key-prefix", prefix]
    }

    fn serve(&self, more: &[&str]) -> Service {
        Service::start(self.folder, &[&self.arguments(), more].concat())
    }

    /// Runs a command.
    fn run(&self, command: &[&str]) -> Output {
        run(binary(self.folder).args(command).args(self.arguments()))
    }

    /// Runs a command, which must succeed. Returns standard output.
    #[track_caller]
    fn stdout_of(&self, command: &[&str]) -> String {
        let output = self.run(command);
        assert!(output.status.success(), "{command:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

async fn json_of(service: &Service, path: &str) -> Value {
    success(service.get(path).await).await.json().await.unwrap()
}

/// Does all that an installation can do, and asserts the exact results.
async fn use_everything(runner: &Runner<'_>, installation: &Installation, servers: &[&Redis]) {
    let Installation { partitions: [before, after], users, .. } = *installation;
    let often = ["--prune-schedule", "* * * * * *", "--history-interval", "1s", "--partitions", before];
    let service = runner.serve(&often);
    for n in 0..users / 2 {
        service.record(&format!("u{n}"), "sports").await;
    }
    let rest: Vec<_> = (users / 2..users).map(|n| json!({ "user_id": format!("u{n}"), "segment": "sports" })).collect();
    success(service.post_array(&json!(rest)).await).await;
    success(service.post_lines(r#"{"user_id":"u0","segments":["news","gone"]}"#).await).await;
    service.record("leaves", "news").await;
    assert_eq!((service.count("sports").await, service.count("news").await), (users, 2));
    assert_eq!(json_of(&service, "/overlap?segment=sports&segment=news").await["all"], 1);
    assert_eq!(json_of(&service, "/audience/count?all=sports&none=news").await["count"], users - 1);
    let list = success(service.get("/segments/sports/users").await).await.text().await.unwrap();
    assert_eq!(list.matches("\"user_id\"").count() as u64, users);
    assert_eq!(json_of(&service, "/segments").await["segments"].as_array().unwrap().len(), 3);
    assert_eq!(json_of(&service, "/users/u0/segments").await["segments"].as_array().unwrap().len(), 3);
    for (method, path, status) in [
        ("DELETE", "/users/leaves", StatusCode::OK),
        ("DELETE", "/segments/gone", StatusCode::OK),
        ("GET", "/segments/sports/histogram", StatusCode::OK),
        ("GET", "/readyz", StatusCode::OK),
    ] {
        assert_eq!(service.request(method, path).send().await.unwrap().status(), status, "{method} {path}");
    }
    assert_eq!((service.count("news").await, service.count("gone").await), (1, 0));
    let history = format!("{}history:sports", runner.prefix);
    let exists = |redis: &&Redis| redis.try_call::<u64>(&["EXISTS", &history]).is_ok_and(|keys| keys == 1);
    eventually("a history exists", async || servers.iter().any(exists)).await;

    let is_of_sports = |key: &String| key.ends_with("segment:sports");
    let expired = Timestamp::from_millis(1_000).as_score().to_string();
    let (key, redis) = servers
        .iter()
        .flat_map(|redis| redis.sets().into_iter().map(move |key| (key, redis)))
        .find(|(key, _)| key.starts_with(&runner.prefix) && is_of_sports(key))
        .unwrap();
    redis.call::<()>(&["ZADD", &key, &expired, "expired"]);
    let is_pruned = async || redis.call::<Option<String>>(&["ZSCORE", &key, "expired"]).is_none();
    eventually("the member is pruned", is_pruned).await;
    assert!(service.terminate().success());

    let table = runner.stdout_of(&["check"]);
    assert!(table.contains(&format!("\nthe keys of the data set are {}*\n", runner.prefix)), "{table}");
    let export = runner.stdout_of(&["export"]);
    assert_eq!(export.lines().count() as u64, users + 1);
    let file = format!("{}.ndjson", runner.name);
    fs::write(runner.folder.join(&file), export + r#"{"user_id":"imported","segment":"sports"}"#).unwrap();
    runner.stdout_of(&["import", &file]);
    runner.stdout_of(&["repartition", "--to", after]);
    runner.stdout_of(&["window", "set", "15d"]);
    let service = runner.serve(&[]);
    assert_eq!((service.count("sports").await, service.count("news").await), (users + 1, 1));
    assert!(service.terminate().success());
}

/// Lets both installations do everything, one after the other, and each once more beside the other.
async fn share(deployment: [&str; 2], servers: &[&Redis]) {
    let folder = tempfile::tempdir().unwrap();
    let [prod, test] = INSTALLATIONS.map(|Installation { name, .. }| Runner::new(folder.path(), &deployment, name));
    use_everything(&prod, &INSTALLATIONS[0], servers).await;
    let of_prod = contents(servers, "prod:");
    use_everything(&test, &INSTALLATIONS[1], servers).await;
    assert_eq!(contents(servers, "prod:"), of_prod);
    let of_test = contents(servers, "test:");
    let refused: BTreeSet<_> = servers.iter().flat_map(|redis| refused_commands(redis)).collect();
    // `check` reports what it can't see.
    assert_eq!(refused.iter().collect::<Vec<_>>(), ["acl", "command", "config"]);

    // The same names in both: a deletion reaches its own.
    let services = [&prod, &test].map(|runner| runner.serve(&[]));
    for path in ["/users/u0", "/segments/sports"] {
        success(services[0].request("DELETE", path).send().await.unwrap()).await;
    }
    assert_eq!((services[0].count("sports").await, services[1].count("sports").await), (0, INSTALLATIONS[1].users + 1));
    for service in services {
        assert!(service.terminate().success());
    }
    assert_eq!(contents(servers, "test:"), of_test);

    // With the prefix of the other, everything is refused and nothing is written.
    let (of_prod, stranger) = (contents(servers, "prod:"), Runner { prefix: "test:".to_owned(), ..prod });
    for command in
        [&["check"][..], &["export"], &["import", "prod.ndjson"], &["repartition", "--to", "32"], &["adopt", "--yes"]]
    {
        let output = stranger.run(command);
        assert!(!output.status.success(), "{command:?}: {output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("NOPERM"), "{command:?}: {output:?}");
    }
    assert_eq!((contents(servers, "test:"), contents(servers, "prod:")), (of_test, of_prod));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn installations_share_one_server() {
    let redis = Redis::start();
    create_users(&redis, false);
    share(["--redis-url", &redis.url()], &[&redis]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn installations_share_a_primary_of_sentinels() {
    let sentinels = Sentinels::start().await;
    // A server doesn't pass its users on to its replicas.
    let primary = &sentinels[sentinels.primary()];
    sentinels.replicas().chain([primary]).for_each(|redis| create_users(redis, false));
    share(["--redis-sentinel", &sentinels.urls()], &[primary]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn installations_share_a_cluster() {
    let cluster = RedisCluster::start_without_failover(&[]).await;
    (0..6).for_each(|node| create_users(&cluster[node], true));
    let masters: Vec<_> = cluster.masters().into_iter().map(|node| &cluster[node]).collect();
    share(["--redis-cluster", &cluster.urls()], &masters).await;
}
