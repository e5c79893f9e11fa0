//! The crates come from the registries and under the licences that deny.toml allows. `make audit` also checks
//! advisories, which needs cargo-deny and a database.

use std::path::Path;
use std::process::Command;

use rstest::rstest;
use serde_json::Value;

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// Returns the strings of a list in deny.toml.
fn allowed(table: &str, key: &str) -> Vec<String> {
    let deny: toml::Table = read("deny.toml").parse().unwrap();
    let list = deny[table][key].as_array().unwrap();
    list.iter().map(|entry| entry.as_str().unwrap().to_owned()).collect()
}

/// Returns the metadata of the crates of a build for Linux, including those of the tests.
fn crates() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--format-version", "1", "--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// Returns whether the allowed licences satisfy `expression`.
fn is_satisfied(expression: &str, allowed: &[String]) -> bool {
    let text = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let tokens: Vec<_> = text.split_whitespace().collect();
    let mut rest = &tokens[..];
    let satisfied = alternatives(&mut rest, allowed);
    assert!(rest.is_empty(), "{expression}: {rest:?} is left");
    satisfied
}

fn alternatives(tokens: &mut &[&str], allowed: &[String]) -> bool {
    let mut satisfied = conjunction(tokens, allowed);
    while let ["OR", rest @ ..] = *tokens {
        *tokens = rest;
        satisfied |= conjunction(tokens, allowed);
    }
    satisfied
}

fn conjunction(tokens: &mut &[&str], allowed: &[String]) -> bool {
    let mut satisfied = licence(tokens, allowed);
    while let ["AND", rest @ ..] = *tokens {
        *tokens = rest;
        satisfied &= licence(tokens, allowed);
    }
    satisfied
}

fn licence(tokens: &mut &[&str], allowed: &[String]) -> bool {
    let (name, rest) = match *tokens {
        ["(", rest @ ..] => {
            *tokens = rest;
            let satisfied = alternatives(tokens, allowed);
            assert_eq!(tokens.first(), Some(&")"));
            *tokens = &tokens[1..];
            return satisfied;
        }
        [name, "WITH", exception, rest @ ..] => (format!("{name} WITH {exception}"), rest),
        [name, rest @ ..] => ((*name).to_owned(), rest),
        [] => panic!("a licence is missing"),
    };
    *tokens = rest;
    allowed.contains(&name)
}

#[rstest]
#[case::one("MIT", true)]
#[case::another("GPL-3.0", false)]
#[case::choice("GPL-3.0 OR MIT", true)]
#[case::choice_in_the_old_form("GPL-3.0/MIT", true)]
#[case::all("ISC AND GPL-3.0", false)]
#[case::all_with_choice("ISC AND (GPL-3.0 OR MIT)", true)]
#[case::and_binds_closer("MIT OR ISC AND GPL-3.0", true)]
#[case::with_exception("MIT WITH x", false)]
fn is_satisfied_evaluates_licence_expressions(#[case] expression: &str, #[case] expected: bool) {
    assert_eq!(is_satisfied(expression, &["MIT".to_owned(), "ISC".to_owned()]), expected);
}

#[test]
fn crates_have_allowed_licences_and_registries() {
    let (licences, registries) = (allowed("licenses", "allow"), allowed("sources", "allow-registry"));
    let crates = crates();
    assert!(crates.len() > 200, "{}", crates.len());
    for package in &crates {
        let name = package["name"].as_str().unwrap();
        let licence = package["license"].as_str().unwrap_or_else(|| panic!("{name} has no licence"));
        assert!(is_satisfied(licence, &licences), "{name}: {licence}");
    }

    // Cargo.lock has the crates of every platform.
    let lock: toml::Table = read("Cargo.lock").parse().unwrap();
    for package in lock["package"].as_array().unwrap() {
        let Some(source) = package.get("source") else {
            let name = package["name"].as_str().unwrap();
            assert!(name.starts_with("segment-estimator"), "{name} is built from a path");
            continue;
        };
        let source = source.as_str().unwrap();
        assert!(registries.iter().any(|registry| source == format!("registry+{registry}")), "{source}");
        assert!(package.get("checksum").is_some(), "{package:?}");
    }
}

#[test]
fn licence_texts_have_every_crate_of_the_build() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/licence-texts");
    let output = Command::new(script).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (index, texts) = text.split_once("\n======== ").unwrap();
    for name in ["axum", "tokio", "redis", "aws-lc-sys", "zstd-sys", "utoipa-swagger-ui-vendored"] {
        assert!(index.contains(&format!("\n{name} ")), "{name}");
    }
    for word in
        ["Apache License", "Permission is hereby granted", "Daan Leijen", "Redistribution and use", "UNICODE LICENSE"]
    {
        assert!(texts.to_lowercase().contains(&word.to_lowercase()), "{word}");
    }
    let without: Vec<_> = index.lines().filter(|line| line.contains(": no text in the crate; ")).collect();
    assert!(without.len() < 15, "{without:#?}");
    // Other crates have the text of this licence.
    assert!(without.iter().all(|line| line.contains("Apache-2.0")), "{without:#?}");
}

#[test]
fn base_images_can_be_replaced_by_a_digest() {
    let (dockerfile, compose) = (read("Dockerfile"), read("docker-compose.yml"));
    let froms: Vec<_> = dockerfile.lines().filter(|line| line.starts_with("FROM ")).collect();
    assert!(froms.len() > 2, "{froms:?}");
    for from in froms {
        let name = from.split(['{', '}']).nth(1).unwrap_or_else(|| panic!("{from} names no variable"));
        assert!(dockerfile.contains(&format!("\nARG {name}=")), "{from}");
        assert!(compose.contains("args: [BUILD_IMAGE, RUNTIME_IMAGE, DEBUG_IMAGE, GIT_COMMIT]"));
        assert!(["BUILD_IMAGE", "RUNTIME_IMAGE", "DEBUG_IMAGE"].contains(&name), "{name}");
    }
    let images = compose.lines().filter_map(|line| line.trim().strip_prefix("image: "));
    for image in images.filter(|image| *image != "segment-estimator:${TAG:-latest}") {
        assert!(image.starts_with("${") && image.contains("_IMAGE:-"), "{image}");
    }
}

#[test]
fn image_labels_have_the_version_and_the_licence_of_the_manifest() {
    let dockerfile = read("Dockerfile");
    let (version, licence) = (env!("CARGO_PKG_VERSION"), env!("CARGO_PKG_LICENSE"));
    let description = env!("CARGO_PKG_DESCRIPTION");
    assert_eq!(dockerfile.matches(&format!("\nARG VERSION={version}\n")).count(), 1);
    for (label, value) in [
        ("title", "segment-estimator"),
        ("description", description),
        ("version", "${VERSION}"),
        ("revision", "${GIT_COMMIT}"),
        ("licenses", licence),
    ] {
        assert!(dockerfile.contains(&format!("org.opencontainers.image.{label}=\"{value}\"")), "{label}");
    }
}
