//! Errors of the YAML reader, with their places and the usual reasons.

use std::ops::Range;

use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{Location, MessageFormatter};

use super::report::{Problem, quoted};
use super::yaml::{MAX_ANCHORS, MAX_DEPTH, MAX_NODES, byte_range, line_of};

/// What the YAML reader stumbled over, in an administrator's words.
pub(super) fn problem(text: &str, error: &serde_saphyr::Error) -> Problem {
    use serde_saphyr::Error;
    let span = error
        .location()
        .map(|location| byte_range(&location).unwrap_or_else(|| character_at(text, &location)));
    let mut cause = error.without_snippet();
    while let Error::AliasError { error, .. } = cause {
        cause = error.without_snippet();
    }
    let complex = "no honest policy needs that much; look for runaway nesting or aliases";
    let (code, message, help) = match cause {
        Error::Eof { .. } => (
            "empty",
            "the file is empty".to_owned(),
            Some("begin with `version: 1`"),
        ),
        Error::MultipleDocuments { .. } => (
            "syntax",
            "a second YAML document begins here".to_owned(),
            Some("one file is one policy: remove `---`"),
        ),
        Error::MergeKeyNotAllowed { .. } => (
            "syntax",
            "merge keys (`<<`) are not accepted".to_owned(),
            Some("write the keys out, so that a reader sees in one place what is granted"),
        ),
        Error::NonFiniteFloat { value, .. } => (
            "syntax",
            format!("{} is no number for a policy", quoted(value)),
            None,
        ),
        Error::Budget { breach, .. } => ("too-complex", breach_message(breach), Some(complex)),
        Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => (
            "too-complex",
            "aliases repeat too much".to_owned(),
            Some(complex),
        ),
        other => {
            let message = serde_saphyr::UserMessageFormatter
                .format_message(other)
                .into_owned();
            let help = syntax_hint(text, span.as_ref());
            ("syntax", message, help)
        }
    };
    let problem = Problem::error(code, span, message);
    match help {
        Some(help) => problem.help(help),
        None => problem,
    }
}

fn breach_message(breach: &BudgetBreach) -> String {
    match breach {
        BudgetBreach::Depth { .. } => format!("nested deeper than {MAX_DEPTH} levels"),
        BudgetBreach::Events { .. } | BudgetBreach::Nodes { .. } => {
            format!("more than {MAX_NODES} keys and values")
        }
        BudgetBreach::Anchors { .. } => format!("more than {MAX_ANCHORS} anchors"),
        BudgetBreach::Aliases { .. } | BudgetBreach::AliasAnchorRatio { .. } => {
            "too many aliases".to_owned()
        }
        _ => "too much to read".to_owned(),
    }
}

/// The character at a location that has no byte offset, or the last one before it if the line
/// ends there.
fn character_at(text: &str, location: &Location) -> Range<usize> {
    let line = usize::try_from(location.line())
        .unwrap_or_default()
        .saturating_sub(1);
    let column = usize::try_from(location.column())
        .unwrap_or_default()
        .saturating_sub(1);
    let start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let content = text
        .get(start..)
        .unwrap_or_default()
        .lines()
        .next()
        .unwrap_or_default();
    let at = content
        .char_indices()
        .nth(column)
        .or_else(|| content.char_indices().last());
    at.map_or(start..start, |(at, c)| {
        start + at..start + at + c.len_utf8()
    })
}

/// What usually makes a line that looks right unreadable.
fn syntax_hint(text: &str, span: Option<&Range<usize>>) -> Option<&'static str> {
    let span = span?;
    let line = text.lines().nth(line_of(text, span.start) - 1)?;
    let indent = line.get(..line.len() - line.trim_start().len())?;
    if indent.contains('\t') {
        return Some("YAML is indented by spaces, never by tabs");
    }
    let quote = "text that begins with a special character, such as `*`, goes in quotes";
    text.get(span.clone())?
        .starts_with(['*', '&', '!', '%', '@', '`', '|', '>'])
        .then_some(quote)
}
