//! `gatepost doctor`: goes through the running system as a mail program would, and says what it met,
//! what that means and what to write where.
//!
//! One file for each thing that is examined. What is met and what is made of it are apart, so that
//! the judging can be tried without a network.

mod account;
mod causes;
mod certificate;
mod conversation;
mod descriptors;
pub(super) mod finding;
mod limits;
mod listener;
mod login;
pub(super) mod master;
mod newlines;
pub(super) mod ports;
pub(super) mod program;
mod restrictions;
mod sasl;
mod service;
mod settings;
mod situation;
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
use crate::config::{
    Config, DovecotAuth, Endpoint, IdentityBy, Listener, ListenerKind, Target, UpstreamTls,
};
use crate::daemon;
use crate::store::{Actor, DEFAULT_ORGANIZATION, Store, StoreReport};

use super::check::{self, Lent};
use super::{CliError, actor, serve};

use causes::{RESTART, START};
use certificate::Expected;
use conversation::Fault;
use finding::{Finding, Level, Report};
use listener::{Met, Step};
use login::Envelope;
use service::Service;
use settings::{Answers, Settings};
use situation::Situation;
use trial::Trial;
use upstream::Place;

/// An address that is nobody's (RFC 2606): whether it may be written to decides the login alone.
const NOBODY: &str = "gatepost-doctor@gatepost.invalid";

/// What AUTH may take beside the hand-over: argon2 behind others', and the delay of a refusal.
const VERDICT: Duration = Duration::from_secs(20);

/// What `--help` ends with.
pub const AFTER_HELP: &str = "\
It makes a credential called \"gatepost doctor, temporary, safe to delete\", logs in with it at every listener, begins an envelope and takes it back, and deletes the credential. No message is sent.

