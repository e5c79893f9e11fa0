//! `segment-estimator token` changes the file of API keys, also from several processes at once.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::helpers::{binary, run};

/// Returns the command that adds or removes a key, with its file.
fn token(keys: &Path, change: &[&str]) -> Command {
    let mut command = binary(keys.parent().unwrap());
    command.arg("token").args(change).arg("--api-keys-file").arg(keys);
    command
}

fn add(name: &str) -> [&str; 4] {
    ["--name", name, "--scope", "segments:read"]
}

/// Returns the names of the keys in the file, sorted.
fn names(keys: &Path) -> BTreeSet<String> {
    let text = fs::read_to_string(keys).unwrap();
    let names = text.lines().filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'));
    names.map(str::to_owned).collect()
}

#[test]
fn concurrent_changes_lose_no_key_and_bring_none_back() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.toml");
    let of = |kind: &str| (0..10).map(|number| format!("{kind}{number}")).collect::<Vec<_>>();
    let (old, new) = (of("old"), of("new"));
    for name in old.iter().map(String::as_str).chain(["kept"]) {
        let output = run(&mut token(&keys, &add(name)));
        assert!(output.status.success(), "{output:?}");
    }
    let changes = old.iter().zip(&new).flat_map(|(old, new)| {
        [token(&keys, &["--revoke", old]), token(&keys, &add(new))].map(|mut command| {
            let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
            command.spawn().unwrap()
        })
    });
    for change in changes.collect::<Vec<_>>() {
        let output = change.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(names(&keys), new.into_iter().chain(["kept".to_owned()]).collect());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no other file stays");
}

#[test]
fn revoke_says_when_the_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.toml");
    assert!(run(&mut token(&keys, &add("uss"))).status.success());
    // The temporary file of a killed run.
    fs::write(folder.path().join("keys.toml.new"), "").unwrap();
    let output = run(&mut token(&keys, &["--revoke", "uss"]));
    let expected = format!("removed uss from {}; running instances refuse it within 15 seconds\n", keys.display());
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(0), expected));
    let output = run(&mut token(&folder.path().join("none.toml"), &["--revoke", "uss"]));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.ends_with("none.toml: there is no such file\n"), "{error}");
}
