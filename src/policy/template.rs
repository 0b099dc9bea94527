//! Upstreams by what a client's URI says: one entry of the file for a fleet of hosts.
//!
//! `{name}` in the addresses of an upstream stands for a value that the client chooses, from those
//! that the file allows. A value is never more than a plain word, so that it stays within the label,
//! file name or argument that it is put into.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::model::{Address, ClientTls, Upstream};
use super::pattern::Pattern;
use super::report::quoted;

/// Bytes of a host's name, by DNS, and so of a value.
pub(super) const MAX_HOST: usize = 253;
/// Bytes of a socket's path: `sun_path` has 108 with its terminating NUL.
pub(super) const MAX_SOCKET_PATH: usize = 107;

/// What an entry under `upstreams` is.
#[derive(Debug, Clone)]
pub(super) enum Destination {
    /// A daemon.
    Fixed(Arc<Upstream>),
    /// Daemons, by values.
    Template(Arc<Template>),
}

/// Daemons that differ in a few words.
#[derive(Debug)]
pub(super) struct Template {
    /// What they have in common, with `{name}` where a value goes.
    pub(super) upstream: Upstream,
    /// What each value may be; never empty.
    pub(super) values: Vec<(Arc<str>, Vec<Pattern>)>,
}

/// Why there is no such daemon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("the URI says no `{0}`")]
    Missing(Arc<str>),
    #[error(
        "{} is no `{name}` that the upstream {} has",
        quoted(value),
        quoted(upstream)
    )]
    Value {
        upstream: Arc<str>,
        name: Arc<str>,
        value: String,
    },
    #[error("the address of {} is too long", quoted(.0))]
    TooLong(String),
}

/// Looks up what a URI says for a name.
pub(super) type ValueOf<'a> = dyn Fn(&str) -> Option<Cow<'a, str>> + 'a;

impl Destination {
    /// The daemon, or what the template's have in common.
    pub(super) fn upstream(&self) -> &Upstream {
        match self {
            Self::Fixed(upstream) => upstream,
            Self::Template(template) => &template.upstream,
        }
    }

    /// The values that choose the daemon.
    pub(super) fn names(&self) -> impl Iterator<Item = &Arc<str>> {
        let values = match self {
            Self::Fixed(_) => &[][..],
            Self::Template(template) => &template.values,
        };
        values.iter().map(|(name, _)| name)
    }

    /// The daemon for the values of a URI.
    pub(super) fn resolve(&self, value_of: &ValueOf<'_>) -> Result<Arc<Upstream>, Refused> {
        match self {
            Self::Fixed(upstream) => Ok(Arc::clone(upstream)),
            Self::Template(template) => template.instance(value_of).map(Arc::new),
        }
    }
}

impl Template {
    fn instance(&self, value_of: &ValueOf<'_>) -> Result<Upstream, Refused> {
        let mut values: Vec<(&str, Cow<'_, str>)> = Vec::new();
        for (name, _) in &self.values {
            let value = value_of(name).ok_or_else(|| Refused::Missing(Arc::clone(name)))?;
            if !self.allows(name, &value) {
                return Err(Refused::Value {
                    upstream: Arc::clone(&self.upstream.name),
                    name: Arc::clone(name),
                    value: value.into_owned(),
                });
            }
            values.push((name, value));
        }
        let fill = |text: &str| {
            fill(text, &|name| {
                let found = values.iter().find(|(known, _)| *known == name);
                found.map_or("", |(_, value)| value)
            })
        };
        let words: Vec<&str> = values.iter().map(|(_, value)| &**value).collect();
        let name = format!("{}/{}", self.upstream.name, words.join(","));
        let addresses = self.upstream.addresses.iter();
        let addresses: Vec<Address> = addresses.map(|it| filled(it, &fill)).collect();
        if addresses.iter().any(is_too_long) {
            return Err(Refused::TooLong(name));
        }
        Ok(Upstream {
            name: name.into(),
            addresses,
            ..self.upstream.clone()
        })
    }

    fn allows(&self, name: &str, value: &str) -> bool {
        let mut allowed = self.values.iter().filter(|(known, _)| **known == *name);
        is_value(value)
            && allowed.any(|(_, patterns)| patterns.iter().any(|pattern| allows(pattern, value)))
    }

    /// Whether some values may make `text` into `wanted`. A name that is there twice may have two
    /// values here.
    pub(super) fn can_be(&self, text: &str, wanted: &str) -> bool {
        let mut text = text;
        // What can be left of it, each length once.
        let mut rests = vec![wanted];
        while let Some((before, name, after)) = next_name(text) {
            let heads = rests.iter().filter_map(|rest| rest.strip_prefix(before));
            let mut next: Vec<&str> = heads
                .flat_map(|rest| {
                    rest.char_indices()
                        .map(move |(at, c)| (rest, at + c.len_utf8()))
                })
                .filter_map(|(rest, end)| rest.split_at_checked(end))
                .filter(|(value, _)| self.allows(name, value))
                .map(|(_, rest)| rest)
                .collect();
            next.sort_unstable_by_key(|rest| rest.len());
            next.dedup_by_key(|rest| rest.len());
            (text, rests) = (after, next);
        }
        rests.contains(&text)
    }
}

/// The names in a text: `host` in `{host}.example.com`. Other braces are but text.
pub(super) fn names(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let (_, name, after) = next_name(rest.take()?)?;
        rest = Some(after);
        Some(name)
    })
}

