//! Temporary directories with paths short enough for UNIX sockets.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use super::account::Account;

/// A directory of one daemon or test, removed on drop.
#[derive(Debug)]
pub(crate) struct WorkDir {
    dir: tempfile::TempDir,
}

impl WorkDir {
    /// Makes `/tmp/vp-XXXXXX`, which others may enter: a socket's path holds 107 bytes at most, and
    /// clients of other users connect to the sockets in it.
    pub(crate) fn new() -> Self {
        let dir = tempfile::Builder::new()
            .prefix("vp-")
            .tempdir_in("/tmp")
            .unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self { dir }
    }

    /// The same, owned by `account`.
    pub(crate) fn owned_by(account: &Account) -> Self {
        let dir = Self::new();
        give(dir.path(), account);
        dir
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }
}

/// Makes `account` the owner of `path`.
pub(crate) fn give(path: &Path, account: &Account) {
    chown(path, Some(account.uid), Some(account.gid)).unwrap();
}

/// Makes a directory owned by `account`.
pub(crate) fn make_dir(path: &Path, account: &Account) {
    fs::create_dir(path).unwrap();
    give(path, account);
}