Exits with 0 if no problem is found, warnings or not; with 1 if something was found that keeps mail from flowing; with 78 if the configuration cannot be read.";

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
    let service = Service::read(path);
    let config = match Config::load(path) {
        Ok(config) => completed(config, service.as_ref()),
        Err(error) => {
            report.add(unreadable(path, error.to_string()));
            return report
                .finish(service.as_ref())
                .map_err(|error| match error {
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
    report.add(Finding::ok("config", check::listeners(path, &config)));
    let situation = situation(&config, path, service);
    report.add_all(situation.judge());
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
        is_hands_off: situation.is_hands_off(),
        runs: situation.runs,
    };
    let runtime = serve::runtime()?;
    runtime.block_on(async {
        // Before there is a credential: a signal from here on drops the examination, which deletes it.
        let mut interrupted = Interrupts::listen()?;
        tokio::select! {
            done = doctor.examine(&mut report) => done,
            () = interrupted.any() => Err(CliError::Refused(
                "interrupted; the temporary credential is deleted".to_owned(),
            )),
        }
    })?;
    report.finish(situation.service.as_ref())
}

/// The configuration with the addresses that systemd hands in, where it has none of its own.
fn completed(mut config: Config, service: Option<&Service>) -> Config {
    let Some(service) = service else {
        return config;
    };
    if config.listeners.is_empty() {
        for kind in [ListenerKind::Submission, ListenerKind::Submissions] {
            let name = kind.to_string();
            let addresses = service
                .named(&name)
                .filter_map(|address| address.parse().ok());
            config.listeners.extend(addresses.map(|address| Listener {
                kind,
                address,
                proxy_from: Vec::new(),
            }));
        }
    }
    let socket = service
        .named("admin")
        .find(|address| address.starts_with('/'));
    if let Some(socket) = socket {
        let admin = config.admin.get_or_insert_default();
        admin.socket.get_or_insert_with(|| socket.into());
    }
    if config.dovecot_auth.is_none() {
        let listen = service.named("auth").next();
        config.dovecot_auth = listen.and_then(|listen| {
            Some(DovecotAuth {
                listen: match listen.parse() {
                    Ok(address) => Endpoint::Tcp(address),
                    Err(_) if listen.starts_with('/') => Endpoint::Unix(listen.into()),
                    Err(_) => return None,
                },
                group: None,
                trusted: false,
            })
        });
    }
    config
}

/// The part of the examination that needs no running Gatepost and makes no connection.
pub(super) fn circumstances(config: &Config, path: &Path) -> Vec<Finding> {
    let service = Service::read(path);
    let config = &completed(config.clone(), service.as_ref());
    let mut situation = situation(config, path, service);
    // `gatepost check` loads them itself.
    situation.unusable = None;
    let mut findings = situation.judge();
    findings.retain(|found| found.check != "daemon");
    let upstream = config.upstream.as_ref();
    let endpoints = upstream.iter().flat_map(|upstream| upstream.address.iter());
    let endpoints: Vec<_> = endpoints
        .filter_map(|target| match target {
            Target::Endpoint(endpoint) if !target.is_far() => Some(endpoint),
            _ => None,
        })
        .collect();
    if !endpoints.is_empty() || config.dovecot_auth.is_some() {
        let answers = Answers::read(None);
        if let Ok(answers) = &answers {
            findings.extend(master::examine(&answers.directory()));
        }
        let is_xclient = upstream.is_some_and(|one| one.identity == IdentityBy::Xclient);
        for endpoint in endpoints.into_iter().filter(|_| is_xclient) {
            let settings = Settings::of(endpoint, &answers, false);
            findings.extend(restrictions::judge(&settings));
            findings.extend(restrictions::judge_clients(
                Some(IdentityBy::Xclient),
                &settings,
            ));
        }
    }
    causes::sift(findings, situation.service.as_ref())
}

fn situation(config: &Config, path: &Path, service: Option<Service>) -> Situation {
    let holder = Store::served_by(&config.store.path);
    let runs = holder.is_some() || service.as_ref().is_some_and(Service::runs);
    let pid = holder.and_then(|holder| holder.pid);
    Situation::gather(config, path, service, pid, runs)
}

/// The finding about a configuration that cannot be read.
fn unreadable(path: &Path, error: String) -> Finding {
    let denied = std::fs::File::open(path).err();
    let is_denied =
        denied.is_some_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied);
    let next = match is_denied {
        true => "run it as root: sudo gatepost doctor".to_owned(),
        false => format!("correct it, then: gatepost check && {RESTART}"),
    };
    Finding::problem("config", error, next).explaining(START)
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
    /// Whether a connection would make things worse.
    is_hands_off: bool,
    /// Whether a Gatepost serves from the store.
    runs: bool,
}

/// A listener and what a mail program meets there.
type Encounter<'a> = (&'a Listener, Result<Met, (Step, Fault)>);

