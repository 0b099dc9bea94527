//! The password file: who may log in by SCRAM or PLAIN, as salted verifiers.
//!
//! One line per user and mechanism, `user:` and the text form of [`super::verifier`]; empty lines
//! and lines that begin with `#` are comments. What is read is a snapshot that never changes; a
//! reload reads a new one.
//!
//! A name that is not in it is answered with a decoy: a verifier that no password fits, whose salt
//! depends on the name and on a secret of this process, so that asking again gives the same salt.
//! From the outside an unknown user therefore looks and costs like a wrong password.

use core::fmt;
use core::num::NonZeroU32;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ring::hmac;
use ring::rand::SystemRandom;
use rustix::fs::{Mode, OFlags};

use super::verifier::{Hash, NameError, Verifier, VerifierError, prepare_name};

/// Longest file in bytes: some 30,000 users.
pub const FILE_MAX: u64 = 8 << 20;

/// The permissions that a password file may give.
pub const MODE_MAX: u32 = 0o640;

/// Snapshot of a password file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Passwords {
    users: BTreeMap<String, Vec<Verifier>>,
    models: Models,
}

/// What verifiers of the file look like from the outside, one for each user that a mechanism could
/// ask for: decoys are drawn from these. Collected once, so that a decoy takes no longer the more
/// users there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Models {
    any: Vec<Model>,
    sha256: Vec<Model>,
    sha512: Vec<Model>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Model {
    hash: Hash,
    iterations: NonZeroU32,
    salt: usize,
}

impl From<&Verifier> for Model {
    fn from(verifier: &Verifier) -> Self {
        Self {
            hash: verifier.hash(),
            iterations: verifier.iterations,
            salt: verifier.salt.len(),
        }
    }
}

impl Models {
    fn of<'a>(users: impl Iterator<Item = &'a Vec<Verifier>>) -> Self {
        let mut models = Self::default();
        for verifiers in users {
            models.any.extend(verifiers.first().map(Model::from));
            for verifier in verifiers {
                let of_hash = match verifier.hash() {
                    Hash::Sha256 => &mut models.sha256,
                    Hash::Sha512 => &mut models.sha512,
                };
                of_hash.push(verifier.into());
            }
        }
        models
    }

    fn by(&self, hash: Option<Hash>) -> &[Model] {
        match hash {
            None => &self.any,
            Some(Hash::Sha256) => &self.sha256,
            Some(Hash::Sha512) => &self.sha512,
        }
    }
}

impl Passwords {
    /// Reads a file. It must be a regular file that belongs to root or to this process's user, at
    /// most [`FILE_MAX`] bytes long, with no permission beyond [`MODE_MAX`].
    ///
    /// # Errors
    /// It cannot be read or is not safe, or has lines that are not understood: all of them are told.
    pub fn read(path: &Path) -> Result<Self, PasswordsError> {
        let text = read_text(path)?;
        Self::parse(&text).map_err(|problems| PasswordsError::Lines {
            path: path.into(),
            problems,
        })
    }

