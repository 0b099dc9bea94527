//! Child processes that end with the test, whatever happens to it.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use super::account::Account;
use super::wait::{DEADLINE, poll};

/// The Debian package that has each program which the tests run.
const PACKAGES: [(&str, &str); 15] = [
    ("libvirtd", "libvirt-daemon"),
    ("virsh", "libvirt-clients"),
    ("python3", "python3-libvirt"),
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("setpriv", "util-linux"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("systemd-socket-activate", "systemd"),
    ("certtool", "gnutls-bin"),
    ("gnutls-cli", "gnutls-bin"),
    ("dbus-daemon", "dbus-daemon"),
    ("busctl", "systemd"),
    ("ip", "iproute2"),
    ("saslpasswd2", "sasl2-bin"),
    ("virt-ssh-helper", "libvirt-daemon"),
];

/// Finds a program of the system (never one of `/usr/local` or of a version manager, which may
/// lack libvirt's modules).
///
/// # Panics
/// If it is missing, saying which package has it.
pub(crate) fn find_program(name: &str) -> PathBuf {
    let found = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"]
        .iter()
        .map(|dir| Path::new(dir).join(name))
        .find(|path| path.exists());
    let package = PACKAGES
        .iter()
        .find(|(program, _)| *program == name)
        .map_or("the package that has it", |(_, package)| package);
    found.unwrap_or_else(|| panic!("{name} is missing: apt-get install {package}"))
}

/// A command that runs as `account` (`None`: as the tests do), in a process group of its own, and
/// that the kernel kills if the test process dies.
pub(crate) fn command(program: impl AsRef<OsStr>, account: Option<&Account>) -> Command {
    let mut command = Command::new(find_program("setpriv"));
    command
        .args(privileges(account))
        .arg(program)
        .process_group(0)
        .env("LC_ALL", "C");
    command
}

/// The arguments of `setpriv` by which it runs a program as such a [`command`].
pub(crate) fn privileges(account: Option<&Account>) -> Vec<String> {
    let mut args = vec!["--pdeathsig".to_owned(), "KILL".to_owned()];
    if let Some(account) = account.filter(|account| **account != Account::current()) {
        args.push(format!("--reuid={}", account.uid));
        args.push(format!("--regid={}", account.gid));
        let groups: Vec<_> = account.groups.iter().map(u32::to_string).collect();
        if groups.is_empty() {
            args.push("--init-groups".to_owned());
        } else {
            args.push(format!("--groups={}", groups.join(",")));
        }
    }
    args.push("--".to_owned());
    args
}

/// Starts `command` from a thread that lives as long as the process: the kernel's parent-death
/// signal is sent when the *thread* that forked ends, and a test's thread ends early.
fn spawn(command: Command) -> Child {
    type Request = (Command, Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<Mutex<Sender<Request>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (requests, queue) = channel::<Request>();
        thread::spawn(move || {
            for (mut command, answer) in queue {
                // A test that went away needs no answer; dropping the child leaks nothing then, as
                // the process is ending too.
                let _gone = answer.send(command.spawn());
            }
        });
        Mutex::new(requests)
    });
    let (answer, child) = channel();
    spawner.lock().unwrap().send((command, answer)).unwrap();
    child.recv().unwrap().expect("the program starts")
}

/// The lines of one output of a process, or the messages of one socket, as they come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    lines: Arc<Mutex<Vec<String>>>,
}

impl Log {
    pub(crate) fn push(&self, line: String) {
        self.lines.lock().unwrap().push(line);
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// How many lines contain `text`.
    pub(crate) fn count(&self, text: &str) -> usize {
        self.lines()
            .iter()
            .filter(|line| line.contains(text))
            .count()
    }

    /// Waits for a line that contains `text` and returns it.
    ///
    /// # Panics
    /// At the deadline, with all the lines.
    #[track_caller]
    pub(crate) fn wait_for(&self, text: &str) -> String {
        let found = poll(|| self.lines().into_iter().find(|line| line.contains(text)));
        found.unwrap_or_else(|| {
            let lines = self.lines().join("\n");
            panic!("no line with {text:?} came within {DEADLINE:?}, only:\n{lines}")
        })
    }

    fn read_from(&self, source: impl Read + Send + 'static) -> thread::JoinHandle<()> {
        let log = self.clone();
        thread::spawn(move || {
            for line in BufReader::new(source).split(b'\n').map_while(Result::ok) {
                log.push(String::from_utf8_lossy(&line).into_owned());
            }
        })
    }
}

/// A running child process; dropping it kills its process group and reaps it.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
    pid: Pid,
    exit: Option<ExitStatus>,
    stdout: Log,
    stderr: Log,
    readers: Vec<thread::JoinHandle<()>>,
}

