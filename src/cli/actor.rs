//! Who is at the command line: what the audit log says of them.

use rustix::process::getuid;

use crate::store::Actor;

/// The user that runs this process; under sudo, also the one behind it.
pub fn of_process() -> Actor {
    let uid = getuid();
    let name = name_of(uid.as_raw()).unwrap_or_else(|| format!("uid {uid}"));
    // Only root is believed: whoever else could set the variable to anything.
    match sudo_user().filter(|_| uid.is_root()) {
        Some(behind) => Actor::cli(format!("{name} (sudo by {behind})")),
        None => Actor::cli(name),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "sudo says who is behind root in a variable, and in nothing else"
)]
fn sudo_user() -> Option<String> {
    std::env::var("SUDO_USER")
        .ok()
        .filter(|name| !name.is_empty())
}

/// From the local accounts (passwd(5)); others are known by their number.
fn name_of(uid: u32) -> Option<String> {
    let accounts = std::fs::read_to_string("/etc/passwd").ok()?;
    let number = uid.to_string();
    let name = accounts.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then_some(name)
    });
    name.map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_accounts_have_a_name() {
        assert_eq!(name_of(0).as_deref(), Some("root"));
        assert_eq!(name_of(4_000_000_000), None);
    }
}
