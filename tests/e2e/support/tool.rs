//! Real clients: `virsh`, and Python with libvirt's own binding.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use super::account::Account;
use super::process::{Output, Process, command, find_program, privileges};
use super::scripts::Script;

/// Rewrites a driver's URI so that a client goes to `socket` with it: `test:///default` becomes
/// `test+unix:///default?socket=PATH`.
pub(crate) fn uri_at(uri: &str, socket: &Path) -> String {
    let (scheme, rest) = uri.split_once(':').unwrap();
    let join = if rest.contains('?') { '&' } else { '?' };
    format!("{scheme}+unix:{rest}{join}socket={}", socket.display())
}

/// A client program with its arguments, yet to be run.
#[derive(Debug)]
pub(crate) struct Tool {
    name: String,
    program: &'static str,
    args: Vec<String>,
    account: Option<Account>,
    env: Vec<(String, OsString)>,
}

/// `virsh` connected to `uri` (see [`uri_at`]).
pub(crate) fn virsh(uri: &str, args: &[&str]) -> Tool {
    Tool {
        name: format!("virsh {}", args.join(" ")),
        program: "virsh",
        args: [&["-q", "-c", uri], args]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect(),
        account: None,
        env: Vec::new(),
    }
}

/// A Python script with its arguments.
pub(crate) fn python(script: Script, args: &[&str]) -> Tool {
    Tool {
        name: script.name.to_owned(),
        program: "python3",
        args: [&["-u", "-c", script.text], args]
            .concat()
            .into_iter()
            .map(str::to_owned)
            .collect(),
        account: None,
        env: Vec::new(),
    }
}

impl Tool {
    /// Runs it as another user, which needs root.
    pub(crate) fn account(mut self, account: &Account) -> Self {
        self.account = Some(account.clone());
        self
    }

    /// One more environment variable.
    #[cfg(feature = "gssapi")]
    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// Starts it and leaves it running.
    pub(crate) fn start(self) -> Process {
        let command = command(find_program(self.program), self.account.as_ref());
        self.start_by(command)
    }

    /// The same among the processes of another namespace, whose first is `pid`. It sees the same
    /// files.
    pub(crate) fn start_among(self, pid: u32) -> Process {
        let mut command = command(find_program("nsenter"), None);
        command
            .args(["--target", &pid.to_string(), "--pid", "--"])
            .arg(find_program("setpriv"))
            .args(privileges(self.account.as_ref()))
            .arg(find_program(self.program));
        self.start_by(command)
    }

    fn start_by(self, mut command: Command) -> Process {
        // A client must meet the daemon under test and never start one of its own.
        command
            .args(&self.args)
            .envs(self.env)
            .env("LIBVIRT_AUTOSTART", "0")
            .env_remove("LIBVIRT_DEFAULT_URI");
        Process::start(&self.name, command)
    }

    /// Runs it to its end, within the deadline.
    #[track_caller]
    pub(crate) fn run(self) -> Output {
        self.start().finish()
    }
}

/// Compares what one client said with what the same client said on another way.
///
/// # Panics
/// If they differ, with only the lines that do.
#[track_caller]
pub(crate) fn assert_same(expected: &str, actual: &str) {
    let lines = expected.lines().zip(actual.lines());
    let differing: Vec<_> = lines
        .filter(|(expected, actual)| expected != actual)
        .map(|(expected, actual)| format!("- {expected}\n+ {actual}"))
        .collect();
    assert!(
        differing.is_empty(),
        "these lines differ:\n{}",
        differing.join("\n")
    );
    assert_eq!(
        expected.lines().count(),
        actual.lines().count(),
        "one ends before the other"
    );
}
