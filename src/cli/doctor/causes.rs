//! Causes first, and one finding for one cause: the order of the findings, those that only follow
//! from another one, and next steps for the machine at hand.

use super::finding::{Finding, Level};
use super::service::Service;

/// The step that starts Gatepost anew, under systemd.
pub const RESTART: &str = "systemctl restart gatepost.socket gatepost";

/// What follows where Gatepost does not start.
pub const START: &[&str] = &[
    "daemon",
    "sockets",
    "listener",
    "credential",
    "login",
    "identity",
    "pipelining",
    "auth-socket",
];

/// What follows where Postfix's service for Gatepost does not answer.
pub const SERVICE: &[&str] = &[
    "settings",
    "upstream",
    "xclient",
    "ipv6",
    "login",
    "identity",
    "pipelining",
];

/// What follows where the upstream takes no session over.
pub const HANDOVER: &[&str] = &["ipv6", "login", "identity", "pipelining"];

/// The order of findings of one level: a cause stands before what it may cause.
const ORDER: [&str; 23] = [
    "config",
    "certificate",
    "store",
    "ports",
    "sockets",
    "network",
    "daemon",
    "auth-socket",
    "postfix",
    "sasl",
    "restrictions",
    "limits",
    "upstream",
    "settings",
    "xclient",
    "listener",
    "credential",
    "login",
    "identity",
    "ipv6",
    "pipelining",
    "admin",
    "metrics",
];

/// Next steps are written for systemd. These are the same without it.
const WITHOUT_SYSTEMD: [(&str, &str); 9] = [
    ("systemctl daemon-reload && ", ""),
    ("systemctl status gatepost.socket gatepost; ", ""),
    (RESTART, "restart Gatepost"),
    ("systemctl restart gatepost", "restart Gatepost"),
    ("systemctl reload gatepost", "send SIGHUP to Gatepost"),
    ("systemctl start gatepost", "gatepost serve"),
    ("systemctl start postfix", "postfix start"),
    ("journalctl -u gatepost -n 50", "Gatepost's log"),
    ("journalctl -u gatepost -n 20", "Gatepost's log"),
];

/// The findings as they are told.
pub fn sift(findings: Vec<Finding>, service: Option<&Service>) -> Vec<Finding> {
    let causes: Vec<_> = findings
        .iter()
        .filter(|found| found.level == Level::Problem)
        .map(|found| (found.check, found.explains))
        .collect();
    let is_explained = |found: &Finding| {
        let by = |(check, explains): &(&str, &[&str])| {
            *check != found.check
                && explains.contains(&found.check)
                && rank(check) < rank(found.check)
        };
        found.level > Level::Ok && causes.iter().any(by)
    };
    let mut told: Vec<_> = findings
        .iter()
        .filter(|found| !is_explained(found))
        .cloned()
        .collect();
    for finding in &mut told {
        finding.next = finding.next.take().map(|next| step(next, service));
    }
    told.sort_by_key(|found| (std::cmp::Reverse(found.level), rank(found.check)));
    told
}

fn rank(check: &str) -> usize {
    ORDER
        .iter()
        .position(|own| *own == check)
        .unwrap_or(ORDER.len())
}

fn step(next: String, service: Option<&Service>) -> String {
    match service {
        None => WITHOUT_SYSTEMD
            .iter()
            .fold(next, |next, (with, without)| next.replace(with, without)),
        Some(service) if service.is_given_up() => {
            let units: Vec<_> = service
                .sockets
                .iter()
                .map(|socket| socket.name.as_str())
                .collect();
            let units = units.join(" ");
            let reset = format!(
                "systemctl reset-failed {units} gatepost && systemctl restart {units} gatepost"
            );
            next.replace(RESTART, &reset)
        }
        Some(_) => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::service::Socket;

    fn checks(findings: Vec<Finding>) -> Vec<&'static str> {
        sift(findings, None)
            .iter()
            .map(|found| found.check)
            .collect()
    }

    #[test]
    fn a_cause_hides_what_follows_from_it_and_stands_first() {
        let problem = |check| Finding::problem(check, "", "");
        let all = vec![
            Finding::ok("store", ""),
            problem("login"),
            Finding::unknown("identity", ""),
            Finding::warning("limits", "", ""),
            problem("upstream"),
            problem("sasl").explaining(SERVICE),
        ];
        assert_eq!(checks(all), ["sasl", "limits", "store"]);
        let stopped = vec![
            problem("daemon").explaining(START),
            problem("listener"),
            problem("ports").explaining(START),
        ];
        assert_eq!(checks(stopped), ["ports"]);
        // Two causes are two findings, and one that is only a warning hides nothing.
        let two = vec![
            problem("ports").explaining(START),
            problem("config").explaining(START),
            Finding::warning("sasl", "", "").explaining(SERVICE),
            problem("upstream"),
        ];
        assert_eq!(checks(two), ["config", "ports", "upstream", "sasl"]);
    }

    #[test]
    fn steps_fit_the_machine() {
        let told = |service: Option<&Service>| {
            let finding = Finding::problem("config", "", format!("correct it, then: {RESTART}"));
            sift(vec![finding], service)[0].next.clone().unwrap()
        };
        assert_eq!(told(None), "correct it, then: restart Gatepost");
        assert!(told(Some(&Service::default())).ends_with(RESTART));
        let given_up = Service {
            result: "start-limit-hit".to_owned(),
            sockets: vec![Socket {
                name: "gatepost.socket".to_owned(),
                ..Socket::default()
            }],
            ..Service::default()
        };
        assert_eq!(
            told(Some(&given_up)),
            "correct it, then: systemctl reset-failed gatepost.socket gatepost && systemctl restart gatepost.socket gatepost"
        );
    }
}
