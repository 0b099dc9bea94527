//! Reading the policy, at the start and again: whole, off the main thread, one at a time.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::listeners::{self, GroupIds};
use super::{paths, seam};
use crate::policy::model::Policy;

/// Largest policy file that is read. Well above any sane policy; a bound for insane ones.
const MAX_SIZE: u64 = 4 << 20;

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
type Contents = Result<Option<String>, (io::ErrorKind, String)>;

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
#[error("{0}")]
pub(crate) struct LoadError(String);

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
        let (origin, policy) = match contents.map_err(|(_, error)| LoadError(error.clone()))? {
            Some(text) => {
                let name = self.path().unwrap_or(Path::new("policy"));
                let name = name.display().to_string();
                let policy = seam::compile(&name, text).map_err(LoadError)?;
                (name, policy)
            }
            None => {
                let text = seam::builtin(paths::is_system());
                let policy = seam::compile("built-in policy", text).map_err(LoadError)?;
                ("the built-in policy".to_owned(), policy)
            }
        };
        let groups =
            listeners::resolve_groups(&policy).map_err(|error| LoadError(error.to_string()))?;
        Ok(Candidate {
            origin,
            policy,
            groups,
        })
    }
}

fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(MAX_SIZE + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > MAX_SIZE {
        return Err(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("larger than {MAX_SIZE} bytes"),
        ));
    }
    Ok(text)
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
            Err(error) => Some(Err(LoadError(format!("reading the policy: {error}")))),
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
