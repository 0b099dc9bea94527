//! Problems of a policy file: each with its place, what is wrong and what to write instead; as
//! text for people and as data for programs.

use std::fmt::Write as _;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Element, Group, Level, Origin, Renderer, Snippet};
use serde::Serialize;

/// Problems kept of one file; a file with more is not being mended line by line.
pub(super) const MAX_PROBLEMS: usize = 200;
/// Characters of the file's text that are repeated in a message.
const MAX_QUOTED: usize = 80;

/// Names listed where none comes near.
const MAX_LISTED: usize = 12;
/// Bytes of a source line that is shown; the renderer's time grows with it, and nobody reads on.
const MAX_SHOWN_LINE: usize = 2000;

/// Whether a problem keeps the file from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is used, but is hardly what was meant.
    Warning,
}

/// One problem of a policy file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Error or warning.
    pub severity: Severity,
    /// Stable short name of this kind of problem, such as `unknown-upstream`.
    pub code: &'static str,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Bytes of the file that are at fault; `None` if it is the file as a whole.
    pub span: Option<Range<usize>>,
    /// Other places that matter, each with what is there.
    pub related: Vec<(Range<usize>, String)>,
}

impl Problem {
    pub(super) fn error(
        code: &'static str,
        span: Option<Range<usize>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            help: None,
            span,
            related: Vec::new(),
        }
    }

    pub(super) fn warning(
        code: &'static str,
        span: Option<Range<usize>>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(code, span, message)
        }
    }

    pub(super) fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn related(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.related.push((span, label.into()));
        self
    }
}

/// The problems of one policy file, in the order of their places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    file: String,
    text: String,
    problems: Vec<Problem>,
    /// Problems beyond [`MAX_PROBLEMS`].
    omitted: usize,
}

impl Report {
    pub(super) fn new(file: &str, text: &str, problems: Vec<Problem>) -> Self {
        let mut report = Self {
            file: file.to_owned(),
            text: text.to_owned(),
            problems,
            omitted: 0,
        };
        report.arrange();
        report
    }

    /// Adds a problem at its place.
    pub(super) fn add(&mut self, problem: Problem) {
        self.problems.push(problem);
        self.arrange();
    }

    fn arrange(&mut self) {
        let problems = &mut self.problems;
        problems.sort_by_key(|problem| {
            let start = problem.span.as_ref().map_or(0, |span| span.start);
            (start, problem.severity)
        });
        problems.dedup();
        self.omitted += problems.len().saturating_sub(MAX_PROBLEMS);
        problems.truncate(MAX_PROBLEMS);
    }

    /// A report that `file` could not be read or decoded, for the caller that tried.
    #[must_use]
    pub fn unreadable(file: &str, message: impl Into<String>) -> Self {
        Self::new(file, "", vec![Problem::error("unreadable", None, message)])
    }

