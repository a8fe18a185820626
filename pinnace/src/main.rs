//! The `pinnace` binary: the composition root.
//!
//! One binary, two roles. `agent` tracks and ships the disks of this machine; `target` keeps the
//! replicas of others; everything else talks to one of them over its admin socket. Only this crate
//! sees several stages at once.

use std::process::ExitCode;

use clap::Parser as _;

mod admin;
mod agent;
mod causes;
mod cli;
mod config;
mod exit;
mod identity;
mod json_file;
mod logging;
mod metrics;
mod pki;
mod quic;
mod service;
mod target;

fn main() -> ExitCode {
    // Usage errors leave with clap's exit code, which is 2 as in our table.
    let cli = cli::Cli::parse();
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        eprintln!("pinnace: a second TLS provider is installed");
        return ExitCode::FAILURE;
    }
    match cli::execute(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let failure = exit::Failure::of(&error);
            eprintln!("pinnace: {}", failure.message);
            ExitCode::from(failure.exit as u8)
        }
    }
}
