//! The other end of the unix socket: what the command line asks of a running Gatepost.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use axum::http::header::{CONTENT_TYPE, HOST};
use axum::http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::net::UnixStream;

/// How long an answer may take: longer than the daemon waits for a turn, for its store, and for the record of it.
const PATIENCE: Duration = Duration::from_secs(30);

/// The largest answer, in octets; a page of 200 of anything is far below.
const ANSWER_SIZE: usize = 4 * 1024 * 1024;

/// Why there is no answer, or not the one that was hoped for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there, or not for this user.
    #[error(
        "cannot reach Gatepost at {}: {source}; does it run, does its admin.socket say the same, and may this user open it?",
        socket.display()
    )]
    Unreachable {
        /// Where it should be.
        socket: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// It took the request, and then nothing that can be understood came back.
    #[error("Gatepost at {} did not answer: {detail}; its log may say more", socket.display())]
    Broken {
        /// Where it is.
        socket: PathBuf,
        /// What came instead.
        detail: String,
    },
    /// It did not do what it was asked.
    #[error("{detail}")]
    Refused {
        /// The problem's code, for programs.
        code: String,
        /// The same for people.
        detail: String,
    },
}

/// A running Gatepost, by the unix socket of its administration.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    patience: Duration,
}

#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: String,
}

impl ClientError {
    /// Whether no Gatepost runs, as far as the socket shows.
    pub fn means_none_runs(&self) -> bool {
        use std::io::ErrorKind::{ConnectionRefused, NotFound};
        match self {
            Self::Unreachable { source, .. } => {
                matches!(source.kind(), NotFound | ConnectionRefused)
            }
            Self::Broken { .. } | Self::Refused { .. } => false,
        }
    }
}

impl Client {
    /// The one that listens at `socket`.
    pub fn new(socket: &Path) -> Client {
        Client {
            socket: socket.to_owned(),
            patience: PATIENCE,
        }
    }

    /// The same one, which waits for an answer no longer than this.
    pub fn within(&self, patience: Duration) -> Client {
        Client {
            socket: self.socket.clone(),
            patience,
        }
    }

    /// Asks for `path` with its query, and waits for the answer, by default at most 30 seconds.
    ///
    /// # Errors
    /// Nobody answers, or the answer is a problem.
    pub fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, ClientError> {
        let (status, answer) = self.exchange(method, path, body)?;
        // What has no content is the same as null to a reader.
        let document = match answer.is_empty() {
            true => &b"null"[..],
            false => &answer,
        };
        if status.is_success() {
            return serde_json::from_slice(document).map_err(|error| self.broken(&error));
        }
        let Problem { code, detail } = serde_json::from_slice(document)
            .map_err(|_| self.broken(&format_args!("it answered {status}")))?;
        Err(ClientError::Refused { code, detail })
    }

    /// The status and the text of a page that is no JSON.
    ///
    /// # Errors
    /// No answer comes in time.
    pub fn text(&self, path: &str) -> Result<(StatusCode, String), ClientError> {
        let (status, answer) = self.exchange(Method::GET, path, None)?;
        Ok((status, String::from_utf8_lossy(&answer).into_owned()))
    }

    fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.map_err(|error| self.broken(&error))?;
        runtime.block_on(async {
            let answer = self.converse(method, path, body);
            let seconds = self.patience.as_secs();
            tokio::time::timeout(self.patience, answer)
                .await
                .unwrap_or_else(|_| {
                    Err(self.broken(&format_args!("no answer within {seconds} seconds")))
                })
        })
    }

    async fn converse(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<(StatusCode, Bytes), ClientError> {
        let stream = UnixStream::connect(&self.socket).await;
        let stream = stream.map_err(|source| ClientError::Unreachable {
            socket: self.socket.clone(),
            source,
        })?;
        let broken = |error: hyper::Error| self.broken(&error);
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(broken)?;
        // Ends with the runtime, which is this request's own.
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, "localhost");
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(String::new, Value::to_string);
        let request = request
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.broken(&error))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let answer = Limited::new(response.into_body(), ANSWER_SIZE).collect();
        let answer = answer.await.map_err(|error| self.broken(&error))?;
        Ok((status, answer.to_bytes()))
    }

    fn broken(&self, detail: &dyn std::fmt::Display) -> ClientError {
        ClientError::Broken {
            socket: self.socket.clone(),
            detail: detail.to_string(),
        }
    }
}
