//! The environment of a run: the figures depend on it.

use std::fs;
use std::path::Path;
use std::process::Command;

use chrono::Utc;

use crate::Result;

/// Returns date, command line, machine and versions as Markdown. `bench` is the benchmark's name, and `programs`
/// describes the programs that it ran.
pub fn describe(bench: &str, programs: &[String]) -> Result<String> {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let cores = std::thread::available_parallelism()?;
    let [kernel, processors, memory, load, system] =
        ["/proc/sys/kernel/osrelease", "/proc/cpuinfo", "/proc/meminfo", "/proc/loadavg", "/etc/os-release"]
            .map(|file| fs::read_to_string(file).unwrap_or_default());
    let memory: f64 = field(&memory, "MemTotal", ':').split(' ').next().unwrap_or_default().parse()?;
    // git and rustc may be missing.
    let revision = version_or_unknown("git", &["describe", "--always", "--dirty", "--abbrev=12"]);
    let rustc = version_or_unknown("rustc", &["--version"]);
    Ok(format!(
        "- {date}, revision {revision}: `cargo bench --locked --bench {bench} -- {arguments}`\n\
         - {processor}, {cores} cores, {memory:.1} GiB of memory; {system}, Linux {kernel}; \
         load before the run {load}\n\
         - {programs}; {rustc}\n",
        date = Utc::now().format("%Y-%m-%d %H:%M UTC"),
        arguments = arguments.join(" "),
        processor = field(&processors, "model name", ':'),
        memory = memory / 1024.0 / 1024.0,
        system = field(&system, "PRETTY_NAME", '='),
        kernel = kernel.trim(),
        load = load.split(' ').next().unwrap_or_default(),
        programs = programs.join("; "),
    ))
}

/// Returns the value of the first line that begins with `name`.
fn field<'a>(text: &'a str, name: &str, separator: char) -> &'a str {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(separator));
    value.unwrap_or("unknown").trim().trim_matches('"')
}

/// Returns the version that a program prints, without builds and copyrights. Some programs exit with a failure after
/// that.
pub fn version(program: &Path, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .map_err(|error| format!("{} is needed and can't be started: {error}", program.display()))?;
    let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().next().unwrap_or_default().trim();
    let end = [" sha=", " Copyright", " ["].iter().filter_map(|word| line.find(word)).min();
    Ok(line[..end.unwrap_or(line.len())].to_owned())
}

/// As [`version`], of an optional program.
pub fn version_or_unknown(program: &str, arguments: &[&str]) -> String {
    version(Path::new(program), arguments).unwrap_or_else(|_| "unknown".to_owned())
}
