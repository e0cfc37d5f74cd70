//! `gatepost`: arguments in, exit code out.

use std::process::ExitCode;

use clap::Parser as _;
use gatepost::cli::{self, Arguments};

fn main() -> ExitCode {
    match cli::run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("gatepost: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
