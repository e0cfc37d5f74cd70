//! The auth socket for Postfix's SASL: its permissions, and whether the reported client addresses
//! are trusted.

use std::fs;

use super::DaemonError;
use crate::config::{DovecotAuth, Endpoint};
use crate::net::listener::{Access, Exposure, exposure};

/// The mode of a socket opened by Gatepost: owner and group.
const MODE: u32 = 0o660;

/// The local groups (group(5)).
const GROUPS: &str = "/etc/group";

/// Returns the permissions for a socket that Gatepost opens in the file system.
pub fn access(socket: &DovecotAuth) -> Result<Access, DaemonError> {
    let group = socket.group.as_deref().map(group_id).transpose()?;
    Ok(Access { mode: MODE, group })
}

/// The number of a local group, which may be given as a number, too.
pub fn group_id(name: &str) -> Result<u32, DaemonError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let groups = fs::read_to_string(GROUPS)?;
    let id = groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_named = fields.next() == Some(name);
        fields.nth(1).filter(|_| is_named)?.parse().ok()
    });
    id.ok_or_else(|| DaemonError::Group {
        name: name.to_owned(),
    })
}

/// Whether only Postfix can reach the socket, so that the reported addresses belong to its clients.
/// Call this while the socket is open.
pub(super) fn is_trusted(socket: &DovecotAuth) -> bool {
    if let Some(concern) = concern(socket) {
        tracing::warn!("{concern}");
    }
    let is_private = match &socket.listen {
        Endpoint::Tcp(_) => false,
        Endpoint::Unix(path) => matches!(exposure(path), Ok(None)),
    };
    socket.trusted || is_private
}

/// Returns a warning about the socket's current exposure.
pub fn concern(socket: &DovecotAuth) -> Option<String> {
    let listen = &socket.listen;
    let consequence = match socket.trusted {
        true => "and dovecot_auth.trusted has Gatepost believe which address a client has",
        false => {
            "so Gatepost does not believe which address a client has: the guard counts all \
             logins there together"
        }
    };
    let path = match listen {
        Endpoint::Unix(path) => path,
        Endpoint::Tcp(_) if socket.trusted => return None,
        Endpoint::Tcp(_) => {
            return Some(format!(
                "every local user can reach the auth socket {listen}, {consequence}; use a unix \
                 socket, or set dovecot_auth.trusted = true where nothing but Postfix can reach it"
            ));
        }
    };
    match exposure(path) {
        Ok(None) => None,
        Ok(Some(Exposure::Connect)) => Some(format!(
            "every local user can connect to the auth socket {listen}, {consequence}; take the \
             rights of others away (SocketMode=0660 in a .socket unit)"
        )),
        Ok(Some(Exposure::Replace(directory))) => Some(format!(
            "every local user can replace the auth socket {listen}, since {} is writable for all, \
             and would be told the passwords; take that right away (chmod o-w)",
            directory.display()
        )),
        Err(error) => Some(format!(
            "cannot see who may reach the auth socket {listen} ({error}), {consequence}; set \
             dovecot_auth.trusted = true where nothing but Postfix can reach it"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_known_by_name_and_number() {
        assert_eq!(group_id("root").unwrap(), 0);
        assert_eq!(group_id("4711").unwrap(), 4711);
        let unknown = group_id("no such group").unwrap_err().to_string();
        assert!(unknown.contains("no such group"), "{unknown}");
    }
}
