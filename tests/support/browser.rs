//! A browser as a person uses it: pages, links, fields and keys, and what it complains of.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustix::process::Pid;
use serde_json::{Value, json};

use super::chromium::Borrowed;
use super::eventually;
use super::webdriver::{Refusal, argument, element};

/// Whether pages may run scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scripts {
    Blocked,
    Run,
}

/// How a page is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    pub width: u32,
    pub height: u32,
    /// `light` or `dark`: what the person prefers.
    pub scheme: &'static str,
}

/// A desk and a telephone.
pub const WIDE: Look = Look {
    width: 1440,
    height: 900,
    scheme: "light",
};
pub const NARROW: Look = Look {
    width: 360,
    height: 800,
    scheme: "light",
};

impl Look {
    pub fn dark(self) -> Look {
        Look {
            scheme: "dark",
            ..self
        }
    }
}

/// A browser with nothing in it yet.
pub struct Browser(Borrowed);

impl Browser {
    pub fn start(scripts: Scripts) -> Browser {
        let browser = Browser(Borrowed::take(scripts));
        browser.look(WIDE);
        browser
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        self.0.pid
    }

    /// Looks at pages as somebody with such a screen would, from now on.
    pub fn look(&self, look: Look) {
        let screen = json!({
            "width": look.width, "height": look.height,
            "deviceScaleFactor": 1, "mobile": look.width < 600,
        });
        self.0
            .driver
            .cdp("Emulation.setDeviceMetricsOverride", screen);
        // They would take some of the width on a desk, and stand in pictures.
        self.0
            .driver
            .cdp("Emulation.setScrollbarsHidden", json!({ "hidden": true }));
        let media = json!([{ "name": "prefers-color-scheme", "value": look.scheme }]);
        self.0
            .driver
            .cdp("Emulation.setEmulatedMedia", json!({ "features": media }));
    }

    /// Lives in this time zone from now on.
    pub fn set_zone(&self, zone: &str) {
        let zone = json!({ "timezoneId": zone });
        self.0.driver.cdp("Emulation.setTimezoneOverride", zone);
    }

    #[track_caller]
    pub fn go(&self, url: &str) {
        self.post("/url", json!({ "url": url }));
    }

    #[track_caller]
    pub fn back(&self) {
        self.post("/back", json!({}));
    }

    #[track_caller]
    pub fn forward(&self) {
        self.post("/forward", json!({}));
    }

    /// Loads the page again; what was posted is posted again.
    #[track_caller]
    pub fn reload(&self) {
        self.post("/refresh", json!({}));
    }

    #[track_caller]
    pub fn url(&self) -> String {
        self.string("/url")
    }

    #[track_caller]
    pub fn title(&self) -> String {
        self.string("/title")
    }

    /// The page as it is now, which scripts may have changed.
    #[track_caller]
    pub fn source(&self) -> String {
        self.string("/source")
    }

    /// Each with name, value, httpOnly, sameSite, secure.
    #[track_caller]
    pub fn cookies(&self) -> Vec<Value> {
        let cookies = self.0.driver.get("/cookie").expect("the cookies");
        cookies.as_array().expect("a list").clone()
    }

    /// Has a cookie as if this site had set it for itself alone, out of reach of scripts.
    pub fn set_cookie(&self, url: &str, name: &str, value: &str) {
        let cookie = json!({
            "url": url, "name": name, "value": value, "httpOnly": true, "sameSite": "Strict",
        });
        self.0.driver.cdp("Network.setCookie", cookie);
    }

    /// How many elements there are.
    #[track_caller]
    pub fn count(&self, css: &str) -> usize {
        self.find_all(css).len()
    }

    #[track_caller]
    pub fn has(&self, css: &str) -> bool {
        self.count(css) > 0
    }

    /// What a person reads there.
    #[track_caller]
    pub fn text(&self, css: &str) -> String {
        self.string(&format!("/element/{}/text", self.find(css)))
    }

