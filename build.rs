//! Embeds the commit in the binary: that of `GIT_COMMIT`, otherwise in a release build that of the checkout, otherwise
//! none. A developer's build doesn't ask git, so that a commit doesn't rebuild the crate.

use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=GIT_COMMIT");
    let given = env::var("GIT_COMMIT").ok().map(|commit| commit.trim().to_owned()).filter(|commit| !commit.is_empty());
    let is_release = env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = given.or_else(|| if is_release { commit_of_checkout() } else { None });
    let version = env::var("CARGO_PKG_VERSION").expect("cargo sets it");
    match &commit {
        Some(commit) => println!("cargo:rustc-env=BUILD_VERSION={version} ({commit})"),
        None => println!("cargo:rustc-env=BUILD_VERSION={version}"),
    }
    println!("cargo:rustc-env=BUILD_COMMIT={}", commit.unwrap_or_default());
}

/// Returns the commit of the repository whose root is this folder, with `-dirty` after a change. `None` without git,
/// and in a folder within another repository.
fn commit_of_checkout() -> Option<String> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR")?);
    let top = PathBuf::from(git(&root, ["rev-parse", "--show-toplevel"])?);
    if top.canonicalize().ok()? != root.canonicalize().ok()? {
        return None;
    }
    // `HEAD` changes with the branch, and its log with each commit. A worktree has both in a folder of its own. Cargo
    // would run this script for every build if it named a missing file.
    for name in ["HEAD", "logs/HEAD"] {
        rerun_if_changed(&root.join(git(&root, ["rev-parse", "--git-path", name])?));
    }
    // A change of these changes the binary, and so whether the commit describes it.
    for name in ["src", "Cargo.toml", "Cargo.lock"] {
        rerun_if_changed(&root.join(name));
    }
    // Without the tags: the version is in front of the commit already.
    git(&root, ["describe", "--always", "--dirty", "--exclude", "*"])
}

fn rerun_if_changed(path: &Path) {
    if path.exists() {
        println!("cargo:rerun-if-changed={}", path.display());
    }
}

/// The variables by which a hook names its repository, which may be another one.
const OF_A_HOOK: [&str; 5] = ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY"];

/// Returns what git prints. `None` if it fails or prints nothing.
fn git<const N: usize>(root: &Path, arguments: [&str; N]) -> Option<String> {
    let mut git = Command::new("git");
    for name in OF_A_HOOK {
        git.env_remove(name);
    }
    let output = git.args([OsStr::new("-C"), root.as_os_str()]).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
