//! Gatepost beside the programs that its users could run instead, doing the same work on the same machine.
//! `benches/README.md` says how to repeat it, and what is measured.

#[path = "../../tests/support/ports.rs"]
mod ports;

mod affinity;
mod arguments;
mod backend;
mod column;
mod growth;
mod load;
mod machine;
mod message;
mod peer;
mod plot;
mod program;
mod readme;
mod relay;
mod report;
mod rounds;
mod siege;
mod sink;
mod site;
mod trial;
mod usage;
mod wire;

use std::process::ExitCode;

use arguments::{Arguments, Command};
use clap::Parser as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

fn main() -> ExitCode {
    // Cargo adds this one to what it is given.
    let arguments = std::env::args().filter(|argument| argument != "--bench");
    let arguments = Arguments::parse_from(arguments);
    if let Some(path) = arguments.gatepost {
        program::choose(path);
    }
    match arguments.command {
        // `cargo bench` without a name runs all benches; this one takes too long to run unasked.
        None => println!("peers: cargo bench --bench peers -- run"),
        Some(Command::Relay {
            listen,
            upstream,
            directory,
        }) => relay::serve(listen, upstream, &directory).expect("the relay runs"),
        Some(Command::Run(run)) => {
            raise_descriptors();
            rounds::run(&run);
        }
        Some(Command::Growth(growth)) => {
            raise_descriptors();
            if !growth::run(&growth) {
                return ExitCode::FAILURE;
            }
        }
        Some(Command::Siege(siege)) => {
            raise_descriptors();
            if !siege::run(&siege) {
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}

/// The sessions' other ends are all in this process. What it starts inherits the limit.
fn raise_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("the limit may be raised as far as it goes");
}
