//! The file that records are appended to: one line of JSON each.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, Mode, OFlags};

use crate::server::paths;

/// Permissions of a new file: records name objects of all tenants.
const MODE: u32 = 0o600;
/// Write permission of anybody but the owner.
const WRITABLE_BY_OTHERS: u32 = 0o022;

/// An open file.
#[derive(Debug)]
pub(crate) struct AuditFile {
    path: PathBuf,
    file: File,
    /// What tells it from others that the path may lead to later.
    identity: (u64, u64),
    /// It ends in the middle of a line.
    torn: bool,
}

/// Why bytes could not be appended.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) error: io::Error,
    /// Lines that were written all the same.
    pub(super) written: usize,
}

impl AuditFile {
    /// Opens the file, or makes it, for its owner alone. Blocks.
    ///
    /// # Errors
    /// It cannot be opened; it is a symbolic link or no plain file; or others than its owner, who
    /// must be root or the user that this process runs as, may write to it.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = open(path, OFlags::CREATE)?;
        let metadata = file.metadata()?;
        let mut last = [b'\n'];
        if let Some(end) = metadata.len().checked_sub(1) {
            file.read_at(&mut last, end)?;
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            identity: (metadata.dev(), metadata.ino()),
            torn: last != *b"\n",
        })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes elsewhere, as if the disk had changed its mind.
    #[cfg(test)]
    pub(super) fn replace(&mut self, file: File) -> File {
        std::mem::replace(&mut self.file, file)
    }

    /// Whether the path still leads to this file: it may have been moved away, or deleted.
    pub(super) fn is_current(&self) -> bool {
        paths::identity(&self.path).is_ok_and(|found| found == self.identity)
    }

    /// Appends whole lines. Blocks.
    pub(super) fn append(&mut self, lines: &[u8]) -> Result<(), Failure> {
        if self.torn {
            // What is torn stays a line of its own.
            self.write(b"\n", 0)?;
        }
        let count = |bytes: &[u8]| bytes.iter().filter(|byte| **byte == b'\n').count();
        let mut rest = lines;
        while !rest.is_empty() {
            let written = count(lines.get(..lines.len() - rest.len()).unwrap_or_default());
            let length = self.write(rest, written)?;
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], before: usize) -> Result<usize, Failure> {
        let failed = |error| Failure {
            error,
            written: before,
        };
        loop {
            match self.file.write(bytes) {
                Ok(0) => return Err(failed(io::ErrorKind::WriteZero.into())),
                Ok(length) => {
                    let last = bytes.get(length - 1);
                    self.torn = last != Some(&b'\n');
                    return Ok(length);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }
}

/// Whether [`AuditFile::open`] would succeed, as far as can be told without making the file.
/// Blocks.
///
/// # Errors
/// As there.
pub(crate) fn check(path: &Path) -> io::Result<()> {
    match open(path, OFlags::empty()) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = path.parent().unwrap_or(Path::new("/"));
            Ok(rustix::fs::access(
                folder,
                Access::WRITE_OK | Access::EXEC_OK,
            )?)
        }
        opened => opened.map(drop),
    }
}

fn open(path: &Path, more: OFlags) -> io::Result<File> {
    // Not blocking: a pipe would wait for its reader.
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let flags = flags | OFlags::NONBLOCK | OFlags::NOCTTY | more;
    let file = match rustix::fs::open(path, flags, Mode::from_raw_mode(MODE)) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::LOOP) => return Err(io::Error::other("it is a symbolic link")),
        Err(error) => return Err(error.into()),
    };
    is_ours_alone(&file.metadata()?).map_err(io::Error::other)?;
    Ok(file)
}

/// What others can change proves nothing.
fn is_ours_alone(metadata: &fs::Metadata) -> Result<(), String> {
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return Err(format!("it belongs to another user (uid {owner})"));
    }
    if mode & WRITABLE_BY_OTHERS != 0 {
        return Err(format!(
            "others than its owner may write to it (mode {mode:04o})"
        ));
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    fn error(path: &Path) -> String {
        let opened = AuditFile::open(path).map(drop).unwrap_err().to_string();
        // Both see the same, but that the check makes nothing.
        assert_eq!(check(path).unwrap_err().to_string(), opened);
        opened
    }

    #[test]
    fn a_new_file_is_for_its_owner_alone_and_an_old_one_is_appended_to() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        check(&path).unwrap();
        assert!(!path.exists());
        let mut file = AuditFile::open(&path).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o7777, MODE);
        file.append(b"one\ntwo\n").unwrap();
        check(&path).unwrap();
        let mut again = AuditFile::open(&path).unwrap();
        again.append(b"three\n").unwrap();
        file.append(b"four\n").unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "one\ntwo\nthree\nfour\n"
        );
    }

    #[test]
    fn a_torn_line_does_not_take_the_next_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        fs::write(&path, "whole\nto").unwrap();
        let mut file = AuditFile::open(&path).unwrap();
        file.append(b"next\n").unwrap();
        file.append(b"last\n").unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            "whole\nto\nnext\nlast\n"
        );
    }

    #[test]
    fn links_pipes_and_what_others_may_change_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("target"), "").unwrap();
        symlink(path("target"), path("link")).unwrap();
        assert_eq!(error(&path("link")), "it is a symbolic link");
        symlink(path("nowhere"), path("dangling")).unwrap();
        assert_eq!(error(&path("dangling")), "it is a symbolic link");
        assert!(!path("nowhere").exists());
        nix::unistd::mkfifo(&path("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert_eq!(error(&path("pipe")), "it is not a regular file");
        assert!(error(dir.path()).contains("directory"));
        fs::set_permissions(path("target"), fs::Permissions::from_mode(0o620)).unwrap();
        let others = "others than its owner may write to it (mode 0620)";
        assert_eq!(error(&path("target")), others);
        assert!(error(&path("missing/audit")).contains("No such file"));
    }

    #[test]
    fn a_file_that_was_moved_or_deleted_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.jsonl");
        let file = AuditFile::open(&path).unwrap();
        assert!(file.is_current());
        fs::rename(&path, dir.path().join("audit.jsonl.1")).unwrap();
        assert!(!file.is_current());
        let other = AuditFile::open(&path).unwrap();
        assert!(!file.is_current() && other.is_current());
        fs::remove_file(&path).unwrap();
        assert!(!other.is_current());
    }
}
