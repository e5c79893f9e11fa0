//! Files of keys that change while the service runs, without a signal.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use crate::api::api_keys::{Keys, make_key};
use crate::helpers::{Client, Redis, TestApp, binary, eventually, run, settings, settings_with};

async fn status(client: &Client, key: &str) -> u16 {
    client.request("GET", "/segments/sports/count").bearer_auth(key).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn added_key_works_and_removed_key_ceases_without_a_signal() {
    let (redis, keys) = (Redis::start(), Keys::new());
    let first = make_key(&keys.path, "first", "segments:read");
    let app = TestApp::spawn_with_file_checks(&redis, keys.settings()).await;
    assert_eq!(status(&app, &first).await, 200);

    let before = fs::read(&keys.path).unwrap();
    let second = make_key(&keys.path, "second", "segments:read");
    eventually("the added key is accepted", async || status(&app, &second).await == 200).await;
    assert_eq!(status(&app, &first).await, 200);

    fs::write(&keys.path, before).unwrap();
    eventually("the removed key is refused", async || status(&app, &second).await == 401).await;
    assert_eq!(status(&app, &first).await, 200);
}

#[tokio::test]
async fn revoked_key_is_removed_from_the_file_and_refused() {
    let (redis, keys) = (Redis::start(), Keys::new());
    let [uss, analyst] = ["uss", "analyst"].map(|name| make_key(&keys.path, name, "segments:read"));
    let app = TestApp::spawn_with_file_checks(&redis, keys.settings()).await;
    let folder = keys.path.parent().unwrap();
    let revoke = |name: &str| run(binary(folder).args(["token", "--revoke", name, "--api-keys-file"]).arg(&keys.path));
    let mode = || fs::metadata(&keys.path).unwrap().permissions().mode();
    let before = mode();

    let unknown = revoke("nobody");
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).trim_end().ends_with("has no key named nobody"), "{unknown:?}");
    assert_eq!(status(&app, &uss).await, 200);
    let revoked = revoke("uss");
    assert!(revoked.status.success(), "{revoked:?}");
    eventually("the revoked key is refused", async || status(&app, &uss).await == 401).await;
    assert_eq!(status(&app, &analyst).await, 200);
    assert_eq!((mode(), fs::read_dir(folder).unwrap().count()), (before, 1));
}

#[tokio::test]
async fn broken_or_deleted_file_keeps_the_keys_until_it_is_repaired() {
    let (redis, keys) = (Redis::start(), Keys::new());
    let key = make_key(&keys.path, "uss", "segments:read");
    let settings = settings_with(keys.settings(), [("admin_listen", "127.0.0.1:0")]);
    let app = TestApp::spawn_with_file_checks(&redis, settings).await;
    let operator = Client::new(app.admin_address.unwrap());
    let is_successful = async |value: u8| {
        let text = operator.get("/metrics").await.text().await.unwrap();
        text.contains(&format!("\nestimator_reload_successful{{files=\"keys\"}} {value}\n"))
    };
    let good = fs::read(&keys.path).unwrap();

    fs::write(&keys.path, "broken").unwrap();
    eventually("the failure is measured", async || is_successful(0).await).await;
    assert_eq!(status(&app, &key).await, 200);
    fs::write(&keys.path, &good).unwrap();
    eventually("the repair is measured", async || is_successful(1).await).await;
    fs::remove_file(&keys.path).unwrap();
    eventually("the deletion is measured", async || is_successful(0).await).await;
    assert_eq!(status(&app, &key).await, 200);
    fs::write(&keys.path, "").unwrap();
    eventually("the emptied file revokes the key", async || status(&app, &key).await == 401).await;
    eventually("the repair is measured", async || is_successful(1).await).await;
}

#[tokio::test]
async fn keys_behind_a_replaced_symbolic_link_are_loaded() {
    // The link of a mounted Secret leads to a folder, which Kubernetes replaces.
    let (redis, folder) = (Redis::start(), tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name);
    let [old, new] = ["old", "new"].map(|name| {
        fs::create_dir(path(name)).unwrap();
        make_key(&path(name).join("keys.toml"), name, "segments:read")
    });
    symlink("old", path("data")).unwrap();
    symlink("data/keys.toml", path("keys.toml")).unwrap();
    let settings = settings([("api_keys_file", &path("keys.toml").display().to_string())]);
    let app = TestApp::spawn_with_file_checks(&redis, settings).await;
    assert_eq!((status(&app, &old).await, status(&app, &new).await), (200, 401));

    symlink("new", path("next")).unwrap();
    fs::rename(path("next"), path("data")).unwrap();
    eventually("the new key is accepted", async || status(&app, &new).await == 200).await;
    assert_eq!(status(&app, &old).await, 401);
}
