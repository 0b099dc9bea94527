//! Reading the policy, at the start and again: whole, off the main thread, one at a time.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tokio::task::JoinHandle;

use super::audit::Sinks;
use super::audit::file::{self as audit_file, AuditFile};
use super::auth::certificates::{Certificates, Finding};
use super::listeners::{self, GroupIds};
use super::paths;
use crate::policy::report::Severity;
use crate::policy::{self, FileOwner, Loaded, MAX_FILE_BYTES, Report, model::Policy};

/// The policies that are built in: the examples of the same names.
const SYSTEM_POLICY: &str = include_str!("../../examples/modular.yaml");
const SESSION_POLICY: &str = include_str!("../../examples/session.yaml");

/// Where the policy comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// A file that must be there.
    Named(PathBuf),
    /// The file at the default place, or the built-in policy if there is none.
    Default(PathBuf),
    /// No place for a file: the built-in policy.
    BuiltIn,
}

/// What a source held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// What messages call it: the file's path, if it was one.
    pub name: String,
    bytes: Cow<'static, [u8]>,
}

/// What an attempt to read saw; failures too, to tell news from repetition.
type Seen = Result<Contents, Report>;

/// A policy ready to be put in force.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// Where it was read from, for people.
    pub(crate) origin: String,
    /// The policy.
    pub(crate) policy: Policy,
    /// Ids of the groups that it names for sockets.
    pub(crate) groups: GroupIds,
    /// The certificates of its listeners.
    pub(crate) certificates: Certificates,
    /// Where its records go.
    pub(crate) sinks: Sinks,
}

/// Why there is no candidate. For people; may have many lines.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
pub(crate) struct LoadError {
    text: String,
    /// The first problem, in one line.
    pub(crate) summary: String,
}

impl LoadError {
    fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let summary = text.clone();
        Self { text, summary }
    }
}

impl From<Report> for LoadError {
    fn from(report: Report) -> Self {
        Self {
            text: report.render_human(false),
            summary: report.one_line(),
        }
    }
}

/// What made us read the policy again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// The file may have changed: an unchanged one is left alone.
    File,
    /// SIGHUP: whoever sent it wants it done.
    Signal,
}

impl Source {
    /// The file named on the command line, or else the default.
    #[must_use]
    pub fn new(named: Option<PathBuf>) -> Self {
        match named {
            Some(path) => Self::Named(path),
            None => paths::policy_file().map_or(Self::BuiltIn, Self::Default),
        }
    }

    /// Reads it. Blocks.
    ///
    /// # Errors
    /// A report that the file cannot be read.
    pub fn read(&self) -> Result<Contents, Report> {
        let Some(path) = self.path() else {
            return Ok(Contents::built_in());
        };
        let name = path.display().to_string();
        match read_bounded(path) {
            Ok(bytes) => Ok(Contents {
                name,
                bytes: bytes.into(),
            }),
            Err(error)
                if error.kind() == io::ErrorKind::NotFound && matches!(self, Self::Default(_)) =>
            {
                Ok(Contents::built_in())
            }
            Err(error) => Err(Report::unreadable(&name, error.to_string())),
        }
    }

    /// The file to watch.
    fn path(&self) -> Option<&Path> {
        match self {
            Self::Named(path) | Self::Default(path) => Some(path),
            Self::BuiltIn => None,
        }
    }
}

impl Contents {
    fn built_in() -> Self {
        let text = if paths::is_system() {
            SYSTEM_POLICY
        } else {
            SESSION_POLICY
        };
        Self {
            name: "the built-in policy".to_owned(),
            bytes: text.as_bytes().into(),
        }
    }

    /// Its text.
    ///
    /// # Errors
    /// A report that it is none.
    pub fn text(&self) -> Result<&str, Report> {
        policy::decode(&self.name, &self.bytes)
    }

    /// The policy that it describes.
    ///
    /// # Errors
    /// A report of every problem.
    pub fn load(&self) -> Result<Loaded, Report> {
        policy::load(&self.name, self.text()?, &paths::variable)
    }
}

/// The policy of what was seen, ready to be put in force; what is hardly meant as written goes to
/// the log.
fn candidate(seen: &Seen) -> Result<Candidate, LoadError> {
    let contents = seen.as_ref().map_err(Report::clone)?;
    let (loaded, certificates) = read_certificates(contents.load()?)?;
    let (loaded, file) = try_audit_file(loaded, AuditFile::open)?;
    let Loaded {
        policy, warnings, ..
    } = loaded;
    if !warnings.is_empty() {
        tracing::warn!("{}", warnings.render_human(false).trim_end());
    }
    let groups =
        listeners::resolve_groups(&policy).map_err(|error| LoadError::new(error.to_string()))?;
    let journal = policy.audit().journal;
    Ok(Candidate {
        origin: contents.name.clone(),
        policy,
        groups,
        certificates,
        sinks: Sinks { file, journal },
    })
}

