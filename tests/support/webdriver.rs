//! The little of WebDriver that the tests speak: JSON over HTTP to a chromedriver on loopback.
//!
//! Of our own: the tests block, and the crate for it is async and brings 35 others for a dozen calls.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpStream};

use serde_json::{Value, json};

use super::PATIENCE;

/// What a command was refused with, as in `stale element reference`.
#[derive(Debug)]
pub struct Refusal {
    pub error: String,
    pub message: String,
}

/// The name under which an element's reference travels.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A session with a browser.
pub struct WebDriver {
    address: SocketAddr,
    session: String,
}

impl WebDriver {
    /// Whether a chromedriver listens and would start a browser.
    pub fn is_ready(address: SocketAddr) -> bool {
        exchange(address, "GET", "/status", None)
            .is_some_and(|answer| answer["value"]["ready"] == true)
    }

    /// Starts a browser; also what it says it can.
    pub fn start(address: SocketAddr, capabilities: &Value) -> (WebDriver, Value) {
        let wanted = json!({ "capabilities": { "alwaysMatch": capabilities } });
        let mut started = value(exchange(address, "POST", "/session", Some(&wanted)))
            .unwrap_or_else(|refusal| panic!("chromium does not start: {refusal:?}"));
        let session = started["sessionId"].as_str().expect("a session").to_owned();
        (
            WebDriver { address, session },
            started["capabilities"].take(),
        )
    }

    pub fn get(&self, path: &str) -> Result<Value, Refusal> {
        self.command("GET", path, None)
    }

    pub fn post(&self, path: &str, body: Value) -> Result<Value, Refusal> {
        self.command("POST", path, Some(&body))
    }

    pub fn delete(&self, path: &str) -> Result<Value, Refusal> {
        self.command("DELETE", path, None)
    }

    /// A command of the browser's own protocol.
    pub fn cdp(&self, command: &str, parameters: Value) -> Value {
        let body = json!({ "cmd": command, "params": parameters });
        self.post("/goog/cdp/execute", body)
            .unwrap_or_else(|refusal| panic!("{command}: {refusal:?}"))
    }

    /// Ends the browser. It may be gone already.
    pub fn quit(&self) {
        let path = format!("/session/{}", self.session);
        exchange(self.address, "DELETE", &path, None);
    }

    fn command(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Refusal> {
        let path = format!("/session/{}{path}", self.session);
        value(exchange(self.address, method, &path, body))
    }
}

/// The reference in the answer to a search for an element.
pub fn element(found: &Value) -> String {
    let reference = found[ELEMENT].as_str();
    reference
        .unwrap_or_else(|| panic!("no element: {found}"))
        .to_owned()
}

/// An element as an argument of a script.
pub fn argument(element: &str) -> Value {
    json!({ ELEMENT: element })
}

fn value(answer: Option<Value>) -> Result<Value, Refusal> {
    let mut answer = answer.expect("an answer of chromedriver's");
    let mut value = answer["value"].take();
    let Some(error) = value["error"].as_str().map(str::to_owned) else {
        return Ok(value);
    };
    let message = value["message"].take();
    Err(Refusal {
        error,
        message: message.as_str().unwrap_or_default().to_owned(),
    })
}

/// One request on a connection of its own; `None` where nobody answers.
fn exchange(address: SocketAddr, method: &str, path: &str, body: Option<&Value>) -> Option<Value> {
    let mut socket = TcpStream::connect(address).ok()?;
    // A page waits for the gate, and this waits for the page.
    socket.set_read_timeout(Some(4 * PATIENCE)).ok()?;
    let body = body.map_or_else(String::new, Value::to_string);
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\n\
         Content-Type: application/json; charset=utf-8\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(request.as_bytes()).ok()?;
    answer(BufReader::new(socket))
}

/// Reads as much as there is to be; chromedriver keeps the connection open whatever one asks for.
fn answer(mut socket: impl BufRead) -> Option<Value> {
    let mut length = None;
    loop {
        let mut line = String::new();
        socket.read_line(&mut line).ok()?;
        if line.trim().is_empty() {
            break;
        }
        let header = line.split_once(':');
        let is_length = |name: &str| name.eq_ignore_ascii_case("content-length");
        if let Some((_, value)) = header.filter(|(name, _)| is_length(name)) {
            length = value.trim().parse().ok();
        }
    }
    let mut body = vec![0; length?];
    socket.read_exact(&mut body).ok()?;
    serde_json::from_slice(&body).ok()
}
