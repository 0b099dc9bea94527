//! Globs and regular expressions over the text that a client is known by.

use std::fmt;

use regex::{Regex, RegexBuilder};

/// Characters of a pattern. Far beyond any name, and keeps the worst glob over the longest URI
/// to a few million steps.
pub(super) const MAX_PATTERN: usize = 1024;
/// Bytes of a compiled regular expression, so that `(a{1000}){1000}` is refused, not built.
const MAX_REGEX_BYTES: usize = 256 * 1024;
/// What makes a string a regular expression.
pub(super) const REGEX_PREFIX: &str = "regex:";

/// A string of the policy file that other strings are held against.
#[derive(Debug, Clone)]
pub(super) enum Pattern {
    /// `*` is any text, `?` any one character, all else itself.
    Glob(String),
    /// Written `regex:EXPRESSION`; matches whole strings.
    Regex(Regex, String),
}

/// Why a string is no pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum PatternError {
    #[error("a pattern has at most {MAX_PATTERN} characters")]
    TooLong,
    #[error("control characters never match")]
    ControlCharacter,
    #[error("this regular expression does not compile: {0}")]
    Regex(String),
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        check(text)?;
        match text.strip_prefix(REGEX_PREFIX) {
            None => Ok(Self::Glob(text.to_owned())),
            Some(expression) => {
                let build = |source: &str| {
                    RegexBuilder::new(source)
                        .size_limit(MAX_REGEX_BYTES)
                        .build()
                        .map_err(|error| {
                            // The library's text has the expression and a caret over several lines;
                            // its last line says what is wrong.
                            let text = error.to_string();
                            let last = text.lines().last().unwrap_or_default();
                            PatternError::Regex(last.trim_start_matches("error: ").to_owned())
                        })
                };
                // First alone: an unbalanced `a)|(b` would otherwise escape the anchors.
                build(expression)?;
                let regex = build(&format!(r"\A(?:{expression})\z"))?;
                Ok(Self::Regex(regex, text.to_owned()))
            }
        }
    }

    /// Whether a text is read as a regular expression.
    pub(super) fn is_regex(text: &str) -> bool {
        text.starts_with(REGEX_PREFIX)
    }

    /// A glob, whatever it begins with.
    pub(super) fn glob(text: &str) -> Result<Self, PatternError> {
        check(text)?;
        Ok(Self::Glob(text.to_owned()))
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Self::Glob(glob) => matches_text(glob, text),
            Self::Regex(regex, _) => regex.is_match(text),
        }
    }

    /// Whether this certainly matches everything that `other` matches. `false` may also mean "not
    /// known", as it does once `fuel` is used up: a step of comparison takes one.
    pub(super) fn covers(&self, other: &Self, fuel: &mut u64) -> bool {
        match (self, other) {
            // The usual cases by far: a policy of many routes compares very many equal parts, and
            // different ones without wildcards.
            (Self::Glob(wide), Self::Glob(narrow))
                if wide == narrow || self.literal().is_some() =>
            {
                *fuel = fuel.saturating_sub(1);
                *fuel > 0 && wide == narrow
            }
            // The other's wildcards stand for text that only a wildcard as wide can take.
            (Self::Glob(wide), Self::Glob(narrow)) => {
                let mut take = |p, t| {
                    *fuel = fuel.saturating_sub(1);
                    *fuel > 0 && t != '*' && (p == '?' || p == t)
                };
                glob_matches(wide, narrow, &mut take)
            }
            (Self::Glob(wide), Self::Regex(..)) => wide == "*",
            (Self::Regex(regex, _), Self::Glob(_)) => {
                other.literal().is_some_and(|text| regex.is_match(text))
            }
            (Self::Regex(_, wide), Self::Regex(_, narrow)) => wide == narrow,
        }
    }

    /// Whether it is a regular expression with a group of that name.
    pub(super) fn has_group(&self, name: &str) -> bool {
        match self {
            Self::Glob(_) => false,
            Self::Regex(regex, _) => regex.capture_names().flatten().any(|known| known == name),
        }
    }

    /// What the group of that name matches in a text.
    pub(super) fn group<'t>(&self, text: &'t str, name: &str) -> Option<&'t str> {
        match self {
            Self::Glob(_) => None,
            Self::Regex(regex, _) => Some(regex.captures(text)?.name(name)?.as_str()),
        }
    }

    /// The only string that it matches, if there is one.
    pub(super) fn literal(&self) -> Option<&str> {
        match self {
            // By bytes: this is asked of each pair of routes.
            Self::Glob(glob) if !glob.bytes().any(|byte| matches!(byte, b'*' | b'?')) => Some(glob),
            _ => None,
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Glob(text) | Self::Regex(_, text) => f.write_str(text),
        }
    }
}

fn check(text: &str) -> Result<(), PatternError> {
    if text.chars().nth(MAX_PATTERN).is_some() {
        return Err(PatternError::TooLong);
    }
    if text.chars().any(char::is_control) {
        return Err(PatternError::ControlCharacter);
    }
    Ok(())
}