/// Checks the files that a policy names: certificates, keys, lists of revoked certificates,
/// passwords, the file for records. What is hardly right is among the warnings. Makes none. Blocks.
///
/// # Errors
/// The report, with what keeps the files from being used.
pub fn check_files(loaded: Loaded) -> Result<Loaded, Report> {
    let (loaded, _) = read_certificates(loaded)?;
    try_audit_file(loaded, audit_file::check).map(|(loaded, _)| loaded)
}

/// Does something with the file that the policy wants records in, which must succeed: records that
/// are silently not written are none.
fn try_audit_file<T>(
    mut loaded: Loaded,
    attempt: impl FnOnce(&Path) -> io::Result<T>,
) -> Result<(Loaded, Option<T>), Report> {
    let Some(path) = &loaded.policy.audit().file else {
        return Ok((loaded, None));
    };
    match attempt(path) {
        Ok(done) => Ok((loaded, Some(done))),
        Err(error) => {
            let message = format!("cannot append to {}: {error}", path.display());
            let help = "records must go somewhere: name a file in a folder that is there";
            let owner = FileOwner::Audit;
            loaded.add_file_problem(&owner, "file", Severity::Error, &message, Some(help));
            loaded.without_errors().map(|loaded| (loaded, None))
        }
    }
}

fn read_certificates(mut loaded: Loaded) -> Result<(Loaded, Certificates), Report> {
    let mut findings = Vec::new();
    let certificates = Certificates::load(&loaded.policy, SystemTime::now(), &mut findings);
    for (owner, found) in findings {
        let Finding {
            key,
            severity,
            message,
            help,
        } = found;
        loaded.add_file_problem(&owner, key, severity, &message, help);
    }
    let loaded = loaded.without_errors()?;
    // There is none only if there are errors.
    Ok((loaded, certificates.unwrap_or_default()))
}

/// Reads a file up to one byte over the policy's bound, so that its check sees what is too large.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(MAX_FILE_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads the policy again and again, never twice at once; a request made meanwhile is kept.
#[derive(Debug)]
pub(crate) struct Reloader {
    source: Source,
    /// What the last attempt saw.
    seen: Arc<Seen>,
    running: Option<JoinHandle<Attempt>>,
    pending: Option<Cause>,
}

#[derive(Debug)]
struct Attempt {
    seen: Arc<Seen>,
    outcome: Option<Result<Candidate, LoadError>>,
}

impl Reloader {
    /// Reads the first policy. Blocks.
    ///
    /// # Errors
    /// There is no usable policy.
    pub(crate) fn first(source: Source) -> Result<(Self, Candidate), LoadError> {
        let seen = Arc::new(source.read());
        let candidate = candidate(&seen)?;
        let reloader = Self {
            source,
            seen,
            running: None,
            pending: None,
        };
        Ok((reloader, candidate))
    }

    /// Asks for a reload. Whoever asks while one runs gets another one after it.
    pub(crate) fn request(&mut self, cause: Cause) {
        if self.running.is_some() {
            self.pending = self.pending.max(Some(cause));
            return;
        }
        let source = self.source.clone();
        let before = Arc::clone(&self.seen);
        self.running = Some(tokio::task::spawn_blocking(move || {
            let seen = Arc::new(source.read());
            let news = cause == Cause::Signal || seen != before;
            let outcome = news.then(|| candidate(&seen));
            Attempt { seen, outcome }
        }));
    }

    /// Waits for the reload that runs, for ever if none does, and starts the next one if it was
    /// asked for. `None`: the file is as it was. Cancel-safe.
    pub(crate) async fn finished(&mut self) -> Option<Result<Candidate, LoadError>> {
        let Some(running) = &mut self.running else {
            return std::future::pending().await;
        };
        let attempt = running.await;
        self.running = None;
        let outcome = match attempt {
            Ok(Attempt { seen, outcome }) => {
                self.seen = seen;
                outcome
            }
            Err(error) => Some(Err(LoadError::new(format!("reading the policy: {error}")))),
        };
        if let Some(cause) = self.pending.take() {
            self.request(cause);
        }
        outcome
    }

    /// Whether a reload is going on.
    pub(crate) fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// The file to watch.
    pub(crate) fn path(&self) -> Option<&Path> {
        self.source.path()
    }
}
