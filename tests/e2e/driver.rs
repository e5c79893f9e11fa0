//! chromedriver and its browser.

use std::fs::{read, read_dir};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

use serde_json::json;
use tempfile::TempDir;
use thirtyfour::common::capabilities::desiredcapabilities::Capabilities;
use thirtyfour::{DesiredCapabilities, WebDriver};

/// How often chromedriver is started before a test fails.
const START_ATTEMPTS: usize = 10;

/// chromedriver of one test. Its browser ends with it.
pub struct Driver {
    /// The browser's profile. Its path is in the command line of the browser's processes.
    profile: TempDir,
    process: Child,
    address: String,
}

impl Driver {
    /// Starts chromedriver on a free port.
    pub fn start() -> Self {
        // chromedriver listens on a free port of [::1] and on the same port of 127.0.0.1, and exits if another process
        // has the second one.
        let mut errors = Vec::new();
        for _ in 0..START_ATTEMPTS {
            match Self::try_start() {
                Ok(driver) => return driver,
                Err(error) => errors.push(error),
            }
        }
        panic!("chromedriver doesn't start: {errors:#?}");
    }

    /// Starts chromedriver once. An error is what it printed.
    fn try_start() -> Result<Self, String> {
        let mut process = Command::new("chromedriver")
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("chromedriver starts; `make e2e` installs it");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut printed = String::new();
        let port = lines.by_ref().find_map(|line| {
            let port = line.split_once("started successfully on port ").map(|(_, port)| port.trim_end_matches('.'));
            printed += &format!("{line}\n");
            port.map(str::to_owned)
        });
        let Some(port) = port else {
            let status = process.wait().unwrap();
            return Err(format!("{status}: {printed}"));
        };
        std::thread::spawn(move || lines.for_each(drop));
        let address = format!("http://127.0.0.1:{port}");
        Ok(Self { profile: tempfile::tempdir().unwrap(), process, address })
    }

    /// Starts a browser that records its console and its requests.
    pub async fn browser(&self) -> WebDriver {
        WebDriver::new(&self.address, self.capabilities()).await.expect("chromium starts")
    }

    fn capabilities(&self) -> Capabilities {
        let mut arguments = vec![
            "--headless=new".to_owned(),
            format!("--user-data-dir={}", self.profile.path().display()),
            // Containers have little shared memory.
            "--disable-dev-shm-usage".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-gpu".to_owned(),
            "--hide-scrollbars".to_owned(),
            "--no-first-run".to_owned(),
            "--no-proxy-server".to_owned(),
            // Only the service is reachable.
            "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1".to_owned(),
            "--lang=en-GB".to_owned(),
        ];
        // Chromium's sandbox doesn't work for root, which CI runs as.
        if std::fs::metadata("/proc/self").is_ok_and(|this| this.uid() == 0) {
            arguments.push("--no-sandbox".to_owned());
        }
        let mut capabilities: Capabilities = DesiredCapabilities::chrome().into();
        capabilities.set("goog:chromeOptions", json!({ "args": arguments })).unwrap();
        capabilities.set("goog:loggingPrefs", json!({ "browser": "ALL", "performance": "ALL" })).unwrap();
        capabilities
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        // The browser may outlive chromedriver if the test fails.
        for pid in processes_with(&self.profile.path().display().to_string()) {
            let _ = Command::new("sh").args(["-c", &format!("kill -KILL {pid} 2>/dev/null")]).status();
        }
    }
}

/// Returns the processes whose command line contains `text`.
fn processes_with(text: &str) -> Vec<u32> {
    let folders = read_dir("/proc").into_iter().flatten().flatten();
    let pids = folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok());
    let has_text = |pid: &u32| {
        let line = read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    };
    pids.filter(has_text).collect()
}
