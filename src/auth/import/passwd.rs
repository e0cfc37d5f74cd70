//! Dovecot's passwd-file: `user:password:uid:gid:gecos:home:shell:extra fields`.

use super::record::{Offered, Read, Record};
use crate::store::check_name;

/// Extra fields that restrict logins. Ignoring such a field would admit a client that Dovecot
/// rejects.
const RESTRICTIONS: [&str; 4] = ["allow_nets", "allow_real_nets", "deny", "nologin"];

/// Reads a line; `None` for an empty line or a comment.
pub(super) fn read(line: &str) -> Option<Read> {
    if line.trim().is_empty() || line.starts_with('#') {
        return None;
    }
    let Some((username, rest)) = line.split_once(':') else {
        let reason = "it has no colon: a line is user:password:...";
        return Some(Err((None, reason.to_owned())));
    };
    let record = record(username, rest);
    // In a line of another format, the field may hold part of a password.
    let is_certain = !username.contains([',', '{', '}', ';']);
    let shown = is_certain.then(|| username.to_owned());
    Some(record.map_err(|reason| (shown, reason)))
}

fn record(username: &str, rest: &str) -> Result<Record, String> {
    let fields: Vec<_> = rest.splitn(7, ':').collect();
    let extra = fields.get(6).copied().unwrap_or_default();
    let restriction = extra.split_whitespace().find_map(|field| {
        let name = field.split('=').next().unwrap_or_default();
        RESTRICTIONS.into_iter().find(|known| *known == name)
    });
    if let Some(restriction) = restriction {
        return Err(format!(
            "{restriction} restricts it, which import does not carry over: make a credential for it instead"
        ));
    }
    let full_name = fields.get(3).and_then(|gecos| gecos.split(',').next());
    let full_name = full_name.map(str::trim).filter(|name| !name.is_empty());
    Ok(Record {
        username: username.to_owned(),
        password: Offered::read(fields.first().copied().unwrap_or_default())?,
        name: full_name
            .filter(|name| check_name(Some(name)).is_ok())
            .map(str::to_owned),
        expires_at: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "{BLF-CRYPT}$2y$05$PAHbmiuUBk6Bi247bvnooedqyuyHcamcI9OqrapSHfVqmt9dJvS5C";

    #[test]
    fn lines_are_read_with_and_without_their_later_fields() {
        for line in [
            format!("Info@Example.TEST:{HASH}"),
            format!("Info@Example.TEST:{HASH}::::::"),
            format!(
                "Info@Example.TEST:{HASH}:1000:1000:Ann Example,,,:/home/ann:/bin/sh:userdb_mail=maildir:~/Mail"
            ),
        ] {
            let record = read(&line).unwrap().ok().unwrap();
            assert_eq!(record.username, "Info@Example.TEST");
            assert_eq!(record.password.scheme(), "bcrypt");
            let named = line.contains("Ann").then_some("Ann Example");
            assert_eq!(record.name.as_deref(), named);
        }
        for nothing in ["", "  ", "# a:b"] {
            assert!(read(nothing).is_none());
        }
    }

    #[test]
    fn who_may_log_in_less_is_left() {
        for extra in [
            "allow_nets=192.0.2.0/24,2001:db8::/32",
            "userdb_x=y nologin",
            "nologin=yes",
        ] {
            let left = read(&format!("ann:{HASH}::::::{extra}")).unwrap();
            let (username, reason) = left.err().unwrap();
            assert_eq!(username.as_deref(), Some("ann"));
            assert!(reason.contains("restricts"), "{reason}");
        }
        let (username, _) = read("hunter2").unwrap().err().unwrap();
        assert_eq!(username, None);
    }
}
