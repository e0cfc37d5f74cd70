//! The processes of a Chromium without a window: Debian's chromedriver, and what that starts.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Condvar, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::browser::Scripts;
use super::webdriver::WebDriver;
use super::{eventually, ports};

/// A Chromium with a profile of its own. Ended on drop, also where the test panicked.
pub struct Chromium {
    pub driver: WebDriver,
    /// Chromium's own process, which is chromedriver's child.
    pub pid: Pid,
    _chromedriver: Chromedriver,
    _place: Place,
}

impl Chromium {
    pub fn start(scripts: Scripts) -> Chromium {
        let place = Place::take();
        let chromedriver = Chromedriver::start();
        let wanted = capabilities(chromedriver.folder.path(), scripts);
        let (driver, capabilities) = WebDriver::start(chromedriver.address, &wanted);
        let pid = capabilities["goog:processID"].as_i64();
        let pid = pid.and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        Chromium {
            driver,
            pid: pid.expect("chromium has a process"),
            _chromedriver: chromedriver,
            _place: place,
        }
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        self.driver.quit();
        // Fails where it ended as it was told, as it should.
        let _ = kill_process(self.pid, Signal::KILL);
    }
}

struct Chromedriver {
    child: Child,
    address: SocketAddr,
    /// For all that it and Chromium write.
    folder: TempDir,
}

impl Chromedriver {
    fn start() -> Chromedriver {
        let folder = tempfile::Builder::new()
            .prefix("gatepost-browser-")
            .tempdir();
        let folder = folder.expect("tempdir");
        let address = ports::free_address();
        let child = Command::new("chromedriver")
            .arg(format!("--port={}", address.port()))
            .env("HOME", folder.path())
            .env("TMPDIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start chromedriver: ./tests/run installs it");
        let chromedriver = Chromedriver {
            child,
            address,
            folder,
        };
        eventually("chromedriver is ready", || {
            WebDriver::is_ready(address).then_some(())
        });
        chromedriver
    }
}

impl Drop for Chromedriver {
    fn drop(&mut self) {
        // Both fail only where it ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn capabilities(folder: &Path, scripts: Scripts) -> Value {
    let mut options = json!({ "args": [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync", "--lang=en-US",
        format!("--user-data-dir={}", folder.join("profile").display()),
    ] });
    if scripts == Scripts::Blocked {
        options["prefs"] = json!({ "profile.managed_default_content_settings.javascript": 2 });
    }
    json!({
        "acceptInsecureCerts": true,
        "goog:chromeOptions": options,
        "goog:loggingPrefs": { "browser": "ALL" },
    })
}

/// How many browsers there may be at once: each is a dozen processes.
const PLACES: usize = 2;

static TAKEN: Mutex<usize> = Mutex::new(0);
static FREED: Condvar = Condvar::new();

/// The right to have a browser.
struct Place;

impl Place {
    fn take() -> Place {
        let taken = TAKEN.lock().unwrap();
        *FREED.wait_while(taken, |taken| *taken >= PLACES).unwrap() += 1;
        Place
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *TAKEN.lock().unwrap() -= 1;
        FREED.notify_one();
    }
}
