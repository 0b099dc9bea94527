//! URIs as clients name them and patterns over them.
//!
//! libvirt's form is `driver[+transport]://host/path?name=value&...`, but what a client sends is
//! text of its choosing and only ever a key into the route table. A pattern is split at its first
//! `?`: the part before is held against the client's URI before its own `?` (`base`); then each
//! parameter that the pattern names must be there, in any order, with a value that matches its glob. A
//! parameter that the pattern does not name makes the client's URI NOT match, unless the pattern
//! has a bare `*` among its parameters: who asks for `host=hv2` must not land on the local daemon
//! by a route that never heard of hosts.

mod base;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use super::pattern::{Pattern, PatternError, REGEX_PREFIX};
use base::Base;

/// Bytes of a client's URI; libvirt lets it be as long as a frame, honest ones are under 200.
pub(super) const MAX_URI: usize = 4096;

/// A client's URI, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Uri<'a> {
    text: &'a str,
    base: &'a str,
    params: Vec<Param<'a>>,
}

/// One query parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Param<'a> {
    /// As it came: `name=value` or `name`.
    source: &'a str,
    name: Cow<'a, str>,
    /// Percent-decoded once.
    value: Cow<'a, str>,
}

/// Why a client's URI matches no pattern whatever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum UriFault {
    #[error("it is longer than {MAX_URI} bytes")]
    TooLong,
    #[error("it has control characters")]
    ControlCharacter,
    #[error("it has a fragment (`#`)")]
    Fragment,
    #[error("its query has a `;`, which some readers take for a separator")]
    Semicolon,
    #[error("its query has a parameter without a name")]
    Unnamed,
    #[error("its query has an invalid percent encoding")]
    Encoding,
    #[error("its query names a parameter twice")]
    Duplicate,
}

/// Why a URI does not match one pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Mismatch {
    #[error("the URI does not match")]
    Base,
    #[error("the URI lacks the parameter `{0}`")]
    Missing(String),
    #[error("the parameter `{0}` does not match")]
    Value(String),
    #[error("the URI has the parameter `{0}`, which the route does not name")]
    Extra(String),
}

/// A pattern over URIs (`uri:` of a route).
#[derive(Debug, Clone)]
pub(super) enum UriPattern {
    /// The empty string: the client named no URI. Nothing else matches that.
    Unnamed,
    /// Globs over driver, host and path, and parameters.
    Parts {
        base: Base,
        params: Vec<(String, Pattern)>,
        others: bool,
        text: String,
    },
    /// `regex:`, over the whole URI as it came.
    Regex(Pattern),
}

/// Why a string is no URI pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum UriPatternError {
    #[error(transparent)]
    Pattern(#[from] PatternError),
    #[error("a URI pattern has no fragment (`#`)")]
    Fragment,
    #[error("the query of this URI pattern is empty")]
    EmptyQuery,
    #[error("{0} is no name of a query parameter")]
    ParamName(String),
    #[error("the parameter `{0}` is there twice")]
    Duplicate(String),
}

impl Mismatch {
    /// How far the match came.
    pub(super) fn distance(&self) -> u8 {
        match self {
            Self::Base => 0,
            Self::Missing(_) => 1,
            Self::Value(_) => 2,
            Self::Extra(_) => 3,
        }
    }
}

