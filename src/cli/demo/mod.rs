//! `gatepost demo`: the whole program in front of an upstream that only captures, with everything
//! in a temporary directory. No configuration, no root, no Postfix.

mod capture;
mod client;
mod history;

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use tempfile::TempDir;

use crate::auth::issue::{self, Issued};
use crate::auth::token;
use crate::config::{Config, ListenerKind};
use crate::daemon::{self, Daemon, Sockets};
use crate::sasl::Secret;
use crate::store::{Actor, DEFAULT_ORGANIZATION, Scope, Store};

use super::output::print;
use super::{CliError, log, serve};

use capture::{Capture, Captured};

/// Runs until interrupted; with `send`, until one message has gone through.
pub fn run(send: bool) -> Result<(), CliError> {
    let directory = tempfile::Builder::new()
        .prefix("gatepost-demo-")
        .tempdir()?;
    let capture = Capture::bind(&directory.path().join("maildir"))?;
    let config = configure(&directory, capture.address()?)?;
    log::start(&config.log)?;
    serve::run_to_the_end(async {
        let actor = Actor::system("demo");
        // Before the daemon starts, which would warn that there is no token.
        let store = Store::open(&config.store.path)?;
        let token = token::issue(store.by(&actor), "Demo", &Scope::INSTANCE_ADMIN, None)?;
        drop(store);
        let daemon = Daemon::new(&config, Sockets::none())?;
        let site = Site::new(&daemon, &config, &directory, &token.secret)?;
        if send {
            let (captured, arrived) = std::sync::mpsc::channel();
            capture.start(move |message| {
                // Nobody waits any more once the demo is over.
                let _ = captured.send(message);
            })?;
            send_one(daemon, site, arrived).await
        } else {
            print(&site.instructions(&directory)?)?;
            capture.start(|message| {
                // The pipe may be closed; the demo goes on for who uses it.
                let _ = print(&message.describe());
            })?;
            Ok(daemon.run(std::future::pending()).await?)
        }
    })
}

/// Where things are, for people and for the client.
pub(super) struct Site {
    submission: SocketAddr,
    submissions: SocketAddr,
    issued: Issued,
    certificate: Vec<u8>,
    /// The dashboard, with a sign-in that works once.
    dashboard: String,
}

impl Site {
    fn new(
        daemon: &Daemon,
        config: &Config,
        directory: &TempDir,
        token: &Secret,
    ) -> Result<Self, CliError> {
        let addresses = daemon.addresses();
        let address = |wanted| {
            let found = addresses.iter().find(|(kind, _)| *kind == wanted);
            found
                .map(|(_, address)| *address)
                .ok_or_else(|| CliError::Io("a demo listener is missing".into()))
        };
        let (store, actor) = (daemon.store(), Actor::system("demo"));
        history::add(&store, &actor, daemon::cost(config))?;
        let dashboard = daemon.sign_in_link(token);
        Ok(Self {
            dashboard: dashboard
                .ok_or_else(|| CliError::Io("the demo's dashboard is missing".into()))?,
            submission: address(ListenerKind::Submission)?,
            submissions: address(ListenerKind::Submissions)?,
            issued: {
                let new = issue::New {
                    organization: DEFAULT_ORGANIZATION,
                    name: Some("Demo"),
                    expires_at: None,
                    limits: None,
                    rules: None,
                };
                issue::issue(&store, store.by(&actor), daemon::cost(config), new)?
            },
            certificate: fs::read(directory.path().join("certificate.pem"))?,
        })
    }

    fn username(&self) -> &str {
        &self.issued.credential.username
    }

    fn password(&self) -> String {
        String::from_utf8_lossy(self.issued.password.expose()).into_owned()
    }