    #[track_caller]
    pub fn texts(&self, css: &str) -> Vec<String> {
        let found = self.find_all(css).into_iter();
        found
            .map(|one| self.string(&format!("/element/{one}/text")))
            .collect()
    }

    /// Empty where there is no such attribute.
    #[track_caller]
    pub fn attribute(&self, css: &str, name: &str) -> String {
        self.string(&format!("/element/{}/attribute/{name}", self.find(css)))
    }

    /// What an element has now, whether a person sees it or not.
    #[track_caller]
    pub fn property(&self, css: &str, name: &str) -> String {
        self.string(&format!("/element/{}/property/{name}", self.find(css)))
    }

    /// What a field holds.
    #[track_caller]
    pub fn value(&self, css: &str) -> String {
        self.property(css, "value")
    }

    #[track_caller]
    pub fn is_shown(&self, css: &str) -> bool {
        let path = format!("/element/{}/displayed", self.find(css));
        self.0.driver.get(&path).expect("whether it is shown") == true
    }

    /// Empties a field and types.
    #[track_caller]
    pub fn fill(&self, css: &str, text: &str) {
        let field = self.find(css);
        self.post(&format!("/element/{field}/clear"), json!({}));
        self.post(&format!("/element/{field}/value"), json!({ "text": text }));
    }

    /// Puts a value into a field whose keys depend on the locale, as in that for a time.
    #[track_caller]
    pub fn set(&self, css: &str, value: &str) {
        let field = argument(&self.find(css));
        let script = "arguments[0].value = arguments[1];
            arguments[0].dispatchEvent(new Event('input', { bubbles: true }));
            arguments[0].dispatchEvent(new Event('change', { bubbles: true }))";
        self.run(script, json!([field, value]));
    }

    /// Chooses what reads so from a list.
    #[track_caller]
    pub fn choose(&self, css: &str, text: &str) {
        let options = self.find_all(&format!("{css} option"));
        let reads = |option: &String| self.string(&format!("/element/{option}/text")) == text;
        let option = options.iter().find(|option| reads(option));
        let option = option.unwrap_or_else(|| panic!("no {text} in {}", self.text(css)));
        self.post(&format!("/element/{option}/click"), json!({}));
    }

    /// Clicks where nothing is loaded for it.
    #[track_caller]
    pub fn click(&self, css: &str) {
        self.post(&format!("/element/{}/click", self.find(css)), json!({}));
    }

