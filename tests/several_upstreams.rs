//! An upstream at several addresses, some of which do not answer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::relay::delivered;
use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::ports;
use crate::support::prometheus::get;
use crate::support::site::Config;
use crate::support::upstream::{Act, Upstream};

const CONNECT: Duration = Duration::from_secs(4);

fn gate(addresses: &[SocketAddr]) -> Gatepost {
    let config = Config::for_upstreams(addresses);
    Gatepost::start(config.text("upstream", "connect_timeout", "4s"))
}

fn send(client: &mut Client) {
    client
        .send_message(b"Subject: x\r\n\r\nhello\r\n")
        .expect("250");
}

#[test]
fn the_first_that_answers_takes_the_session() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let gatepost = gate(&[ports::free_address(), first.address, second.address]);
    let credential = gatepost.create();
    for _ in 0..3 {
        send(&mut Client::logged_in(&gatepost, &credential));
    }
    assert_eq!(first.handed_over().len(), 3);
    assert_eq!(second.sessions().len(), 0);
}

#[test]
fn each_has_its_turn() {
    let upstreams = [Upstream::start(), Upstream::start(), Upstream::start()];
    let addresses = upstreams.each_ref().map(|upstream| upstream.address);
    let config = Config::for_upstreams(&addresses).text("upstream", "order", "round-robin");
    let gatepost = Gatepost::start(config);
    let credential = gatepost.create();
    for _ in 0..6 {
        send(&mut Client::logged_in(&gatepost, &credential));
    }
    assert_eq!(
        upstreams.map(|upstream| upstream.handed_over().len()),
        [2, 2, 2]
    );
}

#[test]
fn a_silent_one_costs_its_share_and_only_once() {
    let (silent, second) = (Upstream::start(), Upstream::start());
    silent.on("<greeting>", Act::Silence);
    let gatepost = gate(&[silent.address, second.address]);
    // The probe at the start has met it, so nobody else has to.
    let credential = gatepost.create();
    let began = Instant::now();
    let mut client = Client::logged_in(&gatepost, &credential);
    assert!(began.elapsed() < CONNECT / 2, "{:?}", began.elapsed());
    send(&mut client);
    assert_eq!(silent.sessions().len(), 1);
    gatepost.wait_for_log(&[
        "trying the next address",
        "at greeting: it did not answer in time",
    ]);
}

#[test]
fn one_that_refuses_a_client_is_passed_over_for_it() {
    for (moment, act) in [
        ("<greeting>", Act::Reply("421 4.3.2 busy")),
        ("EHLO mail", Act::Reply("250-x\r\n250 SIZE 0")),
        ("XCLIENT", Act::Reply("421 4.7.0 too many connections")),
        ("EHLO client", Act::Close),
    ] {
        let (first, second) = (Upstream::start(), Upstream::start());
        let gatepost = gate(&[first.address, second.address]);
        first.once(moment, act);
        let credential = gatepost.create();
        send(&mut Client::logged_in(&gatepost, &credential));
        let session = second.wait_for("with the message", delivered);
        assert!(
            session.xclient().unwrap().contains(&credential.username),
            "{session:?}"
        );
        assert!(
            !first.sessions().iter().any(|session| session.heard("MAIL")),
            "at {moment}"
        );
        assert!(first.is_through());
    }
}

#[test]
fn a_session_moves_on_when_its_upstream_dies_between_two_messages() {
    let (first, second) = (Upstream::start(), Upstream::start());
    let gatepost = gate(&[first.address, second.address]);
    let mut client = Client::logged_in(&gatepost, &gatepost.create());
    send(&mut client);
    drop(first);
    send(&mut client);
    second.wait_for("with the message", delivered);
}

#[test]
fn where_none_answers_it_is_454_and_later_235() {
    let address = ports::free_address();
    let gatepost = gate(&[ports::free_address(), address]);
    let credential = gatepost.create();
    let mut client = Client::submissions(&gatepost);
    client.expect("EHLO client.example", "250");
    client.auth_plain(&credential).expect("454 4.7.0");
    let _upstream = Upstream::start_at(address);
    // Although both are known to be down: there is nothing else to hope for.
    client.auth_plain(&credential).expect("235");
}

#[test]
fn check_and_metrics_tell_them_apart() {
    let upstream = Upstream::start();
    let down = ports::free_address();
    let config = Config::for_upstreams(&[down, upstream.address]).text(
        "metrics",
        "listen",
        &ports::free_address().to_string(),
    );
    let gatepost = Gatepost::start(config);
    let metrics = get(gatepost.metrics.expect("metrics"), "/metrics");
    for (address, up) in [(down, 0), (upstream.address, 1)] {
        let line = format!("gatepost_upstream_host_up{{address=\"{address}\"}} {up}");
        assert!(metrics.lines().any(|served| served == line), "{metrics}");
    }
    let output = gatepost.run(&["check"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(74), "{said}");
    assert!(
        said.contains(&format!("{down}: upstream, at connect")),
        "{said}"
    );

    let other = Upstream::start();
    let gatepost = gate(&[upstream.address, other.address]);
    let checked = gatepost.succeed(&["check"]);
    for address in [upstream.address, other.address] {
        assert!(checked.contains(&format!("{address} answers")), "{checked}");
    }
}
