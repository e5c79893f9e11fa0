//! `build.rs` finds the commit, and never fails without one.

use std::path::{Path, PathBuf};
use std::process::Command;

use rstest::{fixture, rstest};
use tempfile::TempDir;

use crate::helpers::{apart_from_git, git};

/// A folder with the compiled script and the files that it looks at.
struct Checkout {
    folder: TempDir,
}

#[fixture]
fn checkout() -> Checkout {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs");
    let script = folder.path().join("script");
    let built = Command::new("rustc").arg("--edition=2024").arg(source).arg("-o").arg(&script).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    std::fs::create_dir_all(folder.path().join("checkout/src")).unwrap();
    std::fs::write(folder.path().join("checkout/Cargo.toml"), "").unwrap();
    Checkout { folder }
}

impl Checkout {
    fn root(&self) -> PathBuf {
        self.folder.path().join("checkout")
    }

    /// Makes a repository of `folder` with one commit of all its files, and a tag. Returns the short hash.
    fn commit(&self, folder: &Path) -> String {
        git(folder, &["init"]);
        git(folder, &["add", "."]);
        git(folder, &["commit", "--message", "First"]);
        git(folder, &["tag", "v1.0.0"]);
        git(folder, &["rev-parse", "--short", "HEAD"])
    }

    /// Returns what the script prints for a build in `folder`.
    fn output(&self, folder: &Path, profile: &str, environment: &[(&str, &str)]) -> String {
        let mut script = Command::new(self.folder.path().join("script"));
        apart_from_git(&mut script).env("CARGO_MANIFEST_DIR", folder).env("CARGO_PKG_VERSION", "1.0.0");
        let output = script.env("PROFILE", profile).envs(environment.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

/// Returns the value of a variable that the script sets for the build.
#[track_caller]
fn variable<'a>(output: &'a str, name: &str) -> &'a str {
    let value = output.lines().find_map(|line| line.strip_prefix("cargo:rustc-env=")?.strip_prefix(name));
    value.unwrap().strip_prefix('=').unwrap()
}

#[rstest]
fn release_build_has_the_commit_of_the_checkout(checkout: Checkout) {
    let root = checkout.root();
    let commit = checkout.commit(&root);
    let output = checkout.output(&root, "release", &[]);
    assert_eq!(variable(&output, "BUILD_COMMIT"), commit);
    assert_eq!(variable(&output, "BUILD_VERSION"), format!("1.0.0 ({commit})"));
    std::fs::write(root.join("Cargo.toml"), "changed").unwrap();
    assert_eq!(variable(&checkout.output(&root, "release", &[]), "BUILD_COMMIT"), format!("{commit}-dirty"));
}

#[rstest]
fn release_build_ignores_the_repository_of_a_hook(checkout: Checkout) {
    let (root, other) = (checkout.root(), checkout.folder.path().join("other"));
    let commit = checkout.commit(&root);
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("file"), "").unwrap();
    checkout.commit(&other);
    let of_other = |name: &str| other.join(name).to_str().unwrap().to_owned();
    let (git, index) = (of_other(".git"), of_other(".git/index"));
    for environment in [&[("GIT_DIR", &*git)][..], &[("GIT_DIR", &git), ("GIT_WORK_TREE", &of_other(""))]] {
        let environment = [environment, &[("GIT_INDEX_FILE", &*index)]].concat();
        assert_eq!(variable(&checkout.output(&root, "release", &environment), "BUILD_COMMIT"), commit);
    }
}

#[rstest]
fn release_build_of_a_worktree_runs_again_after_its_commits(checkout: Checkout) {
    let root = checkout.root();
    checkout.commit(&root);
    let worktree = checkout.folder.path().join("worktree");
    git(&root, &["worktree", "add", worktree.to_str().unwrap()]);
    git(&worktree, &["commit", "--allow-empty", "--message", "Second"]);
    let output = checkout.output(&worktree, "release", &[]);
    let commit = git(&worktree, &["rev-parse", "--short", "HEAD"]);
    assert_eq!(variable(&output, "BUILD_COMMIT"), commit);
    let watched: Vec<_> = output.lines().filter_map(|line| line.strip_prefix("cargo:rerun-if-changed=")).collect();
    for name in ["HEAD", "logs/HEAD"] {
        let suffix = format!("/.git/worktrees/worktree/{name}");
        assert!(watched.iter().any(|path| path.ends_with(&suffix)), "{name} is not in {watched:?}");
    }
    // Cargo would run the script for each build.
    for path in watched.iter().filter(|path| **path != "build.rs") {
        assert!(Path::new(path).exists(), "{path}");
    }
}

#[rstest]
#[case::of_a_developer("debug", &[], "")]
#[case::given("debug", &[("GIT_COMMIT", "0123abc")], "0123abc")]
#[case::given_to_a_release("release", &[("GIT_COMMIT", "0123abc-dirty")], "0123abc-dirty")]
#[case::given_empty("debug", &[("GIT_COMMIT", " ")], "")]
#[case::without_git("release", &[("PATH", "/nowhere")], "")]
fn build_takes_the_commit_that_it_is_given(
    checkout: Checkout,
    #[case] profile: &str,
    #[case] environment: &[(&str, &str)],
    #[case] expected: &str,
) {
    let root = checkout.root();
    checkout.commit(&root);
    let output = checkout.output(&root, profile, environment);
    assert_eq!(variable(&output, "BUILD_COMMIT"), expected);
    let version = if expected.is_empty() { "1.0.0".to_owned() } else { format!("1.0.0 ({expected})") };
    assert_eq!(variable(&output, "BUILD_VERSION"), version);
}

#[rstest]
#[case::no_repository(false)]
#[case::another_repository_around_it(true)]
fn release_build_without_a_repository_of_its_own_has_no_commit(checkout: Checkout, #[case] is_within_another: bool) {
    if is_within_another {
        checkout.commit(checkout.folder.path());
    }
    let output = checkout.output(&checkout.root(), "release", &[]);
    assert_eq!(variable(&output, "BUILD_VERSION"), "1.0.0");
}
