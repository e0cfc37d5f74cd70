//! What smtpd asks of its restrictions before it greets anyone, and of the login.

use super::causes::SERVICE;
use super::finding::Finding;
use super::settings::{Service, Settings};
use crate::config::IdentityBy;

const CHECK: &str = "restrictions";

/// smtpd ends at its start unless one of these is in one of the two lists.
const END: [&str; 5] = [
    "defer",
    "defer_if_permit",
    "defer_unauth_destination",
    "reject",
    "reject_unauth_destination",
];

const LISTS: [&str; 2] = ["smtpd_relay_restrictions", "smtpd_recipient_restrictions"];

/// The lines that take mail from who is logged in, and from nobody else.
pub fn lines() -> Vec<String> {
    let line = |name| format!("-o {name}=permit_sasl_authenticated,reject");
    LISTS.map(line).to_vec()
}

/// Whether an smtpd that does not greet cannot start with them. Nothing where that is not the cause.
pub fn judge(settings: &Settings) -> Option<Finding> {
    let service = settings.service()?;
    if !cannot_start(service) {
        return None;
    }
    let found = "neither smtpd_relay_restrictions nor smtpd_recipient_restrictions ends in reject: smtpd ends at its start, and the service stays silent";
    Some(
        Finding::problem(CHECK, found, settings.add_to_service())
            .with_lines("master.cf", lines())
            .explaining(SERVICE),
    )
}

/// The restrictions that each client meets, and whether the service may do without.
const OF_CLIENTS: [(&str, bool); 7] = [
    ("smtpd_client_restrictions", true),
    ("smtpd_helo_restrictions", true),
    ("smtpd_sender_restrictions", true),
    ("smtpd_relay_restrictions", false),
    ("smtpd_recipient_restrictions", false),
    ("smtpd_data_restrictions", true),
    ("smtpd_end_of_data_restrictions", true),
];

/// They refuse every client.
const ALL: [&str; 3] = ["defer", "defer_if_permit", "reject"];

/// They refuse every client without a host name, and Gatepost hands over none.
const WITHOUT_NAME: [&str; 3] = [
    "reject_unknown_client",
    "reject_unknown_client_hostname",
    "reject_unknown_reverse_client_hostname",
];

/// They refuse many mail programs: at home, on the road, with the name of a laptop.
const MANY: [&str; 6] = [
    "reject_invalid_helo_hostname",
    "reject_maps_rbl",
    "reject_non_fqdn_helo_hostname",
    "reject_rbl_client",
    "reject_rhsbl_client",
    "reject_unknown_helo_hostname",
];

/// The restrictions that refuse clients before their login counts. `identity` is how Postfix learns
/// of them; `None` where they come to it directly.
pub fn judge_clients(identity: Option<IdentityBy>, settings: &Settings) -> Vec<Finding> {
    let Some(service) = settings.service() else {
        return Vec::new();
    };
    let is_named = identity != Some(IdentityBy::Xclient);
    let judge = |(list, is_dispensable): (&'static str, bool)| {
        let value = service.value(list).unwrap_or_default();
        let (word, is_for_all) = refusal(&value, is_named)?;
        let line = match is_dispensable {
            true => format!("-o {list}="),
            false => format!("-o {list}=permit_sasl_authenticated,reject"),
        };
        let whom = if is_for_all {
            "every client"
        } else {
            "many mail programs"
        };
        let found = format!("{list} refuses {whom}: {word} comes before permit_sasl_authenticated");
        let next = settings.add_to_service();
        let finding = match is_for_all {
            true => Finding::problem(CHECK, found, next).explaining(SERVICE),
            false => Finding::warning(CHECK, found, next),
        };
        Some(finding.with_lines("master.cf", vec![line]))
    };
    OF_CLIENTS.into_iter().filter_map(judge).collect()
}

/// The first word that refuses before a login is permitted, and whether it refuses every client.
fn refusal(value: &str, is_named: bool) -> Option<(&str, bool)> {
    let words = value
        .split([',', ' ', '\t'])
        .filter(|word| !word.is_empty());
    let mut many = None;
    for word in words {
        if matches!(word, "permit" | "permit_sasl_authenticated") {
            break;
        }
        if ALL.contains(&word) || !is_named && WITHOUT_NAME.contains(&word) {
            return Some((word, true));
        }
        if MANY.contains(&word) {
            many = many.or(Some((word, false)));
        }
    }
    many
}

/// Whether smtpd cannot start with the lists of this service.
fn cannot_start(service: &Service) -> bool {
    let values = LISTS.map(|name| service.value(name).unwrap_or_default());
    let mut words = values
        .iter()
        .flat_map(|value| value.split([',', ' ', '\t']));
    !words.any(|word| END.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::settings::tests::with;
    use super::*;

    #[test]
    fn one_of_the_lists_has_to_end_in_a_refusal() {
        let judged = |value| judge(&with("3.7.11", &[(LISTS[0], value)])).is_some();
        assert!(judged("permit_sasl_authenticated"));
        assert!(judged("permit_mynetworks, reject_non_fqdn_sender"));
        assert!(!judged("permit_sasl_authenticated,reject"));
        assert!(!judged("permit_mynetworks, defer_unauth_destination"));
        assert_eq!(judge(&Settings::Unknown("why".into())), None);
    }

    #[test]
    fn refusals_before_the_login_are_found() {
        let judged = |list, value, identity| {
            let settings = with("3.7.11", &[(list, value)]);
            let found = judge_clients(identity, &settings);
            let found = found
                .into_iter()
                .find(|found| found.found.starts_with(list));
            found.map(|found| (found.level, found.lines[0].clone()))
        };
        let client = "smtpd_client_restrictions";
        let through = Some(IdentityBy::Xclient);
        let problem = Some((Level::Problem, "-o smtpd_client_restrictions=".to_owned()));
        let hostname = "permit_mynetworks reject_unknown_client_hostname";
        assert_eq!(judged(client, hostname, through), problem);
        assert_eq!(judged(client, hostname, None), None);
        assert_eq!(judged(client, "permit_mynetworks,reject", None), problem);
        for fine in [
            "",
            "permit_sasl_authenticated, reject",
            "permit_sasl_authenticated,reject_unknown_client_hostname",
            "check_client_access hash:/etc/postfix/reject",
        ] {
            assert_eq!(judged(client, fine, through), None, "{fine}");
        }
        let lists = judged(client, "reject_rbl_client zen.example", through);
        assert_eq!(lists.unwrap().0, Level::Warning);
        let recipients = "smtpd_recipient_restrictions";
        let first = judged(
            recipients,
            "reject_unknown_client, permit_sasl_authenticated, reject",
            through,
        );
        let line = "-o smtpd_recipient_restrictions=permit_sasl_authenticated,reject";
        assert_eq!(first, Some((Level::Problem, line.to_owned())));
        assert_eq!(
            judged(recipients, "permit_sasl_authenticated,reject", through),
            None
        );
    }
}