    /// As [`Self::read`], where a file that does not exist has no users.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn read_if_there(path: &Path) -> Result<Self, PasswordsError> {
        match Self::read(path) {
            Err(PasswordsError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(Self::default())
            }
            result => result,
        }
    }

    /// Reads a file's text.
    ///
    /// # Errors
    /// All the lines that are not understood, in their order.
    pub fn parse(text: &str) -> Result<Self, Vec<Problem>> {
        let mut passwords = Self::default();
        let mut problems = Vec::new();
        for (line, number) in text.lines().zip(1..) {
            let added = Entry::parse(line).and_then(|entry| match entry {
                Some(entry) => passwords.add(entry),
                None => Ok(()),
            });
            if let Err(reason) = added {
                problems.push(Problem {
                    line: number,
                    reason,
                });
            }
        }
        if problems.is_empty() {
            passwords.models = Models::of(passwords.users.values());
            Ok(passwords)
        } else {
            Err(problems)
        }
    }

    fn add(&mut self, entry: Entry<'_>) -> Result<(), LineError> {
        let verifiers = self.users.entry(entry.name.into()).or_default();
        if verifiers
            .iter()
            .any(|known| known.hash() == entry.verifier.hash())
        {
            return Err(LineError::Twice);
        }
        verifiers.push(entry.verifier);
        Ok(())
    }

    /// The users, in order, with the hashes of their verifiers.
    pub fn users(&self) -> impl Iterator<Item = (&str, impl Iterator<Item = Hash>)> {
        self.users
            .iter()
            .map(|(name, verifiers)| (name.as_str(), verifiers.iter().map(Verifier::hash)))
    }

    /// What to verify `name` against by `hash`, or by any hash: the user's verifier, or a decoy.
    ///
    /// # Errors
    /// The system has no random numbers for the decoys' secret.
    pub(super) fn find(&self, name: &str, hash: Option<Hash>) -> Result<Found<'_>, VerifierError> {
        let wanted = |verifier: &&Verifier| hash.is_none_or(|hash| verifier.hash() == hash);
        let known = self
            .users
            .get(name)
            .and_then(|verifiers| verifiers.iter().find(wanted));
        // Made for those who are known as well: an answer that comes sooner would tell that they are.
        let decoy = self.decoy(name, hash)?;
        Ok(match known {
            Some(verifier) => Found {
                verifier: Cow::Borrowed(verifier),
                known: true,
            },
            None => Found {
                verifier: Cow::Owned(decoy),
                known: false,
            },
        })
    }

    /// A verifier with the parameters of one of the file's, so that it looks like them.
    fn decoy(&self, name: &str, hash: Option<Hash>) -> Result<Verifier, VerifierError> {
        let key = decoy_key()?;
        let bytes = |purpose: &[u8], length: usize| -> Vec<u8> {
            let mut context = hmac::Context::with_key(key);
            context.update(purpose);
            context.update(name.as_bytes());
            context
                .sign()
                .as_ref()
                .iter()
                .copied()
                .take(length)
                .collect()
        };
        let models = self.models.by(hash);
        let draw = bytes(b"model:", 4)
            .into_iter()
            .fold(0, |sum, byte| sum << 8 | usize::from(byte));
        let index = draw.checked_rem(models.len()).unwrap_or(0);
        let mut decoy = Verifier::blank(hash.unwrap_or(Hash::Sha256));
        let mut salt = decoy.salt.len();
        if let Some(model) = models.get(index) {
            (decoy.hash, decoy.iterations) = (model.hash, model.iterations);
            salt = model.salt;
        }
        // A digest per mechanism: the same salt for two of them would tell that it is a decoy.
        decoy.salt = bytes(decoy.hash.mechanism().as_bytes(), salt);
        decoy.stored_key = bytes(b"key:", decoy.hash.length());
        decoy.server_key.clone_from(&decoy.stored_key);
        Ok(decoy)
    }
}

/// What a name is verified against.
#[derive(Debug)]
pub(super) struct Found<'a> {
    pub(super) verifier: Cow<'a, Verifier>,
    /// Not a decoy. A decoy never leads to success, even if a password should fit it.
    pub(super) known: bool,
}

/// The secret that decoys are made of: one for the life of the process, so that reloads do not
/// change the decoys.
fn decoy_key() -> Result<&'static hmac::Key, VerifierError> {
    static KEY: OnceLock<hmac::Key> = OnceLock::new();
    if let Some(key) = KEY.get() {
        return Ok(key);
    }
    let key = hmac::Key::generate(hmac::HMAC_SHA512, &SystemRandom::new())
        .map_err(|_| VerifierError::NoRandomness)?;
    Ok(KEY.get_or_init(|| key))
}

/// One line of the file.
#[derive(Debug)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a str,
    pub(super) verifier: Verifier,
}

