//! A private system bus with a private polkit, for the proxy and `libvirtd`.

use std::fs;
use std::path::Path;

use super::account::Account;
use super::process::{Process, command, find_program};
use super::wait::eventually;
use super::workdir::WorkDir;

/// libvirt's actions, and who may ask about clients of other users beside root: an unprivileged
/// `libvirtd`.
const ACTIONS: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE policyconfig PUBLIC "-//freedesktop//DTD PolicyKit Policy Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/PolicyKit/1.0/policyconfig.dtd">
<policyconfig>
  <action id="org.libvirt.unix.monitor">
    <description>Read</description><message>Read</message>
    <defaults><allow_any>yes</allow_any></defaults>
    <annotate key="org.freedesktop.policykit.owner">unix-user:@OWNER@</annotate>
  </action>
  <action id="org.libvirt.unix.manage">
    <description>Write</description><message>Write</message>
    <defaults><allow_any>no</allow_any></defaults>
    <annotate key="org.freedesktop.policykit.owner">unix-user:@OWNER@</annotate>
  </action>
</policyconfig>
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
const POLKITD: &str = "mount --bind \"$1/polkit/etc\" /etc/polkit-1 &&
    mount --bind \"$1/polkit/share\" /usr/share/polkit-1 &&
    exec /usr/lib/polkit-1/polkitd --no-debug";

/// The bus and polkit; both end on drop.
#[derive(Debug)]
pub(crate) struct Bus {
    _polkitd: Process,
    _daemon: Process,
    dir: WorkDir,
}

impl Bus {
    /// Starts both, with these rules.
    ///
    /// # Panics
    /// Without root, which polkitd has to be started by.
    #[track_caller]
    pub(crate) fn start(rules: &str) -> Self {
        assert!(
            Account::current().is_root(),
            "polkitd runs only if it is started by root: run this test as root, or leave it out"
        );
        let dir = WorkDir::new();
        let path = dir.path().display().to_string();
        prepare_bus(dir.path(), &Account::unprivileged().name, rules);
        let mut daemon = command(find_program("dbus-daemon"), None);
        daemon.args(["--nofork", "--nopidfile", "--config-file"]);
        daemon.arg(dir.join("bus.conf"));
        let daemon = Process::start("dbus-daemon", daemon);
        eventually("the bus is there", || dir.join("bus").exists());

        let address = format!("unix:path={path}/bus");
        let mut polkitd = command(find_program("unshare"), None);
        polkitd.args(["--mount", "sh", "-c", POLKITD, "sh", &path]);
        polkitd.env("DBUS_SYSTEM_BUS_ADDRESS", &address);
        let polkitd = Process::start("polkitd", polkitd);
        eventually("polkit is on the bus", || {
            let mut ask = command(find_program("busctl"), None);
            ask.args(["--address", &address, "--acquired", "--no-legend", "list"]);
            let names = Process::start("busctl", ask).finish();
            names.stdout.contains("org.freedesktop.PolicyKit1")
        });
        Self {
            _polkitd: polkitd,
            _daemon: daemon,
            dir,
        }
    }

    /// For `DBUS_SYSTEM_BUS_ADDRESS`.
    pub(crate) fn address(&self) -> String {
        format!("unix:path={}", self.dir.join("bus").display())
    }
}

/// Writes what both need into `dir`: `bus.conf`, and `polkit/etc` and `polkit/share` in place of
/// polkit's own directories. `owner` is the user that may ask, beside root.
pub(super) fn prepare_bus(dir: &Path, owner: &str, rules: &str) {
    assert!(
        Path::new("/usr/lib/polkit-1/polkitd").exists(),
        "polkitd is missing: apt-get install polkitd"
    );
    let polkit = dir.join("polkit");
    for name in ["etc/rules.d", "share/rules.d", "share/actions"] {
        fs::create_dir_all(polkit.join(name)).unwrap();
    }
    let write = |name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
    let actions = ACTIONS.replace("@OWNER@", owner);
    write("polkit/share/actions/unix.policy", &actions);
    write("polkit/share/actions/api.policy", &api_actions(owner));
    write("polkit/etc/rules.d/10-test.rules", rules);
    write(
        "bus.conf",
        &BUS.replace("@DIR@", &dir.display().to_string()),
    );
}

/// The actions of libvirt's access rules, as it installs them.
fn api_actions(owner: &str) -> String {
    let path = "/usr/share/polkit-1/actions/org.libvirt.api.policy";
    let owner = format!(
        "<annotate key=\"org.freedesktop.policykit.owner\">unix-user:{owner}</annotate></action>"
    );
    fs::read_to_string(path)
        .unwrap()
        .replace("</action>", &owner)
}
