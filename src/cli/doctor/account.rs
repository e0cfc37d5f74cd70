//! The rights of another user: what the service, or Postfix's smtpd, may open.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::service::Service;

/// systemd keeps the state of users that it makes itself there, and lets the service in.
const PRIVATE: &str = "/var/lib/private";

/// What a file is wanted for, as the bits of its mode.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Want {
    /// Reading.
    Read = 4,
    /// Writing, or connecting to a socket.
    Write = 2,
}

/// A user with its groups.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Account {
    /// For people.
    pub name: String,
    uid: u32,
    gids: Vec<u32>,
}

impl Account {
    /// The user that the process runs as.
    pub fn of_process(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        // Effective, and for groups all: proc(5).
        let numbers = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(
                line.split_whitespace()
                    .filter_map(|word| word.parse().ok())
                    .collect::<Vec<u32>>(),
            )
        };
        let uid = *numbers("Uid:")?.get(1)?;
        let mut gids = numbers("Groups:")?;
        gids.push(*numbers("Gid:")?.get(1)?);
        let name = name_of(uid).unwrap_or_else(|| uid.to_string());
        Some(Self { name, uid, gids })
    }

    /// The user that systemd starts the service as, if it exists.
    pub fn of_service(service: &Service) -> Option<Self> {
        let name = match service.user.as_str() {
            "" => "root",
            name => name,
        };
        let groups = fs::read_to_string("/etc/group").ok()?;
        let mut account = Self::named(name)?;
        for line in groups.lines() {
            let fields: Vec<_> = line.split(':').collect();
            let [group, _, gid, members] = fields[..] else {
                continue;
            };
            let is_member = members.split(',').any(|member| member == name)
                || service.groups.iter().any(|own| own == group || own == gid)
                || service.group == group;
            if let (true, Ok(gid)) = (is_member, gid.parse()) {
                account.gids.push(gid);
            }
        }
        Some(account)
    }

    /// The user of this name, with its primary group alone, as Postfix runs its daemons.
    pub fn named(name: &str) -> Option<Self> {
        let users = fs::read_to_string("/etc/passwd").ok()?;
        let fields = users.lines().find_map(|line| {
            let fields: Vec<_> = line.split(':').collect();
            (fields.first() == Some(&name)).then_some(fields)
        })?;
        Some(Self {
            name: name.to_owned(),
            uid: fields.get(2)?.parse().ok()?,
            gids: vec![fields.get(3)?.parse().ok()?],
        })
    }

    /// The first of the path and its directories that keeps this user out; `None` where the user gets
    /// through, or where that cannot be seen.
    pub fn is_kept_out(&self, path: &Path, want: Want) -> Option<PathBuf> {
        let real = path.canonicalize().ok()?;
        for directory in real
            .ancestors()
            .skip(1)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
        {
            if directory != Path::new(PRIVATE) && !self.may(directory, 1).ok()? {
                return Some(directory.to_owned());
            }
        }
        match self.may(&real, want as u32) {
            Ok(false) => Some(real),
            _ => None,
        }
    }

    fn may(&self, path: &Path, bit: u32) -> io::Result<bool> {
        let metadata = fs::metadata(path)?;
        if self.uid == 0 {
            return Ok(true);
        }
        let mode = metadata.mode();
        let class = match metadata.uid() == self.uid {
            true => 6,
            false if self.gids.contains(&metadata.gid()) => 3,
            false => 0,
        };
        // An access control list may let in, and shows its mask as the rights of the group.
        let mut name = [0; 64];
        let listed = rustix::fs::getxattr(path, "system.posix_acl_access", &mut name);
        Ok(mode >> class & bit != 0
            || !matches!(
                listed,
                Err(rustix::io::Errno::NODATA | rustix::io::Errno::NOTSUP)
            ))
    }
}

fn name_of(uid: u32) -> Option<String> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn each_class_of_the_mode_is_followed_through_the_directories() {
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        let set = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap()
        };
        set(directory.path(), 0o755);
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        let owner = fs::metadata(&file).unwrap();
        let account = |uid, gid| Account {
            name: String::new(),
            uid,
            gids: vec![gid],
        };
        let member = account(40_001, owner.gid());
        let other = account(40_001, 40_001);
        set(&file, 0o640);
        assert_eq!(member.is_kept_out(&file, Want::Read), None);
        assert_eq!(member.is_kept_out(&file, Want::Write), Some(file.clone()));
        assert_eq!(other.is_kept_out(&file, Want::Read), Some(file.clone()));
        set(&file, 0o644);
        assert_eq!(other.is_kept_out(&file, Want::Read), None);
        set(directory.path(), 0o700);
        assert_eq!(
            other.is_kept_out(&file, Want::Read),
            Some(directory.path().to_owned())
        );
        assert_eq!(account(0, 0).is_kept_out(&file, Want::Write), None);
        assert_eq!(
            other.is_kept_out(&directory.path().join("none"), Want::Read),
            None
        );
    }

    #[test]
    fn the_user_of_a_process_is_known() {
        let own = Account::of_process(std::process::id()).unwrap();
        assert_eq!(own.uid, rustix::process::geteuid().as_raw());
        assert_eq!(Account::named("root").unwrap().gids, [0]);
        assert_eq!(Account::named("no such user"), None);
    }
}