impl<'a> Entry<'a> {
    /// `None` for a comment.
    pub(super) fn parse(line: &'a str) -> Result<Option<Self>, LineError> {
        if line.starts_with('#') || line.trim_ascii().is_empty() {
            return Ok(None);
        }
        let (name, verifier) = line.split_once(':').ok_or(LineError::NoColon)?;
        if prepare_name(name)? != name {
            return Err(LineError::Unprepared);
        }
        Ok(Some(Self {
            name,
            verifier: verifier.parse()?,
        }))
    }
}

/// The text of a password file, if that is safe to use.
pub(super) fn read_text(path: &Path) -> Result<String, PasswordsError> {
    let io = |source| PasswordsError::Io {
        path: path.into(),
        source,
    };
    let refused = |why| PasswordsError::Unsafe {
        path: path.into(),
        why,
    };
    // Opening a pipe must not wait for a writer.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file: File = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|error| io(error.into()))?
        .into();
    is_safe(&file.metadata().map_err(io)?).map_err(refused)?;
    let mut bytes = Vec::new();
    // It may have grown since.
    file.take(FILE_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > FILE_MAX {
        return Err(refused(Unsafe::Size));
    }
    String::from_utf8(bytes).map_err(|_| refused(Unsafe::Text))
}

fn is_safe(file: &Metadata) -> Result<(), Unsafe> {
    if !file.is_file() {
        return Err(Unsafe::Kind);
    }
    if file.uid() != 0 && file.uid() != rustix::process::geteuid().as_raw() {
        return Err(Unsafe::Owner(file.uid()));
    }
    let mode = file.mode() & 0o7777;
    if mode & !MODE_MAX != 0 {
        return Err(Unsafe::Mode(mode));
    }
    if file.len() > FILE_MAX {
        return Err(Unsafe::Size);
    }
    Ok(())
}

/// Why a password file was not read.
#[derive(Debug, thiserror::Error)]
pub enum PasswordsError {
    /// The system said so.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Not the file that passwords may be in.
    #[error("{}: {why}", path.display())]
    Unsafe {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: Unsafe,
    },
    /// Lines that are not understood.
    #[error("{}", Listed(path, problems))]
    Lines {
        /// The file.
        path: PathBuf,
        /// One for each of them.
        problems: Vec<Problem>,
    },
}

/// What is wrong with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unsafe {
    /// Directory, device, pipe or socket.
    #[error("not a regular file")]
    Kind,
    /// Another user could change it.
    #[error("belongs to uid {0}; it must belong to root or to the daemon's user")]
    Owner(u32),
    /// Others could read or change it.
    #[error("has mode {0:04o}; it must be 0600, or 0640 for a group that reads it")]
    Mode(u32),
    /// Longer than [`FILE_MAX`].
    #[error("longer than {FILE_MAX} bytes")]
    Size,
    /// Not UTF-8.
    #[error("not in UTF-8")]
    Text,
}

