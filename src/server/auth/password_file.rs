//! Changing a password file, for `virtproxyd passwd`: whole or not at all, with its comments kept.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Gid, Uid, flock};

use super::passwords::{Entry, Passwords, PasswordsError, read_text};
use super::verifier::{Hash, Verifier};

/// Permissions of a new file.
const MODE: u32 = 0o600;

/// A password file that nobody else changes meanwhile.
#[derive(Debug)]
pub struct PasswordFile {
    path: PathBuf,
    /// Holds the lock. It is on the directory, since the file itself is replaced.
    directory: File,
    lines: Vec<String>,
    before: Option<fs::Metadata>,
}

impl PasswordFile {
    /// Opens the file, or begins a new one if there is none; waits while another process has it.
    ///
    /// # Errors
    /// As [`Passwords::read`]; or its directory cannot be locked.
    pub fn open(path: &Path) -> Result<Self, PasswordsError> {
        let io = |source| PasswordsError::Io {
            path: path.into(),
            source,
        };
        // What a symbolic link points to is replaced, not the link.
        let path = match fs::canonicalize(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => path.to_owned(),
            resolved => resolved.map_err(io)?,
        };
        let directory = File::open(directory_of(&path)).map_err(io)?;
        flock(&directory, FlockOperation::LockExclusive).map_err(|error| io(error.into()))?;
        let before = match fs::metadata(&path) {
            Ok(metadata) => Some(metadata),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(io(error)),
        };
        let text = match before {
            Some(_) => read_text(&path)?,
            None => String::new(),
        };
        Passwords::parse(&text).map_err(|problems| PasswordsError::Lines {
            path: path.clone(),
            problems,
        })?;
        Ok(Self {
            lines: text.lines().map(ToOwned::to_owned).collect(),
            path,
            directory,
            before,
        })
    }

    /// Gives a user this verifier, in place of the one of the same mechanism. The name is a
    /// prepared one.
    pub fn set(&mut self, user: &str, verifier: &Verifier) {
        let line = format!("{user}:{verifier}");
        let place = self
            .lines
            .iter_mut()
            .find(|line| is_of(line, user, Some(verifier.hash())));
        match place {
            Some(old) => *old = line,
            None => self.lines.push(line),
        }
    }

    /// Takes a user's verifiers away, or the one of a mechanism; tells how many there were.
    pub fn remove(&mut self, user: &str, hash: Option<Hash>) -> usize {
        let before = self.lines.len();
        self.lines.retain(|line| !is_of(line, user, hash));
        before - self.lines.len()
    }

    /// Puts the changed file in the place of the old one, with that one's owner and permissions.
    ///
    /// # Errors
    /// It cannot be written; then the old one is untouched.
    pub fn save(self) -> Result<(), PasswordsError> {
        let name = self.path.file_name().unwrap_or_default();
        let mut temporary_name = std::ffi::OsString::from(".");
        temporary_name.push(name);
        temporary_name.push(".new");
        let temporary = self.path.with_file_name(temporary_name);
        self.write(&temporary)
            .and_then(|()| fs::rename(&temporary, &self.path))
            .and_then(|()| self.directory.sync_all())
            .map_err(|source| {
                // If it is not there, all the better.
                drop(fs::remove_file(&temporary));
                PasswordsError::Io {
                    path: self.path.clone(),
                    source,
                }
            })
    }

    fn write(&self, temporary: &Path) -> io::Result<()> {
        // Under the lock, one that exists is left from a process that died.
        match fs::remove_file(temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(MODE)
            .open(temporary)?;
        for line in &self.lines {
            writeln!(file, "{line}")?;
        }
        if let Some(before) = &self.before {
            let (owner, group) = (Uid::from_raw(before.uid()), Gid::from_raw(before.gid()));
            rustix::fs::fchown(&file, Some(owner), Some(group))?;
            file.set_permissions(before.permissions())?;
        } else {
            // Whatever the umask.
            file.set_permissions(fs::Permissions::from_mode(MODE))?;
        }
        file.sync_all()
    }
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn is_of(line: &str, user: &str, hash: Option<Hash>) -> bool {
    matches!(Entry::parse(line), Ok(Some(entry))
        if entry.name == user && hash.is_none_or(|hash| entry.verifier.hash() == hash))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::super::verifier::{ITERATIONS_MIN, PreparedPassword};
    use super::*;

    fn verifier(hash: Hash) -> Verifier {
        Verifier::new(hash, ITERATIONS_MIN, &PreparedPassword::new("x").unwrap()).unwrap()
    }

    fn users(path: &Path) -> Vec<(String, Vec<Hash>)> {
        Passwords::read(path)
            .unwrap()
            .users()
            .map(|(name, hashes)| (name.to_owned(), hashes.collect()))
            .collect()
    }

    #[test]
    fn users_come_change_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwords");
        let mut file = PasswordFile::open(&path).unwrap();
        for hash in Hash::ALL {
            file.set("alice", &verifier(hash));
        }
        file.set("bob", &verifier(Hash::Sha256));
        file.save().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, MODE);
        let both = ("alice".to_owned(), Hash::ALL.to_vec());
        let bob = ("bob".to_owned(), vec![Hash::Sha256]);
        assert_eq!(users(&path), [both.clone(), bob.clone()]);

        let old = fs::read_to_string(&path).unwrap();
        let mut file = PasswordFile::open(&path).unwrap();
        file.set("alice", &verifier(Hash::Sha256));
        file.save().unwrap();
        let new = fs::read_to_string(&path).unwrap();
        let same: Vec<bool> = old.lines().zip(new.lines()).map(|(a, b)| a == b).collect();
        assert_eq!(same, [false, true, true]);

        let mut file = PasswordFile::open(&path).unwrap();
        assert_eq!(file.remove("alice", Some(Hash::Sha256)), 1);
        assert_eq!(file.remove("nobody", None), 0);
        file.save().unwrap();
        assert_eq!(
            users(&path),
            [("alice".to_owned(), vec![Hash::Sha512]), bob.clone()]
        );
        let mut file = PasswordFile::open(&path).unwrap();
        assert_eq!(file.remove("alice", None), 1);
        file.save().unwrap();
        assert_eq!(users(&path), [bob]);
    }

    #[test]
    fn comments_links_and_permissions_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (path, link) = (dir.path().join("real"), dir.path().join("link"));
        fs::write(&path, "# people\n\n# machines\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("real", &link).unwrap();
        // Left behind by a process that died.
        fs::write(dir.path().join(".real.new"), "rubbish").unwrap();
        let mut file = PasswordFile::open(&link).unwrap();
        file.set("alice", &verifier(Hash::Sha256));
        file.save().unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# people\n\n# machines\nalice:SCRAM-SHA-256$"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_file_that_is_not_understood_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwords");
        fs::write(&path, "alice:secret\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        assert!(matches!(
            PasswordFile::open(&path).unwrap_err(),
            PasswordsError::Lines { .. }
        ));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            PasswordFile::open(&path).unwrap_err(),
            PasswordsError::Unsafe { .. }
        ));
    }

    #[test]
    fn two_writers_wait_for_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwords");
        std::thread::scope(|scope| {
            for writer in 0..8 {
                let path = &path;
                scope.spawn(move || {
                    let mut file = PasswordFile::open(path).unwrap();
                    file.set(&format!("user{writer}"), &verifier(Hash::Sha256));
                    file.save().unwrap();
                });
            }
        });
        assert_eq!(users(&path).len(), 8);
    }
}
