//! The binary under test.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use rustix::process::Signal;

use super::account::Account;
use super::notify::Notify;
use super::policy::{MAIN, everything_to};
use super::process::{Log, Output, Process, command, find_program};
use super::tool::uri_at;
use super::workdir::{WorkDir, give};

/// How to start the proxy: as the user running the tests, on a policy file of its own, unless told
/// otherwise.
#[derive(Debug)]
pub(crate) struct ProxyBuilder {
    dir: WorkDir,
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(String, String)>,
    account: Option<Account>,
    activated: Vec<(String, String)>,
}

/// A running proxy. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Proxy {
    // Dropped in this order: the process before what it uses.
    process: Process,
    notify: Notify,
    how: ProxyBuilder,
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
            activated: Vec::new(),
        }
    }

    /// Another program, with arguments of its own before the others, in place of the proxy.
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
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// As another user, which needs root. The proxy's directory becomes that user's.
    pub(crate) fn account(mut self, account: &Account) -> Self {
        give(self.dir.path(), account);
        // That user may not be allowed into the build directory.
        let copy = self.dir.join("program");
        // By another process: while this one writes a file, whatever another thread of it starts
        // holds the file open for a moment, and what is being written cannot be run.
        let copied = Command::new("cp").arg(&self.program).arg(&copy).status();
        assert!(copied.unwrap().success());
        self.program = copy;
        self.account = Some(account.clone());
        self
    }

    /// By `systemd-socket-activate`, which listens on a socket called `file` in the proxy's
    /// directory and starts the proxy at the first connection, giving it the socket as `name`.
    /// Several calls give several sockets.
    pub(crate) fn activated(self, name: &str, file: &str) -> Self {
        let path = self.dir.join(file).display().to_string();
        self.activated_at(name, &path)
    }

    /// The same with a socket at any address that systemd knows, such as `[::1]:16514`.
    pub(crate) fn activated_at(mut self, name: &str, address: &str) -> Self {
        self.activated.push((name.to_owned(), address.to_owned()));
        self
    }

    /// What runs: the program with its arguments, or what activates it.
    fn command_line(&self, env: &[(String, String)]) -> (PathBuf, Vec<OsString>) {
        if self.activated.is_empty() {
            return (self.program.clone(), self.args.clone());
        }
        let mut args = Vec::<OsString>::new();
        // It passes on no other variable.
        for (name, value) in env {
            args.extend(["-E".into(), format!("{name}={value}").into()]);
        }
        let mut names = Vec::new();
        for (name, address) in &self.activated {
            args.extend(["-l".into(), address.into()]);
            names.push(name.as_str());
        }
        args.push(format!("--fdname={}", names.join(":")).into());
        args.push(self.program.clone().into());
        args.extend(self.args.iter().cloned());
        (find_program("systemd-socket-activate"), args)
    }

    fn launch(&self, notify: &Notify) -> Process {
        let mut env = self.env.clone();
        env.push((
            "NOTIFY_SOCKET".to_owned(),
            notify.path().display().to_string(),
        ));
        let (program, args) = self.command_line(&env);
        let mut command = command(program, self.account.as_ref());
        command.args(args).envs(env);
        Process::start("virtproxyd", command)
    }

    /// Starts it. If it is not activated, this waits until it says `READY=1`; if it is, until the
    /// sockets are there.
    ///
    /// # Panics
    /// If it ends before that or the deadline passes.
    #[track_caller]
    pub(crate) fn start(self) -> Proxy {
        let notify = Notify::bind(&self.dir.join("notify"));
        let process = self.launch(&notify);
        let mut proxy = Proxy {
            process,
            notify,
            how: self,
        };
        proxy.wait_until_started(0);
        proxy
    }

    /// Runs it to its end, as where it is expected to refuse its policy.
    #[track_caller]
    pub(crate) fn run(self) -> Output {
        let notify = Notify::bind(&self.dir.join("notify"));
        self.launch(&notify).finish()
    }
}

impl Proxy {
    /// Starts one that sends everything to the daemon at `upstream` (see [`everything_to`]).
    #[track_caller]
    pub(crate) fn before(upstream: &Path) -> Self {
        ProxyBuilder::new(|dir| everything_to(dir, upstream, "")).start()
    }

    /// The socket of its listener `main`, where the policy has the usual ones.
    pub(crate) fn socket(&self) -> PathBuf {
        self.how.dir.join(MAIN)
    }

    /// Its directory, which was given to the policy.
    pub(crate) fn dir(&self) -> &Path {
        self.how.dir.path()
    }

    /// The URI by which clients reach the socket called `file` in its directory.
    pub(crate) fn uri(&self, uri: &str, file: &str) -> String {
        uri_at(uri, &self.how.dir.join(file))
    }

    /// The policy file.
    pub(crate) fn policy(&self) -> PathBuf {
        self.how.dir.join("routes.yaml")
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

    #[track_caller]
    fn wait_until_started(&mut self, seen: usize) {
        if self.how.activated.is_empty() {
            self.wait_notified("READY=1", seen);
        } else {
            // Said once for each socket.
            for (_, address) in &self.how.activated {
                self.process
                    .stderr()
                    .wait_for(&format!("Listening on {address}"));
            }
        }
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

    /// Kills it if it still runs and starts it again in the same directory, where it finds what it
    /// left, as [`ProxyBuilder::start`] does.
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.process.kill();
        let seen = self.notified().lines().len();
        self.process = self.how.launch(&self.notify);
        self.wait_until_started(seen);
    }
}