    /// Nothing to report.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// All problems, in the order of their places.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// How many problems are errors.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.count(Severity::Error)
    }

    /// How many problems are warnings.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.count(Severity::Warning)
    }

    /// Every problem with its source line underlined, for a terminal (`color`) or a log. Ends
    /// with a newline unless empty.
    #[must_use]
    pub fn render_human(&self, color: bool) -> String {
        let renderer = if color {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let mut out = String::new();
        for problem in &self.problems {
            out.push_str(&renderer.render(&self.groups(problem)));
            out.push_str("\n\n");
        }
        if self.omitted > 0 {
            let _ = writeln!(out, "... and {} more", self.omitted);
        } else if out.ends_with("\n\n") {
            out.pop();
        }
        out
    }

    /// Every problem as `{file, line, column, end_line, end_column, severity, code, message,
    /// help}`; lines and columns count from 1 in characters, and are null where the problem is
    /// the file as a whole.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        self.problems
            .iter()
            .map(|problem| {
                let start = problem.span.as_ref().map(|span| self.position(span.start));
                let end = problem.span.as_ref().map(|span| self.position(span.end));
                serde_json::json!({
                    "file": self.file,
                    "line": start.map(|(line, _)| line),
                    "column": start.map(|(_, column)| column),
                    "end_line": end.map(|(line, _)| line),
                    "end_column": end.map(|(_, column)| column),
                    "severity": problem.severity,
                    "code": problem.code,
                    "message": problem.message,
                    "help": problem.help,
                })
            })
            .collect()
    }

    /// The first error (or else warning) and how many more there are, in one line without control
    /// characters: for a log or a status.
    #[must_use]
    pub fn one_line(&self) -> String {
        let first = self.problems.iter().min_by_key(|problem| problem.severity);
        let Some(first) = first else {
            return format!("{}: no problems", self.file);
        };
        let mut out = self.file.clone();
        if let Some(span) = &first.span {
            let (line, column) = self.position(span.start);
            let _ = write!(out, ":{line}:{column}");
        }
        let _ = write!(out, ": {}", first.message);
        let more = self.problems.len() + self.omitted - 1;
        if more > 0 {
            let _ = write!(out, " (and {more} more)");
        }
        out.retain(|c| !is_unprintable(c));
        out
    }

    fn count(&self, severity: Severity) -> usize {
        self.problems
            .iter()
            .filter(|problem| problem.severity == severity)
            .count()
    }

    /// Line and column, from 1, of a byte.
    fn position(&self, offset: usize) -> (usize, usize) {
        let before = self.text.get(..offset).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
        (super::yaml::line_of(&self.text, offset), column)
    }

    fn groups<'a>(&'a self, problem: &'a Problem) -> Vec<Group<'a>> {
        let level = match problem.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(&*problem.message).id(problem.code);
        let mut group = Group::with_title(title);
        group = group.element(match &problem.span {
            Some(span) => self.show(span, None),
            None => Origin::path(self.file.as_str()).into(),
        });
        for (span, label) in &problem.related {
            group = group.element(self.show(span, Some(label)));
        }
        if let Some(help) = &problem.help {
            group = group.element(Level::HELP.message(help.as_str()));
        }
        vec![group]
    }

    /// The lines of `span`, underlined. Only they are handed over, for the renderer's time grows
    /// with the source.
    fn show<'a>(&'a self, span: &Range<usize>, label: Option<&'a str>) -> Element<'a> {
        let text = &self.text;
        let before = text.get(..span.start).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let after = text.get(span.end..).unwrap_or_default();
        let end = after
            .find('\n')
            .map_or(text.len(), |newline| span.end + newline);
        if end - start > MAX_SHOWN_LINE {
            let (line, column) = self.position(span.start);
            return Origin::path(self.file.as_str())
                .line(line)
                .char_column(column)
                .into();
        }
        let kind = match label {
            None => AnnotationKind::Primary,
            Some(_) => AnnotationKind::Context,
        };
        let underlined = kind.span(span.start - start..span.end - start).label(label);
        Snippet::source(text.get(start..end).unwrap_or_default())
            .path(self.file.as_str())
            .line_start(super::yaml::line_of(text, start))
            .annotation(underlined)
            .into()
    }
}

/// Text of the file within a message: in backquotes, bounded, without control characters.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("`");
    for (count, c) in text.chars().enumerate() {
        if count == MAX_QUOTED {
            out.push_str("...");
            break;
        }
        if is_unprintable(c) {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
        }
    }
    out.push('`');
    out
}

/// Control characters, and those that turn the direction of the text around them.
pub(super) fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The candidate that `name` is most likely a misspelling of.
pub(super) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let name = name.to_lowercase();
    let most = (name.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| {
            (
                strsim::osa_distance(&name, &candidate.to_lowercase()),
                candidate,
            )
        })
        .filter(|(distance, candidate)| {
            // Also a name that was cut short or grown: `qemu` for `qemud-system`.
            *distance <= most || (name.len() >= 3 && candidate.to_lowercase().starts_with(&name))
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// "`a`, `b` and `c`", for naming what there is; of many, the first.
pub(super) fn listing<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut names = names.into_iter();
    let mut shown: Vec<String> = names.by_ref().take(MAX_LISTED).map(quoted).collect();
    let more = names.count();
    if more > 0 {
        shown.push(format!("{more} more"));
    }
    match shown.split_last() {
        None => String::new(),
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
    }
}
