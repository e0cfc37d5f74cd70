//! `gatepost doctor`: goes through the running system as a mail program would, and says what it met,
//! what that means and what to write where.
//!
//! One file for each thing that is examined. What is met and what is made of it are apart, so that
//! the judging can be tried without a network.

mod certificate;
mod conversation;
mod descriptors;
mod finding;
mod limits;
mod listener;
mod login;
mod newlines;
mod restrictions;
mod sasl;
mod settings;
mod trial;
mod upstream;

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::auth::password::Cost;
use crate::config::{Config, IdentityBy, Listener, UpstreamTls};
use crate::daemon;
use crate::store::{Actor, DEFAULT_ORGANIZATION, Store, StoreReport};

use super::check::{self, Lent};
use super::{CliError, actor, serve};

use certificate::Expected;
use finding::{Finding, Report};
use listener::{Met, Step};
use login::Envelope;
use settings::Settings;
use trial::Trial;
use upstream::Place;

/// An address that is nobody's (RFC 2606): whether it may be written to decides the login alone.
const NOBODY: &str = "gatepost-doctor@gatepost.invalid";

/// What AUTH may take beside the hand-over: argon2 behind others', and the delay of a refusal.
const VERDICT: Duration = Duration::from_secs(20);

/// What `--help` ends with.
pub const AFTER_HELP: &str = "\
It makes a credential called \"gatepost doctor, temporary, safe to delete\", logs in with it at every listener, begins an envelope and takes it back, and deletes the credential. No message is sent.

Exits with 0 if mail can flow, warnings or not; with 1 if something was found that keeps it from flowing; with 78 if the configuration cannot be read.";

/// How to examine.
#[derive(Args, Debug)]
pub struct DoctorOptions {
    /// The name that mail programs connect to [default: hostname of the configuration]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// A PEM file with the authorities that mail programs trust, instead of the system's
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Postfix's configuration directory [default: what postconf reads]
    #[arg(long, value_name = "DIRECTORY")]
    postfix: Option<PathBuf>,
    /// The organization of the temporary credential
    #[arg(long, value_name = "SLUG", default_value = DEFAULT_ORGANIZATION)]
    org: String,
    /// The sender of the envelope that is begun; none if left out
    #[arg(long, value_name = "ADDRESS", default_value = "", hide_default_value = true, value_parser = mailbox)]
    from: String,
    /// The recipient of that envelope
    #[arg(long, value_name = "ADDRESS", default_value = NOBODY, value_parser = mailbox)]
    to: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Examines everything and prints what is found.
///
/// # Errors
/// Something keeps mail from flowing, or standard output is closed.
pub fn run(options: &DoctorOptions, path: &Path) -> Result<(), CliError> {
    let mut report = Report::new(options.json);
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => {
            let next = "correct it, then: gatepost check && systemctl restart gatepost";
            report.add(Finding::problem("config", error.to_string(), next))?;
            return report.finish().map_err(|error| match error {
                CliError::Closed => CliError::Closed,
                error => CliError::Config(error.to_string()),
            });
        }
    };
    let words = options.name.as_deref().unwrap_or(config.hostname.as_str());
    let Some(name) = server_name(words) else {
        return Err(CliError::Refused(format!(
            "{words:?} is no name that a certificate can have; say what mail programs connect to: --name NAME"
        )));
    };
    report.add(Finding::ok("config", check::listeners(path, &config)))?;
    report.add(descriptors::examine(&config))?;
    let expected = Expected {
        name,
        roots: Arc::new(certificate::roots(options.ca.as_deref())),
        trusted: options
            .ca
            .as_deref()
            .map(certificate::in_file)
            .unwrap_or_default(),
    };
    let doctor = Doctor {
        config: &config,
        options,
        expected,
        actor: actor::of_process(),
        cost: daemon::cost(&config),
    };
    let runtime = serve::runtime()?;
    runtime.block_on(async {
        // Before there is a credential: whoever interrupts is heard from here on, and what is left
        // of the examination is dropped, which deletes it.
        let mut interrupted = Interrupts::listen()?;
        tokio::select! {
            done = doctor.examine(&mut report) => done,
            () = interrupted.any() => Err(CliError::Refused(
                "interrupted; the temporary credential is deleted".to_owned(),
            )),
        }
    })?;
    report.finish()
}

