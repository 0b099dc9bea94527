//! A real `libvirtd` with all privileges, which touches nothing of the machine's own: it has
//! namespaces of its own for files, processes and networks, and directories of its own in place of
//! those of the machine's.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};

use super::account::Account;
use super::bus::prepare_bus;
use super::caller::Caller;
use super::libvirtd::wait_until_it_serves;
use super::process::{Process, command, find_program};
use super::tool::uri_at;
use super::wait::poll;
use super::workdir::WorkDir;

/// Settings of the daemon: everybody may connect, and it sends no pings.
const LIBVIRTD_CONF: &str = "keepalive_interval = -1
auth_unix_rw = \"none\"
auth_unix_ro = \"none\"
unix_sock_rw_perms = \"0777\"
";

/// Settings of its QEMU driver: guests run as root and are not confined, and there is no `virtlogd`.
const QEMU_CONF: &str = "stdio_handler = \"file\"
user = \"root\"
group = \"root\"
security_driver = \"none\"
";

/// What runs in the namespaces, as their first process, which reaps guests. Control groups are
/// taken away: those of the guests would be left on the machine.
const FIRST: &str = "set -e
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir /run/libvirt
for name in run:/run etc:/etc lib:/var/lib log:/var/log cache:/var/cache; do
    mount --bind \"$1/${name%%:*}\" \"${name##*:}/libvirt\"
done
if [ -e \"$1/bus.conf\" ]; then
    mount --bind \"$1/polkit/etc\" /etc/polkit-1
    mount --bind \"$1/polkit/share\" /usr/share/polkit-1
    export DBUS_SYSTEM_BUS_ADDRESS=\"unix:path=$1/bus\"
    dbus-daemon --nofork --nopidfile --config-file \"$1/bus.conf\" &
    while ! [ -S \"$1/bus\" ]; do sleep 0.01; done
    /usr/lib/polkit-1/polkitd --no-debug &
    while ! busctl --address \"$DBUS_SYSTEM_BUS_ADDRESS\" --acquired --no-legend list |
        grep -q org.freedesktop.PolicyKit1; do sleep 0.01; done
fi
libvirtd &
wait
";

/// The daemon. It serves `qemu:///system` with TCG guests, networks, directory pools, secrets,
/// network filters, interfaces and node devices, and `test:///default`. Dropping it kills it and
/// whatever it has started.
#[derive(Debug)]
pub(crate) struct System {
    // Dropped in this order: the processes before their directories.
    process: Process,
    dir: WorkDir,
    first: Pid,
}

impl System {
    /// Starts one and waits until it serves.
    ///
    /// # Panics
    /// Without root.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::launch("", None)
    }

    /// Starts one that asks its own polkit with these rules about each call.
    #[track_caller]
    pub(crate) fn with_polkit(rules: &str) -> Self {
        Self::launch("access_drivers = [ \"polkit\" ]\n", Some(rules))
    }

    #[track_caller]
    fn launch(conf: &str, rules: Option<&str>) -> Self {
        assert!(
            Account::current().is_root(),
            "a libvirtd with all privileges is started by root: run this test as root, or leave \
             it out"
        );
        let dir = WorkDir::new();
        for name in ["run", "etc", "lib", "log", "cache", "pools"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        let conf = format!("{LIBVIRTD_CONF}{conf}");
        fs::write(dir.join("etc/libvirtd.conf"), conf).unwrap();
        fs::write(dir.join("etc/qemu.conf"), QEMU_CONF).unwrap();
        if let Some(rules) = rules {
            prepare_bus(dir.path(), &Account::current().name, rules);
        }
        let mut unshare = command(find_program("unshare"), None);
        unshare
            .args(["--mount", "--net", "--pid", "--fork", "--kill-child"])
            .args(["--mount-proc", "sh", "-c", FIRST, "sh"])
            .arg(dir.path())
            .env_remove("DBUS_SYSTEM_BUS_ADDRESS");
        let mut process = Process::start("libvirtd", unshare);
        let first = first_of(&mut process);
        let mut system = Self {
            process,
            dir,
            first,
        };
        let socket = system.socket();
        wait_until_it_serves(&mut system.process, &socket);
        system
    }

    /// The read-write socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join("run/libvirt-sock")
    }

    /// A URI by which clients reach this daemon directly.
    pub(crate) fn uri(&self, uri: &str) -> String {
        uri_at(uri, &self.socket())
    }

    /// Its own directory; pools have a place in `pools`.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A client of this user, among the daemon's processes: to polkit, others are nobody.
    #[track_caller]
    pub(crate) fn caller(&self, account: &Account, uri: &str) -> Caller {
        let first = self.first.as_raw_pid().cast_unsigned();
        Caller::opened_by(account, &self.socket(), uri, |tool| tool.start_among(first))
    }
}

/// The first process of the namespace that `unshare` has made.
#[track_caller]
fn first_of(unshare: &mut Process) -> Pid {
    let pid = unshare.pid();
    let children = format!("/proc/{pid}/task/{pid}/children");
    let first = poll(|| {
        let children = fs::read_to_string(&children).ok()?;
        let first = children.split_whitespace().next()?;
        Pid::from_raw(first.parse().unwrap())
    });
    first.unwrap_or_else(|| panic!("no first process\n{}", unshare.report()))
}

impl Drop for System {
    fn drop(&mut self) {
        // The namespace ends with its first process, and `unshare` when all of it has ended.
        if self.process.exit_status().is_none() {
            let _ended = kill_process(self.first, Signal::KILL);
            let ended = poll(|| self.process.exit_status());
            assert!(ended.is_some(), "the namespace of libvirtd has not ended");
        }
    }
}