/// Whether the glob matches. What it begins and ends with is compared at once, which decides about
/// nearly every glob of nearly every policy: lists are filtered by them, object by object.
fn matches_text(glob: &str, text: &str) -> bool {
    let is_wild = |byte: u8| matches!(byte, b'*' | b'?');
    let first = glob.bytes().position(is_wild);
    let last = glob.bytes().rposition(is_wild);
    let (Some(first), Some(last)) = (first, last) else {
        return glob == text;
    };
    let (head, tail) = (glob.get(..first), glob.get(last + 1..));
    let rest = text
        .strip_prefix(head.unwrap_or_default())
        .and_then(|rest| rest.strip_suffix(tail.unwrap_or_default()));
    match (glob.get(first..=last), rest) {
        (_, None) => false,
        (Some("*"), Some(_)) => true,
        (middle, Some(rest)) => {
            let middle = middle.unwrap_or_default();
            glob_matches(middle, rest, |p, t| p == '?' || p == t)
        }
    }
}

/// Holds `text` against `glob`, going back to the latest `*` only, so that time is at most the
/// product of the lengths. `one` says whether a character of the glob takes one of the text.
fn glob_matches(glob: &str, text: &str, mut one: impl FnMut(char, char) -> bool) -> bool {
    let (mut glob, mut text) = (glob.chars(), text.chars());
    let mut star = None;
    loop {
        let mut glob_rest = glob.clone();
        let mut text_rest = text.clone();
        match (glob_rest.next(), text_rest.next()) {
            (Some('*'), _) => {
                star = Some((glob_rest.clone(), text.clone()));
                glob = glob_rest;
                continue;
            }
            (None, None) => return true,
            (Some(p), Some(t)) if one(p, t) => {
                glob = glob_rest;
                text = text_rest;
                continue;
            }
            // Nothing is left for what the glob still wants; a longer `*` leaves even less.
            (Some(_), None) => return false,
            _ => {}
        }
        let Some((after_star, taken)) = &mut star else {
            return false;
        };
        if taken.next().is_none() {
            return false;
        }
        glob = after_star.clone();
        text = taken.clone();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn globs_match_whole_strings() {
        for (glob, text, expected) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "a/b/c", true),
            ("?", "", false),
            ("?", "ä", true),
            ("??", "ä", false),
            ("acme-*", "acme-", true),
            ("acme-*", "acme-web/1", true),
            ("acme-*", "xacme-1", false),
            ("*.example", "a.example", true),
            ("*.example", "a.example.", false),
            ("a*b*c", "abbbcbc", true),
            ("a*b*c", "abbbcb", false),
            ("**a**", "xay", true),
            // Nothing else is special.
            ("[ab]", "a", false),
            ("[ab]", "[ab]", true),
            ("{a,b}", "a", false),
            (r"\*", r"\x", true),
            ("Root", "root", false),
        ] {
            assert_eq!(pattern(glob).matches(text), expected, "{glob} {text}");
        }
    }

    #[test]
    fn a_glob_of_stars_takes_bounded_time() {
        let glob = pattern(&"*a".repeat(MAX_PATTERN / 2));
        assert!(!glob.matches(&"a".repeat(400)));
        assert!(!glob.matches(&"b".repeat(100_000)));
    }

    #[test]
    fn regular_expressions_are_anchored() {
        assert!(pattern("regex:a|b").matches("b"));
        assert!(!pattern("regex:a|b").matches("ab"));
        assert!(!pattern("regex:(?m)^a$").matches("b\na"));
        assert!(matches!(
            Pattern::parse("regex:a)|(b"),
            Err(PatternError::Regex(_))
        ));
        assert!(matches!(
            Pattern::parse("regex:(?x)a # b"),
            Err(PatternError::Regex(_))
        ));
        assert!(matches!(
            Pattern::parse("regex:((a{99}){99}){99}"),
            Err(PatternError::Regex(_))
        ));
        assert!(matches!(
            Pattern::parse("regex:("),
            Err(PatternError::Regex(_))
        ));
    }

    #[test]
    fn bounds_are_held() {
        assert!(Pattern::parse(&"a".repeat(MAX_PATTERN)).is_ok());
        assert_eq!(
            Pattern::parse(&"a".repeat(MAX_PATTERN + 1)).unwrap_err(),
            PatternError::TooLong
        );
        assert_eq!(
            Pattern::parse("a\nb").unwrap_err(),
            PatternError::ControlCharacter
        );
    }

    #[test]
    fn a_wider_pattern_covers_a_narrower_one() {
        for (wide, narrow, expected) in [
            ("*", "a*b?", true),
            ("a*", "a*b", true),
            ("a*", "*a", false),
            ("a?", "ab", true),
            ("a?", "a*", false),
            ("?*", "*", false),
            ("ab", "a?", false),
            ("*", "regex:a.*", true),
            ("a*", "regex:a.*", false),
            ("regex:a.*", "abc", true),
            ("regex:a.*", "a*", false),
            ("regex:a", "regex:a", true),
        ] {
            assert_eq!(
                pattern(wide).covers(&pattern(narrow), &mut 1000),
                expected,
                "{wide} {narrow}"
            );
        }
    }
}
