//! A file whose exclusive lock says "this instance lives".

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

/// An exclusively locked file, removed when this is dropped.
#[derive(Debug)]
pub(crate) struct LockFile {
    path: PathBuf,
    file: File,
}

impl LockFile {
    /// Creates `path` if need be and locks it, without waiting.
    ///
    /// `None`: another process holds the lock.
    ///
    /// # Errors
    /// The file cannot be created or opened. A symbolic link is not followed, so that nobody can
    /// make us write elsewhere.
    pub(crate) fn acquire(path: &Path, mode: u32) -> io::Result<Option<Self>> {
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(mode)
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

    /// The locked file.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    fn is_in_place(&self) -> bool {
        let (Ok(named), Ok(held)) = (self.path.symlink_metadata(), self.file.metadata()) else {
            return false;
        };
        (named.dev(), named.ino()) == (held.dev(), held.ino())
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
        let held = LockFile::acquire(&path, 0o600).unwrap().unwrap();
        assert!(LockFile::acquire(&path, 0o600).unwrap().is_none());
        drop(held);
        assert!(!path.exists());
        assert!(LockFile::acquire(&path, 0o600).unwrap().is_some());
    }

    #[test]
    fn a_file_put_in_its_place_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let held = LockFile::acquire(&path, 0o600).unwrap().unwrap();
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
        assert!(LockFile::acquire(&path, 0o600).is_err());
        assert!(!target.exists());
    }
}