/// A certificate chain and the listeners that show it.
type Shown = (Vec<CertificateDer<'static>>, Vec<String>);

impl Doctor<'_> {
    async fn examine(&self, report: &mut Report) -> Result<(), CliError> {
        let store = match self.store() {
            Ok(store) => store,
            Err(finding) => {
                // Often the same cause in other words.
                if !report.has("store") {
                    report.add(*finding);
                }
                None
            }
        };
        for wrong in [
            check::organizations(self.config),
            check::usernames(self.config),
        ] {
            if let Some(Err(error)) = wrong {
                report.add(Finding::warning(
                    "config",
                    error.to_string(),
                    "gatepost check",
                ));
            }
        }
        let directory = self.options.postfix.as_deref();
        let answers = Answers::read(directory);
        if let Ok(answers) = &answers {
            report.add_all(master::examine(&answers.directory()));
        }
        let (config, runs) = (self.config.clone(), self.runs);
        let asking = (!self.is_hands_off)
            .then(|| tokio::task::spawn_blocking(move || descriptors::examine(&config, runs)));
        let met = self.meet(report).await;
        if let Some(asking) = asking {
            let mut found = asking.await.unwrap_or_default();
            // That it does not answer there either is no second cause.
            found.retain(|found| found.check != "admin" || !report.explains("daemon"));
            report.add_all(found);
        }
        let answer = self.ask_socket(report).await;
        let places = upstream::places(self.config, &answers, directory.is_some()).await;
        let (places, nowhere) =
            places.unwrap_or_else(|wrong| (Vec::new(), vec![(None, vec![*wrong])]));
        let goes_to = self.goes_to(&places);
        self.examine_upstreams(&places, nowhere, goes_to, answer, report)
            .await;
        let mut logins = Logins {
            doctor: self,
            store: store.as_ref(),
            trial: Attempt::None,
            tried: false,
        };
        let shown = logins.examine_listeners(met, goes_to, report).await?;
        if let (None, Some(socket)) = (&self.config.upstream, &self.config.dovecot_auth) {
            logins
                .examine_askers(&socket.listen, &answers, report)
                .await?;
        }
        if let Attempt::Made(trial) = logins.trial {
            report.add(delete_trial(*trial));
        }
        self.examine_certificates(shown, report);
        Ok(())
    }

    /// Connects to every listener at the same time, up to where a mail program would log in.
    async fn meet(&self, report: &mut Report) -> Vec<Encounter<'_>> {
        if self.is_hands_off {
            return Vec::new();
        }
        let meeting: Vec<_> = self
            .config
            .listeners
            .iter()
            .map(|listener| {
                let (name, own) = (self.expected.name.clone(), self.config.hostname.to_string());
                let there = listener.clone();
                tokio::spawn(async move { listener::meet(&there, &name, &own).await })
            })
            .collect();
        let mut met = Vec::new();
        for (listener, meeting) in self.config.listeners.iter().zip(meeting) {
            let met_there = meeting.await;
            met.push((
                listener,
                met_there.unwrap_or(Err((Step::Connect, Fault::Closed))),
            ));
        }
        let absent = |(_, met): &Encounter| matches!(met, Err((step, fault)) if listener::is_absent(*step, fault));
        let is_silent = !met.is_empty() && met.iter().all(absent);
        if is_silent || met.is_empty() && !self.runs {
            let how = met
                .iter()
                .find_map(|(_, met)| Some(met.as_ref().err()?.1.to_string()));
            let how = how.map_or(String::new(), |how| format!(", no listener answers: {how}"));
            let found = match self.runs {
                true => format!("Gatepost runs and does not answer{how}"),
                false => format!("Gatepost does not run{how}"),
            };
            let next = match self.runs {
                true => format!("journalctl -u gatepost -n 50 may say why; {RESTART}"),
                false => {
                    "systemctl start gatepost (journalctl -u gatepost -n 50 says why it ended)"
                        .to_owned()
                }
            };
            report.add(Finding::problem("daemon", found, next).explaining(START));
            return Vec::new();
        }
        met
    }

    /// Whether Gatepost answers at its auth socket; `None` where that was not tried.
    async fn ask_socket(&self, report: &mut Report) -> Option<Result<(), String>> {
        let socket = self.config.dovecot_auth.as_ref()?;
        if self.is_hands_off {
            return None;
        }
        if let Some(concern) = daemon::auth_socket_concern(socket).filter(|_| self.runs) {
            let (found, next) = concern.rsplit_once("; ").unwrap_or((&concern, ""));
            report.add(Finding::warning("auth-socket", found, next));
        }
        if self.runs && report.explains("auth-socket") {
            return Some(Err("Gatepost does not answer".to_owned()));
        }
        let answer = sasl::ask(&socket.listen).await;
        report.add_all(sasl::judge_answer(&socket.listen, &answer));
        Some(answer)
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

    /// The store, if there is one: the doctor makes none, and the first start makes it.
    fn store(&self) -> Result<Option<Store>, Box<Finding>> {
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
        let found = Store::check(path);
        if let Ok(StoreReport::Missing) = found {
            return match self.runs {
                true => Err(problem(
                    format!("{} does not exist", path.display()),
                    RESTART,
                )),
                false => Ok(None),
            };
        }
        let opened = found.and_then(|_| Store::open(path));
        let opened = opened.map(Some);
        opened.map_err(|error| problem(error.to_string(), "gatepost check; gatepost store check"))
    }

    fn examine_certificates(&self, shown: Vec<Shown>, report: &mut Report) {
        let now = crate::clock::now();
        let Some(tls) = &self.config.tls else {
            return;
        };
        let path = &tls.certificate;
        let in_file = certificate::in_file(path);
        let others = tls.others.iter();
        let others = others.map(|other| certificate::in_file(&other.certificate));
        let known: Vec<_> = others.chain([in_file.clone()]).collect();
        if shown.is_empty() {
            let place = path.display().to_string();
            report.add_all(certificate::judge(&in_file, &place, &self.expected, now));
            return;
        }
        // What a running Gatepost does not take, and a start would end with.
        for pair in daemon::pairs(tls) {
            report.add_all(certificate::unusable(&pair, now));
        }
        for (chain, places) in shown {
            let places = places.join(", ");
            report.add_all(certificate::judge(&chain, &places, &self.expected, now));
            let is_known = known.iter().any(|own| chain.first() == own.first());
            if !in_file.is_empty() && !is_known {
                report.add(certificate::differs(&places, path));
            }
        }
    }

    /// `answer`: that of the auth socket, if it was asked.
    async fn examine_upstreams(
        &self,
        places: &[Place],
        mut found: Vec<upstream::Found>,
        goes_to: Option<&Place>,
        answer: Option<Result<(), String>>,
        report: &mut Report,
    ) {
        // Without its auth socket smtpd would end at the first greeting asked of it, and be held back
        // for a minute just when Gatepost is started.
        let socket = self.config.dovecot_auth.as_ref();
        let lent = match (socket, &answer) {
            (Some(socket), Some(Err(_))) if !self.runs => Lent::open(socket),
            _ => None,
        };
        let is_mute = answer.is_some_and(|answer| answer.is_err()) && lent.is_none();
        let named = found.len();
        for place in places {
            let findings = self.examine_place(place, is_mute, report).await;
            found.push((place.organization.clone(), findings));
        }
        drop(lent);
        upstream::weigh(&mut found);
        let of_places = found.split_off(named);
        for (organization, findings) in found {
            report.add_all(match organization {
                None => findings,
                Some(_) => unrelated(findings),
            });
        }
        for (place, (_, findings)) in places.iter().zip(of_places) {
            let is_tried = goes_to.is_some_and(|tried| std::ptr::eq(tried, place));
            report.add_all(match is_tried {
                true => findings,
                false => unrelated(findings),
            });
        }
    }

    async fn examine_place(&self, place: &Place, is_mute: bool, report: &Report) -> Vec<Finding> {
        let (upstream, settings) = (place.upstream(), &place.settings);
        let identity = upstream.identity;
        let mut findings = Vec::new();
        if identity == IdentityBy::Xclient && settings.service().is_none() {
            let what = "whether SASL, limits and line ends are right in Postfix";
            findings.push(settings.untold("settings", what));
        } else if identity == IdentityBy::Xclient {
            let listen = self
                .config
                .dovecot_auth
                .as_ref()
                .map(|socket| &socket.listen);
            let clear = upstream.tls == UpstreamTls::None;
            let ours = sasl::Ours::look(listen, clear, settings).await;
            findings.extend(sasl::judge(&ours, settings));
            findings.extend(restrictions::judge(settings));
            findings.extend(restrictions::judge_clients(Some(identity), settings));
        }
        let is_silenced = findings
            .iter()
            .any(|found| found.level == Level::Problem && found.explains.contains(&"upstream"));
        // One more connection would have Postfix hold the service back for another minute.
        if !self.is_hands_off && !is_silenced && !is_mute {
            let wait = |reason: &str| report.wait(reason);
            findings.extend(upstream::examine(place, self.config, wait).await);
        } else if let Some(service) = settings.service() {
            let is_down = master::runs(&service.queue_directory()) == Some(false);
            findings.extend(is_down.then(master::down));
        }
        if settings.service().is_none() {
            // Another MTA, perhaps, or one elsewhere: these are questions to Postfix.
            return findings;
        }
        // By a PROXY header it knows the clients apart.
        if identity != IdentityBy::Proxy {
            findings.push(limits::judge(identity, settings));
        }
        findings.push(newlines::judge(settings));
        findings
    }
}

