//! git on a repository of a test.

use std::path::Path;
use std::process::Command;

/// Runs git in `folder` and returns what it prints.
#[track_caller]
pub fn git(folder: &Path, arguments: &[&str]) -> String {
    let identity = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main"];
    let mut git = Command::new("git");
    let output = apart_from_git(&mut git).current_dir(folder).args(identity).args(arguments).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Removes from the environment of `command` what directs git elsewhere: the repository of a hook that runs the tests,
/// and the configuration of the user and the machine.
pub fn apart_from_git(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"GIT_")) {
        command.env_remove(name);
    }
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1")
}
