//! `GET /segments/{name}/users`: the users of a segment, as a stream.

use std::collections::BTreeSet;
use std::panic::Location;

use reqwest::{Response, StatusCode};
use rstest::rstest;
use segment_estimator::domain::Timestamp;
use segment_estimator::estimator::MembersQuery;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::seconds_ago;
use crate::api::api_keys::make_key;
use crate::helpers::{
    Client, Redis, RedisCluster, Service, TestApp, binary, encoded, eventually, in_time, kill, problem, run, segment,
    settings, success,
};

/// Returns the time and the id of each line of NDJSON.
fn lines(text: &str) -> Vec<(String, String)> {
    assert!(text.is_empty() || text.ends_with('\n'));
    let line = |line: &str| {
        let user: Value = serde_json::from_str(line).unwrap();
        (user["last_seen"].as_str().unwrap().to_owned(), user["user_id"].as_str().unwrap().to_owned())
    };
    text.lines().map(line).collect()
}

/// Returns the users of `sports`. Panics with the caller's location if the response is not 200.
#[track_caller]
fn users(app: &Client, query: &str) -> impl Future<Output = Vec<(String, String)>> {
    let (caller, response) = (Location::caller(), app.request("GET", &format!("/segments/sports/users{query}")).send());
    async move {
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200, "{caller}");
        assert_eq!(response.headers()["content-type"], "application/x-ndjson", "{caller}");
        lines(&response.text().await.unwrap())
    }
}

/// Returns the query that continues after the last of `lines`.
fn after((last_seen, user_id): &(String, String)) -> String {
    format!("from={},{}", encoded(last_seen), encoded(user_id))
}

/// Returns all users of `sports`, read in parts of `limit` lines.
async fn users_in_parts(app: &Client, limit: usize) -> Vec<(String, String)> {
    let (mut all, mut from) = (Vec::new(), String::new());
    loop {
        let part = users(app, &format!("?limit={limit}{from}")).await;
        assert!(part.len() <= limit);
        let Some(last) = part.last() else { return all };
        from = format!("&{}", after(last));
        all.extend(part);
    }
}

fn partitioned(partitions: &str) -> segment_estimator::config::RawSettings {
    settings([("partitions", partitions)])
}

/// Posts a visit of each user at its time.
async fn post(app: &Client, visits: &[(Timestamp, String)]) {
    let visits = visits.iter().map(|(seen_at, user_id)| {
        json!({ "user_id": user_id, "segment": "sports", "seen_at": seen_at.to_string() }).to_string()
    });
    success(app.post_lines(visits.collect::<Vec<_>>().join("\n")).await).await;
}

#[rstest]
#[case::plain("1")]
#[case::few_partitions("8")]
#[case::many_partitions("1024")]
#[tokio::test]
async fn list_has_every_user_in_the_order_of_time_and_id(#[case] partitions: &str) {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, partitioned(partitions)).await;
    assert_eq!(users(&app, "").await, []);
    let begin = seconds_ago(86_400).as_millis();
    // Many users share a time.
    let visits: Vec<_> =
        (0..5_000_i64).map(|n| (Timestamp::from_millis(begin + n * 7_919 % 900), format!("u{n}"))).collect();
    post(&app, &visits).await;
    app.record("u1", "news").await;
    let mut expected: Vec<_> = visits.into_iter().map(|(seen_at, user)| (seen_at.to_string(), user)).collect();
    expected.sort();
    let all = users(&app, "").await;
    assert!(all == expected, "{} users", all.len());
    assert_eq!(users(&app, "?limit=3").await, expected[..3]);
    assert_eq!(users(&app, "?limit=4999").await, expected[..4_999]);
    assert_eq!(users(&app, "?limit=1000000000").await.len(), 5_000);
    for at in [0, 700, 4_998] {
        assert!(users(&app, &format!("?{}", after(&expected[at]))).await == expected[at + 1..], "{at}");
    }
    assert_eq!(users(&app, &format!("?{}", after(&expected[4_999]))).await, []);
    assert!(users_in_parts(&app, 613).await == expected);
}