impl Process {
    /// Starts a [`command`]; `name` is for messages.
    pub(crate) fn start(name: &str, mut command: Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = spawn(command);
        let (stdout, stderr) = (Log::default(), Log::default());
        let readers = vec![
            stdout.read_from(child.stdout.take().unwrap()),
            stderr.read_from(child.stderr.take().unwrap()),
        ];
        Self {
            name: name.to_owned(),
            pid: Pid::from_child(&child),
            child,
            exit: None,
            stdout,
            stderr,
            readers,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stdout(&self) -> &Log {
        &self.stdout
    }

    pub(crate) fn stderr(&self) -> &Log {
        &self.stderr
    }

    /// Waits for a line of its standard output that contains `text`.
    ///
    /// # Panics
    /// If it ends before, or at the deadline.
    #[track_caller]
    pub(crate) fn wait_for(&mut self, text: &str) {
        let said = poll(|| {
            // Asked first: a line just before the end still counts.
            let ended = self.exit_status().is_some();
            let said = self.stdout.count(text) > 0;
            (said || ended).then_some(said)
        });
        assert_eq!(said, Some(true), "{text:?} did not come\n{}", self.report());
    }

    /// The exit status, if it has ended.
    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait().unwrap();
        }
        self.exit
    }

    /// Sends a signal to the process itself; one that has ended gets none.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.exit_status().is_none() {
            kill_process(self.pid, signal).unwrap();
        }
    }

    /// Waits for it to end by itself.
    ///
    /// # Panics
    /// At the deadline, with its output.
    #[track_caller]
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let Some(exit) = poll(|| self.exit_status()) else {
            panic!(
                "{} has not ended within {DEADLINE:?}\n{}",
                self.name,
                self.report()
            );
        };
        exit
    }

    /// Waits for it to end and for all its output, which it returns.
    #[track_caller]
    pub(crate) fn finish(mut self) -> Output {
        let status = self.wait();
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        Output {
            name: self.name.clone(),
            status,
            stdout: self.stdout.lines().join("\n"),
            stderr: self.stderr.lines().join("\n"),
        }
    }

    /// Ends it and its process group by `SIGKILL`.
    pub(crate) fn kill(&mut self) -> ExitStatus {
        if self.exit_status().is_none() {
            // It may end in between, which is what was wanted.
            let _ended = kill_process_group(self.pid, Signal::KILL);
        }
        let exit = self.child.wait().unwrap();
        self.exit = Some(exit);
        exit
    }

    /// What it has open: the entries of `/proc/PID/fd`.
    pub(crate) fn open_fds(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .unwrap()
            .count()
    }

    /// Its resident memory in KiB.
    pub(crate) fn rss_kib(&self) -> u64 {
        self.status_field("VmRSS:")
    }

    /// The processor time that it has used, in clock ticks (of which a second has 100).
    pub(crate) fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The name, which may hold anything, ends with the last parenthesis.
        let fields = stat.rsplit_once(')').unwrap().1;
        let times = fields.split_whitespace().skip(11).take(2);
        times.map(|time| time.parse::<u64>().unwrap()).sum()
    }

    /// How many threads it has.
    pub(crate) fn threads(&self) -> u64 {
        self.status_field("Threads:")
    }

    /// Whether a signal has stopped it.
    pub(crate) fn is_stopped(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        status.lines().any(|line| line.starts_with("State:\tT"))
    }

    fn status_field(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Its output so far, for the message of a failed test.
    pub(crate) fn report(&self) -> String {
        format!(
            "-- stdout of {name}\n{}\n-- stderr of {name}\n{}",
            self.stdout.lines().join("\n"),
            self.stderr.lines().join("\n"),
            name = self.name,
        )
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("{}", self.report());
        }
    }
}

/// What a process that has ended left behind.
#[derive(Debug)]
pub(crate) struct Output {
    name: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Output {
    /// The standard output of a success.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert!(self.status.success(), "{} failed: {self:#?}", self.name);
        self.stdout
    }

    /// The standard error of a failure.
    #[track_caller]
    pub(crate) fn failed(self) -> String {
        assert!(
            !self.status.success(),
            "{} did not fail: {self:#?}",
            self.name
        );
        self.stderr
    }
}
