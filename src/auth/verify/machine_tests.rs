//! Walks the machine along every path from a request to a verdict.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::auth::cache::Digester;
use crate::auth::guard::{Guard, Settings};
use crate::metrics::Metrics;
use crate::sasl::Secret;
use crate::store::{CredentialStatus, OrganizationStatus, Previous};

use super::*;

const GENERATED: &str = "smtp_0123456789abcdef";
const CHOSEN: &str = "printer";
const KEY: i64 = 7;
const EPOCH: u64 = 5;
const RIGHT: u32 = 1;
const WRONG: u32 = 2;
const BEFORE: u32 = 3;
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));

/// The guard's memory before the login.
enum Memory {
    Banned,
    /// Too many wrong guesses at the credential.
    Closed,
    Empty,
    /// The client's network is banned; the client logged in with another credential before.
    NetworkBanned,
    Trusted,
    WrongBefore,
}

struct Case {
    path: &'static str,
    username: &'static str,
    password: &'static str,
    tag: u32,
    has_authzid: bool,
    may_await_poll: bool,
    memory: Memory,
    /// Each step, and the answer to it.
    script: Vec<(&'static str, Input)>,
    verdict: Verdict,
}

fn digest(username: &str, password: &str) -> Digest {
    thread_local!(static DIGESTER: Digester = Digester::new());
    DIGESTER.with(|digester| digester.digest(username, &Secret::new(password)))
}

fn now() -> Moment {
    Moment {
        steady_us: 1_000_000_000,
        wall: 1_000_000,
    }
}

fn row(username: &str) -> Login {
    Login {
        key: KEY,
        version: 1,
        username: username.to_owned(),
        organization: "default".to_owned(),
        password_hash: "hash".to_owned(),
        tag: issue::is_generated(username).then_some(RIGHT),
        previous: None,
        retired: Box::default(),
        status: CredentialStatus::Active,
        organization_status: OrganizationStatus::Active,
        expires_at: None,
        policy: Arc::default(),
    }
}

fn changed(change: impl FnOnce(&mut Login)) -> Input {
    let mut login = row(GENERATED);
    change(&mut login);
    Input::Row(Some(Arc::new(login)))
}

fn entry_of(login: &Login, epoch: u64) -> Arc<CacheEntry> {
    let digest = digest(&login.username, "right");
    Arc::new(CacheEntry::new(digest, login, PasswordSlot::Current, epoch))
}

fn cached(username: &str) -> Input {
    cached_entry(entry_of(&row(username), EPOCH))
}

fn cached_entry(entry: Arc<CacheEntry>) -> Input {
    Input::Cached(EPOCH, CachedSecrets::new([Some(entry), None]))
}

fn nothing_cached() -> Input {
    Input::Cached(EPOCH, CachedSecrets::default())
}

fn found(username: &str) -> Input {
    Input::Row(Some(Arc::new(row(username))))
}

fn matched(username: &str) -> Input {
    let entry = entry_of(&row(username), EPOCH);
    Input::Compared(CompareOutcome::Match(PasswordSlot::Current, entry))
}

fn permit() -> Input {
    Input::Permit(Some(HashPermit::without_hash()))
}

fn counted() -> Input {
    Input::Counted(Outcome::default())
}

fn banned() -> Input {
    Input::Counted(Outcome {
        slowness: 4,
        barred: true,
    })
}

fn accept(username: &str) -> Verdict {
    Verdict::Accept(identity_of(&row(username)))
}

/// A case with the steps and answers that follow a rejection for `reason`.
fn rejected(
    path: &'static str,
    mut script: Vec<(&'static str, Input)>,
    count: &'static str,
    reason: Reason,
) -> Case {
    script.extend([(count, counted()), ("delay 1", Input::Delayed)]);
    case(path, script, Verdict::Reject(reason))
}

/// A right password for a generated username, from a client that the guard does not know.
fn case(path: &'static str, script: Vec<(&'static str, Input)>, verdict: Verdict) -> Case {
    Case {
        path,
        username: GENERATED,
        password: "right",
        tag: RIGHT,
        has_authzid: false,
        may_await_poll: false,
        memory: Memory::Empty,
        script,
        verdict,
    }
}

impl Case {
    fn wrong(self) -> Self {
        Self {
            password: "wrong",
            tag: WRONG,
            ..self
        }
    }

