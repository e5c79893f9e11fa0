//! What a run ran on: the figures mean nothing without it.

use std::fs;
use std::path::Path;

use chrono::Utc;

use crate::Result;
use crate::plan::Plan;
use crate::servers::version;

/// Date, command line, machine and versions, as Markdown.
pub fn describe(plan: &Plan) -> Result<String> {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let cores = std::thread::available_parallelism()?;
    let [kernel, processors, memory, load, system] =
        ["/proc/sys/kernel/osrelease", "/proc/cpuinfo", "/proc/meminfo", "/proc/loadavg", "/etc/os-release"]
            .map(|file| fs::read_to_string(file).unwrap_or_default());
    let memory: f64 = field(&memory, "MemTotal", ':').split(' ').next().unwrap_or_default().parse()?;
    let say = |program: &str, arguments: &[&str]| version(Path::new(program), arguments);
    let redis = version(&plan.redis_server, &["--version"])?;
    // wrk says "wrk", its version and where it is from; git and rustc may be missing where only the binary is.
    let wrk = say("wrk", &["--version"])?;
    let unknown = |_| "unknown".to_owned();
    let revision = say("git", &["describe", "--always", "--dirty", "--abbrev=12"]).unwrap_or_else(unknown);
    // webdis takes any argument for its configuration and serves, so only the package knows.
    let webdis = say("dpkg-query", &["-W", "-f", "${Version}", "webdis"]).unwrap_or_else(unknown);
    let rustc = say("rustc", &["--version"]).unwrap_or_else(unknown);
    Ok(format!(
        "- {date}, revision {revision}: `cargo bench --locked --bench service -- {arguments}`\n\
         - {processor}, {cores} cores, {memory:.1} GiB of memory; {system}, Linux {kernel}; \
         load before the run {load}\n\
         - {redis}; webdis {webdis}; {wrk}; {redis_benchmark}; {rustc}\n",
        date = Utc::now().format("%Y-%m-%d %H:%M UTC"),
        arguments = arguments.join(" "),
        processor = field(&processors, "model name", ':'),
        memory = memory / 1024.0 / 1024.0,
        system = field(&system, "PRETTY_NAME", '='),
        kernel = kernel.trim(),
        load = load.split(' ').next().unwrap_or_default(),
        redis = short(&redis),
        wrk = short(&wrk),
        redis_benchmark = say("redis-benchmark", &["--version"])?,
    ))
}

/// The value of the first line that begins with `name`.
fn field<'a>(text: &'a str, name: &str, separator: char) -> &'a str {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(separator));
    value.unwrap_or("unknown").trim().trim_matches('"')
}

/// What a version line says before it comes to builds and copyrights.
fn short(version: &str) -> &str {
    let end = [" sha=", " Copyright", " ["].iter().filter_map(|word| version.find(word)).min();
    &version[..end.unwrap_or(version.len())]
}
