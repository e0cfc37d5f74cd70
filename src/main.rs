//! `gatepost`: the command line is in [`gatepost::cli`].
#![deny(clippy::print_stderr, clippy::print_stdout)]

use std::process::ExitCode;

fn main() -> ExitCode {
    gatepost::cli::main()
}
