//! An upstream at several addresses, some of which do not answer, or behind names; and organizations
//! that have one of their own.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::relay::delivered;
use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::ports;
use crate::support::prometheus::get;
use crate::support::site::{Config, Credential};
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
    assert_eq!(second.handed_over().len(), 0);
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
    assert_eq!(silent.handed_over().len(), 0);
    gatepost.wait_for_log(&[
        "trying the next address",
        "at greeting: it did not answer in time",
    ]);
}

#[test]
fn one_that_falls_silent_inside_the_hand_over_costs_its_share_and_only_once() {
    for moment in ["XCLIENT", "EHLO"] {
        let (silent, second) = (Upstream::start(), Upstream::start());
        let config = Config::for_upstreams(&[silent.address, second.address])
            .text("upstream", "connect_timeout", "1s")
            .text("upstream", "handoff_timeout", "6s");
        let gatepost = Gatepost::start(config);
        // Nor does it answer a probe.
        silent.on("EHLO", Act::Silence);
        silent.on(moment, Act::Silence);
        let credential = gatepost.create();
        let began = Instant::now();
        send(&mut Client::logged_in(&gatepost, &credential));
        assert!(began.elapsed() >= Duration::from_secs(3), "its share");
        let began = Instant::now();
        send(&mut Client::logged_in(&gatepost, &credential));
        let took = began.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert_eq!(second.handed_over().len(), 2);
    }
}

#[test]
fn many_silent_ones_do_not_leave_a_good_one_too_little_time() {
    let silent: Vec<_> = (0..8).map(|_| Upstream::start()).collect();
    silent
        .iter()
        .for_each(|one| one.on("<greeting>", Act::Silence));
    let slow = Upstream::start();
    // More than the ninth of the deadline that would be its share.
    let greeting =
        "220-1\r\n220-2\r\n220-3\r\n220-4\r\n220-5\r\n220-6\r\n220-7\r\n220-8\r\n220 9\r\n";
    slow.on("<greeting>", Act::Slowly(greeting));
    let mut addresses = vec![slow.address];
    addresses.extend(silent.iter().map(|one| one.address));
    let gatepost = gate(&addresses);
    send(&mut Client::logged_in(&gatepost, &gatepost.create()));
}

