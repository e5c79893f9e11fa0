//! API keys: their scopes, the file that has them, and reloading it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use segment_estimator::config::RawSettings;
use serde_json::{Value, json};

use crate::helpers::{
    Client, Redis, Service, TestApp, Upload, binary, eventually, kill, problem, run, settings, settings_with,
};

/// Creates a key with the command `token`, which adds its entry to the file.
#[track_caller]
pub fn make_key(keys: &Path, name: &str, scope: &str) -> String {
    let output = run(binary(keys.parent().unwrap())
        .args(["token", "--name", name, "--scope", scope, "--api-keys-file"])
        .arg(keys));
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

/// File of API keys.
pub struct Keys {
    _folder: tempfile::TempDir,
    pub path: PathBuf,
}

impl Keys {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { path: folder.path().join("keys.toml"), _folder: folder }
    }

    pub fn settings(&self) -> RawSettings {
        settings([("api_keys_file", &self.path.display().to_string())])
    }
}

fn visit() -> Value {
    json!({ "user_id": "u1", "segment": "sports" })
}

async fn post_with(client: &Client, authorization: &str) -> reqwest::Response {
    client.request("POST", "/segments").header("authorization", authorization).json(&visit()).send().await.unwrap()
}

async fn get_with(client: &Client, path: &str, key: &str) -> reqwest::Response {
    client.request("GET", path).bearer_auth(key).send().await.unwrap()
}

