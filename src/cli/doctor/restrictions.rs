//! What smtpd asks of its restrictions before it greets anyone, and of the login.

use super::finding::Finding;
use super::settings::Settings;

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
    let values = LISTS.map(|name| service.value(name).unwrap_or_default());
    let mut words = values
        .iter()
        .flat_map(|value| value.split([',', ' ', '\t']));
    if words.any(|word| END.contains(&word)) {
        return None;
    }
    let found = "neither smtpd_relay_restrictions nor smtpd_recipient_restrictions ends in reject: smtpd ends at its start, and the service stays silent";
    Some(Finding::problem(CHECK, found, settings.add_to_service()).with_lines("master.cf", lines()))
}

#[cfg(test)]
mod tests {
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
}