    /// Lines that work when pasted.
    fn instructions(&self, directory: &TempDir) -> Result<String, CliError> {
        let (username, password) = (self.username(), self.password());
        let (submission, submissions) = (self.submission, self.submissions);
        let directory = directory.path();
        let message = directory.join("message.eml");
        fs::write(&message, client::MESSAGE)?;
        let port = submission.port();
        Ok(format!(
            "Gatepost demo: submission (STARTTLS) on {submission}, submissions (TLS) on {submissions}.\n\
             Certificate {certificate}, captured messages in {maildir}.\n\
             Username {username}\nPassword {password}\n\n\
             Dashboard (the link signs one browser in, once, within 10 minutes):\n\
             xdg-open {dashboard}\n\n\
             swaks --server {submission} --tls --auth PLAIN --auth-user {username} --auth-password {password} \
             --from me@example.org --to you@example.net\n\n\
             curl --url smtps://{submissions} --cacert {certificate} --user {username}:{password} \
             --mail-from me@example.org --mail-rcpt you@example.net --upload-file {message}\n\n\
             python3 -c 'import smtplib, ssl; s = smtplib.SMTP(\"127.0.0.1\", {port}); \
             s.starttls(context=ssl.create_default_context(cafile=\"{certificate}\")); \
             s.login(\"{username}\", \"{password}\"); \
             s.sendmail(\"me@example.org\", \"you@example.net\", \"Subject: hello\\r\\n\\r\\nHello from Python.\\r\\n\"); s.quit()'\n\n\
             Waiting for messages. Ctrl-C ends the demo and removes everything.",
            certificate = directory.join("certificate.pem").display(),
            dashboard = self.dashboard,
            maildir = directory.join("maildir").display(),
            message = message.display(),
        ))
    }
}

/// A configuration as a user would write it, so that the demo shows the real program.
fn configure(directory: &TempDir, upstream: SocketAddr) -> Result<Config, CliError> {
    let directory = directory.path();
    make_certificate(directory)?;
    let path = directory.join("config.toml");
    let quoted = |name: &str| format!("{:?}", directory.join(name).display().to_string());
    let text = format!(
        "hostname = \"localhost\"\n\
         drain_timeout = \"5s\"\n\
         [[listener]]\nkind = \"submission\"\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nkind = \"submissions\"\naddress = \"127.0.0.1:0\"\n\
         [tls]\ncertificate = {}\nkey = {}\n\
         [upstream]\naddress = \"{upstream}\"\n\
         [store]\npath = {}\n\
         [admin]\nlisten = \"127.0.0.1:0\"\n\
         [log]\nlevel = \"warn\"\n",
        quoted("certificate.pem"),
        quoted("key.pem"),
        quoted("gatepost.db"),
    );
    fs::write(&path, text)?;
    Ok(Config::load(&path)?)
}

fn make_certificate(directory: &Path) -> Result<(), CliError> {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| CliError::Io(format!("cannot make a certificate: {error}")))?;
    fs::write(directory.join("certificate.pem"), made.cert.pem())?;
    fs::write(directory.join("key.pem"), made.signing_key.serialize_pem())?;
    Ok(())
}

async fn send_one(
    daemon: Daemon,
    site: Site,
    arrived: std::sync::mpsc::Receiver<Captured>,
) -> Result<(), CliError> {
    // Once, so that the first EHLO tells what the upstream offers.
    let probed = daemon.probe_upstream().await;
    probed.map_err(|error| CliError::Io(error.to_string()))?;
    let (done, sent) = tokio::sync::oneshot::channel();
    // Its own thread: the client blocks, as a mail program would.
    let client = std::thread::spawn(move || {
        let outcome = client::send(&site).and_then(|()| {
            let message = arrived
                .recv()
                .map_err(|_| CliError::Io("no message was captured".into()))?;
            print(&format!("--- {}", message.describe()))
        });
        // The daemon may have been told to stop by a signal.
        let _ = done.send(());
        outcome
    });
    daemon.run(async { drop(sent.await) }).await?;
    client
        .join()
        .unwrap_or_else(|_| Err(CliError::Io("the demo's client panicked".into())))
}