    fn chosen(self) -> Self {
        Self {
            username: CHOSEN,
            ..self
        }
    }

    fn polled(self) -> Self {
        Self {
            may_await_poll: true,
            ..self
        }
    }

    fn with(self, memory: Memory) -> Self {
        Self { memory, ..self }
    }
}

fn cached_paths() -> Vec<Case> {
    vec![
        Case {
            has_authzid: true,
            ..rejected(
                "an authorization identity",
                vec![("measure early", Input::Measured)],
                "count acts_for_another",
                Reason::ActsForAnother,
            )
        },
        case(
            "a cached right password",
            vec![
                ("recall", cached(GENERATED)),
                ("measure cache", Input::Measured),
                ("enter", Input::Entered),
            ],
            accept(GENERATED),
        ),
        rejected(
            "a cached wrong password",
            vec![
                ("recall", cached(GENERATED)),
                ("measure cache", Input::Measured),
            ],
            "count wrong_password",
            Reason::WrongPassword,
        )
        .wrong(),
        rejected(
            "a cached wrong password that is still wrong after the poll",
            vec![
                ("recall", cached(GENERATED)),
                ("await poll", Input::Polled(Some(EPOCH))),
                ("recall", cached(GENERATED)),
                ("measure cache", Input::Measured),
            ],
            "count wrong_password",
            Reason::WrongPassword,
        )
        .wrong()
        .polled(),
        case(
            "a stale entry that the row confirms",
            {
                let entry = entry_of(&row(GENERATED), EPOCH - 1);
                vec![
                    ("recall", cached_entry(entry.clone())),
                    ("lookup", found(GENERATED)),
                    ("recall", cached_entry(entry)),
                    ("measure cache", Input::Measured),
                    ("enter", Input::Entered),
                ]
            },
            accept(GENERATED),
        ),
        rejected(
            "a cached chosen password that is closed to unknown clients",
            vec![
                ("recall", cached(CHOSEN)),
                ("measure cache", Input::Measured),
                ("acquire permit", permit()),
                ("simulate hash", Input::Simulated(true)),
            ],
            "count wrong_password",
            Reason::WrongPassword,
        )
        .chosen()
        .with(Memory::Closed),
        case(
            "a cached right password at a banned client",
            vec![
                ("recall", cached(GENERATED)),
                ("measure cache", Input::Measured),
                ("enter", Input::Entered),
            ],
            accept(GENERATED),
        )
        .with(Memory::Banned),
        case(
            "a cached wrong password at a banned client",
            vec![
                ("recall", cached(GENERATED)),
                ("measure cache", Input::Measured),
                ("count guard", counted()),
                ("delay 0", Input::Delayed),
            ],
            Verdict::Throttled(Throttled::Guard),
        )
        .wrong()
        .with(Memory::Banned),
    ]
}

fn row_paths() -> Vec<Case> {
    let read = |row: Input| {
        vec![
            ("recall", nothing_cached()),
            ("lookup", row),
            ("measure early", Input::Measured),
        ]
    };
    let remembered = |polled: Option<u64>, then: &'static str, next: Input| {
        vec![
            ("recall", nothing_cached()),
            ("lookup", Input::RememberedRow(None)),
            ("await poll", Input::Polled(polled)),
            (then, next),
        ]
    };
    let barred = || {
        vec![
            ("recall", nothing_cached()),
            ("lookup", found(GENERATED)),
            ("measure early", Input::Measured),
            ("count guard", counted()),
            ("delay 0", Input::Delayed),
        ]
    };
    let mut banned_for_all = barred();
    banned_for_all.remove(1);
    let mut moved = remembered(Some(EPOCH + 1), "lookup again", found(GENERATED));
    moved.push(("measure early", Input::Measured));
    let mut unanswered = remembered(None, "lookup again", Input::Row(None));
    unanswered.push(("measure early", Input::Measured));
    let previous = |login: &mut Login| {
        login.retired = Box::new([Retired { tag: BEFORE, at: 9 }]);
    };
    vec![
        case(
            "a banned client",
            banned_for_all,
            Verdict::Throttled(Throttled::Guard),
        )
        .with(Memory::Banned),
        case(
            "a banned network and another client's credential",
            barred(),
            Verdict::Throttled(Throttled::Guard),
        )
        .with(Memory::NetworkBanned),
        rejected(
            "an unknown username",
            read(Input::Row(None)),
            "count unknown",
            Reason::Unknown,
        ),
        rejected(
            "a remembered missing row",
            remembered(Some(EPOCH), "measure early", Input::Measured),
            "count unknown",
            Reason::Unknown,
        ),
        rejected(
            "a remembered row that was changed since",
            moved,
            "count wrong_password",
            Reason::WrongPassword,
        )
        .wrong(),
        rejected(
            "a remembered row and a store that does not answer the poll",
            unanswered,
            "count unknown",
            Reason::Unknown,
        ),
        rejected(
            "a revoked credential",
            read(changed(|login| login.status = CredentialStatus::Revoked)),
            "count revoked",
            Reason::Revoked,
        ),
        rejected(
            "a suspended organization",
            read(changed(|login| {
                login.organization_status = OrganizationStatus::Suspended;
            })),
            "count suspended",
            Reason::Suspended,
        ),
        rejected(
            "an expired credential",
            read(changed(|login| login.expires_at = Some(1_000_000))),
            "count expired",
            Reason::Expired,
        ),
        rejected(
            "a generated password with another tag",
            read(found(GENERATED)),
            "count wrong_password",
            Reason::WrongPassword,
        )
        .wrong(),
        Case {
            tag: BEFORE,
            ..rejected(
                "a password from before a rotation",
                read(changed(previous)),
                "count previous_password",
                Reason::PreviousPassword,
            )
        },
        case(
            "a store that cannot be read",
            vec![
                ("recall", nothing_cached()),
                ("lookup", Input::Failed(Outage::Store)),
                ("measure", Input::Measured),
                ("count store", counted()),
                ("delay 1", Input::Delayed),
            ],
            Verdict::Unavailable(Outage::Store),
        ),
        case(
            "a guess that bans the client",
            [
                read(Input::Row(None)),
                vec![("count unknown", banned()), ("delay 4", Input::Delayed)],
            ]
            .into_iter()
            .flatten()
            .collect(),
            Verdict::Throttled(Throttled::Guard),
        ),
    ]
}