#[test]
fn one_that_comes_back_is_found_out_before_a_client_needs_it() {
    let (first, address) = (Upstream::start(), ports::free_address());
    let config = Config::for_upstreams(&[first.address, address]).text(
        "metrics",
        "listen",
        &ports::free_address().to_string(),
    );
    let gatepost = Gatepost::start(config);
    gatepost.wait_for_log(&[&address.to_string(), "takes no sessions"]);
    let _second = Upstream::start_at(address);
    gatepost.wait_for_log(&[&address.to_string(), "takes sessions again"]);
    let metrics = get(gatepost.metrics.expect("metrics"), "/metrics");
    let up = format!("gatepost_upstream_host_up{{address=\"{address}\",organization=\"\"}} 1");
    assert!(metrics.lines().any(|line| line == up), "{metrics}");
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
        if moment == "EHLO mail" {
            first.once("XCLIENT", Act::Reply("503 5.5.1 EHLO first"));
        }
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
        let line =
            format!("gatepost_upstream_host_up{{address=\"{address}\",organization=\"\"}} {up}");
        assert!(metrics.lines().any(|served| served == line), "{metrics}");
    }
    let output = gatepost.run(&["check"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(
        said.contains(&format!("(not in use now) {down}: upstream, at connect")),
        "{said}"
    );
    assert!(
        said.contains(&format!("{} answers", upstream.address)),
        "{said}"
    );

    let other = Upstream::start();
    let gatepost = gate(&[upstream.address, other.address]);
    let checked = gatepost.succeed(&["check"]);
    for address in [upstream.address, other.address] {
        assert!(checked.contains(&format!("{address} answers")), "{checked}");
    }
}

#[test]
fn a_name_is_as_good_as_its_addresses() {
    let upstream = Upstream::start();
    let port = upstream.address.port();
    let config = Config::for_upstream(format!("localhost:{port}"));
    let gatepost = Gatepost::start(config);
    send(&mut Client::logged_in(&gatepost, &gatepost.create()));
    upstream.wait_for("with the message", delivered);
    let checked = gatepost.succeed(&["check"]);
    assert!(
        checked.contains(&format!("127.0.0.1:{port} answers")),
        "{checked}"
    );
}

#[test]
fn a_name_without_an_address_is_passed_over_or_454_and_named() {
    let upstream = Upstream::start();
    let unknown = "\"nowhere.invalid:25\"";
    let trusted = |config: Config| config.flag("upstream", "trusted", true);
    let both = format!("[{unknown}, \"{}\"]", upstream.address);
    let gatepost = Gatepost::start(trusted(Config::for_upstream("").address(both)));
    send(&mut Client::logged_in(&gatepost, &gatepost.create()));
    upstream.wait_for("with the message", delivered);

    let gatepost = Gatepost::start(trusted(Config::for_upstream("").address(unknown.into())));
    let mut client = Client::submissions(&gatepost);
    client.expect("EHLO client.example", "250");
    client.auth_plain(&gatepost.create()).expect("454 4.7.0");
    gatepost.wait_for_log(&["no address is known of nowhere.invalid:25"]);
    let checked = gatepost.run(&["check"]);
    assert_eq!(checked.status.code(), Some(74));
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(
        checked.contains("nowhere.invalid:25 has no address"),
        "{checked}"
    );
}

/// The credential of a new organization called acme.
fn of_acme(gatepost: &Gatepost) -> Credential {
    gatepost.succeed(&["organization", "create", "acme"]);
    let created = gatepost.json(&["credential", "create", "--org", "acme"]);
    Credential::from_json(created.to_string().as_bytes())
}

#[test]
fn an_organization_may_have_an_upstream_of_its_own() {
    let (shared, own) = (Upstream::start(), Upstream::start());
    let acme = "upstream.organizations.acme";
    let config = Config::for_upstream(shared.address)
        .text(acme, "address", &own.address.to_string())
        .text(acme, "identity", "none")
        .flag(acme, "trusted", true)
        .text("metrics", "listen", &ports::free_address().to_string());
    let gatepost = Gatepost::start(config);
    let (acme, other) = (of_acme(&gatepost), gatepost.create());
    let mut client = Client::logged_in(&gatepost, &acme);
    send(&mut client);
    let session = own.wait_for("with the message", delivered);
    assert!(session.xclient().is_none(), "{session:?}");
    assert_eq!(shared.handed_over().len(), 0);
    send(&mut Client::logged_in(&gatepost, &other));
    shared.wait_for("with the message", delivered);
    assert!(
        !own.sessions()
            .iter()
            .any(|session| session.xclient().is_some())
    );

    let metrics = get(gatepost.metrics.expect("metrics"), "/metrics");
    let served = "gatepost_organization_upstream_up{organization=\"acme\"} 1";
    assert!(metrics.lines().any(|line| line == served), "{metrics}");
    let checked = gatepost.succeed(&["check"]);
    for part in [
        format!("{} answers and grants XCLIENT", shared.address),
        format!(
            "of acme: {} answers and is told nothing of the clients",
            own.address
        ),
    ] {
        assert!(checked.contains(&part), "{checked}");
    }
}

#[test]
fn an_organization_whose_own_upstream_is_down_does_not_get_the_others() {
    let shared = Upstream::start();
    let address = ports::free_address();
    let acme = "upstream.organizations.acme";
    let config = Config::for_upstream(shared.address).text(acme, "address", &address.to_string());
    let gatepost = Gatepost::start(config);
    let credential = of_acme(&gatepost);
    let mut client = Client::submissions(&gatepost);
    client.expect("EHLO client.example", "250");
    client.auth_plain(&credential).expect("454 4.7.0");
    assert_eq!(shared.handed_over().len(), 0);
    let own = Upstream::start_at(address);
    client.auth_plain(&credential).expect("235");
    send(&mut client);
    own.wait_for("with the message", delivered);
}

#[test]
fn the_account_of_an_organization_is_offered_to_its_own_upstream_alone() {
    let (shared, own) = (Upstream::start(), Upstream::start());
    own.on("EHLO", Act::Reply("250-own\r\n250 AUTH PLAIN"));
    own.on("AUTH PLAIN", Act::Reply("535 5.7.8 no"));
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "hunter2\n").expect("write it");
    let acme = "upstream.organizations.acme";
    let config = Config::for_upstream(shared.address)
        .text(acme, "address", &own.address.to_string())
        .text(acme, "identity", "login")
        .text(acme, "username", "acme")
        .text(acme, "password_file", file.path().to_str().unwrap());
    let gatepost = Gatepost::start(config);
    let mut client = Client::submissions(&gatepost);
    client.expect("EHLO client.example", "250");
    client.auth_plain(&of_acme(&gatepost)).expect("454 4.7.0");
    let asked = |upstream: &Upstream| {
        let sessions = upstream.sessions();
        sessions
            .iter()
            .filter(|session| session.heard("AUTH"))
            .count()
    };
    assert_eq!((asked(&own), asked(&shared)), (1, 0));
    assert_eq!(shared.handed_over().len(), 0);
}

#[test]
fn check_misses_an_organization_that_has_an_upstream() {
    let shared = Upstream::start();
    let acme = "upstream.organizations.acme";
    let config =
        Config::for_upstream(shared.address).text(acme, "address", &shared.address.to_string());
    let gatepost = Gatepost::start(config);
    let said = gatepost.run(&["check"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(said.contains("no organization of that slug"), "{said}");
    of_acme(&gatepost);
    gatepost.succeed(&["check"]);
}
