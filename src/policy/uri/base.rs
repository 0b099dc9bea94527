//! Patterns over what is before the query of a URI: `driver://host/path`.
//!
//! Each part is held against its own part, as far as the pattern has them. A `*` for the driver must
//! not take a host with it: a daemon that gets `qemu+ssh://elsewhere/x:///system` by a route for
//! `*:///system` would connect to that host, with whatever keys its root has.

use crate::policy::pattern::{Pattern, PatternError};

/// A pattern.
#[derive(Debug, Clone)]
pub(in crate::policy) struct Base {
    whole: Pattern,
    /// `None` if it has no `://`: then it is one glob over everything.
    parts: Option<Box<Parts>>,
}

#[derive(Debug, Clone)]
struct Parts {
    driver: Pattern,
    /// Host and path if it has no path.
    host: Pattern,
    path: Option<Pattern>,
}

impl Base {
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        Ok(Self {
            whole: Pattern::glob(text)?,
            parts: split(text)
                .map(|(driver, rest)| Parts::parse(driver, rest).map(Box::new))
                .transpose()?,
        })
    }

    pub(super) fn matches(&self, base: &str) -> bool {
        match &self.parts {
            None => self.whole.matches(base),
            Some(parts) => split(base).is_some_and(|(driver, rest)| parts.matches(driver, rest)),
        }
    }

    /// Whether it matches one string only.
    pub(super) fn is_literal(&self) -> bool {
        self.whole.literal().is_some()
    }

    /// Whether this certainly matches everything that `other` matches.
    pub(super) fn covers(&self, other: &Self, fuel: &mut u64) -> bool {
        match (&self.parts, &other.parts) {
            // What matches in parts matches as a whole.
            (None, _) => self.whole.covers(&other.whole, fuel),
            (Some(wide), Some(narrow)) => wide.covers(narrow, fuel),
            (Some(_), None) => false,
        }
    }

    /// The same for a regular expression over the whole URI.
    pub(super) fn covers_regex(&self, other: &Pattern, fuel: &mut u64) -> bool {
        self.parts.is_none() && self.whole.covers(other, fuel)
    }
}

impl Parts {
    fn parse(driver: &str, rest: &str) -> Result<Self, PatternError> {
        let (host, path) = split_rest(rest);
        Ok(Self {
            driver: Pattern::glob(driver)?,
            host: Pattern::glob(host)?,
            path: path.map(Pattern::glob).transpose()?,
        })
    }

    fn matches(&self, driver: &str, rest: &str) -> bool {
        let rest_matches = || match (&self.path, split_rest(rest)) {
            (None, _) => self.host.matches(rest),
            (Some(path), (host, Some(text))) => self.host.matches(host) && path.matches(text),
            (Some(_), (_, None)) => false,
        };
        self.driver.matches(driver) && rest_matches()
    }

    fn covers(&self, other: &Self, fuel: &mut u64) -> bool {
        self.driver.covers(&other.driver, fuel)
            && match (&self.path, &other.path) {
                (Some(wide), Some(narrow)) => {
                    self.host.covers(&other.host, fuel) && wide.covers(narrow, fuel)
                }
                (None, None) => self.host.covers(&other.host, fuel),
                (None, Some(path)) => Pattern::glob(&format!("{}{path}", other.host))
                    .is_ok_and(|rest| self.host.covers(&rest, fuel)),
                (Some(_), None) => false,
            }
    }
}

/// Driver, and what follows `://`.
fn split(text: &str) -> Option<(&str, &str)> {
    text.split_once("://")
}

/// Host, and path with its `/`.
fn split_rest(rest: &str) -> (&str, Option<&str>) {
    match rest.split_at_checked(rest.find('/').unwrap_or(rest.len())) {
        Some((host, path)) if !path.is_empty() => (host, Some(path)),
        _ => (rest, None),
    }
}