    /// Clicks all of these, one after the other; what the clipboard holds after each.
    #[track_caller]
    pub fn copied(&self, css: &str) -> Vec<String> {
        let granted = json!({ "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"] });
        self.0.driver.cdp("Browser.grantPermissions", granted);
        let read = "const done = arguments[arguments.length - 1];
            navigator.clipboard.readText().then(done, error => done(String(error)))";
        let buttons = self.find_all(css).into_iter();
        let copied = buttons.map(|button| {
            self.post(&format!("/element/{button}/click"), json!({}));
            let text = self.run_async(read, json!([]));
            text.as_str().expect("text").to_owned()
        });
        copied.collect()
    }

    /// Clicks a link or a button, and waits for the page that comes of it.
    #[track_caller]
    pub fn follow(&self, css: &str) {
        self.leave(css, || self.click(css));
    }

    /// Presses keys as on a keyboard, one after the other, without a page coming of it.
    #[track_caller]
    pub fn press(&self, keys: &str) {
        let strokes = keys.chars().flat_map(|key| {
            let key = key.to_string();
            [
                json!({ "type": "keyDown", "value": key }),
                json!({ "type": "keyUp", "value": key }),
            ]
        });
        let strokes: Vec<_> = strokes.collect();
        let keyboard = json!([{ "type": "key", "id": "keyboard", "actions": strokes }]);
        self.post("/actions", json!({ "actions": keyboard }));
    }

    /// Presses Enter, and waits for the page that comes of it.
    #[track_caller]
    pub fn enter(&self) {
        self.leave("Enter", || self.press("\u{e007}"));
    }

    /// Runs a script and returns what it returns. Not held off by the page's policy, nor by [`Scripts::Blocked`].
    #[track_caller]
    pub fn run(&self, script: &str, arguments: Value) -> Value {
        let body = json!({ "script": script, "args": arguments });
        self.post("/execute/sync", body)
    }

    /// The same for a script that calls its last argument when it is done.
    #[track_caller]
    pub fn run_async(&self, script: &str, arguments: Value) -> Value {
        let body = json!({ "script": script, "args": arguments });
        self.post("/execute/async", body)
    }

    /// What the browser complained of since it was last asked: offences against a page's policy, faults of scripts, and
    /// what could not be loaded. That a page itself came with a status of 400 or more is no complaint.
    #[track_caller]
    pub fn complaints(&self) -> Vec<String> {
        let entries = self.post("/se/log", json!({ "type": "browser" }));
        let entries = entries.as_array().expect("a log").iter();
        let url = self.url();
        let serious = entries.filter(|entry| {
            let (level, message) = (&entry["level"], entry["message"].as_str().unwrap());
            let is_page = entry["source"] == "network" && message.starts_with(&format!("{url} "));
            (level == "SEVERE" || level == "WARNING") && !is_page
        });
        serious.map(Value::to_string).collect()
    }

    /// Keeps a picture of the whole page below the target directory.
    #[track_caller]
    pub fn picture(&self, name: &str) {
        let whole =
            json!({ "format": "png", "captureBeyondViewport": true, "optimizeForSpeed": true });
        let picture = self.0.driver.cdp("Page.captureScreenshot", whole);
        let picture = picture["data"].as_str().expect("a picture");
        let folder = target().join("screenshots");
        std::fs::create_dir_all(&folder).expect("a folder for pictures");
        let picture = STANDARD.decode(picture).expect("base64");
        std::fs::write(folder.join(format!("{name}.png")), picture).expect("write a picture");
    }

    /// Does what makes the page go, and waits until the next one is whole.
    #[track_caller]
    fn leave(&self, what: &str, go: impl FnOnce()) {
        let old = self.find("html");
        go();
        eventually(
            &format!("another page after {what} on {}", self.url()),
            || match self.0.driver.get(&format!("/element/{old}/name")) {
                Err(refusal) if is_gone(&refusal) => Some(()),
                _ => None,
            },
        );
        eventually("the page is whole", || {
            let state = self.run("return document.readyState", json!([]));
            (state == "complete").then_some(())
        });
    }

    #[track_caller]
    fn find(&self, css: &str) -> String {
        let by = json!({ "using": "css selector", "value": css });
        let found = self.0.driver.post("/element", by);
        let found = found.unwrap_or_else(|refusal| {
            panic!("{css}: {refusal:?}\non {}:\n{}", self.url(), self.source())
        });
        element(&found)
    }

    #[track_caller]
    fn find_all(&self, css: &str) -> Vec<String> {
        let by = json!({ "using": "css selector", "value": css });
        let found = self.post("/elements", by);
        let found = found.as_array().expect("a list");
        found.iter().map(element).collect()
    }

    #[track_caller]
    fn string(&self, path: &str) -> String {
        let value = self.0.driver.get(path);
        let value = value.unwrap_or_else(|refusal| panic!("{path}: {refusal:?}"));
        value.as_str().unwrap_or_default().to_owned()
    }

    #[track_caller]
    fn post(&self, path: &str, body: Value) -> Value {
        let sent = body.clone();
        let answer = self.0.driver.post(path, body);
        answer.unwrap_or_else(|refusal| panic!("{path} {sent}: {refusal:?}"))
    }
}

/// Where the test run puts what outlives it.
pub fn target() -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    folder.parent().expect("a target directory").to_owned()
}

fn is_gone(refusal: &Refusal) -> bool {
    let Refusal { error, message } = refusal;
    // Chromium's own word for a document that goes at that very moment.
    error == "stale element reference" || message.contains("does not belong to the document")
}
