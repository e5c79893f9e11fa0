//! What a test does to a process, and what the system says of one.

use std::fs::{read_dir, read_to_string};
use std::path::Path;
use std::process::Command;

/// Sends `signal` to a process, by the shell's own `kill`: a minimal system has no program of that name.
pub fn kill(signal: &str, pid: u32) {
    assert!(Command::new("sh").args(["-c", &format!("kill {signal} {pid}")]).status().unwrap().success());
}

/// Whether a process runs. One that has ended and that nobody has asked after yet, a zombie, does not.
pub fn is_running(pid: u32) -> bool {
    let state = if Path::new("/proc/self/stat").exists() {
        let stat = read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().unwrap().to_owned()
    } else {
        ps("stat", pid)
    };
    !(state.is_empty() || state.starts_with('Z'))
}

/// The memory that a process holds, in KiB.
pub fn resident(pid: u32) -> u64 {
    of_status(pid, "VmRSS").unwrap_or_else(|| ps("rss", pid).parse().unwrap())
}

/// The most that it has held since its start; where the system doesn't tell, what it holds.
pub fn peak_memory(pid: u32) -> u64 {
    of_status(pid, "VmHWM").unwrap_or_else(|| resident(pid))
}

fn of_status(pid: u32, name: &str) -> Option<u64> {
    let status = read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().trim_end_matches(" kB").parse().unwrap())
}

/// How many descriptors it has open.
pub fn descriptors(pid: u32) -> usize {
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
