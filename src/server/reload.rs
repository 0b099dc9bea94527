//! Reading the policy, at the start and again: whole, off the main thread, one at a time.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::listeners::{self, GroupIds};
use super::paths;
use crate::policy::{self, MAX_FILE_BYTES, Report, model::Policy};

/// The policies that are built in: the examples of the same names.
const SYSTEM_POLICY: &str = include_str!("../../examples/modular.yaml");
const SESSION_POLICY: &str = include_str!("../../examples/session.yaml");

/// Where the policy comes from.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    /// A file that must be there.
    Named(PathBuf),
    /// The file at the default place, or the built-in policy if there is none.
    Default(PathBuf),
    /// No place for a file: the built-in policy.
    BuiltIn,
}

/// What the source held. An unreadable file is remembered too, to tell news from repetition.
type Contents = Result<Option<Vec<u8>>, (io::ErrorKind, String)>;

/// A policy ready to be put in force.
#[derive(Debug)]
pub(crate) struct Candidate {
    /// Where it was read from, for people.
    pub(crate) origin: String,
    /// The policy.
    pub(crate) policy: Policy,
    /// Ids of the groups that it names for sockets.
    pub(crate) groups: GroupIds,
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
    pub(crate) fn new(named: Option<PathBuf>) -> Self {
        match named {
            Some(path) => Self::Named(path),
            None => paths::policy_file().map_or(Self::BuiltIn, Self::Default),
        }
    }

    /// The file to watch.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Named(path) | Self::Default(path) => Some(path),
            Self::BuiltIn => None,
        }
    }

    fn read(&self) -> Contents {
        let read = |path: &Path| {
            let text = read_bounded(path);
            text.map_err(|error| (error.kind(), format!("{}: {error}", path.display())))
        };
        match self {
            Self::Named(path) => read(path).map(Some),
            Self::Default(path) => match read(path) {
                Err((io::ErrorKind::NotFound, _)) => Ok(None),
                other => other.map(Some),
            },
            Self::BuiltIn => Ok(None),
        }
    }

    fn compile(&self, contents: &Contents) -> Result<Candidate, LoadError> {
        let contents = contents.as_ref();
        let contents = contents.map_err(|(_, error)| LoadError::new(error.clone()))?;
        let (origin, policy) = match contents {
            Some(bytes) => {
                let path = self.path().unwrap_or(Path::new("policy"));
                let name = path.display().to_string();
                let policy = compile(&name, policy::decode(&name, bytes)?)?;
                (name, policy)
            }
            None => {
                let system = paths::is_system();
                let text = if system {
                    SYSTEM_POLICY
                } else {
                    SESSION_POLICY
                };
                let name = "the built-in policy".to_owned();
                let policy = compile(&name, text)?;
                (name, policy)
            }
        };
        let groups = listeners::resolve_groups(&policy)
            .map_err(|error| LoadError::new(error.to_string()))?;
        Ok(Candidate {
            origin,
            policy,
            groups,
        })
    }
}

/// The policy of a text; what is hardly meant as written goes to the log.
fn compile(name: &str, text: &str) -> Result<Policy, LoadError> {
    let loaded = policy::load(name, text, &paths::variable)?;
    if !loaded.warnings.is_empty() {
        tracing::warn!("{}", loaded.warnings.render_human(false).trim_end());
    }
    Ok(loaded.policy)
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
    seen: Arc<Contents>,
    running: Option<JoinHandle<Attempt>>,
    pending: Option<Cause>,
}

#[derive(Debug)]
struct Attempt {
    seen: Arc<Contents>,
    outcome: Option<Result<Candidate, LoadError>>,
}

impl Reloader {
    /// Reads the first policy. Blocks.
    ///
    /// # Errors
    /// There is no usable policy.
    pub(crate) fn first(source: Source) -> Result<(Self, Candidate), LoadError> {
        let seen = Arc::new(source.read());
        let candidate = source.compile(&seen)?;
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
            let outcome = news.then(|| source.compile(&seen));
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