#[tokio::test]
async fn list_shows_the_expiry_over_the_window() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let (old, new) = (seconds_ago(3 * 86_400), seconds_ago(3_600));
    post(&app, &[(old, "u1".to_owned()), (new, "u2".to_owned())]).await;
    let line = |user: &str, seen_at: Timestamp, days: i64| {
        let expires = Timestamp::from_millis(seen_at.as_millis() + days * 86_400_000);
        format!("{{\"user_id\":\"{user}\",\"last_seen\":\"{seen_at}\",\"expires\":\"{expires}\"}}\n")
    };
    let text = async |path: &str| app.get(path).await.text().await.unwrap();
    assert_eq!(text("/segments/sports/users").await, line("u1", old, 14) + &line("u2", new, 14));
    assert_eq!(text("/segments/sports/users?window=2d").await, line("u2", new, 2));
    assert_eq!(text("/segments/unknown/users").await, "");
}

#[tokio::test]
async fn list_omits_expired_users_and_names_of_other_programs() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    post(&app, &[(seconds_ago(60), "u1".to_owned())]).await;
    let expired = seconds_ago(14 * 86_400).as_score();
    redis.fill((0..2_000).map(|n| (expired - f64::from(n), format!("old{n}"))));
    redis.fill([(seconds_ago(30).as_score(), " no id".to_owned())].into_iter());
    let all = users(&app, "").await;
    assert!(all.len() == 1 && all[0].1 == "u1", "{all:?}");
    assert_eq!(users(&app, "?from=1970-01-01T00:00:00Z,u1").await, all);
    assert_eq!(users(&app, "?limit=1&from=1970-01-01T00:00:00Z,u1").await, all);
}

/// Another program wrote milliseconds, or the year 10000.
#[tokio::test]
async fn list_omits_scores_that_are_no_times() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    let latest = 253_402_300_799.999;
    let foreign = [latest + 0.001, 253_402_300_800.0, Timestamp::now().as_score() * 1_000.0, f64::INFINITY];
    redis.fill(foreign.into_iter().zip(1..).map(|(score, n)| (score, format!("x{n}"))));
    redis.fill([(latest, "last".to_owned())].into_iter());
    let all = users(&app, "").await;
    assert_eq!(all.iter().map(|(_, user)| user.as_str()).collect::<Vec<_>>(), ["u1", "last"]);
    assert_eq!(all[1].0, "9999-12-31T23:59:59.999Z");
    assert_eq!(users_in_parts(&app, 1).await, all);
    assert_eq!(app.count("sports").await, 6);
}

#[tokio::test]
async fn list_continues_within_equal_and_finer_times() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u", "sports").await;
    redis.call::<()>(&["ZREM", "segment:sports", "u"]);
    let second = (seconds_ago(3_600).as_millis() / 1_000) as f64;
    redis.fill((0..20_000).map(|n| (second, format!("u{n:05}"))));
    let before = redis.calls("zrange");
    let all = users_in_parts(&app, 7_000).await;
    assert!(all.iter().map(|(_, user)| user.clone()).eq((0..20_000).map(|n| format!("u{n:05}"))), "{}", all.len());
    assert!(redis.calls("zrange") - before < 100, "equal times are not read again from their start");

    // Another program writes microseconds.
    redis.fill((0..20_000).map(|n| (second + f64::from(n) / 1e6, format!("u{:05}", n * 7 % 20_000))));
    let all = users_in_parts(&app, 613).await;
    assert_eq!((all.len(), all.iter().map(|(_, user)| user).collect::<BTreeSet<_>>().len()), (20_000, 20_000));
    assert!(all.iter().any(|(last_seen, _)| last_seen.len() == "2026-11-22T10:00:00.000001000Z".len()), "{:?}", all[1]);
}

