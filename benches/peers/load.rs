//! The load generator: one thread that holds any number of sessions, as cheaply as it can.

mod attempt;
mod outcome;
mod session;
mod tls;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mio::{Events, Poll, Token};

pub use attempt::{Attempt, Logins, hostile_address, returning_address};
pub use outcome::{Outcome, percentile};
use session::{Session, Step};
pub use tls::{Tls, configuration};

use crate::message::Message;
use crate::usage;
use crate::wire::Buffers;

/// What is to be done.
#[derive(Clone)]
pub struct Order {
    pub target: SocketAddr,
    pub tls: Tls,
    pub logins: Logins,
    /// Sent in each session that was let in.
    pub messages: u32,
    pub message: Arc<Message>,
    /// MAIL, RCPT and DATA in one write (RFC 2920), instead of one after the other.
    pub pipelined: bool,
    /// Keep the sessions open, idle, once they are let in and their messages are sent.
    pub hold: bool,
    pub pace: Pace,
    /// How long the place of a session that was shed stays empty, where the pace is closed.
    pub rest: Duration,
    /// Whatever is not over by then is counted as unfinished.
    pub patience: Duration,
    /// Starts no session more once it is set.
    pub stop: Arc<AtomicBool>,
}

/// When sessions begin.
#[derive(Clone, Copy)]
pub enum Pace {
    /// The next when one is over, this many at a time.
    Closed { concurrent: usize, sessions: u64 },
    /// At fixed times, however long the others take. What a session takes is counted from when it was due.
    Open { per_second: f64, sessions: u64 },
}

/// The sessions that were to stay. Closed when dropped.
pub struct Held {
    _sessions: Vec<Option<Session>>,
    _poll: Poll,
}

/// Carries an order out.
pub fn run(order: &Order) -> io::Result<(Outcome, Held)> {
    let mut load = Load::new(order)?;
    let cpu = usage::of_this_thread();
    load.run()?;
    load.outcome.wall = load.began.elapsed();
    load.outcome.cpu = usage::of_this_thread().saturating_sub(cpu);
    let held = Held {
        _sessions: load.sessions,
        _poll: load.poll,
    };
    Ok((load.outcome, held))
}

struct Load<'a> {
    order: &'a Order,
    poll: Poll,
    sessions: Vec<Option<Session>>,
    free: Vec<usize>,
    began: Instant,
    started: u64,
    in_flight: usize,
    /// When places that stay empty for a while are taken again.
    resting: VecDeque<Instant>,
    outcome: Outcome,
}

impl<'a> Load<'a> {
    fn new(order: &'a Order) -> io::Result<Load<'a>> {
        Ok(Load {
            order,
            poll: Poll::new()?,
            sessions: Vec::new(),
            free: Vec::new(),
            began: Instant::now(),
            started: 0,
            in_flight: 0,
            resting: VecDeque::new(),
            outcome: Outcome::default(),
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut buffers = Buffers::new();
        loop {
            let wait = self.begin()?;
            if self.in_flight == 0 && wait.is_none() {
                return Ok(());
            }
            if self.began.elapsed() > self.order.patience {
                self.outcome.unfinished += self.in_flight as u64;
                return Ok(());
            }
            let wait = wait.unwrap_or(LOOK_UP).min(LOOK_UP);
            match self.poll.poll(&mut events, Some(wait)) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            }
            for event in &events {
                let index = event.token().0;
                let Some(session) = &mut self.sessions[index] else {
                    continue;
                };
                let shed = self.outcome.shed;
                let step = session.step(event, &mut buffers, self.order, &mut self.outcome);
                if self.outcome.shed > shed && !self.order.rest.is_zero() {
                    self.resting.push_back(Instant::now() + self.order.rest);
                }
                match step {
                    Step::Going | Step::Idle => {}
                    Step::Holds => self.in_flight -= 1,
                    Step::Over => {
                        if !session.is_held() {
                            self.in_flight -= 1;
                        }
                        self.sessions[index] = None;
                        self.free.push(index);
                    }
                }
            }
        }
    }

    /// Begins the sessions whose time has come. How long until the next one, if there is one to come by time.
    fn begin(&mut self) -> io::Result<Option<Duration>> {
        let stopped = self.order.stop.load(Ordering::Relaxed);
        match self.order.pace {
            Pace::Closed {
                concurrent,
                sessions,
            } => {
                if stopped {
                    return Ok(None);
                }
                let now = Instant::now();
                while self.resting.front().is_some_and(|until| *until <= now) {
                    self.resting.pop_front();
                }
                while self.in_flight + self.resting.len() < concurrent && self.started < sessions {
                    self.begin_one(Instant::now())?;
                }
                let next = self.resting.front().filter(|_| self.started < sessions);
                Ok(next.map(|until| until.saturating_duration_since(now)))
            }
            Pace::Open {
                per_second,
                sessions,
            } => {
                while !stopped && self.started < sessions {
                    let due =
                        self.began + Duration::from_secs_f64(self.started as f64 / per_second);
                    let now = Instant::now();
                    if due > now {
                        return Ok(Some(due - now));
                    }
                    self.outcome.lag.push(now - due);
                    self.begin_one(due)?;
                }
                Ok(None)
            }
        }
    }

    fn begin_one(&mut self, due: Instant) -> io::Result<()> {
        let number = self.started;
        self.started += 1;
        let index = self.free.pop().unwrap_or_else(|| {
            self.sessions.push(None);
            self.sessions.len() - 1
        });
        match Session::begin(self.order, number, due, self.poll.registry(), Token(index)) {
            Ok(session) => {
                self.sessions[index] = Some(session);
                self.in_flight += 1;
            }
            // It could not even begin to connect: no port or no descriptor left.
            Err(error) => {
                self.outcome.error(&error.to_string());
                self.free.push(index);
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(())
    }
}

/// How often to see whether the time is over.
const LOOK_UP: Duration = Duration::from_millis(100);
