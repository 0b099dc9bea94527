//! The pid file: one living instance for each.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::lockfile::LockFile;

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

/// Writes our pid to `path`, which stays locked, and there, until the result is dropped. What an
/// instance that was killed left behind is overwritten.
///
/// # Errors
/// [`PidFileError`].
pub(crate) fn write(path: &Path) -> Result<LockFile, PidFileError> {
    let failed = |source| PidFileError::Io {
        path: path.to_path_buf(),
        source,
    };
    let lock = LockFile::acquire(path, 0o644)
        .map_err(failed)?
        .ok_or_else(|| PidFileError::Held(path.to_path_buf()))?;
    let mut file = lock.file();
    file.set_len(0).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(lock)
}
