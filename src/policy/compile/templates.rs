//! Upstreams with `{name}` in their addresses: each name has its values, and these are never free.

use std::sync::Arc;

use super::{Compiler, elements};
use crate::policy::model::{Address, Upstream};
use crate::policy::pattern::Pattern;
use crate::policy::raw::{OneOrMany, PatternText, Section};
use crate::policy::report::{Problem, quoted};
use crate::policy::template::{self, Destination, Template};
use crate::policy::yaml::Pointer;

/// Values that have no character in common: a pattern that allows both hardly limits anything.
const STRANGERS: [&str; 2] = ["some-host", "0.dc.in"];

impl Compiler<'_, '_> {
    /// A template if it has values or asks for them.
    pub(super) fn destination(
        &mut self,
        upstream: Upstream,
        values: &Section<OneOrMany<PatternText>>,
        at: &Pointer,
    ) -> Option<Destination> {
        let texts = texts(&upstream, at);
        let at_values = at.key("values");
        // What is wrong in it is said already; what it lacks for that reason is not.
        if self.flaws.incomplete(&at_values) || self.flaws.wrong(&at_values) {
            return None;
        }
        let mut missing: Vec<&str> = Vec::new();
        for (at, text) in &texts {
            for name in template::names(text) {
                if values.0.iter().any(|(known, _)| known == name) || missing.contains(&name) {
                    continue;
                }
                missing.push(name);
                let place = Some(self.document.place(at));
                let message = format!("{} has no values", quoted(&format!("{{{name}}}")));
                let help = format!(
                    "add `values: {{ {name}: [ONE, \"OTHER*\"] }}` with what clients may ask for"
                );
                self.problems
                    .push(Problem::error("template", place, message).help(help));
            }
        }
        let mut compiled = Vec::new();
        for (name, patterns) in &values.0 {
            let at = at_values.key(name);
            if !texts
                .iter()
                .any(|(_, text)| template::names(text).any(|it| it == name))
            {
                let place = Some(self.document.key_place(&at));
                let message = format!("nothing here asks for {}", quoted(name));
                let help = if template::is_name(name) {
                    format!("write `{{{name}}}` in an address, or remove it")
                } else {
                    "names of values begin with a letter or `_`, and have letters, digits, `_` and \
                     `-`; other braces are but text"
                        .to_owned()
                };
                self.problems
                    .push(Problem::error("template", place, message).help(help));
                continue;
            }
            let patterns = self.allowed(patterns.0.as_ref()?, &at);
            compiled.push((Arc::from(name.as_str()), patterns));
        }
        if !missing.is_empty() || compiled.len() != values.0.len() {
            return None;
        }
        if compiled.is_empty() {
            return Some(Destination::Fixed(Arc::new(upstream)));
        }
        let finished = compiled.into_iter().map(|(name, it)| Some((name, it?)));
        Some(Destination::Template(Arc::new(Template {
            upstream,
            values: finished.collect::<Option<_>>()?,
        })))
    }

    fn allowed(&mut self, patterns: &OneOrMany<PatternText>, at: &Pointer) -> Option<Vec<Pattern>> {
        let patterns: Vec<Option<Pattern>> = elements(patterns, at)
            .map(|(at, text)| {
                let pattern = self.pattern(&text.0, &at)?;
                if STRANGERS.iter().all(|text| pattern.matches(text)) {
                    let place = Some(self.document.place(&at));
                    let message = "clients could choose whatever they like";
                    self.problems.push(
                        Problem::error("template", place, message)
                            .help("list the values, or write a pattern such as \"hv*\""),
                    );
                    return None;
                }
                Some(pattern)
            })
            .collect();
        patterns.into_iter().collect()
    }
}

/// Where values may go.
fn texts(upstream: &Upstream, at: &Pointer) -> Vec<(Pointer, String)> {
    let mut texts = Vec::new();
    for (index, address) in upstream.addresses.iter().enumerate() {
        let mut add = |at: Pointer, text: &str| texts.push((at, text.to_owned()));
        match address {
            Address::Unix { path, readonly } => {
                add(at.key("unix").index(index), &path.to_string_lossy());
                if let Some(path) = readonly {
                    add(at.key("unix_ro"), &path.to_string_lossy());
                }
            }
            Address::Tcp { host, .. } => add(at.key("tcp").index(index), host),
            Address::Tls { host, tls, .. } => {
                add(at.key("tls").index(index), host);
                if let Some(name) = &tls.server_name {
                    add(at.key("server_name"), name);
                }
            }
            Address::Command(words) => {
                for (index, word) in words.iter().enumerate() {
                    add(at.key("command").index(index), word);
                }
            }
        }
    }
    texts
}