/// What may stand between angle brackets; the MTA decides about the rest.
fn mailbox(text: &str) -> Result<String, String> {
    let breaks_out = |c: char| c.is_ascii_control() || matches!(c, '<' | '>' | ' ');
    match text.contains(breaks_out) {
        true => Err("an address without spaces and angle brackets".to_owned()),
        false => Ok(text.to_owned()),
    }
}

/// A host name, or an address as it stands in EHLO or without the brackets.
fn server_name(text: &str) -> Option<ServerName<'static>> {
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let inner = inner.map_or(text, |text| text.strip_prefix("IPv6:").unwrap_or(text));
    match inner.parse::<IpAddr>() {
        Ok(ip) => Some(ServerName::IpAddress(ip.into())),
        Err(_) => ServerName::try_from(inner.to_owned()).ok(),
    }
}

/// The signals that end an examination.
struct Interrupts([Signal; 3]);

impl Interrupts {
    fn listen() -> Result<Self, CliError> {
        let of = |kind| signal(kind);
        Ok(Self([
            of(SignalKind::interrupt())?,
            of(SignalKind::terminate())?,
            of(SignalKind::hangup())?,
        ]))
    }

    async fn any(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

struct Doctor<'a> {
    config: &'a Config,
    options: &'a DoctorOptions,
    expected: Expected,
    actor: Actor,
    cost: Cost,
}

/// A certificate chain and the listeners that show it.
type Shown = (Vec<CertificateDer<'static>>, Vec<String>);

impl Doctor<'_> {
    async fn examine(&self, report: &mut Report) -> Result<(), CliError> {
        let store = match self.store() {
            Ok(store) => Some(store),
            Err(finding) => {
                report.add(*finding)?;
                None
            }
        };
        let places = upstream::places(self.config, self.options.postfix.as_deref()).await;
        let (places, nowhere) =
            places.unwrap_or_else(|wrong| (Vec::new(), vec![(None, vec![*wrong])]));
        let shown = self
            .examine_listeners(store.as_ref(), self.goes_to(&places), report)
            .await?;
        self.examine_certificates(shown, report)?;
        self.examine_upstreams(&places, nowhere, report).await
    }

    /// Where sessions of the temporary credential go first.
    fn goes_to<'a>(&self, places: &'a [Place]) -> Option<&'a Place> {
        let own = Some(self.options.org.as_str());
        let first = |organization| {
            let mut places = places.iter();
            places.find(|place| place.organization.as_deref() == organization)
        };
        first(own).or_else(|| first(None))
    }

    /// The store, if there is one: the doctor makes none.
    fn store(&self) -> Result<Store, Box<Finding>> {
        let path = &self.config.store.path;
        let problem = |found: String, next: &str| Box::new(Finding::problem("store", found, next));
        let served = Store::served_by(path).filter(|holder| holder.is_at_path == Some(false));
        if let Some(holder) = served {
            let found = format!(
                "{} is not the file that the running Gatepost ({}) has open: it was removed or replaced",
                path.display(),
                holder.words
            );
            let next = "the log says where what it held is saved; stop Gatepost, gatepost restore FILE, start it";
            return Err(problem(found, next));
        }
        let missing = Store::check(path).map(|found| matches!(found, StoreReport::Missing));
        if let Ok(true) = missing {
            let found = format!("{} does not exist", path.display());
            return Err(problem(
                found,
                "it is made at the first start: systemctl start gatepost",
            ));
        }
        let opened = missing.and_then(|_| Store::open(path));
        opened.map_err(|error| problem(error.to_string(), "gatepost check; gatepost store check"))
    }

    async fn examine_listeners(
        &self,
        store: Option<&Store>,
        goes_to: Option<&Place>,
        report: &mut Report,
    ) -> Result<Vec<Shown>, CliError> {
        let mut met = Vec::new();
        for listener in &self.config.listeners {
            let own = self.config.hostname.as_str();
            met.push((
                listener,
                listener::meet(listener, &self.expected.name, own).await,
            ));
        }
        let absent = |(_, met): &(_, Result<Met, (Step, _)>)| matches!(met, Err((step, fault)) if listener::is_absent(*step, fault));
        if !met.is_empty() && met.iter().all(absent) {
            let how = met
                .iter()
                .find_map(|(_, met)| Some(met.as_ref().err()?.1.to_string()));
            let found = format!(
                "Gatepost does not run, no listener answers: {}",
                how.unwrap_or_default()
            );
            let next = "systemctl status gatepost.socket gatepost; journalctl -u gatepost -n 50; systemctl restart gatepost.socket gatepost";
            report.add(Finding::problem("daemon", found, next))?;
            return Ok(Vec::new());
        }
        let mut shown: Vec<Shown> = Vec::new();
        let mut trial = Attempt::None;
        let mut tried = false;
        for (listener, met) in met {
            report.add(listener::judge(listener, &met))?;
            let Ok(met) = met else { continue };
            let place = listener::place(listener);
            match shown.iter_mut().find(|(chain, _)| *chain == met.chain) {
                Some((_, places)) => places.push(place),
                None => shown.push((met.chain.clone(), vec![place])),
            }
            let Some(store) = store else { continue };
            if let Attempt::None = trial {
                trial = self.make_trial(store, report)?;
            }
            let Attempt::Made(trial) = &trial else {
                continue;
            };
            let logged_in = self.log_in(listener, met, trial, !tried, goes_to, report);
            tried |= logged_in.await?;
        }
        if let Attempt::Made(trial) = trial {
            report.add(delete_trial(*trial))?;
        }
        Ok(shown)
    }

    fn make_trial<'s>(
        &'s self,
        store: &'s Store,
        report: &mut Report,
    ) -> Result<Attempt<'s>, CliError> {
        match Trial::make(store, &self.actor, &self.options.org, self.cost) {
            Ok(trial) => Ok(Attempt::Made(Box::new(trial))),
            Err(error) => {
                let found =
                    format!("no temporary one could be made, so no login was tried: {error}");
                let next = "gatepost store check; sudo, if you are not root; another organization: --org SLUG";
                report.add(Finding::problem("credential", found, next))?;
                Ok(Attempt::Failed)
            }
        }
    }

    /// Logs in, and tries an envelope where that `is_first`. Returns whether it was let in.
    async fn log_in(
        &self,
        listener: &Listener,
        met: Met,
        trial: &Trial<'_>,
        is_first: bool,
        place: Option<&Place>,
        report: &mut Report,
    ) -> Result<bool, CliError> {
        let pipelines = met.pipelines();
        let upstream = place.map(Place::upstream).or(self.config.upstream.as_ref());
        let handed_over = upstream.map(|one| one.connect_timeout + one.handoff_timeout);
        let mut conversation = met.conversation;
        conversation.patience += VERDICT + handed_over.unwrap_or_default();
        let said = conversation
            .log_in(trial.username(), trial.password())
            .await;
        report.add(login::judge(&listener::place(listener), &said))?;
        let let_in = said.is_ok_and(|said| said.code == 235);
        if let_in && is_first {
            let envelope = Envelope {
                from: &self.options.from,
                to: &self.options.to,
                told_by: upstream.map(|one| one.identity).unwrap_or_default(),
            };
            let unknown = Settings::Unknown("there is no upstream".to_owned());
            let settings = place.map_or(&unknown, |place| &place.settings);
            let replies = login::try_envelope(&mut conversation, &envelope, pipelines).await;
            report.add_all(login::judge_envelope(&replies, &envelope, settings))?;
        }
        // Whether it is heard matters to nobody.
        let _ = conversation.ask("QUIT").await;
        Ok(let_in)
    }

    fn examine_certificates(&self, shown: Vec<Shown>, report: &mut Report) -> Result<(), CliError> {
        let now = crate::clock::now();
        let Some(tls) = &self.config.tls else {
            return Ok(());
        };
        let path = &tls.certificate;
        let in_file = certificate::in_file(path);
        let others = tls.others.iter();
        let others = others.map(|other| certificate::in_file(&other.certificate));
        let known: Vec<_> = others.chain([in_file.clone()]).collect();
        if shown.is_empty() {
            let place = path.display().to_string();
            return report.add_all(certificate::judge(&in_file, &place, &self.expected, now));
        }
        // What a running Gatepost does not take, and a start would end with.
        for pair in daemon::pairs(tls) {
            report.add_all(certificate::unusable(&pair, now))?;
        }
        for (chain, places) in shown {
            let places = places.join(", ");
            report.add_all(certificate::judge(&chain, &places, &self.expected, now))?;
            let is_known = known.iter().any(|own| chain.first() == own.first());
            if !in_file.is_empty() && !is_known {
                report.add(certificate::differs(&places, path))?;
            }
        }
        Ok(())
    }

    async fn examine_upstreams(
        &self,
        places: &[Place],
        mut found: Vec<upstream::Found>,
        report: &mut Report,
    ) -> Result<(), CliError> {
        let socket = self.config.dovecot_auth.as_ref();
        let listen = socket.map(|socket| &socket.listen);
        let answer = match listen {
            Some(listen) => Some(sasl::ask(listen).await),
            None => None,
        };
        // Without it smtpd would end at the first greeting asked of it, and be held back for a
        // minute just when Gatepost is started.
        let lent = match (socket, &answer) {
            (Some(socket), Some(Err(_))) => Lent::open(socket),
            _ => None,
        };
        let named = found.len();
        for place in places {
            let findings = upstream::examine(place, self.config).await;
            found.push((place.organization.clone(), findings));
        }
        drop(lent);
        upstream::weigh(&mut found);
        let of_places = found.split_off(named);
        for (_, findings) in found {
            report.add_all(findings)?;
        }
        let mut ours = sasl::Ours {
            listen,
            answer,
            clear: true,
        };
        for (place, (_, found)) in places.iter().zip(of_places) {
            let answers = found.iter().any(upstream::says_that_it_answers);
            report.add_all(found)?;
            let (upstream, settings) = (place.upstream(), &place.settings);
            let identity = upstream.identity;
            if identity == IdentityBy::Xclient {
                ours.clear = upstream.tls == UpstreamTls::None;
                report.add_all(sasl::judge(&ours, settings))?;
                if !answers {
                    report.add_all(restrictions::judge(settings))?;
                }
            } else if settings.service().is_none() {
                // Another MTA, perhaps, or one elsewhere: these are questions to Postfix.
                continue;
            }
            // By a PROXY header it knows the clients apart.
            if identity != IdentityBy::Proxy {
                report.add(limits::judge(identity, settings))?;
            }
            report.add(newlines::judge(settings))?;
        }
        Ok(())
    }
}

