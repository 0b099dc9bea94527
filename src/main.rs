//! The virtproxyd program: reads the command line and does as told.

use std::env;
use std::process::ExitCode;

use clap::Parser;
use virtproxyd::server;

mod cli;
mod passwd;

use cli::{Cli, Command};

/// Wrong usage, or a file that cannot be read; clap uses the same.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if cli.listen {
        return refuse("--listen: TCP and TLS sockets are listeners of the policy file");
    }
    if let Some(Command::Passwd(passwd)) = &cli.command {
        return passwd.run();
    }
    if cli.command.is_some() {
        return refuse("not yet");
    }
    if cli.starts_background() {
        return start_in_background();
    }
    match server::run(cli.options()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn start_in_background() -> ExitCode {
    if env::var_os("LISTEN_FDS").is_some() {
        return refuse(
            "--daemon: not together with socket activation, which needs the started process itself",
        );
    }
    match server::start_in_background() {
        Ok(true) => ExitCode::SUCCESS,
        // The background process has said why.
        Ok(false) => ExitCode::FAILURE,
        Err(error) => fail(&error),
    }
}

fn refuse(message: &str) -> ExitCode {
    eprintln!("virtproxyd: {message}");
    ExitCode::from(USAGE)
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("virtproxyd: {error}");
    ExitCode::FAILURE
}
