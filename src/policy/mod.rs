//! The policy: YAML text to a checked, compiled, immutable snapshot, and the decisions made by it.
//!
//! - [`load`]: text in, [`Loaded`] or a [`Report`] of every problem out.
//! - [`facts`]: what is proven about a client.
//! - [`access`]: what a client may do; [`guard`]: what the content of its calls must keep to.
//! - [`definition`]: what else XML says that decisions rest on.
//! - [`model`]: the compiled snapshot that the rest of the program reads.
//! - [`report`]: problems with their places, for people and for programs.
//! - [`schema`]: the JSON schema of the file.
//! - [`explain`]: why a client and URI are sent where they are.
//! - [`store`]: the snapshot in force.
//!
//! The way of the text: `yaml` (a tree with places) → `validate` (does it fit the schema?) → `raw`
//! (typed as written) → `compile` (names resolved, patterns built) → `check` (does it make sense as
//! a whole?). Decisions are in `route`, over `identity`, `uri` and `pattern`, towards an `upstream`,
//! fixed or by a `template`.

pub mod access;
mod check;
mod compile;
pub mod definition;
pub(crate) mod dn;
pub mod explain;
pub mod facts;
pub mod guard;
mod identity;
mod imagined;
mod known;
pub mod model;
mod network;
mod pattern;
mod raw;
pub mod report;
mod route;
mod schema;
pub mod store;
mod syntax;
mod template;
mod upstream;
mod uri;
mod validate;
mod xml;
mod yaml;

pub use report::Report;
pub use schema::schema;
pub use yaml::MAX_FILE_BYTES;

use std::ops::Range;
use std::sync::Arc;

use model::Policy;
use report::{Problem, Severity};
use yaml::Document;

/// A policy that may be put in force.
#[derive(Debug)]
pub struct Loaded {
    /// The policy.
    pub policy: Policy,
    /// What is hardly meant as written; without errors.
    pub warnings: Report,
    files: Vec<FilePlace>,
}

/// Whose a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileOwner {
    /// The listener of that name: `cert`, `key`, `ca` and `crl` of its `tls`, and `passwords` of its
    /// `sasl`.
    Listener(Arc<str>),
    /// The upstream of that name: its `ca`, `cert`, `key` and `crl`, and `password_file` of its
    /// `sasl`.
    Upstream(Arc<str>),
    /// `access.audit`, with `file`.
    Audit,
}

/// Where a file is named.
#[derive(Debug)]
struct FilePlace {
    owner: FileOwner,
    key: &'static str,
    span: Range<usize>,
}

impl Loaded {
    /// Adds something wrong with a file that is named by `key` of its owner. Files are opened by
    /// others than this module.
    pub fn add_file_problem(
        &mut self,
        owner: &FileOwner,
        key: &str,
        severity: Severity,
        message: &str,
        help: Option<&str>,
    ) {
        let mut places = self.files.iter();
        let place = places.find(|place| place.owner == *owner && place.key == key);
        let span = place.map(|place| place.span.clone());
        let problem = match severity {
            Severity::Error => Problem::error("file", span, message),
            Severity::Warning => Problem::warning("file", span, message),
        };
        self.warnings.add(match help {
            Some(help) => problem.help(help),
            None => problem,
        });
    }

    /// The same, if no error was added.
    ///
    /// # Errors
    /// The report with the errors that were added.
    pub fn without_errors(self) -> Result<Self, Report> {
        if self.warnings.errors() == 0 {
            Ok(self)
        } else {
            Err(self.warnings)
        }
    }
}

/// Reads a policy file: `name` is what messages call it, `env` looks up the variables that paths
/// may refer to.
///
/// # Errors
/// A report of every error and warning in the file.
pub fn load(
    name: &str,
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Report> {
    let mut problems = Vec::new();
    let policy = Document::parse(text, &mut problems)
        .and_then(|document| compile::policy(&document, env, &mut problems));
    let report = Report::new(name, text, problems);
    match policy {
        Some((policy, files)) if report.errors() == 0 => Ok(Loaded {
            policy,
            warnings: report,
            files,
        }),
        _ => Err(report),
    }
}

/// The text of a file's bytes.
///
/// # Errors
/// A report that the file is not UTF-8, with the place and a hint.
pub fn decode<'a>(name: &str, bytes: &'a [u8]) -> Result<&'a str, Report> {
    std::str::from_utf8(bytes).map_err(|error| {
        let good = bytes.get(..error.valid_up_to()).unwrap_or_default();
        let line = good.iter().filter(|byte| **byte == b'\n').count() + 1;
        let hint = match bytes {
            [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "it looks like UTF-16; save it as UTF-8",
            _ => "save it as UTF-8",
        };
        Report::unreadable(name, format!("line {line} is not UTF-8 text: {hint}"))
    })
}