#[tokio::test]
async fn list_is_csv_for_spreadsheets() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let seen_at = seconds_ago(60);
    post(&app, &["=1+1", "a,\"b\"", "größe;@x"].map(|user| (seen_at, user.to_owned()))).await;
    let expires = Timestamp::from_millis(seen_at.as_millis() + 14 * 86_400_000);
    let row = |user: &str| format!("{user},{seen_at},{expires}\r\n");
    let head = "user_id,last_seen,expires\r\n".to_owned();
    let expected = head.clone() + &row("'=1+1") + &row("\"a,\"\"b\"\"\"") + &row("größe;'@x");
    let by_parameter = app.get("/segments/sports/users?format=csv").await;
    let by_header = app.request("GET", "/segments/sports/users").header("accept", "text/csv").send().await.unwrap();
    for response in [by_parameter, by_header] {
        let headers = response.headers();
        assert_eq!(headers["content-type"], "text/csv; charset=utf-8; header=present");
        assert_eq!(headers["vary"], "accept");
        assert_eq!(headers["cache-control"], "no-store");
        let file = headers["content-disposition"].to_str().unwrap();
        assert!(file.starts_with("attachment; filename=\"users-sports-20"), "{file}");
        assert_eq!(response.text().await.unwrap(), expected);
    }
    let text = app.get("/segments/nothing/users?format=csv").await.text().await.unwrap();
    assert_eq!(text, head);
    assert_eq!(users(&app, "?format=json").await.len(), 3);
}

#[tokio::test]
async fn list_takes_any_name() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    for name in ["a/b", "50% & more?", "größe, {x}", "a+b", "%2F", "\"}\\", "x,2026-11-22T10:00:00Z,y"] {
        for user in [name, "zzz"] {
            app.record(user, name).await;
        }
        let path = format!("/segments/{}/users", encoded(name));
        let all = lines(&app.get(&path).await.text().await.unwrap());
        assert_eq!(all.iter().map(|(_, user)| user.as_str()).collect::<Vec<_>>(), [name, "zzz"]);
        let rest = lines(&app.get(&format!("{path}?{}", after(&all[0]))).await.text().await.unwrap());
        assert_eq!(rest, all[1..], "{name}");
    }
}

#[tokio::test]
async fn list_rejects_bad_parameters_and_is_503_without_redis() {
    let mut redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let from = "2026-11-22T10:00:00Z";
    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=1000000001", "limit"),
        ("limit=all", "limit"),
        ("limit=1&limit=2", "limit"),
        ("window=15d", "window"),
        ("format=xml", "format"),
        ("offset=3", "offset"),
        ("from=", "from"),
        ("from=u1", "from"),
        (&format!("from={from}"), "from"),
        (&format!("from={from},"), "from"),
        (&format!("from={from},u%0A"), "from"),
        ("from=1795341600,u1", "from"),
        ("from=2026-11-22,u1", "from"),
    ] {
        let document = problem(app.get(&format!("/segments/sports/users?{query}")).await, 422, "invalid-request").await;
        assert_eq!(document["errors"][0]["field"], field, "{document}");
    }
    let document = problem(app.get("/segments/%20s/users").await, 422, "invalid-request").await;
    assert_eq!(document["errors"][0]["field"], "segment", "{document}");
    redis.call::<()>(&["SET", "segment:broken", "x"]);
    problem(app.get("/segments/broken/users").await, 503, "store-unavailable").await;
    redis.stop();
    problem(app.get("/segments/sports/users").await, 503, "store-unavailable").await;
}

/// nginx sends requests in HTTP/1.0 unless it is told otherwise.
#[tokio::test]
async fn list_refuses_http_1_0_whose_answers_have_no_end() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    app.record("u1", "sports").await;
    let request = "GET /segments/sports/users HTTP/1.0\r\nhost: localhost\r\n\r\n";
    let mut stream = TcpStream::connect(app.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    in_time("the response", stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.0 422 ") && answer.contains("proxy_http_version 1.1"), "{answer}");
}

#[tokio::test]
async fn list_is_compressed_for_callers_that_accept_it() {
    let redis = Redis::start();
    let app = TestApp::spawn(&redis).await;
    let begin = seconds_ago(600).as_millis();
    let visits: Vec<_> = (0..3_000).map(|n| (Timestamp::from_millis(begin + n), format!("u{n}"))).collect();
    post(&app, &visits).await;
    let plain = app.get("/segments/sports/users").await.bytes().await.unwrap();
    let gzip = app.request("GET", "/segments/sports/users").header("accept-encoding", "gzip").send().await.unwrap();
    assert_eq!(gzip.headers()["content-encoding"], "gzip");
    let gzip = gzip.bytes().await.unwrap();
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(gzip.as_ref()), &mut text).unwrap();
    assert!(text == plain && gzip.len() < plain.len() / 4, "{} of {}", gzip.len(), plain.len());
}

