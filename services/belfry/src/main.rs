//! Every service in one process, and the operator's command line.

mod audit;
mod cli;
mod client;
mod doctor;
mod operate;
mod output;
mod platform;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::Cli::try_parse() {
        Ok(cli) => cli.run(),
        Err(error) => {
            // Help and version are not errors; clap knows which stream each belongs to.
            let usage = error.use_stderr();
            match error.print() {
                Ok(()) if !usage => ExitCode::SUCCESS,
                _ => ExitCode::from(cli::USAGE),
            }
        }
    }
}
