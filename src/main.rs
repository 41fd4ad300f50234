//! The `ringstep` program: the command line without models of its own.

use std::process::ExitCode;

use ringstep::config::CustomModels;

fn main() -> ExitCode {
    ringstep::cli::main(&CustomModels::new())
}
