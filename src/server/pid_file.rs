//! The pid file: one living instance for each.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::lockfile::LockFile;
use super::paths::{self, identity};

/// Why there is no pid file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PidFileError {
    /// Another process has it.
    #[error("{}: another virtproxyd is running", .0.display())]
    Held(PathBuf),
    /// It cannot be written.
    #[error("{}: cannot write the pid file: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The pid file, removed when this is dropped if it is still ours.
#[derive(Debug)]
pub(crate) struct PidFile {
    path: PathBuf,
    identity: (u64, u64),
    _lock: LockFile,
}

impl PidFile {
    /// Writes our pid to `path`, whose directory is created if it is missing. What an instance
    /// that was killed left behind is replaced.
    ///
    /// # Errors
    /// [`PidFileError`].
    pub(crate) fn write(path: &Path) -> Result<Self, PidFileError> {
        let failed = |source| PidFileError::Io {
            path: path.to_path_buf(),
            source,
        };
        paths::make_parent(path).map_err(failed)?;
        let lock = LockFile::beside(path)
            .map_err(failed)?
            .ok_or_else(|| PidFileError::Held(path.to_path_buf()))?;
        Ok(Self {
            path: path.to_path_buf(),
            identity: replace(path).map_err(failed)?,
            _lock: lock,
        })
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Puts a file with our pid at `path`, whole: a reader never meets it empty, and whatever had the
/// name, a link too, is not written to.
fn replace(path: &Path) -> io::Result<(u64, u64)> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o644)
        .open(&new)?;
    let written = writeln!(file, "{}", std::process::id());
    if let Err(error) = written.and_then(|()| fs::rename(&new, path)) {
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    identity(path)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a failed set-up step should stop the test"
)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::unix::fs::symlink;

    use rustix::fs::{FlockOperation, flock};

    fn names(dir: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).unwrap();
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    #[test]
    fn one_instance_holds_it_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("libvirt/virtproxyd.pid");
        let held = PidFile::write(&path).unwrap();
        let pid = fs::read_to_string(&path).unwrap();
        assert_eq!(pid, format!("{}\n", std::process::id()));
        assert!(matches!(
            PidFile::write(&path),
            Err(PidFileError::Held(held)) if held == path
        ));
        drop(held);
        assert_eq!(names(path.parent().unwrap()), Vec::<PathBuf>::new());
    }

    #[test]
    fn whoever_can_read_it_cannot_keep_the_next_instance_away() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("virtproxyd.pid");
        fs::write(&path, "1\n").unwrap();
        let reader = File::open(&path).unwrap();
        flock(&reader, FlockOperation::LockExclusive).unwrap();
        PidFile::write(&path).unwrap();
    }

    #[test]
    fn a_link_in_its_place_is_replaced_and_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, precious) = (dir.path().join("pid"), dir.path().join("precious"));
        fs::write(&precious, "precious").unwrap();
        symlink(&precious, &path).unwrap();
        symlink(&precious, dir.path().join("pid.new")).unwrap();
        let _held = PidFile::write(&path).unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_file());
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    }

    #[test]
    fn a_file_put_in_its_place_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        let held = PidFile::write(&path).unwrap();
        fs::rename(dir.path().join("pid"), dir.path().join("old")).unwrap();
        fs::write(&path, "another's").unwrap();
        drop(held);
        assert_eq!(fs::read_to_string(&path).unwrap(), "another's");
    }
}