/// The text with something in place of its names.
pub(super) fn fill<'v>(text: &str, value_of: &dyn Fn(&str) -> &'v str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, name, after)) = next_name(rest) {
        out.push_str(before);
        out.push_str(value_of(name));
        rest = after;
    }
    out.push_str(rest);
    out
}

/// Whether the file could mean a value by that.
pub(super) fn is_name(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && text.chars().all(is_plain)
}

/// What is before the first name, the name, and what is after it.
fn next_name(text: &str) -> Option<(&str, &str, &str)> {
    text.match_indices('{').find_map(|(at, _)| {
        let (before, rest) = text.split_at_checked(at)?;
        let (name, after) = rest.strip_prefix('{')?.split_once('}')?;
        is_name(name).then_some((before, name, after))
    })
}

/// Whether a pattern of `values` lets a value through. The wildcards of a glob stand for no dot: who
/// writes `hv*` means hosts of one domain, and not `hv.` before a domain of the client's choice.
fn allows(pattern: &Pattern, value: &str) -> bool {
    let dots = |text: &str| text.bytes().filter(|byte| *byte == b'.').count();
    let crosses = match pattern {
        Pattern::Glob(glob) => dots(glob) != dots(value),
        Pattern::Regex(..) => false,
    };
    pattern.matches(value) && !crosses
}

/// Whether a value is a word that changes nothing but the place that it is put into: no separator,
/// no option of a command, no way up from a folder.
fn is_value(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=MAX_HOST).contains(&text.len())
        && text.chars().all(is_plain)
        && !text.starts_with(['-', '.'])
        && !text.ends_with('.')
        && !text.contains("..")
}

fn filled(address: &Address, fill: &dyn Fn(&str) -> String) -> Address {
    let path = |path: &Path| {
        path.to_str()
            .map_or_else(PathBuf::new, |it| fill(it).into())
    };
    // One name to DNS and in certificates is one daemon: what counts by address must not be got
    // round by another spelling.
    let host = |text: &str| fill(text).to_ascii_lowercase();
    match address {
        Address::Unix {
            path: main,
            readonly,
        } => Address::Unix {
            path: path(main),
            readonly: readonly.as_deref().map(path),
        },
        Address::Tcp { host: name, port } => Address::Tcp {
            host: host(name),
            port: *port,
        },
        Address::Tls {
            host: name,
            port,
            tls,
        } => Address::Tls {
            host: host(name),
            port: *port,
            tls: match &tls.server_name {
                Some(name) if next_name(name).is_some() => Arc::new(ClientTls {
                    server_name: Some(host(name)),
                    ..ClientTls::clone(tls)
                }),
                _ => Arc::clone(tls),
            },
        },
        Address::Command(words) => Address::Command(words.iter().map(|word| fill(word)).collect()),
    }
}

fn is_too_long(address: &Address) -> bool {
    let path = |path: &Path| path.as_os_str().len() > MAX_SOCKET_PATH;
    match address {
        Address::Unix {
            path: main,
            readonly,
        } => path(main) || readonly.as_deref().is_some_and(path),
        Address::Tcp { host, .. } => host.len() > MAX_HOST,
        Address::Tls { host, tls, .. } => {
            let name = tls.server_name.as_ref();
            host.len() > MAX_HOST || name.is_some_and(|name| name.len() > MAX_HOST)
        }
        Address::Command(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_words_in_braces_and_other_braces_are_text() {
        for (text, expected) in [
            ("{host}.example.com", &["host"][..]),
            ("{a}-{b-1}{_c}", &["a", "b-1", "_c"]),
            ("{a{b}", &["b"]),
            ("{} { a } {1} {a b} {", &[]),
        ] {
            assert_eq!(names(text).collect::<Vec<_>>(), expected, "{text}");
        }
        assert_eq!(
            fill("{a}.{}.{b}", &|name| if name == "a" { "1" } else { "2" }),
            "1.{}.2"
        );
    }

    #[test]
    fn a_wildcard_stands_for_no_dot() {
        let allows =
            |text, value| Pattern::parse(text).is_ok_and(|pattern| super::allows(&pattern, value));
        assert!(allows("hv*", "hv12"));
        assert!(!allows("hv*", "hv1.evil.example"));
        assert!(!allows("hv?x", "hv.x"));
        assert!(allows("hv*.rack?", "hv12.rack1"));
        assert!(!allows("hv*.rack?", "hv1.evil.rack1"));
        assert!(allows("regex:hv.*", "hv1.rack"));
    }

    #[test]
    fn values_are_plain_words() {
        for value in [
            "hv12",
            "10.0.0.7",
            "a_b",
            "HV-1.rack",
            &"a".repeat(MAX_HOST),
        ] {
            assert!(is_value(value), "{value}");
        }
        for value in [
            "",
            "-o",
            ".hidden",
            "a..b",
            "..",
            "a.",
            "a/b",
            "a:1",
            "a b",
            "a{b}",
            "ä",
            "a\n",
            "[::1]",
            "a@b",
            &"a".repeat(MAX_HOST + 1),
        ] {
            assert!(!is_value(value), "{value}");
        }
    }
}