fn compare_paths() -> Vec<Case> {
    let compared = |username: &'static str, outcome: Input, measure: &'static str| {
        vec![
            ("recall", nothing_cached()),
            ("lookup", found(username)),
            ("compare", outcome),
            (measure, Input::Measured),
        ]
    };
    let entered = |answer: Input| {
        vec![
            ("recall", nothing_cached()),
            ("lookup", found(GENERATED)),
            ("compare", matched(GENERATED)),
            ("recall", nothing_cached()),
            ("measure argon2", Input::Measured),
            ("enter", answer),
        ]
    };
    fn and<const N: usize>(
        mut script: Vec<(&'static str, Input)>,
        more: [(&'static str, Input); N],
    ) -> Vec<(&'static str, Input)> {
        script.extend(more);
        script
    }
    let fenced = |login: &mut Login| {
        let networks = Some(vec!["192.0.2.0/24".parse().unwrap()]);
        Arc::make_mut(&mut login.policy).rules.networks = networks;
    };
    let mut fenced_row = row(GENERATED);
    fenced(&mut fenced_row);
    let overlapping = |login: &mut Login| {
        login.previous = Some(Previous {
            password_hash: "old".to_owned(),
            tag: Some(BEFORE),
            until: 2_000_000,
        });
    };
    vec![
        case(
            "a right password",
            entered(Input::Entered),
            accept(GENERATED),
        ),
        case(
            "a right password and too many sessions",
            and(
                entered(Input::Throttled(Throttled::Sessions)),
                [("count sessions", counted()), ("delay 0", Input::Delayed)],
            ),
            Verdict::Throttled(Throttled::Sessions),
        ),
        case(
            "a right password and unknown limits",
            and(
                entered(Input::Failed(Outage::Store)),
                [("count store", counted()), ("delay 1", Input::Delayed)],
            ),
            Verdict::Unavailable(Outage::Store),
        ),
        rejected(
            "a right password from a network that the rules exclude",
            vec![
                ("recall", cached_entry(entry_of(&fenced_row, EPOCH))),
                ("measure cache", Input::Measured),
            ],
            "count network",
            Reason::Network,
        ),
        Case {
            tag: BEFORE,
            ..rejected(
                "a previous password that does not match its hash",
                vec![
                    ("recall", nothing_cached()),
                    ("lookup", changed(overlapping)),
                    ("compare", Input::Compared(CompareOutcome::Mismatch)),
                    ("measure argon2", Input::Measured),
                ],
                "count wrong_password",
                Reason::WrongPassword,
            )
        },
        rejected(
            "a wrong chosen password from a known client",
            compared(
                CHOSEN,
                Input::Compared(CompareOutcome::Mismatch),
                "measure argon2",
            ),
            "count wrong_password",
            Reason::WrongPassword,
        )
        .wrong()
        .chosen()
        .with(Memory::Trusted),
        case(
            "another password in flight",
            vec![
                ("recall", nothing_cached()),
                ("lookup", found(GENERATED)),
                ("compare", Input::Compared(CompareOutcome::OtherInFlight)),
                ("recall", cached(GENERATED)),
                ("measure cache", Input::Measured),
                ("enter", Input::Entered),
            ],
            accept(GENERATED),
        ),
        rejected(
            "an unusable hash that an unknown client must not notice",
            compared(
                GENERATED,
                Input::Compared(CompareOutcome::NoCandidate),
                "measure early",
            ),
            "count wrong_password",
            Reason::WrongPassword,
        ),
        case(
            "a hash that takes too long",
            and(
                and(
                    compared(
                        GENERATED,
                        Input::Compared(CompareOutcome::TooLate),
                        "measure",
                    ),
                    [("count busy", counted()), ("delay 1", Input::Delayed)],
                ),
                [("count timeout", counted())],
            ),
            Verdict::Unavailable(Outage::Busy),
        ),
        case(
            "an unusable hash",
            and(
                compared(GENERATED, Input::Failed(Outage::Hash), "measure"),
                [("count hash", counted()), ("delay 1", Input::Delayed)],
            ),
            Verdict::Unavailable(Outage::Hash),
        ),
    ]
}

fn permit_paths() -> Vec<Case> {
    let no_permit = |answer: Input| {
        vec![
            ("recall", nothing_cached()),
            ("lookup", found(CHOSEN)),
            ("acquire permit", Input::Permit(None)),
            ("measure early", Input::Measured),
            ("count busy", counted()),
            ("delay 1", Input::Delayed),
            ("count timeout", answer),
        ]
    };
    let with_permit = |outcome: Input| {
        vec![
            ("recall", nothing_cached()),
            ("lookup", found(CHOSEN)),
            ("acquire permit", permit()),
            ("recall", nothing_cached()),
            ("lookup", found(CHOSEN)),
            ("compare with permit", outcome),
        ]
    };
    let mut wrong = with_permit(Input::Compared(CompareOutcome::Mismatch));
    wrong.push(("measure argon2", Input::Measured));
    let mut right = with_permit(matched(CHOSEN));
    right.extend([
        ("recall", nothing_cached()),
        ("measure argon2", Input::Measured),
        ("enter", Input::Entered),
    ]);
    let refused = || {
        vec![
            ("recall", nothing_cached()),
            ("lookup", found(CHOSEN)),
            ("measure early", Input::Measured),
        ]
    };
    let unknown = |answers: Vec<(&'static str, Input)>| {
        let mut script = vec![
            ("recall", nothing_cached()),
            ("lookup", Input::Row(None)),
            ("measure early", Input::Measured),
        ];
        script.extend(answers);
        script
    };
    let timeout = || {
        [
            ("count busy", counted()),
            ("delay 1", Input::Delayed),
            ("count timeout", counted()),
        ]
    };
    let mut closed = refused();
    closed.extend([
        ("acquire permit", permit()),
        ("simulate hash", Input::Simulated(true)),
    ]);
    let mut no_dummy = unknown(vec![("acquire permit", Input::Permit(None))]);
    no_dummy.extend(timeout());
    let mut late_dummy = unknown(vec![
        ("acquire permit", permit()),
        ("simulate hash", Input::Simulated(false)),
    ]);
    late_dummy.extend(timeout());
    let paths = vec![
        case("a right chosen password", right, accept(CHOSEN)),
        rejected(
            "a wrong chosen password",
            wrong,
            "count wrong_password",
            Reason::WrongPassword,
        )
        .wrong(),
        case(
            "a chosen password and no permit",
            no_permit(counted()),
            Verdict::Unavailable(Outage::Busy),
        ),
        case(
            "a client that came for a permit once too often",
            no_permit(banned()),
            Verdict::Throttled(Throttled::Guard),
        ),
        rejected(
            "a chosen password that was wrong before",
            refused(),
            "count wrong_password",
            Reason::WrongPassword,
        )
        .wrong()
        .with(Memory::WrongBefore),
        rejected(
            "a chosen password that is closed to unknown clients",
            closed,
            "count wrong_password",
            Reason::WrongPassword,
        )
        .with(Memory::Closed),
        rejected(
            "an unknown username that people may have chosen",
            unknown(vec![
                ("acquire permit", permit()),
                ("simulate hash", Input::Simulated(true)),
            ]),
            "count unknown",
            Reason::Unknown,
        ),
        case(
            "such a username and no permit",
            no_dummy,
            Verdict::Unavailable(Outage::Busy),
        ),
        case(
            "such a username and a permit that runs out",
            late_dummy,
            Verdict::Unavailable(Outage::Busy),
        ),
    ];
    paths.into_iter().map(Case::chosen).collect()
}

fn guard(memory: &Memory, digest: Digest) -> Guard {
    let settings = Settings {
        enabled: true,
        ..Settings::off()
    };
    let guard = Guard::new(settings, Arc::new(Metrics::new().unwrap()));
    let target = Target {
        key: KEY,
        version: 1,
    };
    let ban = |host: u8| {
        for guess in 0..10 {
            let attempt = guard.attempt(Ipv4Addr::new(10, 0, 0, host).into());
            let mark = u32::from(host) * 10 + guess;
            guard.refused(&attempt, Reason::Unknown, None, mark);
        }
    };
    match memory {
        Memory::Banned => ban(1),
        Memory::Closed => (0..100).for_each(|_| guard.guessed(target)),
        Memory::Empty => {}
        Memory::NetworkBanned => {
            guard.accepted(&guard.attempt(CLIENT), KEY + 1);
            (2..=9).for_each(ban);
        }
        Memory::Trusted => guard.accepted(&guard.attempt(CLIENT), KEY),
        Memory::WrongBefore => guard.remember_wrong(Some(target), digest),
    }
    guard
}

fn begin<'a>(case: &Case, guard: &'a Guard) -> (Verification<'a>, Step) {
    let request = Request {
        username: case.username,
        has_authzid: case.has_authzid,
        digest: digest(case.username, case.password),
        tag: case.tag,
        address: CLIENT,
        may_await_poll: case.may_await_poll,
    };
    Verification::begin(request, guard.attempt(CLIENT))
}

fn step_name(step: &Step) -> String {
    match step {
        Step::AcquirePermit(_) => "acquire permit".to_owned(),
        Step::AwaitPoll => "await poll".to_owned(),
        Step::Compare(_, None) => "compare".to_owned(),
        Step::Compare(_, Some(_)) => "compare with permit".to_owned(),
        Step::Count(rejected) => format!("count {}", rejection_name(rejected)),
        Step::CountTimeout => "count timeout".to_owned(),
        Step::Delay(slowness) => format!("delay {slowness}"),
        Step::Done(verdict) => format!("{verdict:?}"),
        Step::Enter(_) => "enter".to_owned(),
        Step::Lookup {
            may_reuse: true, ..
        } => "lookup".to_owned(),
        Step::Lookup { .. } => "lookup again".to_owned(),
        Step::Measure(None) => "measure".to_owned(),
        Step::Measure(Some(Path::Argon2)) => "measure argon2".to_owned(),
        Step::Measure(Some(Path::Cache)) => "measure cache".to_owned(),
        Step::Measure(Some(Path::Early)) => "measure early".to_owned(),
        Step::Recall => "recall".to_owned(),
        Step::SimulateHash(_) => "simulate hash".to_owned(),
    }
}

fn rejection_name(rejected: &Rejected) -> &'static str {
    match rejected {
        Rejected::NoHashPermit => "busy",
        Rejected::Reason { reason, .. } => reason.as_str(),
        Rejected::Throttled(bar) => bar.as_str(),
        Rejected::Unavailable(outage) => outage.as_str(),
    }
}

fn state_name(state: &State) -> &'static str {
    match state {
        State::AwaitingPoll => "awaiting poll",
        State::Comparing(_) => "comparing",
        State::ConfirmingRow(..) => "confirming row",
        State::CountingRejection(_) => "counting rejection",
        State::CountingTimeout(_) => "counting timeout",
        State::Delaying(..) => "delaying",
        State::Done => "done",
        State::Entering(_) => "entering",
        State::EqualizingPermit(_) => "equalizing permit",
        State::LookingUp(_) => "looking up",
        State::Measuring(Ok(_)) => "measuring a match",
        State::Measuring(Err(_)) => "measuring a rejection",
        State::PermitWanted(_) => "permit wanted",
        State::Recalling => "recalling",
        State::Simulating(_) => "simulating",
    }
}

