//! What is asked of the rules after a refusal: which of them would have allowed it, and how the one
//! that counted is written.

use super::Permission;
use crate::policy::model::Policy;
use crate::policy::yaml::{Document, Pointer};

impl Policy {
    /// Lines of the rules that allow something, at least on some objects, to clients with any of
    /// these identities.
    #[must_use]
    pub fn lines_that_allow(&self, permission: Permission, identities: &[&str]) -> Vec<usize> {
        let is_named = |place: &usize| {
            let identity = self.identities.get(*place);
            identity.is_some_and(|identity| identities.contains(&&*identity.name))
        };
        let rules = self.rules().into_iter().flat_map(|rules| &rules.rules);
        rules
            .filter(|rule| !rule.is_deny() && rule.permissions.contains(permission))
            .filter(|rule| rule.who.as_ref().is_none_or(|who| who.iter().any(is_named)))
            .map(|rule| rule.line)
            .collect()
    }
}

/// The text of the rule that begins in this line of a policy file, without the indentation of the
/// file. `None` if none does.
#[must_use]
pub fn rule_text(file: &str, line: usize) -> Option<String> {
    let document = Document::parse(file, &mut Vec::new())?;
    let value = document.to_json();
    let access = Pointer::default().key("access");
    let lists = [access.key("rules"), access];
    let rules = lists.iter().flat_map(|list| {
        let rules = value
            .pointer(list.as_str())
            .and_then(|list| list.as_array());
        (0..rules.map_or(0, Vec::len)).map(|index| list.index(index))
    });
    let mut places = rules.map(|rule| document.place(&rule));
    let place = places.find(|place| document.line(place) == line)?;
    let before = file.get(..place.start)?;
    let begin = before.rfind('\n').map_or(0, |newline| newline + 1);
    let rest = file.get(place.start..)?;
    if rest.starts_with('{') {
        return Some(braces(rest)?.to_owned());
    }
    // A block goes on as far as lines are indented as much as its first key.
    let column = place.start - begin;
    let within = |line: &&str| {
        let indent = line.len() - line.trim_start_matches(' ').len();
        line.trim().is_empty() || indent >= column
    };
    let mut lines = rest.lines();
    let mut text = lines.next()?.to_owned();
    for line in lines.take_while(within) {
        text.push('\n');
        text.push_str(line.get(column..).unwrap_or_default());
    }
    text.truncate(text.trim_end().len());
    Some(text)
}

/// What is in braces at the beginning of a text, with them. Braces in quotes and comments are none.
fn braces(text: &str) -> Option<&str> {
    let (mut depth, mut quote, mut before) = (0_usize, None, ' ');
    let mut characters = text.char_indices();
    while let Some((at, one)) = characters.next() {
        match (quote, one) {
            (Some('"'), '\\') => _ = characters.next(),
            (Some(open), _) if one == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(one),
            (None, '#') if before.is_whitespace() => {
                _ = characters.find(|(_, one)| *one == '\n');
            }
            (None, '{') => depth += 1,
            (None, '}') if depth == 1 => return text.get(..=at),
            (None, '}') => depth -= 1,
            (None, _) => {}
        }
        before = one;
    }
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;

    const LIST: &str = r#"version: 1
access:
- who: acme
  allow: [domain:read,
    domain:start]   # as long as they pay

  on: { domain: { name: "acme-*" } }

# The next.
- { who: lab, # not }
    allow: operator, on: { domain: { name: "\"}", owner: '}''}' } } }
- deny: domain:delete
  who: "*"
quotas: x
"#;

    #[test]
    fn a_rule_is_shown_as_it_is_written() {
        let first = "who: acme\nallow: [domain:read,\n  domain:start]   # as long as they pay\n\n\
                     on: { domain: { name: \"acme-*\" } }";
        assert_eq!(rule_text(LIST, 3).as_deref(), Some(first));
        let second = r#"{ who: lab, # not }
    allow: operator, on: { domain: { name: "\"}", owner: '}''}' } } }"#;
        assert_eq!(rule_text(LIST, 10).as_deref(), Some(second));
        let last = "deny: domain:delete\nwho: \"*\"";
        assert_eq!(rule_text(LIST, 12).as_deref(), Some(last));
        for line in [0, 1, 2, 4, 9, 14, 99] {
            assert_eq!(rule_text(LIST, line), None, "{line}");
        }
        let settings = "access:\n  mode: shadow\n  rules:\n    - who: a\n      allow: x";
        assert_eq!(rule_text(settings, 4).as_deref(), Some("who: a\nallow: x"));
    }

    #[test]
    fn rules_that_allow_something_are_told_by_identity() {
        let text = "version: 1
listeners: { main: { unix: /run/main } }
upstreams: { one: { unix: /run/one } }
identities: { acme: { unix: { user: acme } }, lab: { unix: { user: lab } } }
routes: [ { uri: x, upstream: one } ]
access:
- { who: acme, allow: \"domain:*\", on: { domain: { name: a } } }
- { who: [lab, acme], allow: operator }
- { who: lab, allow: \"*\" }
- { who: acme, deny: domain:start }
- { who: \"*\", allow: read-only }
";
        let policy = crate::policy::load("f", text, &|_| None).unwrap().policy;
        let find =
            |action| Permission::find(crate::protocol::object::Class::Domain, action).unwrap();
        let lines = |action, who: &[&str]| policy.lines_that_allow(find(action), who);
        assert_eq!(lines("start", &["acme"]), [7, 8]);
        assert_eq!(lines("start", &["acme", "lab"]), [7, 8, 9]);
        assert_eq!(lines("start", &["nobody"]), [0; 0]);
        assert_eq!(lines("read", &["nobody"]), [11]);
    }
}