/// A line that is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {reason}")]
pub struct Problem {
    /// Its number, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: LineError,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// No `user:`.
    #[error("not of the form user:verifier")]
    NoColon,
    /// Before the colon.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Before the colon.
    #[error("the user name is not as SASLprep (RFC 4013) leaves it, so nobody could log in by it")]
    Unprepared,
    /// Behind the colon.
    #[error(transparent)]
    Verifier(#[from] VerifierError),
    /// An earlier line has the same user and mechanism.
    #[error("the user has a verifier of this mechanism already")]
    Twice,
}

/// Problems one under the other, each with its place.
struct Listed<'a>(&'a Path, &'a [Problem]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(path, problems) = self;
        for (number, problem) in problems.iter().enumerate() {
            let separator = if number == 0 { "" } else { "\n" };
            let Problem { line, reason } = problem;
            write!(f, "{separator}{}:{line}: {reason}", path.display())?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::super::verifier::{ITERATIONS_MIN, PreparedPassword};
    use super::*;

    fn verifier(hash: Hash, iterations: u32) -> Verifier {
        Verifier::new(hash, iterations, &PreparedPassword::new("pencil").unwrap()).unwrap()
    }

    #[test]
    fn every_bad_line_is_told() {
        let good = verifier(Hash::Sha256, ITERATIONS_MIN);
        let text = format!(
            "# users\n\nalice:{good}\nalice:{good}\nbob\n:{good}\nI\u{AD}X:{good}\nbob:plain\n"
        );
        let problems = Passwords::parse(&text).unwrap_err();
        let expected = [
            (4, LineError::Twice),
            (5, LineError::NoColon),
            (6, LineError::Name(NameError::Empty)),
            (7, LineError::Unprepared),
            (8, LineError::Verifier(VerifierError::Form)),
        ];
        let found: Vec<_> = problems
            .iter()
            .map(|problem| (problem.line, problem.reason.clone()))
            .collect();
        assert_eq!(found, expected);
        let error = PasswordsError::Lines {
            path: "/x".into(),
            problems,
        };
        assert_eq!(error.to_string().lines().count(), expected.len());
        assert!(error.to_string().contains("/x:5: not of the form"));
    }

    #[test]
    fn a_user_has_a_verifier_per_mechanism() {
        let (short, long) = (
            verifier(Hash::Sha256, ITERATIONS_MIN),
            verifier(Hash::Sha512, ITERATIONS_MIN),
        );
        let text = format!("alice:{short}\nalice:{long}\nbob:{short}\n");
        let passwords = Passwords::parse(&text).unwrap();
        let found = passwords.find("alice", Some(Hash::Sha512)).unwrap();
        assert!(found.known);
        assert_eq!(*found.verifier, long);
        assert!(!passwords.find("bob", Some(Hash::Sha512)).unwrap().known);
        assert!(passwords.find("bob", None).unwrap().known);
    }

    #[test]
    fn a_decoy_looks_like_the_file() {
        let text = format!("alice:{}\n", verifier(Hash::Sha256, 5000));
        let passwords = Passwords::parse(&text).unwrap();
        let decoy = |name| passwords.find(name, Some(Hash::Sha256)).unwrap();
        let (first, again, other) = (decoy("mallory"), decoy("mallory"), decoy("trudy"));
        assert!(!first.known);
        assert_eq!(first.verifier, again.verifier);
        assert_ne!(first.verifier.salt, other.verifier.salt);
        assert_eq!(first.verifier.iterations.get(), 5000);
        assert_eq!(
            first.verifier.salt.len(),
            decoy("alice").verifier.salt.len()
        );
        let reloaded = Passwords::parse(&format!("{text}\n#\n")).unwrap();
        assert_eq!(
            reloaded
                .find("mallory", Some(Hash::Sha256))
                .unwrap()
                .verifier,
            first.verifier
        );
        let empty = Passwords::default();
        let decoy = empty.find("mallory", Some(Hash::Sha512)).unwrap();
        assert_eq!(decoy.verifier.hash(), Hash::Sha512);
        decoy.verifier.to_string().parse::<Verifier>().unwrap();
    }

    #[test]
    fn a_file_that_is_not_safe_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwords");
        let why = || match Passwords::read(&path).unwrap_err() {
            PasswordsError::Unsafe { why, .. } => why,
            other => unreachable!("{other}"),
        };
        let set_mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        fs::write(&path, "").unwrap();
        for mode in [0o600, 0o640, 0o400] {
            set_mode(mode);
            assert_eq!(Passwords::read(&path).unwrap(), Passwords::default());
        }
        for mode in [0o644, 0o660, 0o604, 0o700, 0o4600] {
            set_mode(mode);
            assert_eq!(why(), Unsafe::Mode(mode));
        }
        set_mode(0o600);
        fs::write(&path, b"\xFF").unwrap();
        assert_eq!(why(), Unsafe::Text);
        File::options()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(FILE_MAX + 1)
            .unwrap();
        assert_eq!(why(), Unsafe::Size);
        fs::remove_file(&path).unwrap();
        assert!(matches!(
            Passwords::read(&path).unwrap_err(),
            PasswordsError::Io { .. }
        ));
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        assert_eq!(why(), Unsafe::Kind);
    }
}
