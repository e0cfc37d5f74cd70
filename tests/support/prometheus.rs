//! A real Prometheus, and its programs for checking what it is given.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use super::{PATIENCE, eventually, ports};

/// A file below `contrib/`.
pub fn contrib(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("contrib")
        .join(path)
}

/// What `GET path` answers, which must be 200.
#[track_caller]
pub fn get(address: SocketAddr, path: &str) -> String {
    let (head, body) = try_get(address, path).expect("an answer");
    assert!(head.contains(" 200 "), "{path}: {head}\n{body}");
    body
}

/// Head and body; `None` while nobody listens. HTTP/1.0, so that the body comes in one piece.
fn try_get(address: SocketAddr, path: &str) -> Option<(String, String)> {
    let mut socket = TcpStream::connect(address).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n");
    socket.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.to_owned(), body.to_owned()))
}

/// Runs promtool, which must find nothing to complain of; what it printed.
#[track_caller]
pub fn promtool(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("run promtool");
    let mut stdin = child.stdin.take().expect("piped");
    stdin.write_all(input.as_bytes()).expect("write");
    drop(stdin);
    let output = child.wait_with_output().expect("reap promtool");
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "promtool {arguments:?}:\n{text}");
    text
}

/// A Prometheus of our own. Killed on drop.
pub struct Prometheus {
    pub address: SocketAddr,
    child: Child,
    _directory: TempDir,
}

impl Prometheus {
    /// Scrapes `target` as the job "gatepost" and evaluates `rules`, both several times a second.
    pub fn start(target: SocketAddr, rules: &Path) -> Prometheus {
        let directory = tempfile::Builder::new()
            .prefix("gatepost-prometheus-")
            .tempdir();
        let directory = directory.expect("tempdir");
        let config = directory.path().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}}\n\
             rule_files: [{rules:?}]\n\
             scrape_configs:\n\
             - job_name: gatepost\n\
             \x20 static_configs: [{{targets: [\"{target}\"]}}]\n"
        );
        std::fs::write(&config, text).expect("write the configuration");
        let address = ports::free_address();
        let log = std::fs::File::create(directory.path().join("log")).expect("open the log");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--web.listen-address={address}"))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("share the log"))
            .stderr(log)
            .spawn()
            .expect("start prometheus");
        let mut prometheus = Prometheus {
            address,
            child,
            _directory: directory,
        };
        prometheus.wait_until_ready();
        prometheus
    }

    fn wait_until_ready(&mut self) {
        let log = self._directory.path().join("log");
        eventually("prometheus is ready", || {
            if let Some(status) = self.child.try_wait().expect("ask for the child") {
                let log = std::fs::read_to_string(&log).unwrap_or_default();
                panic!("prometheus ended with {status}:\n{log}");
            }
            let (head, _) = try_get(self.address, "/-/ready")?;
            head.contains(" 200 ").then_some(())
        });
    }

    /// The `data` of an API answer, which must be a success.
    #[track_caller]
    pub fn api(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let mut path = format!("/api/v1/{path}?");
        for (name, value) in parameters {
            write!(path, "{}={}&", encoded(name), encoded(value)).unwrap();
        }
        let (_, body) = try_get(self.address, &path).expect("an answer");
        let mut answer: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(answer["status"], "success", "{parameters:?}: {body}");
        answer["data"].take()
    }

    /// The series an instant query gives, each with `metric` and `value`.
    #[track_caller]
    pub fn query(&self, expression: &str) -> Vec<Value> {
        let data = self.api("query", &[("query", expression)]);
        let series = data["result"].as_array();
        series
            .unwrap_or_else(|| panic!("{expression}: {data}"))
            .clone()
    }

    /// The value of a query that gives one series; `None` while it gives none.
    #[track_caller]
    pub fn value(&self, expression: &str) -> Option<f64> {
        let series = self.query(expression);
        assert!(series.len() <= 1, "{expression}: {series:?}");
        let value = series.first()?["value"][1].as_str().expect("a value");
        Some(value.parse().expect("a number"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        // Both fail only where it ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}
