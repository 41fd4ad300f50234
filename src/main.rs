//! The `ringstep` program: parses, runs, and turns an error into an exit code.

use std::process::ExitCode;

use clap::Parser;
use ringstep::cli;

fn main() -> ExitCode {
    match cli::run(&cli::Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            cli::report(&*failure);
            ExitCode::FAILURE
        }
    }
}
