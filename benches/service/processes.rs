//! Processes that belong to the run: started with their output in a file, watched through /proc, ended with the run.
//!
//! However the run ends, they do: [`Process`] ends its own when it is dropped, and the kernel ends those that are left when
//! this process is gone (`setpriv --pdeathsig`). The kernel goes by the thread that started them, so that must be the main
//! one.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use crate::Result;

/// How long anything may take to start, or to end when it should.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running process.
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

/// A command for `program` that ends with this process.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// A path as this process sees it: the servers run in a folder of their own. A bare name is looked up in `PATH`.
pub fn program_path(path: &Path) -> Result<PathBuf> {
    if path.components().count() == 1 {
        return Ok(path.to_owned());
    }
    path.canonicalize().map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Ends the process at Ctrl-C or SIGTERM without its folder left behind. Its children end with it.
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
    /// Starts what [`command`] made. It runs in `folder`, and what it prints goes to a file there.
    pub fn start(name: &'static str, mut command: Command, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let output = File::create(&log)?;
        command.current_dir(folder).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let child = command.spawn().map_err(|error| format!("{name} can't be started by setpriv: {error}"))?;
        Ok(Self { name, child, log })
    }

    /// What it has printed.
    pub fn output(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.log)?)
    }

    /// Waits until `is_ready`, and fails when the process ends before that.
    pub fn wait_until(&mut self, mut is_ready: impl FnMut() -> bool) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !is_ready() {
            if !self.is_running()? || Instant::now() > deadline {
                return Err(format!("{} has not become ready:\n{}", self.name, self.output()?).into());
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    /// Whether it is still there; an end with a failure is one.
    pub fn is_running(&mut self) -> Result<bool> {
        match self.child.try_wait()? {
            None => Ok(true),
            Some(status) if status.success() => Ok(false),
            Some(status) => Err(format!("{} ended with {status}:\n{}", self.name, self.output()?).into()),
        }
    }

    /// Asks it to end, as Ctrl-C would.
    pub fn interrupt(&self) -> Result<()> {
        let status = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status()?;
        if status.success() { Ok(()) } else { Err(format!("{} can't be interrupted", self.name).into()) }
    }

    /// CPU time of all threads that it has.
    pub fn cpu(&self) -> Result<Duration> {
        Ok(thread_times(&self.proc("task"))?.iter().sum())
    }

    /// How many threads it has.
    pub fn threads(&self) -> Result<usize> {
        Ok(thread_times(&self.proc("task"))?.len())
    }

    /// Memory that it has now, in bytes.
    pub fn memory(&self) -> Result<u64> {
        self.status("VmRSS:")
    }

    /// The most memory that it ever had, in bytes.
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

/// CPU time of each thread of a process, whose folder in /proc this is, to the nanosecond, the kernel's part included. The
/// ticks in `stat` are too coarse for runs of a few seconds.
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
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
