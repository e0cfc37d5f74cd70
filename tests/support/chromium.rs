//! The processes of a Chromium without a window: Debian's chromedriver, and what that starts.
//!
//! A browser takes longer to start than most flows take to walk through, so one is lent to flow after flow. Whoever
//! borrows it finds nothing of whoever had it before: see [`Chromium::forget`].

use std::io::Write;
use std::net::SocketAddr;
use std::ops::Deref;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Condvar, Mutex};

use rustix::process::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::browser::Scripts;
use super::webdriver::{Refusal, WebDriver};
use super::{eventually, ports};

/// A Chromium with a profile of its own, for as long as a flow takes. Ended on drop where the flow failed.
pub struct Borrowed {
    /// There until it is given back.
    chromium: Option<Chromium>,
    _place: Place,
}

impl Borrowed {
    pub fn take(scripts: Scripts) -> Borrowed {
        let place = Place::take();
        let rested = {
            let mut resting = RESTING.lock().unwrap();
            let at = resting.iter().position(|one| one.scripts == scripts);
            at.map(|at| resting.swap_remove(at))
        };
        Borrowed {
            chromium: Some(rested.unwrap_or_else(|| Chromium::start(scripts))),
            _place: place,
        }
    }
}

impl Deref for Borrowed {
    type Target = Chromium;
    fn deref(&self) -> &Chromium {
        self.chromium.as_ref().expect("not given back yet")
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        let chromium = self.chromium.take().expect("given back once");
        if !std::thread::panicking() && chromium.forget().is_ok() {
            RESTING.lock().unwrap().push(chromium);
        }
    }
}

/// Those that nobody has just now.
static RESTING: Mutex<Vec<Chromium>> = Mutex::new(Vec::new());

/// A running Chromium, ended on drop.
pub struct Chromium {
    pub driver: WebDriver,
    /// Chromium's own process, which is chromedriver's child.
    pub pid: Pid,
    scripts: Scripts,
    _keeper: Keeper,
}

impl Chromium {
    fn start(scripts: Scripts) -> Chromium {
        let mut keeper = Keeper::start();
        let wanted = capabilities(keeper.folder.path(), scripts);
        let (driver, capabilities) = WebDriver::start(keeper.address, &wanted);
        let pid = capabilities["goog:processID"].as_i64();
        let pid = pid.and_then(|pid| Pid::from_raw(pid.try_into().ok()?));
        let pid = pid.expect("chromium has a process");
        keeper.keep(pid);
        Chromium {
            driver,
            pid,
            scripts,
            _keeper: keeper,
        }
    }

    /// A tab that has been nowhere and pretends nothing, no cookie, nothing stored or cached, no permission, and no
    /// complaint that is left over.
    fn forget(&self) -> Result<(), Refusal> {
        let fresh = self.driver.post("/window/new", json!({ "type": "tab" }))?;
        self.driver.delete("/window")?;
        self.driver
            .post("/window", json!({ "handle": fresh["handle"] }))?;
        for (command, parameters) in [
            // Only what is in front has the focus.
            ("Page.bringToFront", json!({})),
            ("Network.clearBrowserCookies", json!({})),
            ("Network.clearBrowserCache", json!({})),
            (
                "Storage.clearDataForOrigin",
                json!({ "origin": "*", "storageTypes": "all" }),
            ),
            ("Browser.resetPermissions", json!({})),
        ] {
            let body = json!({ "cmd": command, "params": parameters });
            self.driver.post("/goog/cdp/execute", body)?;
        }
        self.driver.post("/se/log", json!({ "type": "browser" }))?;
        Ok(())
    }
}

impl Drop for Chromium {
    fn drop(&mut self) {
        self.driver.quit();
    }
}

/// Starts a chromedriver, waits until nobody speaks to it any more, and ends what is left then. It outlives the tests,
/// which end without a word to what rests; so it is told by the end of its input, and by no signal.
const KEEP: &str = r#"
    trap '' HUP INT TERM
    "$@" </dev/null &
    kept=$!
    while read -r pid; do kept="$kept $pid"; done
    kill -KILL $kept
    # Chromium's own children may still be writing, until they notice.
    until rm -rf "$HOME"; sleep 0.5; [ ! -e "$HOME" ]; do :; done
"#;

struct Keeper {
    shell: Child,
    input: Option<ChildStdin>,
    address: SocketAddr,
    /// For all that chromedriver and Chromium write.
    folder: TempDir,
}

impl Keeper {
    fn start() -> Keeper {
        let folder = tempfile::Builder::new()
            .prefix("gatepost-browser-")
            .tempdir();
        let folder = folder.expect("tempdir");
        let address = ports::free_address();
        let mut shell = Command::new("sh")
            .args(["-c", KEEP, "keeper", "chromedriver"])
            .arg(format!("--port={}", address.port()))
            .env("HOME", folder.path())
            .env("TMPDIR", folder.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start a shell");
        let keeper = Keeper {
            input: shell.stdin.take(),
            shell,
            address,
            folder,
        };
        eventually("chromedriver, which ./tests/run installs, is ready", || {
            WebDriver::is_ready(address).then_some(())
        });
        keeper
    }

    /// Ends this process, too, if it is still there.
    fn keep(&mut self, pid: Pid) {
        let input = self.input.as_mut().expect("open until the end");
        writeln!(input, "{}", pid.as_raw_nonzero()).expect("the keeper is there");
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.input = None;
        // Fails only where somebody else has waited for it.
        let _ = self.shell.wait();
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
const PLACES: usize = 3;

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
