//! Loads: wrk with prebuilt requests, and its figures.
//!
//! With one thread, wrk would fill a core and measure itself, so it has two. Its percentiles are corrected: if an
//! answer takes more than twice the mean, wrk adds the requests that its connection could not send in the meantime.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::Result;
use crate::processes::{self, Process};
use crate::requests::RequestFile;

const THREADS: usize = 2;
/// Connections of a load, unless a part needs more.
pub const CONNECTIONS: usize = 64;

/// A running load.
pub struct Load {
    wrk: Process,
    name: String,
    /// The start of wrk's threads, and their CPU time at that point.
    first: (Instant, Duration),
    last: (Instant, Duration),
}

/// The figures of a load. Times are in microseconds.
#[derive(Debug, Clone, Copy)]
pub struct Measured {
    pub requests: f64,
    pub seconds: f64,
    pub p50: f64,
    pub p99: f64,
    pub max: f64,
    /// CPU time of wrk for each request.
    pub wrk_cpu: f64,
}

impl Measured {
    /// Requests per second.
    pub fn throughput(&self) -> f64 {
        self.requests / self.seconds
    }
}

impl Load {
    /// Starts sending `requests` to `address` for up to `seconds`. Returns when the first is sent.
    pub fn start(
        name: &str,
        address: SocketAddr,
        connections: usize,
        requests: &RequestFile,
        seconds: u64,
    ) -> Result<Self> {
        let folder = requests.path.parent().unwrap_or(Path::new("."));
        let mut command = processes::command("wrk");
        command.args([format!("-t{THREADS}"), format!("-c{connections}"), format!("-d{seconds}s")]);
        command.args(["--latency", "--timeout", "20s", "--script"]);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/benches/service/requests.lua"));
        command.arg(format!("http://{address}"));
        command.env("BENCH_REQUESTS", &requests.path).env("BENCH_REQUEST_BYTES", requests.bytes.to_string());
        command.env("BENCH_REQUEST_COUNT", requests.count.to_string()).env("BENCH_THREADS", THREADS.to_string());
        let mut wrk = Process::start("wrk", command, folder)?;
        let is_under_way = |wrk: &Process| wrk.threads().is_ok_and(|threads| threads > THREADS);
        while !is_under_way(&wrk) {
            if !wrk.is_running()? {
                return Err(format!("wrk ended early:\n{}", wrk.output()?).into());
            }
            sleep(Duration::from_millis(1));
        }
        let now = (Instant::now(), wrk.cpu()?);
        Ok(Self { wrk, name: name.to_owned(), first: now, last: now })
    }

    /// Ends it early.
    pub fn stop(self) -> Result<Measured> {
        self.wrk.interrupt()?;
        self.finish()
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// If any request got no answer, or an error.
    pub fn finish(mut self) -> Result<Measured> {
        while self.wrk.is_running()? {
            // The last sample is taken while its threads run. Afterwards wrk only computes its summary.
            if let (Ok(cpu), Ok(threads)) = (self.wrk.cpu(), self.wrk.threads())
                && threads > THREADS
            {
                self.last = (Instant::now(), cpu);
            }
            sleep(Duration::from_millis(20));
        }
        let output = self.wrk.output()?;
        let line = output.lines().find_map(|line| line.strip_prefix("bench "));
        let line = line.ok_or_else(|| format!("wrk has no result for {}:\n{output}", self.name))?;
        let fields: HashMap<_, f64> = line
            .split(' ')
            .filter_map(|field| field.split_once('='))
            .map(|(name, value)| Ok((name, value.parse()?)))
            .collect::<Result<_>>()?;
        if fields["requests"] == 0.0
            || ["connect", "read", "write", "timeout", "status"].iter().any(|e| fields[e] > 0.0)
        {
            return Err(format!("{} did not answer every request well: {line}", self.name).into());
        }
        let seconds = fields["duration"] / 1e6;
        let cpu = (self.last.1 - self.first.1).as_secs_f64() * 1e6;
        let watched = (self.last.0 - self.first.0).as_secs_f64();
        Ok(Measured {
            requests: fields["requests"],
            seconds,
            p50: fields["p50"],
            p99: fields["p99"],
            max: fields["max"],
            wrk_cpu: cpu / (fields["requests"] * watched / seconds),
        })
    }
}

/// Sends `requests` to `address` for `seconds`.
pub fn run(name: &str, address: SocketAddr, requests: &RequestFile, seconds: u64) -> Result<Measured> {
    Load::start(name, address, CONNECTIONS, requests, seconds)?.finish()
}