/// Adds 400,000 users to `sports`, more than the buffers of a connection hold.
async fn fill_large(redis: &Redis, app: &Client) {
    app.record("u", "sports").await;
    let begin = seconds_ago(86_400).as_millis();
    redis.fill((0..400_000).map(|n| (Timestamp::from_millis(begin + n).as_score(), format!("user-{n:06}"))));
}

/// Begins to read the users of `sports`. Returns the response after its first chunk.
async fn begin(app: &Client) -> Response {
    let mut response = app.get("/segments/sports/users").await;
    assert_eq!(response.status(), 200);
    assert!(response.chunk().await.unwrap().is_some());
    response
}

#[tokio::test]
async fn list_breaks_off_when_redis_dies_and_can_be_continued() {
    let (mut redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let service = Service::start(folder.path(), &["--redis-url", &redis.url()]);
    fill_large(&redis, &service).await;
    let expected: Vec<_> = users(&service, "").await;
    assert_eq!(expected.len(), 400_001);

    for encoding in ["identity", "gzip"] {
        let request = service.request("GET", "/segments/sports/users").header("accept-encoding", encoding);
        let mut response = request.send().await.unwrap();
        assert_eq!(response.status(), 200);
        let mut text = response.chunk().await.unwrap().unwrap().to_vec();
        redis.stop();
        let broken = loop {
            match response.chunk().await {
                Ok(Some(chunk)) => text.extend(chunk),
                outcome => break outcome,
            }
        };
        assert!(broken.is_err(), "{encoding}: a broken transfer, not an end: {} bytes", text.len());
        redis.start_again();
        fill_large(&redis, &service).await;
        let path = "/segments/sports/users?limit=1";
        eventually("the list is served again", async || service.status_of(path).await == 200).await;
        if encoding == "identity" {
            text.truncate(text.iter().rposition(|byte| *byte == b'\n').unwrap() + 1);
            let mut read = lines(std::str::from_utf8(&text).unwrap());
            read.extend(users(&service, &format!("?{}", after(read.last().unwrap()))).await);
            let ids = |users: &[(String, String)]| users.iter().map(|(_, user)| user.clone()).collect::<BTreeSet<_>>();
            assert!(ids(&read) == ids(&expected), "{}", read.len());
        }
    }
    let log = service.terminate_for_log();
    let broken: Vec<_> = log.iter().filter(|line| line.contains("broke off a list of users")).collect();
    assert_eq!(broken.len(), 2, "{log:#?}");
    let is_named = |line: &&String| line.contains(r#""segment":"sports""#) && !line.contains(r#""request_id":"""#);
    assert!(broken.iter().all(is_named), "{broken:#?}");
    assert!(!log.iter().any(|line| line.contains("user-0")), "{log:#?}");
}

#[tokio::test]
async fn list_gives_its_permit_back_when_its_client_does_not_read_or_leaves() {
    let redis = Redis::start();
    let settings = settings([("max_member_lists", "1"), ("body_timeout", "3s")]);
    let app = TestApp::spawn_with(&redis, settings).await;
    fill_large(&redis, &app).await;
    let path = "/segments/sports/users?limit=1";

    let stalled = begin(&app).await;
    let document = problem(app.get(path).await, 429, "too-many-member-lists").await;
    let detail = document["detail"].as_str().unwrap();
    assert!(detail.starts_with("Nothing was done: 1 lists of members are already running."), "{detail}");
    assert_eq!(app.status_of("/segments").await, 200);
    eventually("the permit of the stalled list is free", async || app.status_of(path).await == 200).await;
    let rest = in_time("the rest", stalled.bytes()).await;
    assert!(rest.is_err(), "the stalled list breaks off");

    let metrics = app.get("/metrics").await.text().await.unwrap();
    assert!(metrics.contains("estimator_member_lists_aborted_total{reason=\"slow-client\"} 1"), "{metrics}");

    let left = begin(&app).await;
    assert_eq!(app.status_of(path).await, 429);
    drop(left);
    eventually("the permit of the left list is free", async || app.status_of(path).await == 200).await;
    for _ in 0..3 {
        let head = app.request("HEAD", "/segments/sports/users").send().await.unwrap();
        assert_eq!(head.status(), 200);
        eventually("the permit of HEAD is free", async || app.status_of(path).await == 200).await;
    }
}

#[tokio::test]
async fn list_answers_head_with_the_headers_of_get_and_starts_no_list() {
    let mut redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("max_member_lists", "1")])).await;
    app.record("u1", "sports").await;
    let path = "/segments/sports/users?format=csv";
    for _ in 0..3 {
        let [get, head] = [app.get(path).await, app.request("HEAD", path).send().await.unwrap()];
        assert_eq!((get.status(), head.status()), (StatusCode::OK, StatusCode::OK));
        for name in ["content-type", "content-length"] {
            assert_eq!(head.headers().get(name), get.headers().get(name), "{name}");
        }
        assert!(get.text().await.unwrap().contains("u1"));
    }
    let metrics = app.get("/metrics").await.text().await.unwrap();
    let aborted = metrics.lines().filter(|line| line.starts_with("estimator_member_lists_aborted_total{"));
    assert!(aborted.clone().all(|line| line.ends_with(" 0")), "{:#?}", aborted.collect::<Vec<_>>());
    redis.stop();
    assert_eq!(app.request("HEAD", path).send().await.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn list_breaks_off_at_half_of_the_drain_timeout() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let service = Service::start(folder.path(), &["--redis-url", &redis.url(), "--drain-timeout", "2s"]);
    fill_large(&redis, &service).await;
    let stalled = begin(&service).await;
    kill("-TERM", service.pid());
    let line = "broke off a list of users: the service is stopping";
    eventually("the list breaks off", async || service.has_logged(line)).await;
    assert!(in_time("the rest", stalled.bytes()).await.is_err());
}

