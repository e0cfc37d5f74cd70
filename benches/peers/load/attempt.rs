//! Who logs in, from where, and with what.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::site::Credential;

/// What is offered as a login.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// The right password.
    Right,
    /// A name nobody has, with a password as they are handed out.
    Unknown,
    /// A name that there is, with a password that can not have been handed out.
    Malformed,
    /// A name that there is, with a password as they are handed out, but another one each time.
    Wrong,
}

/// The logins of an order: session after session takes the next credential, attempt and address.
#[derive(Clone)]
pub struct Logins {
    pub credentials: Arc<Vec<Credential>>,
    pub attempts: Vec<Attempt>,
    /// From how many addresses they come.
    pub addresses: u64,
    pub address: fn(u64) -> Ipv4Addr,
    /// Counted from here, so that no two orders offer the same wrong password.
    pub first: u64,
}

impl Logins {
    /// Right passwords from a hundred addresses.
    pub fn right(credentials: &Arc<Vec<Credential>>) -> Logins {
        Logins {
            credentials: Arc::clone(credentials),
            attempts: vec![Attempt::Right],
            addresses: 100,
            address: good_address,
            first: 0,
        }
    }

    /// Right passwords from a hundred other addresses, from this number on.
    pub fn returning(credentials: &Arc<Vec<Credential>>, first: u64) -> Logins {
        Logins {
            address: returning_address,
            first,
            ..Logins::right(credentials)
        }
    }

    /// Where session `number` comes from.
    pub fn from(&self, number: u64) -> IpAddr {
        IpAddr::V4((self.address)((self.first + number) % self.addresses))
    }

    /// What it offers.
    pub fn attempt(&self, number: u64) -> Attempt {
        self.attempts[self.index(number, self.attempts.len())]
    }

    /// Its AUTH command.
    pub fn command(&self, number: u64) -> String {
        let credential = &self.credentials[self.index(number, self.credentials.len())];
        let Credential {
            username, password, ..
        } = credential;
        let odd = self.first + number;
        let message = match self.attempt(number) {
            Attempt::Right => format!("\0{username}\0{password}"),
            Attempt::Unknown => format!("\0smtp_0{odd:015x}\0sk_{odd:032x}"),
            Attempt::Malformed => format!("\0{username}\0letmein{odd}"),
            Attempt::Wrong => format!("\0{username}\0sk_{odd:032x}"),
        };
        format!("AUTH PLAIN {}\r\n", STANDARD.encode(message))
    }

    fn index(&self, number: u64, length: usize) -> usize {
        ((self.first + number) % length as u64) as usize
    }
}

/// Where good clients are: one network.
fn good_address(number: u64) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 1, 1 + (number % 250) as u8)
}

/// Where those are who have logged in before, though not lately: another network.
pub fn returning_address(number: u64) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 2, 1 + (number % 250) as u8)
}

/// Where attackers are: each in a network of its own, as long as there are any (48,000).
pub fn hostile_address(number: u64) -> Ipv4Addr {
    let third = (number / 200 % 240) as u8;
    let fourth = 1 + (number / 48_000 % 250) as u8;
    Ipv4Addr::new(127, 16 + (number % 200) as u8, third, fourth)
}