/// The findings about an upstream that the temporary credential does not use: they explain nothing of
/// its login.
fn unrelated(findings: Vec<Finding>) -> Vec<Finding> {
    let findings = causes::sift(findings, Some(&Service::default())).into_iter();
    findings.map(|found| found.explaining(&[])).collect()
}

/// The logins with the temporary credential.
struct Logins<'a> {
    doctor: &'a Doctor<'a>,
    store: Option<&'a Store>,
    trial: Attempt<'a>,
    /// Whether an envelope was tried.
    tried: bool,
}

impl Logins<'_> {
    async fn examine_listeners(
        &mut self,
        met: Vec<Encounter<'_>>,
        goes_to: Option<&Place>,
        report: &mut Report,
    ) -> Result<Vec<Shown>, CliError> {
        let mut shown: Vec<Shown> = Vec::new();
        for (listener, met) in met {
            let judged = listener::judge(listener, &met);
            let is_sound = judged.level == Level::Ok;
            report.add(judged);
            // A server that is not Gatepost gets no password.
            let Some(met) = met.ok().filter(|_| is_sound) else {
                continue;
            };
            let place = listener::place(listener);
            match shown.iter_mut().find(|(chain, _)| *chain == met.chain) {
                Some((_, places)) => places.push(place.clone()),
                None => shown.push((met.chain.clone(), vec![place.clone()])),
            }
            let upstream = goes_to.map(Place::upstream);
            let upstream = upstream.or(self.doctor.config.upstream.as_ref());
            let handed_over = upstream.map(|one| one.connect_timeout + one.handoff_timeout);
            let attempt = Login {
                place,
                patience: VERDICT + handed_over.unwrap_or_default(),
                told_by: upstream.map(|one| one.identity).unwrap_or_default(),
                settings: goes_to.map(|place| &place.settings),
            };
            self.log_in(met, attempt, report).await?;
        }
        Ok(shown)
    }

    /// The other way: logs in at the services of Postfix that ask Gatepost for verdicts.
    async fn examine_askers(
        &mut self,
        listen: &Endpoint,
        answers: &Result<Answers, String>,
        report: &mut Report,
    ) -> Result<(), CliError> {
        let all = match answers {
            Ok(answers) => Settings::smtpds(answers),
            Err(reason) => {
                let unknown = Settings::Unknown(reason.clone());
                report.add(unknown.untold("sasl", "whether Postfix asks Gatepost for logins"));
                return Ok(());
            }
        };
        let services = all.iter().filter_map(Settings::service);
        let askers: Vec<_> = services.filter(|service| sasl::asks(service)).collect();
        if let Some(finding) = sasl::judge_askers(&askers, listen) {
            report.add(finding);
            return Ok(());
        }
        let queue = answers.as_ref().map(Answers::queue_directory);
        if queue.is_ok_and(|queue| master::runs(&queue) == Some(false)) {
            report.add(master::down());
            return Ok(());
        }
        for settings in &all {
            let Some(service) = settings.service().filter(|service| sasl::asks(service)) else {
                continue;
            };
            let ours = sasl::Ours::look(Some(listen), false, settings).await;
            let mut findings = sasl::judge(&ours, settings);
            findings.extend(restrictions::judge(settings));
            findings.extend(restrictions::judge_clients(None, settings));
            let is_refused = findings.iter().any(|found| found.level == Level::Problem);
            report.add_all(findings);
            let is_own = sasl::asked(service).as_ref() == Some(listen);
            let (Some(Endpoint::Tcp(address)), Some(kind)) = (service.endpoint(), service.tls())
            else {
                continue;
            };
            if is_refused || !is_own || self.doctor.is_hands_off || report.explains("login") {
                continue;
            }
            let listener = Listener {
                kind,
                address,
                proxy_from: Vec::new(),
            };
            let (name, own) = (
                &self.doctor.expected.name,
                self.doctor.config.hostname.as_str(),
            );
            let place = format!("Postfix's {} ({address})", service.name);
            match listener::meet(&listener, name, own).await {
                Err((step, fault)) => report.add(listener::judge_fault(
                    &place,
                    step,
                    &fault,
                    "Postfix's log says why",
                )),
                Ok(met) => {
                    let attempt = Login {
                        place,
                        patience: VERDICT,
                        told_by: IdentityBy::Login,
                        settings: Some(settings),
                    };
                    self.log_in(met, attempt, report).await?;
                }
            }
        }
        Ok(())
    }

    /// Logs in, unless it is known why that fails, and tries an envelope once.
    async fn log_in(
        &mut self,
        met: Met,
        login: Login<'_>,
        report: &mut Report,
    ) -> Result<(), CliError> {
        let pipelines = met.pipelines();
        let mut conversation = met.conversation;
        if !report.explains("login") && self.make_trial(report) {
            let Attempt::Made(trial) = &self.trial else {
                return Ok(());
            };
            conversation.patience += login.patience;
            let said = conversation
                .log_in(trial.username(), trial.password())
                .await;
            report.add(login::judge(&login.place, &said));
            let let_in = said.is_ok_and(|said| said.code == 235);
            if let_in && !self.tried {
                self.tried = true;
                let options = self.doctor.options;
                let envelope = Envelope {
                    from: &options.from,
                    to: &options.to,
                    told_by: login.told_by,
                };
                let unknown = Settings::Unknown("there is no upstream".to_owned());
                let settings = login.settings.unwrap_or(&unknown);
                let replies = login::try_envelope(&mut conversation, &envelope, pipelines).await;
                report.add_all(login::judge_envelope(&replies, &envelope, settings));
            }
        }
        // The answer matters to nothing.
        let _ = conversation.ask("QUIT").await;
        Ok(())
    }

    /// Makes the temporary credential unless it is made. Returns whether there is one.
    fn make_trial(&mut self, report: &mut Report) -> bool {
        let (Some(store), Attempt::None) = (self.store, &self.trial) else {
            return matches!(self.trial, Attempt::Made(_));
        };
        let Doctor {
            options,
            actor,
            cost,
            ..
        } = self.doctor;
        match Trial::make(store, actor, &options.org, *cost) {
            Ok(trial) => {
                self.trial = Attempt::Made(Box::new(trial));
                true
            }
            Err(error) => {
                let found =
                    format!("no temporary one could be made, so no login was tried: {error}");
                let next = "gatepost store check; sudo, if you are not root; another organization: --org SLUG";
                report.add(Finding::problem("credential", found, next));
                self.trial = Attempt::Failed;
                false
            }
        }
    }
}

