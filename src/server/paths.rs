//! Default places of the policy file, the pid file and the run directory, as libvirt chooses them.

use std::env;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The system-wide policy file.
const SYSTEM_POLICY: &str = "/etc/libvirt/virtproxyd/routes.yaml";
/// The system-wide pid file.
const SYSTEM_PID_FILE: &str = "/run/virtproxyd.pid";

/// Whether this process is the system instance (effective user id 0) rather than a user's own.
#[must_use]
pub(crate) fn is_system() -> bool {
    rustix::process::geteuid().is_root()
}

/// Where the policy is looked for when none is named. `None`: a user without a home.
#[must_use]
pub(crate) fn policy_file() -> Option<PathBuf> {
    if is_system() {
        return Some(PathBuf::from(SYSTEM_POLICY));
    }
    Some(xdg("XDG_CONFIG_HOME", ".config")?.join("libvirt/virtproxyd/routes.yaml"))
}

/// Where the pid file goes when none is named. `None`: a user without a home.
#[must_use]
pub fn pid_file() -> Option<PathBuf> {
    if is_system() {
        return Some(PathBuf::from(SYSTEM_PID_FILE));
    }
    Some(runtime_parent()?.join("libvirt/virtproxyd.pid"))
}

/// The directory that holds `libvirt/libvirt-sock` of a user's own daemon.
///
/// libvirt asks GLib for the user's runtime directory, and GLib takes the cache directory where
/// `XDG_RUNTIME_DIR` is not set; clients do the same, so we must, to be found.
#[must_use]
pub fn runtime_parent() -> Option<PathBuf> {
    from_env(env::var_os("XDG_RUNTIME_DIR")).or_else(|| xdg("XDG_CACHE_HOME", ".cache"))
}

/// A variable that paths in a policy may refer to: one of the environment, with the runtime
/// directory in libvirt's sense.
#[must_use]
pub(crate) fn variable(name: &str) -> Option<String> {
    if name == "XDG_RUNTIME_DIR" {
        return runtime_parent()?.into_os_string().into_string().ok();
    }
    env::var(name).ok()
}

/// Creates the directory of `path` if it is missing: the system's for all to pass through, a user's
/// own for the user alone.
///
/// # Errors
/// It cannot be created.
pub(crate) fn make_parent(path: &Path) -> io::Result<()> {
    let Some(parent) = path.parent().filter(|parent| !parent.exists()) else {
        return Ok(());
    };
    let mode = if is_system() { 0o755 } else { 0o700 };
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(parent)?;
    // A strict umask would keep everybody out.
    fs::set_permissions(parent, Permissions::from_mode(mode))
}

/// What has the name `path`, a link itself: device and inode number.
///
/// # Errors
/// Nothing has it, or it cannot be looked at.
pub(crate) fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

fn xdg(variable: &str, below_home: &str) -> Option<PathBuf> {
    from_env(env::var_os(variable)).or_else(|| Some(env::home_dir()?.join(below_home)))
}

/// The base directory specification: unset, empty and relative values are ignored.
fn from_env(value: Option<OsString>) -> Option<PathBuf> {
    value
        .map(PathBuf::from)
        .filter(|path| Path::is_absolute(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_and_empty_directories_count_as_unset() {
        assert_eq!(from_env(Some("".into())), None);
        assert_eq!(from_env(Some("run".into())), None);
        assert_eq!(
            from_env(Some("/run/user/1".into())),
            Some("/run/user/1".into())
        );
    }
}