/// The temporary credential, once it is needed.
enum Attempt<'a> {
    Failed,
    Made(Box<Trial<'a>>),
    None,
}

fn delete_trial(trial: Trial) -> Finding {
    let username = trial.username().to_owned();
    match trial.delete() {
        Ok(()) => Finding::ok(
            "credential",
            format!("the temporary one, {username}, is deleted"),
        ),
        Err(error) => Finding::problem(
            "credential",
            format!(
                "the temporary one, {username}, could not be deleted: {error}; it is refused in ten minutes"
            ),
            format!("gatepost credential delete {username}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_can_be_asked_for() {
        let shown = |text| server_name(text).map(|name| name.to_str().into_owned());
        assert_eq!(shown("mail.test").as_deref(), Some("mail.test"));
        assert_eq!(shown("[192.0.2.1]").as_deref(), Some("192.0.2.1"));
        assert_eq!(shown("[IPv6:2001:db8::1]").as_deref(), Some("2001:db8::1"));
        assert_eq!(shown("a b"), None);
    }

    #[test]
    fn an_address_stays_inside_its_brackets() {
        assert!(mailbox("").is_ok() && mailbox("a@b.test").is_ok());
        for bad in ["a> SIZE=1", "a\r\nDATA", "<a>"] {
            assert!(mailbox(bad).is_err(), "{bad:?}");
        }
    }
}