impl<'a> Uri<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, UriFault> {
        if text.len() > MAX_URI {
            return Err(UriFault::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(UriFault::ControlCharacter);
        }
        if text.contains('#') {
            return Err(UriFault::Fragment);
        }
        let (base, query) = text.split_once('?').unwrap_or((text, ""));
        let mut params: Vec<Param<'a>> = Vec::new();
        if query.contains(';') {
            return Err(UriFault::Semicolon);
        }
        for source in query.split('&').filter(|source| !source.is_empty()) {
            let (name, value) = source.split_once('=').unwrap_or((source, ""));
            let param = Param {
                source,
                name: decode(name)?,
                value: decode(value)?,
            };
            if param.name.is_empty() {
                return Err(UriFault::Unnamed);
            }
            // libvirt compares some names without regard to case.
            if params
                .iter()
                .any(|other| other.name.eq_ignore_ascii_case(&param.name))
            {
                return Err(UriFault::Duplicate);
            }
            params.push(param);
        }
        Ok(Self { text, base, params })
    }

    /// The client named none.
    pub(super) fn is_unnamed(&self) -> bool {
        self.text.is_empty()
    }

    fn param(&self, name: &str) -> Option<&Param<'a>> {
        self.params.iter().find(|param| param.name == name)
    }
}

impl UriPattern {
    pub(super) fn parse(text: &str) -> Result<Self, UriPatternError> {
        if text.is_empty() {
            return Ok(Self::Unnamed);
        }
        if text.starts_with(REGEX_PREFIX) {
            return Ok(Self::Regex(Pattern::parse(text)?));
        }
        if text.contains('#') {
            return Err(UriPatternError::Fragment);
        }
        let (base, query) = match text.split_once('?') {
            None => (text, None),
            Some((base, query)) => (base, Some(query)),
        };
        if query == Some("") {
            return Err(UriPatternError::EmptyQuery);
        }
        let mut params: Vec<(String, Pattern)> = Vec::new();
        let mut others = false;
        for param in query.into_iter().flat_map(|query| query.split('&')) {
            if param == "*" {
                others = true;
                continue;
            }
            let (name, value) = param.split_once('=').unwrap_or((param, ""));
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
            if name.is_empty() || !name.chars().all(plain) {
                return Err(UriPatternError::ParamName(super::report::quoted(name)));
            }
            if params
                .iter()
                .any(|(other, _)| other.eq_ignore_ascii_case(name))
            {
                return Err(UriPatternError::Duplicate(name.to_owned()));
            }
            params.push((name.to_owned(), Pattern::glob(value)?));
        }
        Ok(Self::Parts {
            base: Base::parse(base)?,
            params,
            others,
            text: text.to_owned(),
        })
    }

