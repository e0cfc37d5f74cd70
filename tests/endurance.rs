//! What must hold under weight: a large message costs no memory, and a stop under load no message.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, mpsc};
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::client::Client;
use crate::support::gatepost::Gatepost;
use crate::support::ports;
use crate::support::site::{Config, Credential, Site};
use crate::support::upstream::{Act, END_OF_DATA, Upstream};

const BLOCK: usize = 1_000_000;

/// The part of a body with this number, as on the wire. No two are alike, and no part of one is
/// like another.
fn block(number: usize) -> Vec<u8> {
    let mut block = format!("..{number:09}\r\n").into_bytes();
    for line in 0.. {
        let left = BLOCK - block.len();
        let length = match 2 + (line * 37 + number) % 990 {
            length if length + 4 <= left => length,
            _ => left - 2,
        };
        block.resize(block.len() + length, 33 + ((line + number) % 90) as u8);
        block.extend_from_slice(b"\r\n");
        if block.len() == BLOCK {
            return block;
        }
    }
    unreachable!("lines go on for ever")
}

/// An upstream that holds nothing: it compares messages with what they must be while they come, each
/// of as many blocks as `sizes` say in turn, and tells of each that was right.
fn comparing_upstream(sizes: Vec<usize>) -> (SocketAddr, mpsc::Receiver<usize>) {
    let address = ports::free_address();
    let listener = TcpListener::bind(address).expect("bind the upstream");
    let (right, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut sizes = sizes.into_iter();
        for socket in listener.incoming().map_while(Result::ok) {
            // Ends with the daemon's connection.
            let _ = compare(socket, &mut sizes, &right);
        }
    });
    (address, told)
}

fn compare(
    mut socket: TcpStream,
    sizes: &mut impl Iterator<Item = usize>,
    right: &mpsc::Sender<usize>,
) -> std::io::Result<()> {
    let mut reader = BufReader::new(socket.try_clone()?);
    let mut line = String::new();
    socket.write_all(b"220 upstream.example.test ESMTP\r\n")?;
    while reader.read_line(&mut line)? > 0 {
        let reply = match &line[..4] {
            "EHLO" => "250-upstream.example.test\r\n250 XCLIENT ADDR LOGIN PROTO\r\n",
            "XCLI" => "220 upstream.example.test ESMTP\r\n",
            "DATA" => "354 Go on\r\n",
            _ => "250 2.0.0 Ok\r\n",
        };
        socket.write_all(reply.as_bytes())?;
        if line.starts_with("DATA") {
            let size = sizes.next().expect("a message that is awaited");
            let mut got = vec![0; BLOCK];
            for number in 0..size {
                reader.read_exact(&mut got)?;
                assert!(got == block(number), "block {number} of {size} changed");
            }
            reader.read_exact(&mut got[..3])?;
            assert_eq!(&got[..3], b".\r\n", "there is more than {size} blocks");
            right.send(size).expect("somebody to tell");
            socket.write_all(b"250 2.0.0 Ok\r\n")?;
        }
        line.clear();
    }
    Ok(())
}

fn send_blocks(client: &mut Client, size: usize) {
    client.begin_message();
    for number in 0..size {
        client.write(&block(number));
    }
    client.write(b".\r\n");
    client.reply().expect("250 2.0.0 Ok");
}

/// In KiB, from /proc/PID/status.
fn memory(gatepost: &Gatepost, key: &str) -> i64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", gatepost.id())).unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(key));
    let value = value.expect(key).trim_start_matches(':').trim();
    value.trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn fifty_megabytes_pass_unchanged_and_take_no_memory() {
    let (address, told) = comparing_upstream(vec![1, 50]);
    let gatepost = Gatepost::start(Config::for_upstream(address));
    let mut client = Client::logged_in(&gatepost, &gatepost.create());
    send_blocks(&mut client, 1);
    // From here on the high-water mark is a new one (proc(5), clear_refs).
    std::fs::write(format!("/proc/{}/clear_refs", gatepost.id()), "5").expect("reset the mark");
    let before = memory(&gatepost, "VmRSS");
    send_blocks(&mut client, 50);
    let more = memory(&gatepost, "VmHWM") - before;
    assert!(more < 1024, "{more} KiB more for one message");
    assert_eq!(told.try_iter().collect::<Vec<_>>(), [1, 50]);
}

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
