//! Metrics by API key.

use std::fs;

use serde_json::json;

use crate::api::api_keys::{Keys, make_key};
use crate::helpers::{Client, Redis, TestApp, binary, eventually, run, settings, settings_with};

async fn metrics_of(app: &TestApp) -> Vec<String> {
    let text = Client::new(app.admin_address.unwrap()).get("/metrics").await.text().await.unwrap();
    text.lines().filter(|line| line.starts_with("estimator_key_")).map(str::to_owned).collect()
}

#[track_caller]
fn assert_lines(mut found: Vec<String>, expected: &[&str]) {
    let mut expected: Vec<_> = expected.iter().map(|line| format!("estimator_key_{line}")).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

async fn status(client: &Client, method: &str, path: &str, key: &str) -> u16 {
    client.request(method, path).bearer_auth(key).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn requests_visits_and_problems_are_counted_by_key() {
    let (redis, keys) = (Redis::start(), Keys::new());
    let uss = make_key(&keys.path, "uss", "segments:write");
    let analyst = make_key(&keys.path, "analyst", "segments:read");
    make_key(&keys.path, "idle", "segments:read");
    let settings = settings_with(keys.settings(), [("admin_listen", "127.0.0.1:0")]);
    let app = TestApp::spawn_with(&redis, settings).await;

    let post = async |path: &str, body: &str, media_type: &str| {
        let request = app.request("POST", path).bearer_auth(&uss).header("content-type", media_type);
        request.body(body.to_owned()).send().await.unwrap().status().as_u16()
    };
    let json = "application/json";
    assert_eq!(post("/segments", r#"{"user_id":"u1","segment":"sports"}"#, json).await, 204);
    assert_eq!(post("/segments", r#"{"user_id":"u1","segments":["sports","news"]}"#, json).await, 204);
    assert_eq!(post("/segments", r#"{"user_id":"u1","segment":"sports","seen_at":1}"#, json).await, 204, "expired");
    assert_eq!(post("/segments?dry_run=true", r#"{"user_id":"u1","segment":"sports"}"#, json).await, 204);
    assert_eq!(post("/segments", "{}", json).await, 422);
    let lines = "{\"user_id\":\"u2\",\"segment\":\"sports\"}\nnot a visit\n";
    assert_eq!(post("/segments/batch", lines, "application/x-ndjson").await, 200);
    assert_eq!(post("/segments/batch", r#"[{"user_id":"u3","segments":["a","b","c"]}]"#, json).await, 200);
    assert_eq!(status(&app, "GET", "/segments/sports/count", &uss).await, 403);
    assert_eq!(status(&app, "DELETE", "/users/u1", &uss).await, 403);
    assert_eq!(status(&app, "GET", "/segments/sports/count", &analyst).await, 200);
    let page = app.request("GET", "/").basic_auth("any", Some(&analyst)).send().await.unwrap();
    assert_eq!(page.status(), 200);
    // Nobody knows whose these are.
    assert_eq!(status(&app, "GET", "/segments", "sek_guessed").await, 401);
    assert_eq!(app.get("/segments").await.status(), 401);

    assert_lines(
        metrics_of(&app).await,
        &[
            r#"requests_total{kind="api",key="uss"} 9"#,
            r#"requests_total{kind="api",key="analyst"} 2"#,
            r#"requests_total{kind="api",key="idle"} 0"#,
            r#"visits_total{kind="api",key="uss"} 7"#,
            r#"visits_total{kind="api",key="analyst"} 0"#,
            r#"visits_total{kind="api",key="idle"} 0"#,
            r#"problems_total{kind="api",key="uss",type="invalid-request"} 1"#,
            r#"problems_total{kind="api",key="uss",type="insufficient-scope"} 2"#,
        ],
    );
}

#[tokio::test]
async fn tokens_share_a_label_and_their_subjects_are_none() {
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let secret = folder.path().join("secret");
    fs::write(&secret, "9d6a0c1be2f7438aa5b1c60de3f28794d05b7a1c2e3f4d5869").unwrap();
    let secret = secret.display().to_string();
    let config = ["--jwt-algorithm", "HS256", "--jwt-key-file", &secret];
    let token = |name: &str| {
        let flags = ["token", "--jwt", "--name", name, "--scope", "segments:read", "--lifetime", "1h"];
        let output = run(binary(folder.path()).args(flags).args(config));
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    };
    let settings = settings([("jwt_algorithm", "HS256"), ("jwt_key_file", &secret), ("admin_listen", "127.0.0.1:0")]);
    let app = TestApp::spawn_with(&redis, settings).await;
    for name in ["alice", "bob"] {
        assert_eq!(status(&app, "GET", "/segments/sports/count", &token(name)).await, 200);
    }
    assert_lines(
        metrics_of(&app).await,
        &[r#"requests_total{kind="jwt",key="jwt"} 2"#, r#"visits_total{kind="jwt",key="jwt"} 0"#],
    );
}

#[tokio::test]
async fn a_reload_keeps_the_counts_of_a_key_and_drops_those_of_a_removed_one() {
    let (redis, keys) = (Redis::start(), Keys::new());
    let kept = make_key(&keys.path, "kept", "segments:read");
    let entry = fs::read(&keys.path).unwrap();
    let removed = make_key(&keys.path, "removed", "segments:read");
    let settings = settings_with(keys.settings(), [("admin_listen", "127.0.0.1:0")]);
    let app = TestApp::spawn_with_file_checks(&redis, settings).await;
    for key in [&kept, &removed] {
        assert_eq!(status(&app, "GET", "/segments/sports/count", key).await, 200);
    }
    assert_eq!(metrics_of(&app).await.len(), 4);

    fs::write(&keys.path, entry).unwrap();
    eventually("the series of the key are gone", async || metrics_of(&app).await.len() == 2).await;
    assert_eq!(status(&app, "GET", "/segments/sports/count", &kept).await, 200);
    assert_lines(
        metrics_of(&app).await,
        &[r#"requests_total{kind="api",key="kept"} 2"#, r#"visits_total{kind="api",key="kept"} 0"#],
    );
}

#[tokio::test]
async fn service_without_keys_has_no_such_metric() {
    let redis = Redis::start();
    let app = TestApp::spawn_with(&redis, settings([("admin_listen", "127.0.0.1:0")])).await;
    assert_eq!(app.post_visit(&json!({ "user_id": "u1", "segment": "sports" })).await.status(), 204);
    assert_lines(metrics_of(&app).await, &[]);
}