    /// As the file has it.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Unnamed => String::new(),
            Self::Parts { text, .. } => text.clone(),
            Self::Regex(pattern) => pattern.to_string(),
        }
    }

    pub(super) fn matches(&self, uri: &Uri<'_>) -> bool {
        match self {
            Self::Unnamed => uri.is_unnamed(),
            Self::Regex(pattern) => !uri.is_unnamed() && pattern.matches(uri.text),
            Self::Parts {
                base,
                params,
                others,
                ..
            } => {
                !uri.is_unnamed()
                    && base.matches(uri.base)
                    && params.iter().all(|(name, pattern)| {
                        uri.param(name).is_some_and(|param| pattern.matches(&param.value))
                    })
                    // Names are unique on both sides, so equal numbers mean that none is left.
                    && (*others || uri.params.len() == params.len())
            }
        }
    }

    /// Why [`matches`](Self::matches) says no; `None` if it says yes.
    pub(super) fn mismatch(&self, uri: &Uri<'_>) -> Option<Mismatch> {
        if self.matches(uri) {
            return None;
        }
        let Self::Parts { base, params, .. } = self else {
            return Some(Mismatch::Base);
        };
        if uri.is_unnamed() || !base.matches(uri.base) {
            return Some(Mismatch::Base);
        }
        for (name, pattern) in params {
            match uri.param(name) {
                None => return Some(Mismatch::Missing(name.clone())),
                Some(param) if !pattern.matches(&param.value) => {
                    return Some(Mismatch::Value(name.clone()));
                }
                Some(_) => {}
            }
        }
        uri.params
            .iter()
            .find(|param| !params.iter().any(|(name, _)| *name == param.name))
            .map(|param| Mismatch::Extra(param.name.clone().into_owned()))
    }

    /// The URI to open for a client's URI that matched: without the parameters that this pattern
    /// names, for they chose the route and mean nothing to the daemon.
    pub(super) fn open_uri(&self, uri: &Uri<'_>) -> String {
        let Self::Parts { params, .. } = self else {
            return uri.text.to_owned();
        };
        let mut out = uri.base.to_owned();
        let mut separator = '?';
        for param in &uri.params {
            if !params.iter().any(|(name, _)| *name == param.name) {
                out.push(separator);
                out.push_str(param.source);
                separator = '&';
            }
        }
        out
    }

    /// Whether every URI that matches says something for `name`: by a parameter, or by a group of
    /// that name in a regular expression, which may yet be left out there.
    pub(super) fn has_value(&self, name: &str) -> bool {
        match self {
            Self::Unnamed => false,
            Self::Parts { params, .. } => params.iter().any(|(known, _)| known == name),
            Self::Regex(pattern) => pattern.has_group(name),
        }
    }

    /// What a URI that matched says for `name`.
    pub(super) fn value<'u>(&self, uri: &'u Uri<'_>, name: &str) -> Option<Cow<'u, str>> {
        match self {
            Self::Unnamed => None,
            Self::Parts { .. } => uri.param(name).map(|param| Cow::Borrowed(&*param.value)),
            Self::Regex(pattern) => pattern.group(uri.text, name).map(Cow::Borrowed),
        }
    }

    /// Whether this certainly matches every URI that `other` matches. `false` may also mean "not
    /// known", as it does once `fuel` is used up.
    pub(super) fn covers(&self, other: &Self, fuel: &mut u64) -> bool {
        match (self, other) {
            (Self::Unnamed, Self::Unnamed) => true,
            (Self::Regex(wide), Self::Regex(narrow)) => wide.covers(narrow, fuel),
            (
                Self::Regex(wide),
                Self::Parts {
                    base,
                    params,
                    others: false,
                    text,
                },
            ) => {
                params.is_empty()
                    && base.is_literal()
                    && Pattern::glob(text).is_ok_and(|literal| wide.covers(&literal, fuel))
            }
            (
                Self::Parts {
                    base,
                    params,
                    others,
                    ..
                },
                Self::Regex(narrow),
            ) => base.covers_regex(narrow, fuel) && params.is_empty() && *others,
            (
                Self::Parts {
                    base,
                    params,
                    others,
                    ..
                },
                Self::Parts {
                    base: narrow,
                    params: narrow_params,
                    others: narrow_others,
                    ..
                },
            ) => {
                fn find<'a>(params: &'a [(String, Pattern)], name: &str) -> Option<&'a Pattern> {
                    let found = params.iter().find(|(other, _)| other == name);
                    found.map(|(_, value)| value)
                }
                base.covers(narrow, fuel)
                    && params.iter().all(|(name, wide)| {
                        find(narrow_params, name).is_some_and(|value| wide.covers(value, fuel))
                    })
                    && (*others
                        || !*narrow_others
                            && narrow_params
                                .iter()
                                .all(|(name, _)| find(params, name).is_some()))
            }
            _ => false,
        }
    }
}

/// Decodes `%XX` once. What is not UTF-8 then, or hides control characters, is refused.
fn decode(text: &str) -> Result<Cow<'_, str>, UriFault> {
    if !text.contains('%') {
        return Ok(Cow::Borrowed(text));
    }
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let mut digit = || bytes.next().and_then(|byte| char::from(byte).to_digit(16));
        let (Some(high), Some(low)) = (digit(), digit()) else {
            return Err(UriFault::Encoding);
        };
        out.push(u8::try_from(high * 16 + low).map_err(|_| UriFault::Encoding)?);
    }
    let text = String::from_utf8(out).map_err(|_| UriFault::Encoding)?;
    if text.chars().any(char::is_control) {
        return Err(UriFault::ControlCharacter);
    }
    Ok(Cow::Owned(text))
}
