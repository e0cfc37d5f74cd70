//! Postfix's limits for one client. From 3.8 on it counts all that Gatepost hands over by XCLIENT as
//! one; where it is told nothing of the clients, every release does.

use super::finding::Finding;
use super::settings::Settings;
use crate::config::IdentityBy;

const CHECK: &str = "limits";

/// The limits that have to be off, and Gatepost's `[limits]` apply instead.
const LIMITS: [&str; 4] = [
    "smtpd_client_connection_count_limit",
    "smtpd_client_connection_rate_limit",
    "smtpd_client_message_rate_limit",
    "smtpd_client_recipient_rate_limit",
];

/// What becomes of many clients at once, of whom the upstream is told like this.
pub fn judge(identity: IdentityBy, settings: &Settings) -> Finding {
    let Some(service) = settings.service() else {
        return settings.untold(CHECK, "whether Postfix limits all clients together");
    };
    let on: Vec<_> = LIMITS
        .into_iter()
        .filter_map(|name| Some((name, service.value(name)?)))
        .filter(|(_, value)| value != "0")
        .collect();
    if on.is_empty() {
        return Finding::ok(CHECK, "Postfix limits nobody, Gatepost's [limits] apply");
    }
    let named: Vec<_> = on
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let named = named.join(", ");
    let whom = match service.version() {
        Some(version) if version < (3, 8, 0) && identity == IdentityBy::Xclient => {
            "holds for each client, and from Postfix 3.8 on for all together"
        }
        _ => "holds for all clients together, since Postfix takes them for one",
    };
    let lines = on.iter().map(|(name, _)| format!("-o {name}=0")).collect();
    let found = format!("{named} {whom}; who is over it gets 454");
    Finding::warning(CHECK, found, settings.add_to_service()).with_lines("master.cf", lines)
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::settings::tests::with;
    use super::*;

    #[test]
    fn each_limit_that_is_on_gets_its_line() {
        let off = LIMITS.map(|name| (name, "0"));
        assert_eq!(
            judge(IdentityBy::Xclient, &with("3.8.0", &off)).level,
            Level::Ok
        );
        let mut some = off;
        some[0].1 = "50";
        some[3].1 = "7";
        let finding = judge(IdentityBy::Xclient, &with("3.8.0", &some));
        assert_eq!(finding.level, Level::Warning);
        assert!(finding.found.contains("all clients together"));
        assert_eq!(
            finding.lines,
            [
                "-o smtpd_client_connection_count_limit=0",
                "-o smtpd_client_recipient_rate_limit=0"
            ]
        );
        let older = judge(IdentityBy::Xclient, &with("3.7.11", &some));
        assert!(older.found.contains("for each client"), "{}", older.found);
        let untold = judge(IdentityBy::Login, &with("3.7.11", &some));
        assert!(untold.found.contains("all clients"), "{}", untold.found);
        let unknown = judge(IdentityBy::Xclient, &Settings::Unknown("why".into()));
        assert_eq!(unknown.level, Level::Unknown);
    }
}