fn input_name(input: &Input) -> &'static str {
    match input {
        Input::Cached(..) => "cached",
        Input::Compared(CompareOutcome::Match(..)) => "match",
        Input::Compared(CompareOutcome::Mismatch) => "mismatch",
        Input::Compared(CompareOutcome::NoCandidate) => "no candidate",
        Input::Compared(CompareOutcome::OtherInFlight) => "other in flight",
        Input::Compared(CompareOutcome::TooLate) => "too late",
        Input::Counted(_) => "counted",
        Input::Delayed => "delayed",
        Input::Entered => "entered",
        Input::Failed(_) => "failed",
        Input::Measured => "measured",
        Input::Permit(Some(_)) => "permit",
        Input::Permit(None) => "no permit",
        Input::Polled(Some(EPOCH)) => "same epoch",
        Input::Polled(_) => "another epoch",
        Input::RememberedRow(_) => "remembered row",
        Input::Row(_) => "row",
        Input::Simulated(true) => "simulated",
        Input::Simulated(false) => "too late",
        Input::Throttled(_) => "throttled",
    }
}

/// Every transition of the machine.
const TRANSITIONS: [(&str, &str); 27] = [
    ("awaiting poll", "same epoch"),
    ("comparing", "failed"),
    ("comparing", "match"),
    ("comparing", "mismatch"),
    ("comparing", "no candidate"),
    ("comparing", "other in flight"),
    ("comparing", "too late"),
    ("confirming row", "another epoch"),
    ("confirming row", "same epoch"),
    ("counting rejection", "counted"),
    ("counting timeout", "counted"),
    ("delaying", "delayed"),
    ("entering", "entered"),
    ("entering", "failed"),
    ("entering", "throttled"),
    ("equalizing permit", "no permit"),
    ("equalizing permit", "permit"),
    ("looking up", "failed"),
    ("looking up", "remembered row"),
    ("looking up", "row"),
    ("measuring a match", "measured"),
    ("measuring a rejection", "measured"),
    ("permit wanted", "no permit"),
    ("permit wanted", "permit"),
    ("recalling", "cached"),
    ("simulating", "simulated"),
    ("simulating", "too late"),
];

