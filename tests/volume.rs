//! A message far larger than the memory it may cost.

use std::fs;

use tempfile::TempDir;

use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::site::Config;
use crate::support::tls;
use crate::support::upstream::{Security, Upstream};

/// A file about the daemon's process.
fn about(gatepost: &Gatepost, name: &str) -> String {
    let [.., pid] = gatepost.prefix();
    format!("/proc/{pid}/{name}")
}

/// How much memory the daemon has needed at most since [`forget_peak`], in KiB.
fn peak(gatepost: &Gatepost) -> u64 {
    let status = fs::read_to_string(about(gatepost, "status"));
    let status = status.expect("the daemon's status");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let figure = line.and_then(|rest| rest.split_whitespace().next());
    figure
        .and_then(|figure| figure.parse().ok())
        .expect("a figure")
}

fn forget_peak(gatepost: &Gatepost) {
    fs::write(about(gatepost, "clear_refs"), "5").expect("forget the peak");
}

/// Lines of every length up to 998, some of which begin with a dot.
fn large_message() -> Vec<u8> {
    let mut message = b"Subject: large\r\n\r\n".to_vec();
    for length in (0..=998).cycle() {
        let start: &[u8] = if length % 7 == 0 { b"." } else { b"" };
        message.extend_from_slice(start);
        message.resize(
            message.len() + length - length.min(start.len()),
            b'a' + (length % 26) as u8,
        );
        message.extend_from_slice(b"\r\n");
        if message.len() > 50_000_000 {
            return message;
        }
    }
    unreachable!("the lengths repeat")
}

fn assert_it_costs_no_memory(upstream: &Upstream, config: Config) {
    let gatepost = Gatepost::start(config);
    let mut client = Client::logged_in(&gatepost, &gatepost.create());
    // Whatever the first message of a process needs.
    client
        .send_message(&[&b"x".repeat(998)[..], b"\r\n"].concat().repeat(1000))
        .expect("250");
    forget_peak(&gatepost);
    let before = peak(&gatepost);
    let message = large_message();
    client.send_message(&message).expect("250");
    let more = peak(&gatepost).saturating_sub(before);
    assert!(more < 1024, "{more} KiB more for a message of 50 MB");
    client.expect("QUIT", "221");
    let session = upstream.wait_for("with both messages", |session| session.bodies.len() == 2);
    let taken = &session.bodies[1];
    // As it travels, so that the dots are doubled.
    let sent = crate::support::client::stuffed(&message);
    assert!(
        **taken == sent[..sent.len() - b".\r\n".len()],
        "changed on the way"
    );
}

#[test]
fn fifty_megabytes_pass_unchanged_and_cost_no_memory() {
    let upstream = Upstream::start();
    upstream.on("EHLO", LARGE);
    assert_it_costs_no_memory(&upstream, Config::for_upstream(upstream.address));
}

#[test]
fn fifty_megabytes_cost_no_memory_inside_tls_on_both_sides_either() {
    let directory = TempDir::new().expect("tempdir");
    tls::write_certificate(directory.path());
    let upstream = Upstream::start_with(Security::Implicit(tls::server(directory.path(), None)));
    upstream.on("EHLO", LARGE);
    let authority = directory.path().join("certificate.pem");
    let config = Config::for_upstream(upstream.address)
        .text("upstream", "tls", "implicit")
        .text("upstream", "tls_ca", authority.to_str().unwrap());
    assert_it_costs_no_memory(&upstream, config);
}

const LARGE: crate::support::upstream::Act = crate::support::upstream::Act::Reply(
    "250-upstream\r\n250-PIPELINING\r\n250-SIZE 100000000\r\n250 XCLIENT ADDR LOGIN",
);
