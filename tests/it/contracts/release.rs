//! `make release` refuses what can't be traced to a commit and an entry of the changelog, and the unit of systemd fits
//! the settings.

use std::fs;
use std::path::Path;
use std::process::Command;

use rstest::rstest;
use segment_estimator::config::SETTINGS;
use tempfile::TempDir;

use crate::helpers::{apart_from_git, git};

const MANIFEST: &str =
    "[package]\nname = \"segment-estimator\"\nversion = \"1.2.3\"\n\n[dependencies]\nversion = \"1\"\n";
const LOCK: &str = "[[package]]\nname = \"serde\"\nversion = \"1.0.0\"\n\n\
     [[package]]\nname = \"segment-estimator\"\nversion = \"1.2.3\"\n";
const NO_SECTION: &str = "CHANGELOG.md has no section '## [1.2.3] - YYYY-MM-DD'";
const CHANGELOG: &str = "# Changelog\n\n## [Unreleased]\n\n## [1.2.3] - 2026-11-29\n";

fn source(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// A checkout of a version that is ready to be released.
struct Checkout(TempDir);

impl Checkout {
    fn new() -> Self {
        let checkout = Self(tempfile::tempdir().unwrap());
        fs::create_dir(checkout.0.path().join("scripts")).unwrap();
        let script = checkout.0.path().join("scripts/release");
        fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/release"), script).unwrap();
        for (file, text) in [("Cargo.toml", MANIFEST), ("Cargo.lock", LOCK), ("CHANGELOG.md", CHANGELOG)] {
            checkout.write(file, text);
        }
        checkout.git(&["init"]);
        checkout.commit("First");
        checkout
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.0.path().join(file), text).unwrap();
    }

    fn commit(&self, message: &str) {
        self.git(&["add", "."]);
        self.git(&["commit", "--allow-empty", "--message", message]);
    }

    fn git(&self, arguments: &[&str]) {
        git(self.0.path(), arguments);
    }

    /// Runs the checks of the script. Returns whether they passed, and standard error.
    fn check(&self) -> (bool, String) {
        self.check_with(&[])
    }

    /// The same, with variables for git.
    fn check_with(&self, environment: &[(&str, &Path)]) -> (bool, String) {
        let mut script = Command::new(self.0.path().join("scripts/release"));
        let output = apart_from_git(&mut script).envs(environment.iter().copied()).arg("--check").output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    }
}

#[test]
fn release_accepts_a_committed_version_with_its_changes() {
    let checkout = Checkout::new();
    assert_eq!(checkout.check(), (true, String::new()));
    checkout.git(&["tag", "v1.2.3"]);
    assert_eq!(checkout.check(), (true, String::new()));
}

#[rstest]
#[case::version_without_changes("CHANGELOG.md", ("[1.2.3]", "[1.2.2]"), NO_SECTION)]
#[case::changes_without_a_date("CHANGELOG.md", (" - 2026-11-29", ""), NO_SECTION)]
#[case::similar_version("CHANGELOG.md", ("[1.2.3]", "[1x2.3]"), NO_SECTION)]
#[case::other_version_in_the_lock("Cargo.lock", ("1.2.3", "1.2.2"), "Cargo.lock has 1.2.2, and Cargo.toml 1.2.3")]
#[case::other_version_in_the_manifest("Cargo.toml", ("1.2.3", "1.2.4"), "Cargo.lock has 1.2.3, and Cargo.toml 1.2.4")]
fn release_refuses_a_version_that_is_not_recorded(
    #[case] file: &str,
    #[case] (old, new): (&str, &str),
    #[case] why: &str,
) {
    let checkout = Checkout::new();
    let text = fs::read_to_string(checkout.0.path().join(file)).unwrap();
    checkout.write(file, &text.replace(old, new));
    checkout.commit("Second");
    let (passed, said) = checkout.check();
    assert!(!passed && said.starts_with(&format!("release: {why}")), "{said}");
}

#[rstest]
#[case::changed_file("Cargo.toml", " M Cargo.toml")]
#[case::new_file("new", "?? new")]
fn release_refuses_changes_that_are_not_committed(#[case] file: &str, #[case] change: &str) {
    let checkout = Checkout::new();
    let text = fs::read_to_string(checkout.0.path().join(file)).unwrap_or_default();
    checkout.write(file, &(text + "\n"));
    let (passed, said) = checkout.check();
    assert!(!passed && said == format!("release: there are changes that are not committed:\n{change}\n"), "{said}");
}

#[test]
fn release_ignores_the_repository_of_a_hook_and_the_configuration_of_the_user() {
    let (checkout, other, folder) = (Checkout::new(), Checkout::new(), tempfile::tempdir().unwrap());
    other.write("new", "");
    let (directory, config) = (other.0.path().join(".git"), folder.path().join("config"));
    let hook = [("GIT_DIR", &*directory), ("GIT_WORK_TREE", other.0.path())];
    assert_eq!(checkout.check_with(&hook), (true, String::new()));
    fs::write(&config, "[status]\nshowUntrackedFiles = no\n").unwrap();
    let (passed, said) = other.check_with(&[("GIT_CONFIG_GLOBAL", &config)]);
    assert!(!passed && said.ends_with("\n?? new\n"), "{said}");
}

#[test]
fn release_refuses_the_version_of_an_earlier_commit() {
    let checkout = Checkout::new();
    checkout.git(&["tag", "v1.2.3"]);
    checkout.commit("Second");
    let (passed, said) = checkout.check();
    assert!(!passed && said.starts_with("release: v1.2.3 is the tag of another commit"), "{said}");
}

#[test]
fn manifest_and_lock_have_the_version_that_the_release_looks_for() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(
        source("Cargo.toml")
            .starts_with(&format!("[package]\nname = \"segment-estimator\"\nversion = \"{version}\"\n"))
    );
    assert!(source("Cargo.lock").contains(&format!("name = \"segment-estimator\"\nversion = \"{version}\"\n")));
}

#[test]
fn unit_of_systemd_sets_existing_settings() {
    let unit = source("deploy/systemd/segment-estimator.service");
    let variables = unit.split("ESTIMATOR_").skip(1).map(|rest| rest.split(['=', ')']).next().unwrap().to_lowercase());
    let variables: Vec<_> = variables.collect();
    assert!(variables.len() > 4, "{variables:?}");
    for variable in &variables {
        assert!(SETTINGS.iter().any(|setting| setting.name == variable), "{variable}");
    }
    // The unit is stopped after the service would have ended by itself.
    let timeout = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
    let drain = SETTINGS.iter().find(|setting| setting.name == "drain_timeout").unwrap().default.unwrap();
    let [timeout, drain] = [timeout, drain].map(|text| text.strip_suffix('s').unwrap().parse::<u64>().unwrap());
    assert!(timeout > 2 * drain, "{timeout}");
    let release = source("scripts/release");
    assert!(release.contains("deploy/systemd/segment-estimator.service"));
}
