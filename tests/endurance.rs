//! A stop under load loses no message.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, mpsc};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::site::{Config, Credential, Site};
use crate::support::upstream::{Act, END_OF_DATA, Upstream};

/// How many sessions send at a time, and how often each: together 200 messages a second.
const SENDERS: u32 = 20;
const PERIOD: Duration = Duration::from_millis(100);

/// What the senders of the test below have in common.
struct Load<'a> {
    site: &'a Site,
    credential: Credential,
    begin: Barrier,
    /// Messages said to be taken, by their subject.
    acknowledged: Mutex<BTreeSet<String>>,
    /// Messages after 250 to MAIL and before the word on them.
    under_way: AtomicUsize,
}

impl Load<'_> {
    /// Sends a message every [`PERIOD`] until the session is ended, which may be between two
    /// messages only.
    fn send(&self, sender: u32, acknowledged: &mpsc::Sender<()>) {
        let mut client = Client::logged_in(self.site, &self.credential);
        self.begin.wait();
        let start = Instant::now() + PERIOD * sender / SENDERS;
        for number in 0.. {
            // The subject is a rate, so there is nothing to wait for instead.
            std::thread::sleep((start + PERIOD * number).saturating_duration_since(Instant::now()));
            let mail = client.try_write(b"MAIL FROM:<sender@example.test>\r\n");
            match mail.ok().and_then(|()| client.try_reply()) {
                Some(reply) if reply.starts_with("250") => {}
                Some(reply) => {
                    reply.expect("421 4.3.2");
                    return;
                }
                None => return,
            }
            self.under_way.fetch_add(1, Ordering::SeqCst);
            client.expect("RCPT TO:<box@example.test>", "250");
            client.expect("DATA", "354");
            let subject = format!("Subject: {sender}-{number}\r\n");
            client.write(format!("{subject}\r\nhello\r\n.\r\n").as_bytes());
            client.reply().expect("250");
            self.under_way.fetch_sub(1, Ordering::SeqCst);
            self.acknowledged.lock().unwrap().insert(subject);
            // Nobody listens any more once the daemon was told to stop.
            let _ = acknowledged.send(());
        }
    }
}

#[test]
fn sigterm_under_two_hundred_messages_a_second_loses_none() {
    let upstream = Upstream::start();
    // Long enough that the signal finds messages whose fate only the upstream knows.
    upstream.on(END_OF_DATA, Act::Slowly("250 2.0.0 Ok\r\n"));
    let gatepost = Gatepost::start(Config::for_upstream(upstream.address));
    let site = gatepost.site();
    let load = Load {
        site: &site,
        credential: site.create(),
        begin: Barrier::new(SENDERS as usize),
        acknowledged: Mutex::default(),
        under_way: AtomicUsize::new(0),
    };
    std::thread::scope(|scope| {
        let (acknowledged, count) = mpsc::channel();
        for sender in 0..SENDERS {
            let (load, acknowledged) = (&load, acknowledged.clone());
            scope.spawn(move || load.send(sender, &acknowledged));
        }
        drop(acknowledged);
        assert_eq!(count.iter().take(200).count(), 200, "the senders gave up");
        assert!(load.under_way.load(Ordering::SeqCst) > 0, "nothing to lose");
        gatepost.signal(Signal::TERM);
    });
    assert!(gatepost.wait().success());
    let sessions = upstream.sessions().into_iter();
    let bodies = sessions.flat_map(|session| session.bodies);
    let mut arrived: Vec<String> = bodies
        .map(|body| String::from_utf8(body).expect("text"))
        .map(|body| body.split_inclusive('\n').next().unwrap().to_owned())
        .collect();
    arrived.sort();
    let acknowledged: Vec<String> = load
        .acknowledged
        .into_inner()
        .unwrap()
        .into_iter()
        .collect();
    assert_eq!(arrived, acknowledged);
    assert!(
        arrived.len() > 200,
        "the last ones were refused, not finished"
    );
}
