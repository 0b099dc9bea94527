//! The binary under test.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use rustix::process::Signal;

use super::account::Account;
use super::notify::Notify;
use super::process::{Log, Output, Process, command};
use super::tool::uri_at;
use super::workdir::{WorkDir, give};

/// How to start the proxy: as the user running the tests, on a policy file of its own, unless told
/// otherwise.
#[derive(Debug)]
pub(crate) struct ProxyBuilder {
    dir: WorkDir,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(String, OsString)>,
    account: Option<Account>,
}

/// A running proxy. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Proxy {
    // Dropped in this order: the process before what it uses.
    process: Process,
    notify: Notify,
    dir: WorkDir,
}

impl ProxyBuilder {
    /// `virtproxyd -f routes.yaml`, with what `policy` writes for the proxy's directory, where its
    /// sockets belong.
    pub(crate) fn new(policy: impl FnOnce(&Path) -> String) -> Self {
        let dir = WorkDir::new();
        fs::write(dir.join("routes.yaml"), policy(dir.path())).unwrap();
        Self {
            args: vec!["-f".into(), dir.join("routes.yaml").into()],
            dir,
            program: env!("CARGO_BIN_EXE_virtproxyd").into(),
            env: Vec::new(),
            account: None,
        }
    }

    /// Another program in place of the proxy.
    pub(crate) fn program(mut self, program: PathBuf, args: &[&str]) -> Self {
        self.program = program;
        self.args.splice(0..0, args.iter().map(Into::into));
        self
    }

    /// More arguments.
    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(Into::into));
        self
    }

    /// One more environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.into()));
        self
    }

    /// As another user, which needs root. The proxy's directory becomes that user's.
    pub(crate) fn account(mut self, account: &Account) -> Self {
        give(self.dir.path(), account);
        // That user may not be allowed into the build directory.
        let copy = self.dir.join("program");
        fs::copy(&self.program, &copy).unwrap();
        self.program = copy;
        self.account = Some(account.clone());
        self
    }

    fn launch(&self, notify: &Path) -> Process {
        let mut command = command(&self.program, self.account.as_ref());
        command
            .args(&self.args)
            .envs(self.env.iter().cloned())
            .env("NOTIFY_SOCKET", notify);
        Process::start("virtproxyd", command)
    }

    /// Starts it and waits until it says `READY=1`.
    ///
    /// # Panics
    /// If it ends before that or the deadline passes.
    #[track_caller]
    pub(crate) fn start(self) -> Proxy {
        let notify = Notify::bind(&self.dir.join("notify"));
        let process = self.launch(notify.path());
        let mut proxy = Proxy {
            process,
            notify,
            dir: self.dir,
        };
        proxy.wait_notified("READY=1", 0);
        proxy
    }

    /// Runs it to its end, as where it is expected to refuse its policy.
    #[track_caller]
    pub(crate) fn run(self) -> Output {
        let notify = Notify::bind(&self.dir.join("notify"));
        self.launch(notify.path()).finish()
    }
}

impl Proxy {
    /// Its directory, which was given to the policy.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The URI by which clients reach the socket called `socket` in its directory.
    pub(crate) fn uri(&self, uri: &str, socket: &str) -> String {
        uri_at(uri, &self.dir.join(socket))
    }

    /// The policy file.
    pub(crate) fn policy(&self) -> PathBuf {
        self.dir.join("routes.yaml")
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        self.process.signal(signal);
    }

    /// What it notified, one entry per datagram.
    pub(crate) fn notified(&self) -> &Log {
        self.notify.messages()
    }

    /// Waits until a message after the first `seen` has the line `assignment`, and returns those
    /// after `seen` up to it.
    #[track_caller]
    pub(crate) fn wait_notified(&mut self, assignment: &str, seen: usize) -> Vec<String> {
        let process = &mut self.process;
        self.notify.wait_for(assignment, seen, || {
            process
                .exit_status()
                .map(|exit| format!("{exit}\n{}", process.report()))
        })
    }

    /// Reloads by `SIGHUP`, waits for `RELOADING=1` and then `READY=1`, and returns what was
    /// notified from the signal on.
    #[track_caller]
    pub(crate) fn reload(&mut self) -> Vec<String> {
        let seen = self.notified().lines().len();
        self.signal(Signal::HUP);
        let mut messages = self.wait_notified("RELOADING=1", seen);
        messages.extend(self.wait_notified("READY=1", seen + messages.len()));
        messages
    }

    /// Asks it to end by `SIGTERM` and waits for that.
    #[track_caller]
    pub(crate) fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait()
    }

    /// Waits for it to end by itself.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.process.wait()
    }
}
