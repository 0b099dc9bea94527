//! A real `libvirtd` without privileges, several at once.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use super::account::Account;
use super::host::Host;
use super::process::{Process, command, find_program, privileges};
use super::rpc_client::RpcClient;
use super::tool::{uri_at, virsh};
use super::wait::{DEADLINE, eventually, poll};
use super::workdir::{WorkDir, make_dir};

/// Settings of its QEMU driver: no `virtlogd` beside it, which would outlive it.
const QEMU_CONF: &str = "stdio_handler = \"file\"\n";

/// Settings of the daemon: no pings of its own, so that a client may be halted for as long as a slow
/// machine takes.
const LIBVIRTD_CONF: &str = "keepalive_interval = -1\n";

/// The daemon with all its directories. It serves `test:///default` (state shared by the
/// connections of a daemon, and gone when the last of them closes), `qemu:///session` (real dir
/// pools and TCG guests), and `storage`, `network`, `nodedev`, `secret`, `interface:///session`.
/// It has no read-only socket, as every daemon run by a user. Dropping it kills it and its guests.
#[derive(Debug)]
pub(crate) struct Libvirtd {
    // Dropped in this order: the process before its directories.
    process: Process,
    dir: WorkDir,
    account: Account,
    how: How,
}

/// How it is started, each time.
#[derive(Debug, Default)]
struct How {
    env: Vec<(&'static str, String)>,
    args: &'static [&'static str],
    /// The first process of the network that it is in, unless that is the machine's own.
    network: Option<u32>,
}

