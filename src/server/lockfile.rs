//! A file whose exclusive lock says "this instance lives".

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::paths::identity;

/// An exclusively locked file, removed when this is dropped.
#[derive(Debug)]
pub(crate) struct LockFile {
    path: PathBuf,
    file: File,
}

impl LockFile {
    /// Locks a hidden file beside `path`, and so what `path` stands for, without waiting. Not
    /// `path` itself, nor its directory: whoever can read a file can lock it, and this one only we
    /// can.
    ///
    /// `None`: another process holds the lock.
    ///
    /// # Errors
    /// The file cannot be created or opened. A symbolic link is not followed.
    pub(crate) fn beside(path: &Path) -> io::Result<Option<Self>> {
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(".lock");
        Self::acquire(&path.with_file_name(name))
    }

    fn acquire(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
                .open(path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
            let lock = Self {
                path: path.to_path_buf(),
                file,
            };
            // The last holder removes the file while it holds the lock: what we have locked may
            // no longer be what others find under the name.
            if lock.is_in_place() {
                return Ok(Some(lock));
            }
        }
    }

    fn is_in_place(&self) -> bool {
        let (Ok(named), Ok(held)) = (identity(&self.path), self.file.metadata()) else {
            return false;
        };
        named == (held.dev(), held.ino())
    }
}

impl Drop for LockFile {
    fn drop(&mut self) {
        if self.is_in_place() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a failed set-up step should stop the test"
)]
mod tests {
    use super::*;

    #[test]
    fn one_holder_at_a_time_and_the_file_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = LockFile::acquire(&path).unwrap().unwrap();
        assert!(LockFile::acquire(&path).unwrap().is_none());
        drop(held);
        assert!(!path.exists());
        assert!(LockFile::acquire(&path).unwrap().is_some());
    }

    #[test]
    fn a_file_put_in_its_place_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = LockFile::acquire(&path).unwrap().unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "another's").unwrap();
        drop(held);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "another's");
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, target) = (dir.path().join("lock"), dir.path().join("target"));
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(LockFile::acquire(&path).is_err());
        assert!(!target.exists());
    }
}
