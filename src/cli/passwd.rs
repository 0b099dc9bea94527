//! `virtproxyd passwd`: the users of a password file.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, ValueEnum};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use virtproxyd::server::auth::password_file::PasswordFile;
use virtproxyd::server::auth::passwords::{Passwords, PasswordsError};
use virtproxyd::server::auth::verifier::{
    Hash, ITERATIONS, ITERATIONS_MAX, ITERATIONS_MIN, NameError, PASSWORD_MAX, PasswordError,
    PreparedPassword, Verifier, VerifierError, prepare_name,
};

/// Set or delete a user's password, or list the users, in a file for SASL
///
/// The password is asked for twice on a terminal; else it is the first line of standard input. The
/// file keeps salted verifiers alone, from which nobody can log in. A running daemon reads a changed
/// file by itself.
#[derive(Debug, Args)]
pub(crate) struct Passwd {
    /// The password file; made with mode 0600 if there is none
    file: PathBuf,

    /// The user
    #[arg(required_unless_present = "list")]
    user: Option<String>,

    /// Mechanism that the password is for; may be repeated [default: both]
    #[arg(long, value_enum, value_name = "NAME", ignore_case = true)]
    mechanism: Vec<Mechanism>,

    /// Hashes that a guess at a stolen file costs, and a client at each login
    #[arg(long, value_name = "NUMBER", default_value_t = ITERATIONS,
          value_parser = clap::value_parser!(u32).range(i64::from(ITERATIONS_MIN)..=i64::from(ITERATIONS_MAX)))]
    iterations: u32,

    /// Delete the user, or only the mechanisms given
    #[arg(long, conflicts_with = "list")]
    delete: bool,

    /// List the users with their mechanisms
    #[arg(long, conflicts_with = "user")]
    list: bool,
}

/// Mechanism that a verifier is for
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Mechanism {
    #[value(name = "SCRAM-SHA-256")]
    ScramSha256,
    #[value(name = "SCRAM-SHA-512")]
    ScramSha512,
}

impl Mechanism {
    fn hash(self) -> Hash {
        match self {
            Self::ScramSha256 => Hash::Sha256,
            Self::ScramSha512 => Hash::Sha512,
        }
    }
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
enum Cannot {
    #[error(transparent)]
    File(#[from] PasswordsError),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Verifier(#[from] VerifierError),
    #[error("cannot read the password: {0}")]
    Read(io::Error),
    #[error("cannot write: {0}")]
    Write(io::Error),
    #[error("the passwords differ")]
    Differ,
    #[error("no such user or mechanism: {0}")]
    NoUser(String),
}

impl Passwd {
    pub(crate) fn run(&self) -> ExitCode {
        match self.work() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("virtproxyd: {error}");
                ExitCode::FAILURE
            }
        }
    }

    fn work(&self) -> Result<(), Cannot> {
        let Some(user) = &self.user else {
            return self.print_users();
        };
        let user = prepare_name(user)?;
        if self.delete {
            return self.delete(user);
        }
        // Asked for before the file is locked, checked before that.
        Passwords::read_if_there(&self.file)?;
        let password = read_password()?;
        let mut file = PasswordFile::open(&self.file)?;
        for hash in self.hashes() {
            file.set(&user, &Verifier::new(hash, self.iterations, &password)?);
        }
        Ok(file.save()?)
    }

    fn hashes(&self) -> Vec<Hash> {
        if self.mechanism.is_empty() {
            Hash::ALL.to_vec()
        } else {
            self.mechanism.iter().map(|name| name.hash()).collect()
        }
    }

    fn delete(&self, user: String) -> Result<(), Cannot> {
        let mut file = PasswordFile::open(&self.file)?;
        let removed = if self.mechanism.is_empty() {
            file.remove(&user, None)
        } else {
            self.hashes()
                .into_iter()
                .map(|hash| file.remove(&user, Some(hash)))
                .sum()
        };
        if removed == 0 {
            return Err(Cannot::NoUser(user));
        }
        Ok(file.save()?)
    }

    fn print_users(&self) -> Result<(), Cannot> {
        let mut out = io::stdout().lock();
        for (user, hashes) in Passwords::read(&self.file)?.users() {
            let names: Vec<&str> = hashes.map(Hash::mechanism).collect();
            writeln!(out, "{user}: {}", names.join(", ")).map_err(Cannot::Write)?;
        }
        Ok(())
    }
}

fn read_password() -> Result<PreparedPassword, Cannot> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return Ok(PreparedPassword::new(&read_line()?)?);
    }
    let _silent = Silent::start().map_err(Cannot::Read)?;
    let ask = |prompt| {
        eprint!("{prompt}");
        let line = read_line();
        // The terminal has not shown the one that was typed.
        eprintln!();
        line
    };
    let first = ask("New password: ")?;
    let password = PreparedPassword::new(&first)?;
    if ask("Again: ")? == first {
        Ok(password)
    } else {
        Err(Cannot::Differ)
    }
}

/// One line without its end.
fn read_line() -> Result<String, Cannot> {
    let mut line = String::new();
    // A byte more than the longest, and the line's end, show that it is too long.
    io::stdin()
        .lock()
        .take(PASSWORD_MAX as u64 + 2)
        .read_line(&mut line)
        .map_err(Cannot::Read)?;
    if line.ends_with('\n') {
        line.pop();
    }
    Ok(line)
}

/// A terminal that does not show what is typed, until dropped.
struct Silent(Termios);

impl Silent {
    fn start() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &silent)?;
        Ok(Self(before))
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        // A terminal that has gone away needs no restoring.
        tcsetattr(io::stdin(), OptionalActions::Flush, &self.0).unwrap_or(());
    }
}
