//! A message has to come at a least rate; one that does not holds an upstream session for nothing.

use std::time::{Duration, Instant};

use crate::relay::log_in;
use crate::support::gatepost::Gatepost;
use crate::support::site::Config;
use crate::support::upstream::Upstream;

/// Long enough for a machine that has much else to do.
const WINDOW: Duration = Duration::from_secs(2);

fn gate(upstream: &Upstream, rate: &str) -> Gatepost {
    let config = Config::for_upstream(upstream.address)
        .text("timeouts", "body_rate", rate)
        .text("timeouts", "body_rate_window", "2s");
    Gatepost::start(config)
}

#[test]
fn a_body_that_trickles_is_given_up_and_its_upstream_given_back() {
    let upstream = Upstream::start();
    let gatepost = gate(&upstream, "1KiB");
    let mut clients: Vec<_> = (0..5).map(|_| log_in(&gatepost)).collect();
    for client in &mut clients {
        client.begin_message();
    }
    let began = Instant::now();
    let is_over = || {
        let sessions = upstream.handed_over();
        sessions.len() == 5 && sessions.iter().all(|session| session.ended)
    };
    while !is_over() {
        for client in &mut clients {
            // It may be closed already.
            let _ = client.try_write(b"x");
        }
        std::thread::sleep(Duration::from_millis(50));
        assert!(began.elapsed() < Duration::from_secs(30), "still sending");
    }
    assert!(began.elapsed() >= WINDOW, "the first window is free");
    for mut client in clients {
        client.reply().expect("421 4.4.2");
        client.expect_close();
    }
    for session in upstream.handed_over() {
        assert!(
            session.bodies.is_empty() && !session.heard("QUIT"),
            "{session:?}"
        );
    }
    gatepost.wait_for_log(&["message given up, it comes too slowly"]);
}

#[test]
fn a_body_that_comes_fast_enough_or_without_a_floor_is_taken() {
    for (rate, piece) in [("1KiB", 1024), ("0", 1)] {
        let upstream = Upstream::start();
        let gatepost = gate(&upstream, rate);
        let mut client = log_in(&gatepost);
        client.begin_message();
        let began = Instant::now();
        while began.elapsed() < WINDOW * 3 {
            client.write(&b"x".repeat(piece));
            std::thread::sleep(Duration::from_millis(100));
        }
        client.write(b"\r\n.\r\n");
        client.reply().expect("250");
    }
}

#[test]
fn the_rest_of_a_message_that_goes_nowhere_has_to_come_as_fast() {
    let upstream = Upstream::start();
    let gatepost = gate(&upstream, "1KiB");
    let mut client = log_in(&gatepost);
    client.begin_message();
    client.write(b"a bare\nline feed");
    upstream.wait_for("that was given up", |session| {
        session.heard("DATA") && session.ended
    });
    let began = Instant::now();
    while client.try_write(b"x").is_ok() {
        std::thread::sleep(Duration::from_millis(50));
        assert!(began.elapsed() < Duration::from_secs(30), "still reading");
        if gatepost.log().contains("it comes too slowly") {
            break;
        }
    }
    client.reply().expect("421 4.4.2");
    client.expect_close();
}