/// A login that is tried.
struct Login<'a> {
    /// Its listener, for people.
    place: String,
    /// The time beyond that of one reply.
    patience: Duration,
    told_by: IdentityBy,
    settings: Option<&'a Settings>,
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
    fn addresses_that_systemd_hands_in_complete_the_configuration() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        let text = "hostname = 'mail.test'\n[dovecot_auth]\nlisten = 'unix:/run/own'\n[admin]\n";
        std::fs::write(&path, text).unwrap();
        let config = Config::load(&path).unwrap();
        let socket = |descriptors: &str, listen: &str| service::Socket {
            descriptors: descriptors.to_owned(),
            active: "active".to_owned(),
            listens: vec![listen.to_owned()],
            ..service::Socket::default()
        };
        let sockets = vec![
            socket("submission", "0.0.0.0:587"),
            socket("submissions", "[::]:465"),
            socket("admin", "/run/admin"),
            socket("auth", "/run/auth"),
        ];
        let service = Service {
            sockets,
            ..Service::default()
        };
        let none = completed(config.clone(), None);
        assert_eq!(none, config);
        let mut completed = completed(config, Some(&service));
        let places: Vec<_> = completed.listeners.iter().map(listener::place).collect();
        assert_eq!(places, ["submission 0.0.0.0:587", "submissions [::]:465"]);
        assert_eq!(completed.admin.unwrap().socket, Some("/run/admin".into()));
        let own = completed.dovecot_auth.take().unwrap();
        assert_eq!(own.listen.to_string(), "unix:/run/own");
    }

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
