//! The process that listens at an address (proc(5)).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A process that has a port.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

/// The processes with a socket that listens where `address` cannot be bound beside it. `None` where
/// no socket does; empty where this user may not see which process has it.
pub fn holders(address: SocketAddr) -> Option<Vec<Process>> {
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        let listening = text.lines().filter_map(parse);
        inodes.extend(
            listening
                .filter(|(own, _)| collide(*own, address))
                .map(|(_, inode)| format!("socket:[{inode}]")),
        );
    }
    (!inodes.is_empty()).then(|| processes(&inodes))
}

/// A socket that listens, and its inode.
fn parse(line: &str) -> Option<(SocketAddr, &str)> {
    let fields: Vec<_> = line.split_whitespace().collect();
    let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
    let (ip, port) = local.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let words: Option<Vec<u32>> = (0..ip.len() / 8)
        .map(|word| u32::from_str_radix(ip.get(word * 8..word * 8 + 8)?, 16).ok())
        .collect();
    // Each word is in the order of the machine's memory.
    let bytes: Vec<u8> = words?.iter().flat_map(|word| word.to_ne_bytes()).collect();
    let ip = match <[u8; 4]>::try_from(&bytes[..]) {
        Ok(four) => IpAddr::V4(Ipv4Addr::from(four)),
        Err(_) => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(&bytes[..]).ok()?)),
    };
    (*state == "0A").then_some((SocketAddr::new(ip, port), inode))
}

fn collide(one: SocketAddr, other: SocketAddr) -> bool {
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port()
        && (a == b
            || (a.is_unspecified() || b.is_unspecified()) && a.is_ipv4() == b.is_ipv4()
            // A socket at [::] takes IPv4, too, unless it says otherwise, which does not show here.
            || a.is_unspecified() && a.is_ipv6())
}

fn processes(inodes: &[String]) -> Vec<Process> {
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbered = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has_one = |pid: &u32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd"));
        open.into_iter().flatten().flatten().any(|entry| {
            let target = fs::read_link(entry.path());
            target.is_ok_and(|target| {
                inodes
                    .iter()
                    .any(|inode| target.as_os_str() == inode.as_str())
            })
        })
    };
    numbered
        .filter(has_one)
        .map(|pid| Process {
            pid,
            name: fs::read_to_string(format!("/proc/{pid}/comm"))
                .unwrap_or_default()
                .trim()
                .to_owned(),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_process_that_listens_is_found() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let own = |found: Option<Vec<Process>>| {
            found.is_some_and(|all| all.iter().any(|one| one.pid == std::process::id()))
        };
        assert!(own(holders(address)));
        assert!(own(holders((Ipv4Addr::UNSPECIFIED, address.port()).into())));
        drop(listener);
    }

    #[test]
    fn addresses_collide_where_they_cannot_be_bound_together() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        for (one, other, expected) in [
            ("127.0.0.1:25", "127.0.0.1:25", true),
            ("0.0.0.0:25", "127.0.0.1:25", true),
            ("127.0.0.1:25", "127.0.0.2:25", false),
            ("127.0.0.1:25", "127.0.0.1:26", false),
            ("[::]:25", "[::1]:25", true),
            ("[::1]:25", "127.0.0.1:25", false),
        ] {
            assert_eq!(collide(at(one), at(other)), expected, "{one} {other}");
        }
        let line = "   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1";
        if cfg!(target_endian = "little") {
            assert_eq!(parse(line), Some((at("127.0.0.1:8080"), "4711")));
        }
    }
}
