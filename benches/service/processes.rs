//! Processes of the run: started with their output in a file, watched through /proc, ended with the run.
//!
//! They end however the run ends: [`Process`] kills its own when it is dropped, and the kernel kills the others when
//! this process ends (`setpriv --pdeathsig`). The kernel watches the thread that started them, so that must be the main
//! one.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::Result;

/// The timeout of starting and stopping a process.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// A running process.
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

/// Returns a command for `program` that ends with this process.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Returns the absolute path, since the servers run in folders of their own. A bare name is looked up in `PATH`.
pub fn program_path(path: &Path) -> Result<PathBuf> {
    if path.components().count() == 1 {
        return Ok(path.to_owned());
    }
    path.canonicalize().map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Removes the folder and ends the process at Ctrl-C or SIGTERM. Its children end with it.
pub fn tidy_up_when_interrupted(folder: &Path) -> Result<()> {
    let folder = folder.to_owned();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut interrupt, mut terminate) = {
        let _context = runtime.enter();
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
    };
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        let _ = std::fs::remove_dir_all(&folder);
        std::process::exit(130);
    });
    Ok(())
}

impl Process {
    /// Starts a command of [`command`] in `folder`, with its output in a file there.
    pub fn start(name: &'static str, mut command: Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log)?;
        command.current_dir(folder).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().map_err(|error| format!("{name} can't be started by setpriv: {error}"))?;
        Ok(Self { name, child, log })
    }

    /// Returns its output so far.
    pub fn output(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// Waits until `is_ready` holds. Fails if the process ends before.
    pub fn wait_until(&mut self, mut is_ready: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        while !is_ready() {
            if !self.is_running()? || Instant::now() > deadline {
                return Err(format!("{} has not become ready:\n{}", self.name, self.output()?).into());
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Returns whether it is running. Fails if it exited with a failure.
    pub fn is_running(&mut self) -> Result<bool> {
        match self.child.try_wait()? {
            None => Ok(true),
            Some(status) if status.success() => Ok(false),
            Some(status) => Err(format!("{} ended with {status}:\n{}", self.name, self.output()?).into()),
        }
    }

    /// Interrupts it, as Ctrl-C would.
    pub fn interrupt(&self) -> Result<()> {
        let status = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status()?;
        if status.success() { Ok(()) } else { Err(format!("{} can't be interrupted", self.name).into()) }
    }

    /// Returns the CPU time of all its threads.
    pub fn cpu(&self) -> Result<Duration> {
        Ok(thread_times(&self.proc("task"))?.iter().sum())
    }

    /// Returns the number of its threads.
    pub fn threads(&self) -> Result<usize> {
        Ok(thread_times(&self.proc("task"))?.len())
    }

    /// Returns its resident memory in bytes.
    pub fn memory(&self) -> Result<u64> {
        self.status("VmRSS:")
    }

    /// Returns its peak resident memory in bytes.
    pub fn peak_memory(&self) -> Result<u64> {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> Result<u64> {
        let status = fs::read_to_string(self.proc("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kibibytes = line.and_then(|line| line.split_whitespace().next());
        let kibibytes: u64 = kibibytes.ok_or_else(|| format!("/proc has no {field} of {}", self.name))?.parse()?;
        Ok(kibibytes * 1024)
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.child.id()))
    }
}

/// Returns the CPU time of each thread of the process with this folder in /proc, in nanoseconds, including kernel time.
/// The ticks in `stat` are too coarse for runs of a few seconds.
pub fn thread_times(tasks: &Path) -> Result<Vec<Duration>> {
    let mut times = Vec::new();
    for task in fs::read_dir(tasks)? {
        // A thread may end between the two reads.
        let Ok(schedstat) = fs::read_to_string(task?.path().join("schedstat")) else { continue };
        let nanoseconds = schedstat.split_whitespace().next().ok_or("the kernel has no schedstat")?;
        times.push(Duration::from_nanos(nanoseconds.parse()?));
    }
    Ok(times)
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
