//! A private system bus with a private polkit, and clients of several users.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::User;
use rustix::process::{Pid, Signal, kill_process};
use zbus::connection::Builder;

use crate::policy::facts::UnixFacts;
use crate::server::names::{Names, Unknown};
use crate::server::peercred::Peer;

/// libvirt's actions; the machine may have no libvirt, so polkit gets a file of ours.
const ACTIONS: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE policyconfig PUBLIC "-//freedesktop//DTD PolicyKit Policy Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/PolicyKit/1.0/policyconfig.dtd">
<policyconfig>
  <action id="org.libvirt.unix.monitor">
    <description>Read</description><message>Read</message>
    <defaults><allow_any>yes</allow_any></defaults>
  </action>
  <action id="org.libvirt.unix.manage">
    <description>Write</description><message>Write</message>
    <defaults><allow_any>no</allow_any></defaults>
  </action>
</policyconfig>
"#;

const RULES: &str = r#"
polkit.addRule(function(action, subject) {
    if (action.id != "org.libvirt.unix.manage") return;
    if (subject.user == "bin") return polkit.Result.YES;
    if (subject.user == "daemon") return polkit.Result.NO;
    if (subject.user == "nobody") return polkit.Result.AUTH_SELF;
});
"#;

/// A bus on which everybody may do everything.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>system</type>
  <listen>unix:path=@DIR@/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"#;

/// polkitd reads fixed directories, so it gets a view of the file system where ours lie there.
const POLKITD: &str = "mount --bind \"$1/etc\" /etc/polkit-1 &&
    mount --bind \"$1/share\" /usr/share/polkit-1 &&
    exec /usr/lib/polkit-1/polkitd --no-debug";

/// How long a condition may take to hold.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` holds.
pub(super) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A child process, killed on drop and with the thread that started it.
struct Process(Child);

impl Process {
    fn start(mut command: Command) -> Self {
        let program = command.get_program().to_os_string();
        let child = command.stdin(Stdio::piped()).spawn();
        Self(child.unwrap_or_else(|error| panic!("cannot start {program:?}: {error}")))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}

/// The bus and polkit.
pub(super) struct Host {
    polkitd: Option<Process>,
    daemon: Option<Process>,
    address: String,
    dir: tempfile::TempDir,
}

impl Host {
    /// Starts both.
    ///
    /// # Panics
    /// Without root: polkitd has to change to its own user, must be shown its own files, and
    /// answers questions about users other than the asker's to root alone.
    pub(super) async fn start() -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "polkitd runs only if it is started by root: run this test as root, or leave it out \
             with `--skip auth::polkit::tests`"
        );
        for (program, package) in [
            ("/usr/bin/dbus-daemon", "dbus-daemon"),
            ("/usr/lib/polkit-1/polkitd", "polkitd"),
            ("/usr/bin/python3", "python3"),
        ] {
            assert!(
                Path::new(program).exists(),
                "{program} is missing: install the package {package}"
            );
        }
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["etc/rules.d", "share/rules.d", "share/actions"] {
            fs::create_dir_all(dir.path().join(name)).unwrap();
        }
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("share/actions/org.libvirt.unix.policy", ACTIONS);
        write("etc/rules.d/10-test.rules", RULES);
        let path = dir.path().to_str().unwrap();
        write("bus.conf", &BUS.replace("@DIR@", path));
        let mut host = Self {
            polkitd: None,
            daemon: None,
            address: format!("unix:path={path}/bus"),
            dir,
        };
        host.start_bus();
        host.start_polkitd().await;
        host
    }

    pub(super) fn bus(&self) -> &str {
        &self.address
    }

    pub(super) fn start_bus(&mut self) {
        let _left_by_a_killed_one = fs::remove_file(self.dir.path().join("bus"));
        let mut command = command("/usr/bin/dbus-daemon", None);
        command
            .args(["--nofork", "--nopidfile", "--print-address=1"])
            .arg("--config-file")
            .arg(self.dir.path().join("bus.conf"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut daemon = Process::start(command);
        let mut output = BufReader::new(daemon.0.stdout.take().unwrap());
        let mut address = String::new();
        output.read_line(&mut address).unwrap();
        assert!(address.starts_with("unix:path="), "no bus: {address:?}");
        self.daemon = Some(daemon);
    }

    pub(super) fn stop_bus(&mut self) {
        self.daemon = None;
    }

    pub(super) fn signal_bus(&self, signal: Signal) {
        let child = &self.daemon.as_ref().unwrap().0;
        kill_process(Pid::from_child(child), signal).unwrap();
    }

    pub(super) async fn start_polkitd(&mut self) {
        let mut command = command("/usr/bin/unshare", None);
        command
            .args(["--mount", "sh", "-c", POLKITD, "sh"])
            .arg(self.dir.path())
            .env("DBUS_SYSTEM_BUS_ADDRESS", &self.address)
            .stdout(Stdio::null());
        self.polkitd = Some(Process::start(command));
        let connection = Builder::address(self.bus()).build().await.unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let reply = connection
                .call_method(
                    Some("org.freedesktop.DBus"),
                    "/org/freedesktop/DBus",
                    Some("org.freedesktop.DBus"),
                    "NameHasOwner",
                    &"org.freedesktop.PolicyKit1",
                )
                .await
                .unwrap();
            if reply.body().deserialize().unwrap() {
                break;
            }
            assert!(Instant::now() < deadline, "polkitd has not come up");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(super) fn stop_polkitd(&mut self) {
        self.polkitd = None;
    }
}

/// A process of `user` with a UNIX socket connected to us.
pub(super) struct Client {
    process: Process,
    conn: UnixStream,
    pub(super) facts: UnixFacts,
}

impl Client {
    pub(super) fn of(user: &str) -> Self {
        let user = User::from_name(user).unwrap().expect("the user exists");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let listener = UnixListener::bind(&path).unwrap();
        for path in [dir.path(), &path] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        let mut command = command("/usr/bin/python3", Some(&user));
        command.arg("-c").arg(
            "import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); sys.stdin.read()",
        );
        command.arg(&path);
        let process = Process::start(command);
        let (conn, _) = listener.accept().unwrap();
        let peer = Peer::of(&conn).unwrap();
        let facts = peer.facts(&Names::default(), Unknown::Ask).unwrap();
        assert_eq!(facts.uid, user.uid.as_raw());
        Self {
            process,
            conn,
            facts,
        }
    }

    pub(super) fn pidfd(&self) -> Option<OwnedFd> {
        getsockopt(&self.conn, sockopt::PeerPidfd).ok()
    }

    pub(super) fn end(&mut self) {
        self.process.0.kill().unwrap();
        self.process.0.wait().unwrap();
    }
}

fn command(program: &str, user: Option<&User>) -> Command {
    let mut command = Command::new("/usr/bin/setpriv");
    command.args(["--pdeathsig", "KILL"]);
    if let Some(user) = user {
        command
            .arg(format!("--reuid={}", user.uid))
            .arg(format!("--regid={}", user.gid))
            .arg("--clear-groups");
    }
    command.arg(program).env("LC_ALL", "C");
    command
}