/// Asserts that `response` is a 401 with this challenge, and returns the document.
#[track_caller]
fn assert_unauthorized(response: reqwest::Response, challenge: &str) -> impl Future<Output = Value> {
    let header = response.headers()["www-authenticate"].to_str().unwrap().to_owned();
    assert!(header.starts_with(&format!(r#"Bearer realm="segment-estimator"{challenge}"#)), "{header}");
    problem(response, 401, "unauthorized")
}

#[tokio::test]
async fn key_permits_its_scopes_and_nothing_else() {
    let (redis, keys) = (Redis::start(), Keys::new());
    let writer = make_key(&keys.path, "uss", "segments:write");
    let reader = make_key(&keys.path, "analyst", "segments:read");
    let both = make_key(&keys.path, "admin", "segments:read,segments:write");
    let app = TestApp::spawn_with(&redis, keys.settings()).await;

    for key in [&writer, &both] {
        assert_eq!(post_with(&app, &format!("Bearer {key}")).await.status(), 204);
        let lines = app.lines_request("{\"user_id\":\"u2\",\"segment\":\"sports\"}\n").bearer_auth(key);
        assert_eq!(lines.send().await.unwrap().status(), 200);
    }
    for key in [&reader, &both] {
        let count: Value = get_with(&app, "/segments/sports/count", key).await.json().await.unwrap();
        assert_eq!(count["count"], 2);
        assert_eq!(get_with(&app, "/metrics", key).await.status(), 200);
    }
    for (response, name, scope) in [
        (post_with(&app, &format!("Bearer {reader}")).await, "analyst", "segments:write"),
        (get_with(&app, "/segments/sports/count", &writer).await, "uss", "segments:read"),
        (get_with(&app, "/metrics", &writer).await, "uss", "segments:read"),
    ] {
        let challenge = response.headers()["www-authenticate"].to_str().unwrap().to_owned();
        assert!(challenge.ends_with(&format!(r#"error="insufficient_scope", scope="{scope}""#)), "{challenge}");
        let document = problem(response, 403, "insufficient-scope").await;
        assert_eq!(document["detail"], format!("The token of {name} doesn't have the scope {scope}."));
    }
}

#[tokio::test]
async fn request_without_a_valid_token_does_not_reach_redis() {
    let (redis, keys) = (Redis::start(), Keys::new());
    let key = make_key(&keys.path, "uss", "segments:write,segments:read");
    let app = TestApp::spawn_with(&redis, keys.settings()).await;
    eventually("the first sample is taken", async || redis.calls("zcard") == 1).await;
    let commands = || ["zadd", "zcount", "ping", "zcard"].map(|command| redis.calls(command));
    let before = commands();

    assert_unauthorized(app.post_visit(&visit()).await, "").await;
    assert_unauthorized(app.get("/segments/sports/count").await, "").await;
    assert_unauthorized(app.get("/metrics").await, "").await;
    assert_unauthorized(app.post_array(&json!([visit()])).await, "").await;
    assert_unauthorized(app.post_lines("{}").await, "").await;
    let invalid = r#", error="invalid_token", error_description=""#;
    let (other_case, longer) = (format!("Bearer {}", key.to_uppercase()), format!("Bearer {key}x"));
    let oversized = format!("Bearer {}", "x".repeat(9_000));
    for header in [
        "Bearer sek_guessed",
        &other_case,
        &longer,
        &oversized,
        "Bearer",
        "Bearer a b",
        "Basic dXNlcjpwYXNz",
        &key,
        "Bearer a.b.c",
    ] {
        assert_unauthorized(post_with(&app, header).await, invalid).await;
    }
    // The token is checked before the body.
    let unread = app.request("POST", "/segments").body("not a visit").send().await.unwrap();
    assert_unauthorized(unread, "").await;
    let twice = app.request("POST", "/segments").bearer_auth(&key).bearer_auth(&key).json(&visit());
    assert_unauthorized(twice.send().await.unwrap(), invalid).await;
    assert_eq!(commands(), before);

    // Probes and errors about unknown paths need no token.
    assert_eq!(app.status_of("/healthz").await, 200);
    assert_eq!(app.status_of("/readyz").await, 200);
    problem(app.get("/nothing").await, 404, "not-found").await;
    assert_eq!(post_with(&app, &format!("bearer {key}")).await.status(), 204);
}

#[tokio::test]
async fn metrics_on_their_own_listener_need_no_token_and_count_auth_failures() {
    let (redis, keys) = (Redis::start(), Keys::new());
    make_key(&keys.path, "uss", "segments:write");
    let settings = settings_with(keys.settings(), [("admin_listen", "127.0.0.1:0")]);
    let app = TestApp::spawn_with(&redis, settings).await;
    app.post_visit(&visit()).await;
    post_with(&app, "Bearer sek_guessed").await;
    let metrics = Client::new(app.admin_address.unwrap()).get("/metrics").await.text().await.unwrap();
    for reason in ["no_token", "unknown_key"] {
        let line = format!("estimator_auth_failures_total{{reason=\"{reason}\"}} 1");
        assert!(metrics.lines().any(|found| found == line), "{line}");
    }
}

#[tokio::test]
async fn reload_replaces_the_keys_and_keeps_them_if_the_file_is_invalid() {
    let keys = Keys::new();
    let old = make_key(&keys.path, "old", "segments:read");
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &["--api-keys-file", keys.path.to_str().unwrap()]);
    let status = async |key: &str| get_with(&service, "/segments/sports/count", key).await.status().as_u16();
    assert_eq!(status(&old).await, 200);

    std::fs::write(&keys.path, "").unwrap();
    let new = make_key(&keys.path, "new", "segments:read");
    assert_eq!((status(&old).await, status(&new).await), (200, 401), "the file is not read before the signal");
    kill("-HUP", service.pid());
    eventually("the new key is accepted", async || status(&new).await == 200).await;
    assert_eq!(status(&old).await, 401);

    std::fs::write(&keys.path, "broken").unwrap();
    kill("-HUP", service.pid());
    eventually("the failure is logged", async || {
        service.has_logged("failed to reload the keys, keeping the previous ones")
    })
    .await;
    assert_eq!(status(&new).await, 200);

    // No request fails during reloads.
    let entry = entry_of("new", &new);
    let versions = [entry.clone(), entry + &entry_of("old", &old)];
    let requests = async {
        for _ in 0..300 {
            assert_eq!(status(&new).await, 200);
        }
    };
    let changes = async {
        for version in versions.iter().cycle().take(20) {
            let next = keys.path.with_extension("next");
            std::fs::write(&next, version).unwrap();
            std::fs::rename(&next, &keys.path).unwrap();
            kill("-HUP", service.pid());
            tokio::task::yield_now().await;
        }
    };
    tokio::join!(requests, changes);
    assert!(service.terminate().success());
}

#[tokio::test]
async fn stream_ends_when_its_key_is_revoked_or_loses_its_scope() {
    let keys = Keys::new();
    let [revoked, demoted, kept] =
        ["revoked", "demoted", "kept"].map(|name| make_key(&keys.path, name, "segments:write"));
    let reader = make_key(&keys.path, "reader", "segments:read");
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &["--api-keys-file", keys.path.to_str().unwrap()]);
    let count = async || {
        let count = get_with(&service, "/segments/sports/count", &reader).await;
        count.json::<Value>().await.unwrap()["count"].as_u64().unwrap()
    };
    let mut streams = Vec::new();
    for (number, key) in [&revoked, &demoted, &kept].into_iter().enumerate() {
        let mut stream = Upload::begin_with_token(service.address, key).await;
        stream.send(format!("{{\"user_id\":\"before{number}\",\"segment\":\"sports\"}}\n").as_bytes()).await;
        streams.push(stream);
    }
    eventually("the first lines are written", async || count().await == 3).await;

    let entry = |name: &str, key: &str, scope: &str| entry_of(name, key).replace("segments:read", scope);
    let without = entry("demoted", &demoted, "users:read")
        + &entry("kept", &kept, "segments:write")
        + &entry("reader", &reader, "segments:read");
    std::fs::write(&keys.path, without).unwrap();
    kill("-HUP", service.pid());
    eventually("the key is revoked", async || get_with(&service, "/counts", &revoked).await.status() == 401).await;

    let after = b"\n{\"user_id\":\"after\",\"segment\":\"sports\"}\n";
    let [mut revoked, mut demoted, mut kept] = streams.try_into().ok().unwrap();
    // An empty line doesn't keep the stream open.
    revoked.send(b"\n").await;
    let (status, document) = revoked.answer().await;
    assert_eq!((status, &document["type"]), (401, &json!("urn:segment-estimator:problem:unauthorized")), "{document}");
    assert_eq!(document["detail"], "The token is not accepted: it matches no API key.");
    assert_eq!((&document["accepted"], &document["done_through_line"]), (&json!(1), &json!(1)), "{document}");
    demoted.send(after).await;
    let (status, document) = demoted.answer().await;
    assert_eq!((status, &document["done_through_line"]), (403, &json!(1)), "{document}");
    assert_eq!(count().await, 3, "acknowledged lines are kept, and none is added");
    kept.send(after).await;
    let (status, document) = kept.end().await;
    assert_eq!((status, &document["accepted"]), (200, &json!(2)), "{document}");
    assert_eq!(count().await, 4);
    assert!(service.terminate().success());
}

/// Returns the entry of a key.
fn entry_of(name: &str, key: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.as_bytes());
    let digest = data_encoding::HEXLOWER.encode(digest.as_ref());
    format!("[[key]]\nname = {name:?}\nsha256 = {digest:?}\nscopes = [\"segments:read\"]\n")
}

#[test]
fn token_prints_the_key_and_an_entry_to_append_to_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let make = |name| {
        let output = run(binary(folder.path()).args(["token", "--name", name, "--scope", "segments:read"]));
        let shown = String::from_utf8(output.stderr).unwrap();
        let key = shown.split(": ").nth(1).unwrap().lines().next().unwrap().to_owned();
        (key, String::from_utf8(output.stdout).unwrap())
    };
    let ((one, first), (two, second)) = (make("one"), make("two"));
    assert_eq!(first + &second, format!("{}\n{}\n", entry_of("one", &one), entry_of("two", &two)));
    assert!(one.starts_with("sek_") && one != two);
}

#[test]
fn token_refuses_a_second_key_of_the_same_name() {
    let keys = Keys::new();
    make_key(&keys.path, "uss", "segments:write");
    let before = std::fs::read_to_string(&keys.path).unwrap();
    for (name, scope, message) in [
        ("uss", "segments:read", "already has a key named uss"),
        ("u s s", "segments:read", "the name must have 1 to 64 letters"),
    ] {
        let arguments = ["token", "--name", name, "--scope", scope, "--api-keys-file"];
        let output = run(binary(keys.path.parent().unwrap()).args(arguments).arg(&keys.path));
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(message), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    assert_eq!(std::fs::read_to_string(&keys.path).unwrap(), before);
}

#[test]
fn start_refuses_an_unusable_key_file() {
    let keys = Keys::new();
    let folder = tempfile::tempdir().unwrap();
    let refusal = || crate::helpers::refusal(binary(folder.path()).arg("--api-keys-file").arg(&keys.path));
    let unreadable = format!("api_keys_file: failed to read {}: No such file", keys.path.display());
    assert!(refusal().contains(&unreadable), "{}", refusal());
    std::fs::write(&keys.path, "[[key]]\nname = \"uss\"\n").unwrap();
    assert!(refusal().contains("line 1: missing field `sha256`"), "{}", refusal());
}

#[tokio::test]
async fn reload_measures_the_active_keys_and_its_success() {
    let keys = Keys::new();
    make_key(&keys.path, "one", "segments:read");
    make_key(&keys.path, "two", "segments:read");
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["--api-keys-file", keys.path.to_str().unwrap(), "--admin-listen", "127.0.0.1:0"];
    let service = Service::start(folder.path(), &arguments);
    let operator = Client::new(service.admin_address.unwrap());
    let shows = async |active: u32, is_successful: u32| {
        let text = operator.get("/metrics").await.text().await.unwrap();
        let lines = [
            format!("estimator_auth_keys{{kind=\"api\"}} {active}"),
            format!("estimator_reload_successful{{files=\"keys\"}} {is_successful}"),
        ];
        lines.iter().all(|line| text.lines().any(|found| found == line))
    };
    assert!(shows(2, 1).await, "at the start");

    // The previous keys stay active.
    let text = std::fs::read(&keys.path).unwrap();
    std::fs::remove_file(&keys.path).unwrap();
    kill("-HUP", service.pid());
    eventually("the deleted file is a failed reload", async || shows(2, 0).await).await;
    std::fs::write(&keys.path, "").unwrap();
    kill("-HUP", service.pid());
    eventually("the empty file is a successful reload", async || shows(0, 1).await).await;
    eventually("the log warns of it", async || service.has_logged("api_keys_file has no key")).await;
    std::fs::write(&keys.path, text).unwrap();
    kill("-HUP", service.pid());
    eventually("the keys are active again", async || shows(2, 1).await).await;
    assert!(service.terminate().success());
}

#[test]
fn metrics_omit_keys_without_access_control() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let text = runtime.block_on(async { service.get("/metrics").await.text().await.unwrap() });
    assert!(!text.contains("\nestimator_auth_keys{") && !text.contains("\nestimator_reload_successful{"), "{text}");
    service.terminate();
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn start_reload_and_check_warn_of_world_readable_or_writable_files() {
    let keys = Keys::new();
    make_key(&keys.path, "uss", "segments:read");
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "b8c1f0f7e2a94d6d8f3b5a7c9e1d2f40").unwrap();
    set_mode(&secret, 0o600);
    set_mode(&keys.path, 0o644);
    let (config, dotenv) = (folder.path().join("estimator.toml"), folder.path().join(".env"));
    std::fs::write(&config, "window = '7d'").unwrap();
    std::fs::write(&dotenv, "ESTIMATOR_CONFIG=estimator.toml\n").unwrap();
    let files = ["--api-keys-file", keys.path.to_str().unwrap(), "--jwt-key-file", secret.to_str().unwrap()];
    let arguments = [&files[..], &["--jwt-algorithm", "HS256"]].concat();
    const WARNING: &str = "every user of this machine can";
    let service = Service::start(folder.path(), &arguments);
    assert!(!service.has_logged(WARNING));
    set_mode(&secret, 0o644);
    for path in [&keys.path, &config, &dotenv] {
        set_mode(path, 0o666);
    }
    let warnings = [
        format!("jwt_key_file: {}: {WARNING} read it; run chmod o-r", secret.display()),
        format!("api_keys_file: {}: {WARNING} write it; run chmod o-w", keys.path.display()),
        format!("config: estimator.toml: {WARNING} write it; run chmod o-w estimator.toml"),
        format!("settings: .env: {WARNING} write it; run chmod o-w .env"),
    ];
    kill("-HUP", service.pid());
    eventually("the reload logs the warnings", async || warnings.iter().all(|warning| service.has_logged(warning)))
        .await;
    assert!(service.terminate().success());

    let service = Service::start(folder.path(), &arguments);
    assert!(warnings.iter().all(|warning| service.has_logged(warning)), "at the start");
    assert!(service.terminate().success());
    let checked = run(binary(folder.path()).arg("check").args(&arguments));
    let table = String::from_utf8(checked.stdout).unwrap();
    assert!(checked.status.success() && warnings.iter().all(|warning| table.contains(warning)), "{table}");
}

#[test]
fn token_creates_no_world_writable_file() {
    let keys = Keys::new();
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "umask 0; exec \"$0\" token --name uss --scope segments:read --api-keys-file \"$1\""]);
    let output = command.arg(env!("CARGO_BIN_EXE_segment-estimator")).arg(&keys.path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(std::fs::metadata(&keys.path).unwrap().permissions().mode() & 0o777, 0o644);
}

#[test]
fn start_warns_of_all_origins_without_keys() {
    const WARNING: &str = "any site open in a browser can read, write and delete";
    let folder = tempfile::tempdir().unwrap();
    let keys = Keys::new();
    make_key(&keys.path, "uss", "segments:write");
    let keys = keys.path.to_str().unwrap();
    for (arguments, expected) in [
        (&["--cors-origins", "*"][..], true),
        (&["--cors-origins", "*", "--api-keys-file", keys], false),
        (&["--cors-origins", "https://app.example"], false),
        (&[], false),
    ] {
        let service = Service::start(folder.path(), arguments);
        assert_eq!(service.has_logged(WARNING), expected, "{arguments:?}");
        service.terminate();
    }
}

#[test]
fn start_warns_of_all_hosts_on_loopback_without_keys() {
    const WARNING: &str = "any site open in a browser on this machine can read, write and delete";
    let folder = tempfile::tempdir().unwrap();
    let keys = Keys::new();
    make_key(&keys.path, "uss", "segments:write");
    let keys = keys.path.to_str().unwrap();
    for (arguments, expected) in [
        (&["--allowed-hosts", "*"][..], true),
        (&["--allowed-hosts", "*", "--api-keys-file", keys], false),
        (&["--allowed-hosts", "*", "--listen", "0.0.0.0:0"], false),
        (&["--allowed-hosts", "app.example"], false),
        (&[], false),
    ] {
        let service = Service::start(folder.path(), arguments);
        assert_eq!(service.has_logged(WARNING), expected, "{arguments:?}");
        service.terminate();
    }
}

#[test]
fn start_warns_of_a_public_address_without_keys() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(folder.path(), &["--listen", "0.0.0.0:0"]);
    assert!(service.has_logged("anyone who can reach this address has full access"));
    service.terminate();
    let keys = Keys::new();
    make_key(&keys.path, "uss", "segments:write");
    let service =
        Service::start(folder.path(), &["--listen", "0.0.0.0:0", "--api-keys-file", keys.path.to_str().unwrap()]);
    assert!(!service.has_logged("anyone who can reach this address has full access"));
}
