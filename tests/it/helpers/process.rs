//! Signals to processes, and their state and memory.

use std::fs::{read_dir, read_to_string};
use std::path::Path;
use std::process::Command;

/// Sends `signal` to a process. Uses the shell's built-in `kill`, since a minimal system has no such program.
#[track_caller]
pub fn kill(signal: &str, pid: u32) {
    assert!(Command::new("sh").args(["-c", &format!("kill {signal} {pid}")]).status().unwrap().success());
}

/// Returns whether a process runs. A zombie does not.
pub fn is_running(pid: u32) -> bool {
    let state = if Path::new("/proc/self/stat").exists() {
        let stat = read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().unwrap().to_owned()
    } else {
        ps("stat", pid)
    };
    !(state.is_empty() || state.starts_with('Z'))
}

/// Returns the resident memory of a process in KiB.
pub fn resident_memory(pid: u32) -> u64 {
    status_field(pid, "VmRSS").unwrap_or_else(|| ps("rss", pid).parse().unwrap())
}

/// Returns the peak resident memory of a process in KiB, or the present one if the system doesn't record a peak.
pub fn peak_memory(pid: u32) -> u64 {
    status_field(pid, "VmHWM").unwrap_or_else(|| resident_memory(pid))
}

fn status_field(pid: u32, name: &str) -> Option<u64> {
    let status = read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().trim_end_matches(" kB").parse().unwrap())
}

/// Returns the number of open file descriptors of a process.
pub fn open_descriptors(pid: u32) -> usize {
    if let Ok(open) = read_dir(format!("/proc/{pid}/fd")) {
        return open.count();
    }
    let lsof = Command::new("lsof").args(["-p", &pid.to_string()]).output().unwrap();
    String::from_utf8(lsof.stdout).unwrap().lines().count()
}

fn ps(column: &str, pid: u32) -> String {
    let ps = Command::new("ps").args(["-o", &format!("{column}="), "-p", &pid.to_string()]).output().unwrap();
    String::from_utf8(ps.stdout).unwrap().trim().to_owned()
}
