//! `--daemon`: the work goes on in a background process, and the one that was started ends only
//! once that process serves clients.
//!
//! A program with threads cannot fork, so the program is started again, with a pipe as its
//! standard output on which it says that it is ready.

use std::env;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::process::{Command, Stdio};

/// What the background process writes when it is ready.
const READY: &[u8] = b"ready\n";

/// The hidden option that tells a process that it is the background one.
pub const BACKGROUND_OPTION: &str = "--background";

/// Starts the program again in the background and waits until it is ready.
///
/// Returns whether it is; if not, it has said why on stderr.
///
/// # Errors
/// The program cannot be started.
pub fn start_in_background() -> io::Result<bool> {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let mut child = Command::new(env::current_exe()?)
        .args(arguments)
        .arg(BACKGROUND_OPTION)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut said = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        stdout.take(READY.len() as u64).read_to_end(&mut said)?;
    }
    if said == READY {
        return Ok(true);
    }
    child.wait()?;
    Ok(false)
}

/// First steps of the background process: a session of its own, no directory kept busy.
///
/// # Errors
/// The system refuses.
pub(crate) fn enter() -> io::Result<()> {
    // Fails only for a process that leads its group already; then it has no terminal to lose.
    let _ = rustix::process::setsid();
    env::set_current_dir("/")
}

/// Lets go of the standard streams and tells the waiting process that we are ready.
///
/// # Errors
/// The waiting process is gone, or the streams cannot be closed.
pub(crate) fn ready() -> io::Result<()> {
    let mut waiting = File::from(rustix::io::dup(io::stdout())?);
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    waiting.write_all(READY)
}