#[tokio::test]
async fn list_breaks_off_when_its_token_is_revoked() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let keys = folder.path().join("keys.toml");
    let make = |name: &str, scope: &str| make_key(&keys, name, scope);
    let (all, writer) =
        (make("all", "users:read,segments:read,segments:write"), make("writer", "segments:write,segments:read"));
    let service =
        Service::start(folder.path(), &["--redis-url", &redis.url(), "--api-keys-file", keys.to_str().unwrap()]);
    let visit = json!({ "user_id": "u", "segment": "sports" });
    success(service.request("POST", "/segments").bearer_auth(&writer).json(&visit).send().await.unwrap()).await;
    for path in ["/segments/sports/users", "/segments/sports/users/u"] {
        let get = |key: &str| service.request("GET", path).bearer_auth(key).send();
        problem(service.get(path).await, 401, "unauthorized").await;
        problem(get(&writer).await.unwrap(), 403, "insufficient-scope").await;
        let password = service.request("GET", path).basic_auth("any", Some(&all)).send().await.unwrap();
        problem(password, 401, "unauthorized").await;
        assert_eq!(get(&all).await.unwrap().status(), 200);
    }
    let begin = seconds_ago(86_400).as_millis();
    redis.fill((0..400_000).map(|n| (Timestamp::from_millis(begin + n).as_score(), format!("user-{n:06}"))));
    let mut list = service.request("GET", "/segments/sports/users").bearer_auth(&all).send().await.unwrap();
    assert!(list.chunk().await.unwrap().is_some());
    std::fs::write(&keys, "").unwrap();
    kill("-HUP", service.pid());
    eventually("the key is revoked", async || {
        service.request("GET", "/segments/sports/users/u").bearer_auth(&all).send().await.unwrap().status() == 401
    })
    .await;
    assert!(in_time("the rest", list.bytes()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn list_works_on_a_cluster() {
    let (cluster, folder) = (RedisCluster::start_without_failover(&[]).await, tempfile::tempdir().unwrap());
    let service = Service::start(folder.path(), &["--redis-cluster", &cluster.urls()]);
    let begin = seconds_ago(600).as_millis();
    let visits: Vec<_> = (0..3_000).map(|n| (Timestamp::from_millis(begin + n / 3), format!("u{n:04}"))).collect();
    post(&service, &visits).await;
    let expected: Vec<_> = visits.into_iter().map(|(seen_at, user)| (seen_at.to_string(), user)).collect();
    assert!(users(&service, "").await == expected);
    assert!(users_in_parts(&service, 700).await == expected);
    assert!(service.terminate().success());
}

/// Each resharding is complete before the list continues.
#[tokio::test(flavor = "multi_thread")]
async fn list_continues_in_the_new_key_set_after_a_resharding() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let app = TestApp::spawn(&redis).await;
    let begin = seconds_ago(86_400).as_millis();
    let visits: Vec<_> = (0..60_000).map(|n| (Timestamp::from_millis(begin + n / 900), format!("u{n:05}"))).collect();
    post(&app, &visits).await;
    // Times that a resharding rounds.
    let last = begin as f64 / 1e3 + 1.0;
    redis.fill((0..9_000).map(|n| (last + f64::from(n) / 1e6, format!("z{n:05}"))));

    let estimator = redis.estimator("14d");
    let query = MembersQuery {
        segment: segment("sports"),
        window: estimator.window(),
        from: None,
        limit: None,
        accepts_sample: false,
    };
    let mut list = estimator.members(query).unwrap();
    let mut all = Vec::new();
    let mut next = async || list.next(Timestamp::now()).await.unwrap();
    for to in ["8", "2", "64", "1"] {
        all.extend(next().await.unwrap());
        let output = run(binary(folder.path()).args(["repartition", "--to", to, "--redis-url", &redis.url()]));
        assert!(output.status.success(), "{output:?}");
    }
    while let Some(members) = next().await {
        all.extend(members);
    }
    let ids: Vec<_> = all.iter().map(|member| member.user_id.as_str().to_owned()).collect();
    let expected = visits.into_iter().map(|(_, user)| user).chain((0..9_000).map(|n| format!("z{n:05}")));
    assert!(ids.iter().cloned().eq(expected), "{} members", ids.len());
}

/// Visits continue during the lists. No user is missing whose segment has never lost the user.
#[tokio::test(flavor = "multi_thread")]
async fn list_misses_no_user_during_reshardings_and_visits() {
    const USERS: i64 = 40_000;
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let app = TestApp::spawn(&redis).await;
    let begin = seconds_ago(86_400).as_millis();
    let visits: Vec<_> = (0..USERS).map(|n| (Timestamp::from_millis(begin + n / 50), format!("u{n}"))).collect();
    post(&app, &visits).await;
    let before: Vec<_> = visits.iter().map(|(seen_at, user)| (seen_at.to_string(), user.clone())).collect();
    let mut sorted = before.clone();
    sorted.sort();
    assert!(users(&app, "").await == sorted);

    let is_done = std::sync::atomic::AtomicBool::new(false);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    let moving = async {
        for to in ["8", "2", "64", "1"] {
            let mut command = binary(folder.path());
            command.args(["repartition", "--to", to, "--redis-url", &redis.url()]);
            let output = tokio::task::spawn_blocking(move || run(&mut command)).await.unwrap();
            assert!(output.status.success(), "{output:?}");
        }
        is_done.store(true, relaxed);
    };
    let visiting = async {
        for n in (0..).take_while(|_| !is_done.load(relaxed)) {
            app.record(&format!("u{}", n * 7_919 % USERS), "sports").await;
        }
    };
    let listing = async {
        let mut lists = 0;
        while !is_done.load(relaxed) {
            let all = if lists % 2 == 0 { users(&app, "").await } else { users_in_parts(&app, 9_000).await };
            assert!(all.is_sorted(), "in order");
            let ids: BTreeSet<_> = all.iter().map(|(_, user)| user.as_str()).collect();
            let missing: Vec<_> = before.iter().filter(|(_, user)| !ids.contains(user.as_str())).take(5).collect();
            assert!(missing.is_empty(), "list {lists}: {missing:?}");
            lists += 1;
        }
        lists
    };
    let ((), (), lists) = tokio::join!(moving, visiting, listing);
    assert!(lists > 0, "{lists} lists during the reshardings");
}