#[test]
fn every_path_from_a_request_to_its_verdict() {
    let mut walked = BTreeSet::new();
    let cases = [cached_paths(), row_paths(), compare_paths(), permit_paths()];
    for case in cases.into_iter().flatten() {
        let guard = guard(&case.memory, digest(case.username, case.password));
        let (mut machine, mut step) = begin(&case, &guard);
        for (expected, input) in case.script {
            assert_eq!(step_name(&step), expected, "{}", case.path);
            walked.insert((state_name(&machine.state), input_name(&input)));
            step = machine.next(input, now());
        }
        let done = Step::Done(case.verdict);
        assert_eq!(step_name(&step), step_name(&done), "{}", case.path);
        assert_eq!(state_name(&machine.state), "done", "{}", case.path);
    }
    assert_eq!(walked, BTreeSet::from(TRANSITIONS));
}

/// Both waits for a permit can take so long that another attempt gets its answer in the meantime.
#[test]
fn a_password_found_wrong_during_the_wait_for_a_permit_is_not_hashed() {
    let wrong = || {
        case("", Vec::new(), Verdict::Reject(Reason::WrongPassword))
            .wrong()
            .chosen()
    };
    for (row, target) in [
        (
            Some(Arc::new(row(CHOSEN))),
            Some(Target {
                key: KEY,
                version: 1,
            }),
        ),
        (None, None),
    ] {
        let case = wrong();
        let guard = guard(&case.memory, digest(CHOSEN, "wrong"));
        let (mut machine, _) = begin(&case, &guard);
        let is_unknown = row.is_none();
        machine.next(nothing_cached(), now());
        let mut step = machine.next(Input::Row(row), now());
        if is_unknown {
            assert_eq!(step_name(&step), "measure early");
            step = machine.next(Input::Measured, now());
        }
        assert_eq!(step_name(&step), "acquire permit");
        guard.remember_wrong(target, digest(CHOSEN, "wrong"));
        let step = machine.next(permit(), now());
        let expected = ["measure early", "count unknown"];
        assert_eq!(step_name(&step), expected[usize::from(is_unknown)]);
    }
}

#[test]
fn an_unexpected_answer_ends_without_a_verdict() {
    let case = case("", Vec::new(), Verdict::Reject(Reason::Unknown));
    let guard = guard(&case.memory, digest(GENERATED, "right"));
    for input in [
        Input::Entered,
        Input::Simulated(true),
        matched(GENERATED),
        found(GENERATED),
    ] {
        let (mut machine, step) = begin(&case, &guard);
        assert_eq!(step_name(&step), "recall");
        let step = machine.next(input, now());
        let unavailable = Step::Done(Verdict::Unavailable(Outage::Busy));
        assert_eq!(step_name(&step), step_name(&unavailable));
        // And so does every answer after the end.
        let step = machine.next(Input::Entered, now());
        assert_eq!(step_name(&step), step_name(&unavailable));
    }
}