impl Libvirtd {
    /// Starts one as [`Account::unprivileged`] and waits until it serves.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::start_as(&Account::unprivileged())
    }

    /// Starts one as `account`, which must not be root.
    #[track_caller]
    pub(crate) fn start_as(account: &Account) -> Self {
        Self::launch_in_new_dir(account, "", How::default())
    }

    /// Starts one as [`Account::unprivileged`] with these environment variables more.
    #[track_caller]
    pub(crate) fn start_with(env: &[(&'static str, &'static str)]) -> Self {
        Self::configured("", env)
    }

    /// Starts one as [`Account::unprivileged`] with these lines in its `libvirtd.conf`.
    #[track_caller]
    pub(crate) fn configured(conf: &str, env: &[(&'static str, &str)]) -> Self {
        let how = How {
            env: own(env),
            ..How::default()
        };
        Self::launch_in_new_dir(&Account::unprivileged(), conf, how)
    }

    /// The same, listening for remote clients as well.
    #[track_caller]
    pub(crate) fn listening(conf: &str) -> Self {
        Self::listening_with(conf, &[], None)
    }

    /// The same with environment variables, and on another host than the machine itself.
    #[track_caller]
    pub(crate) fn listening_with(
        conf: &str,
        env: &[(&'static str, &str)],
        host: Option<&Host>,
    ) -> Self {
        let how = How {
            env: own(env),
            args: &["--listen"],
            network: host.map(Host::pid),
        };
        Self::launch_in_new_dir(&Account::unprivileged(), conf, how)
    }

    #[track_caller]
    fn launch_in_new_dir(account: &Account, conf: &str, how: How) -> Self {
        assert!(
            !account.is_root(),
            "root's libvirtd would be the machine's own"
        );
        let dir = WorkDir::owned_by(account);
        furnish(dir.path(), account, conf);
        let process = launch(dir.path(), account, &how);
        let mut daemon = Self {
            process,
            dir,
            account: account.clone(),
            how,
        };
        let socket = daemon.socket();
        wait_until_it_serves(&mut daemon.process, &socket);
        daemon
    }

    /// The read-write socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("run/libvirt/libvirt-sock")
    }

    /// A URI by which clients reach this daemon directly.
    pub(crate) fn uri(&self, uri: &str) -> String {
        uri_at(uri, &self.socket())
    }

    /// Its own directory, which the daemon's user owns.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    pub(crate) fn process(&self) -> &Process {
        &self.process
    }

    /// Kills it by `SIGKILL`; its socket file stays, as nobody removes it.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on the same paths after [`Self::kill`].
    #[track_caller]
    pub(crate) fn restart(&mut self) {
        self.process.kill();
        self.process = launch(self.dir.path(), &self.account, &self.how);
        let socket = self.socket();
        wait_until_it_serves(&mut self.process, &socket);
    }

    /// Stops it by `SIGSTOP`: connections to it succeed (the kernel sees to that), and it answers
    /// nothing.
    #[track_caller]
    pub(crate) fn pause(&mut self) {
        self.process.signal(Signal::STOP);
        eventually("libvirtd has stopped", || self.process.is_stopped());
    }

    /// Lets it go on.
    pub(crate) fn resume(&mut self) {
        self.process.signal(Signal::CONT);
    }

    /// Makes a running directory pool of the QEMU driver called `name`, and returns its directory.
    #[track_caller]
    pub(crate) fn dir_pool(&self, name: &str) -> PathBuf {
        let target = self.dir.join("pools").join(name);
        make_dir(&target, &self.account);
        let uri = self.uri("qemu:///session");
        let args = [
            "pool-create-as",
            name,
            "dir",
            "--target",
            &target.to_string_lossy(),
        ];
        virsh(&uri, &args).run().ok();
        target
    }

    /// Makes an empty raw volume of `mib` MiB in such a pool.
    #[track_caller]
    pub(crate) fn volume(&self, pool: &str, name: &str, mib: u32) {
        let capacity = format!("{mib}MiB");
        let args = ["vol-create-as", pool, name, &capacity, "--allocation", "0"];
        virsh(&self.uri("qemu:///session"), &args).run().ok();
    }
}

/// Makes a daemon's directories and files in `dir`.
pub(crate) fn furnish(dir: &Path, account: &Account, conf: &str) {
    for name in ["home", "run", "config", "cache", "data", "pools"] {
        make_dir(&dir.join(name), account);
    }
    make_dir(&dir.join("config/libvirt"), account);
    fs::write(dir.join("config/libvirt/qemu.conf"), QEMU_CONF).unwrap();
    let conf = format!("{LIBVIRTD_CONF}{conf}");
    fs::write(dir.join("config/libvirt/libvirtd.conf"), conf).unwrap();
}

fn own(env: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    let own = |(name, value): &(&'static str, &str)| (*name, (*value).to_owned());
    env.iter().map(own).collect()
}

fn launch(dir: &Path, account: &Account, how: &How) -> Process {
    let program = find_program("libvirtd");
    let mut command = match how.network {
        None => command(program, Some(account)),
        Some(pid) => {
            let mut command = command(find_program("nsenter"), None);
            command
                .arg(format!("--net=/proc/{pid}/ns/net"))
                .arg(find_program("setpriv"))
                .args(privileges(Some(account)))
                .arg(program);
            command
        }
    };
    command
        .args(how.args)
        .env_clear()
        .env("PATH", "/usr/bin:/usr/sbin:/bin:/sbin")
        .env("LC_ALL", "C")
        .envs(how.env.iter().map(|(name, value)| (name, value)))
        .envs(directories(dir));
    Process::start("libvirtd", command)
}

/// The variables that tell a user's programs where their directories are, for a daemon in `dir`.
pub(crate) fn directories(dir: &Path) -> impl Iterator<Item = (&'static str, PathBuf)> {
    [
        ("HOME", "home"),
        ("XDG_RUNTIME_DIR", "run"),
        ("XDG_CONFIG_HOME", "config"),
        ("XDG_CACHE_HOME", "cache"),
        ("XDG_DATA_HOME", "data"),
    ]
    .into_iter()
    .map(|(variable, name)| (variable, dir.join(name)))
}

impl Drop for Libvirtd {
    fn drop(&mut self) {
        self.process.kill();
        // Its guests are daemons of their own; their pid files are in its run directory.
        let guests = fs::read_dir(self.dir.join("run/libvirt/qemu/run"));
        for entry in guests.into_iter().flatten().flatten() {
            let path = entry.path();
            if path.extension().is_none_or(|extension| extension != "pid") {
                continue;
            }
            kill_guest(&path, self.dir.path());
        }
    }
}

/// Kills the guest whose pid file this is, if that process is a guest of the daemon in `dir`: a
/// number may have passed on to another process, which must not be touched.
fn kill_guest(pid_file: &Path, dir: &Path) {
    let pid = fs::read_to_string(pid_file)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    let Some(pid) = pid.and_then(Pid::from_raw) else {
        return;
    };
    let cmdline = || fs::read(format!("/proc/{}/cmdline", pid.as_raw_pid())).unwrap_or_default();
    let ours =
        |cmdline: Vec<u8>| String::from_utf8_lossy(&cmdline).contains(&*dir.to_string_lossy());
    if ours(cmdline()) {
        // It may end in between, which is what was wanted.
        let _ended = kill_process(pid, Signal::KILL);
        let gone = poll(|| (!ours(cmdline())).then_some(()));
        if gone.is_none() {
            eprintln!("guest {pid:?} did not end within {DEADLINE:?}");
        }
    }
}

/// Waits until the daemon answers on this socket.
#[track_caller]
pub(super) fn wait_until_it_serves(process: &mut Process, socket: &Path) {
    let serves = poll(|| {
        if process.exit_status().is_some() {
            return Some(false);
        }
        // It answers nothing before its drivers are ready.
        RpcClient::try_connect(socket)
            .ok()
            .map(|mut client| !client.auth_list().is_empty())
    });
    assert_eq!(
        serves,
        Some(true),
        "libvirtd does not serve\n{}",
        process.report()
    );
}
