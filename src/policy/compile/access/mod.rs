//! `access`: names resolved, sets expanded, conditions and guards built.

mod conditions;
mod guards;
mod permissions;

use std::sync::Arc;

use super::{Compiler, Names, elements};
use crate::policy::access::condition::{Condition, Test};
use crate::policy::access::rule::{Audit, Effect, OwnerMark, Quota, Rule, Rules, VolumeQuota};
use crate::policy::access::{Attribute, PermissionSet};
use crate::policy::pattern::Pattern;
use crate::policy::raw::{self, Lenient, OneOrMany};
use crate::policy::report::{Problem, quoted};
use crate::policy::yaml::Pointer;
use crate::protocol::object::Class;
use permissions::Sets;

/// The compiled `access`, with places.
#[derive(Debug, Default)]
pub(in crate::policy) struct AccessDraft {
    pub(in crate::policy) shadow: bool,
    pub(in crate::policy) rules: Vec<RuleDraft>,
    pub(in crate::policy) quotas: Vec<Option<Vec<Quota>>>,
    /// `None`: something in it, or `access` as a whole, could not be read.
    pub(in crate::policy) marks: Option<Vec<OwnerMark>>,
    /// `None` as well.
    pub(in crate::policy) audit: Option<Audit>,
    /// Sets that the file defines and nothing names.
    pub(in crate::policy) unused_sets: Vec<(String, Pointer)>,
}

/// A rule, with places.
#[derive(Debug)]
pub(in crate::policy) struct RuleDraft {
    pub(in crate::policy) at: Pointer,
    /// What each element of `allow` or `deny` stands for.
    pub(in crate::policy) grants: Vec<(Pointer, PermissionSet)>,
    pub(in crate::policy) value: Option<Rule>,
}

impl AccessDraft {
    /// Where a quota is.
    pub(in crate::policy) fn quota_at(&self, quota: &Quota) -> Pointer {
        let is_here = |quotas: &Option<Vec<Quota>>| {
            quotas
                .iter()
                .flatten()
                .any(|known| std::ptr::eq(known, quota))
        };
        let index = self.quotas.iter().position(is_here).unwrap_or_default();
        Pointer::default().key("access").key("quotas").index(index)
    }

    pub(super) fn finish(self) -> Option<Rules> {
        let rules = self.rules.into_iter().map(|draft| draft.value);
        let quotas = self.quotas.into_iter().collect::<Option<Vec<_>>>()?;
        Some(Rules {
            shadow: self.shadow,
            rules: rules.collect::<Option<_>>()?,
            quotas: quotas.into_iter().flatten().collect(),
            marks: self.marks?,
            audit: self.audit?,
        })
    }
}

impl Compiler<'_, '_> {
    pub(super) fn access(&mut self, access: &raw::Access, names: &Names) -> AccessDraft {
        let at = Pointer::default().key("access");
        match access {
            raw::Access::Rules(rules) => {
                let mut sets = Sets::default();
                AccessDraft {
                    rules: self.access_rules(rules, &at, &mut sets, names),
                    audit: self.audit(None, &at, &mut sets),
                    marks: Some(vec![OwnerMark::ours()]),
                    ..AccessDraft::default()
                }
            }
            raw::Access::Settings(settings) => {
                let mut sets = self.sets(&settings.sets, &at.key("sets"));
                let quotas = settings.quotas.iter().enumerate();
                let quotas = quotas.map(|(index, quota)| {
                    let at = at.key("quotas").index(index);
                    self.quota(quota.0.as_ref()?, &at, names)
                });
                let quotas = quotas.collect();
                let audit = match &settings.audit {
                    None => self.audit(None, &at, &mut sets),
                    Some(Lenient(audit)) => audit
                        .as_ref()
                        .and_then(|audit| self.audit(Some(audit), &at.key("audit"), &mut sets)),
                };
                AccessDraft {
                    shadow: settings.mode == Some(raw::AccessMode::Shadow),
                    quotas,
                    marks: marks(settings),
                    audit,
                    rules: self.access_rules(&settings.rules, &at.key("rules"), &mut sets, names),
                    unused_sets: sets.unused(&settings.sets, &at.key("sets")),
                }
            }
        }
    }

    fn access_rules(
        &mut self,
        rules: &[Lenient<raw::AccessRule>],
        at: &Pointer,
        sets: &mut Sets,
        names: &Names,
    ) -> Vec<RuleDraft> {
        let rules = rules.iter().enumerate();
        rules
            .map(|(index, rule)| {
                let at = at.index(index);
                let mut grants = Vec::new();
                let value = rule
                    .0
                    .as_ref()
                    .and_then(|rule| self.access_rule(rule, &at, sets, names, &mut grants));
                RuleDraft { at, grants, value }
            })
            .collect()
    }

    fn access_rule(
        &mut self,
        rule: &raw::AccessRule,
        at: &Pointer,
        sets: &mut Sets,
        names: &Names,
        grants: &mut Vec<(Pointer, PermissionSet)>,
    ) -> Option<Rule> {
        let who = self.who(&rule.who, &at.key("who"), names);
        let on = match &rule.on {
            Some(on) => self.on(on, &at.key("on")),
            None => Some(Vec::new()),
        };
        let guards = match &rule.guards {
            Some(guards) => self.guards(guards, &at.key("guards")).map(Some),
            None => Some(None),
        };
        let (key, texts) = self.allow_or_deny(rule, at)?;
        let granted = self.permissions(texts, &at.key(key), sets, grants);
        let on = on?;
        let effect = if key == "deny" {
            self.nothing_but_deny(rule, at)?;
            Effect::Deny
        } else {
            let stamp = match &rule.stamp {
                Some(stamp) => self.stamp(stamp, &on, &at.key("stamp"))?,
                None => None,
            };
            Effect::Allow {
                guards: guards?.map(Box::new),
                stamp,
            }
        };
        let (permissions, everything) = granted?;
        Some(Rule {
            line: self.document.line(&self.document.place(at)),
            who: who?,
            effect,
            permissions,
            everything,
            on,
            shadow: rule.mode == Some(raw::AccessMode::Shadow),
        })
    }

    fn allow_or_deny<'r>(
        &mut self,
        rule: &'r raw::AccessRule,
        at: &Pointer,
    ) -> Option<(&'static str, &'r OneOrMany<raw::PermissionText>)> {
        match (&rule.allow, &rule.deny) {
            (Some(allow), None) => Some(("allow", allow)),
            (None, Some(deny)) => Some(("deny", deny)),
            (Some(_), Some(_)) => {
                self.problems.push(
                    Problem::error(
                        "access",
                        Some(self.document.key_place(&at.key("deny"))),
                        "a rule has `allow` or `deny`, not both",
                    )
                    .related(self.document.key_place(&at.key("allow")), "`allow` is here")
                    .help(
                        "make two rules of it: what one denies is denied whatever rule allows it",
                    ),
                );
                None
            }
            (None, None) => {
                // An unknown or unusable key may well have been meant for it.
                if !self.flaws.incomplete(at) {
                    self.problems.push(
                        Problem::error(
                            "access",
                            Some(self.document.place(at)),
                            "this rule allows and denies nothing",
                        )
                        .help("add `allow` or `deny` with a list of permissions"),
                    );
                }
                None
            }
        }
    }

    fn nothing_but_deny(&mut self, rule: &raw::AccessRule, at: &Pointer) -> Option<()> {
        let mut good = Some(());
        for (key, there) in [
            ("guards", rule.guards.is_some()),
            ("stamp", rule.stamp.is_some()),
        ] {
            if there {
                self.problems.push(
                    Problem::error(
                        "access",
                        Some(self.document.key_place(&at.key(key))),
                        format!("{} goes with `allow`, not with `deny`", quoted(key)),
                    )
                    .help("a call that is denied is refused whatever is in it"),
                );
                good = None;
            }
        }
        good
    }

    /// Places of the identities, sorted; `Some(None)` is everyone.
    fn who(
        &mut self,
        who: &OneOrMany<raw::Who>,
        at: &Pointer,
        names: &Names,
    ) -> Option<Option<Vec<usize>>> {
        let (mut places, mut everyone, mut failed) = (Vec::new(), false, false);
        for (at, who) in elements(who, at) {
            if who.0 == "*" {
                everyone = true;
            } else {
                match self.resolve("identity", &who.0, &at, names) {
                    Some(place) => places.push(place),
                    None => failed = true,
                }
            }
        }
        places.sort_unstable();
        places.dedup();
        (!failed).then_some((!everyone).then_some(places))
    }

    /// The owner to stamp, if there is one.
    fn stamp(
        &mut self,
        stamp: &raw::Stamp,
        on: &[(Class, Condition)],
        at: &Pointer,
    ) -> Option<Option<String>> {
        let mut error = |message: &str, help: &str| {
            let place = Some(self.document.place(at));
            self.problems
                .push(Problem::error("access", place, message).help(help));
            None
        };
        let owners = owners(on);
        let owner = match stamp {
            raw::Stamp::Named(false) => return Some(None),
            raw::Stamp::Named(true) => match owners.as_slice() {
                [owner] if owner.literal().is_some() => owner.to_string(),
                _ => {
                    return error(
                        "`stamp: true` needs one owner, without wildcards, in `on`",
                        "write `on: { domain: { owner: NAME } }`, or the owner in place of `true`",
                    );
                }
            },
            raw::Stamp::Text(text) => text.clone(),
        };
        if owner.chars().any(char::is_control) || owner.trim() != owner {
            return error(
                "an owner has no control characters, and no spaces around it",
                "it is compared as a whole",
            );
        }
        if !owners.is_empty() && !owners.iter().any(|known| known.matches(&owner)) {
            return error(
                "this owner is none of those that `on` names, so that the rule would not be about what it stamps",
                "name the same owner in both, or write `stamp: true`",
            );
        }
        Some(Some(owner))
    }

    /// One quota per identity.
    fn quota(&mut self, quota: &raw::Quota, at: &Pointer, names: &Names) -> Option<Vec<Quota>> {
        let who = self.names(Some(&quota.who), "identity", &at.key("who"), names);
        let memory = match &quota.memory {
            Some(size) => self.size(size, &at.key("memory")).map(Some),
            None => Some(None),
        };
        let (mut volumes, mut failed) = (Vec::new(), false);
        for (pool, size) in quota.volumes.iter().flat_map(|volumes| &volumes.0) {
            let at = at.key("volumes").key(pool);
            match (self.pattern(pool, &at), self.size(size, &at)) {
                (Some(pool), Some(bytes)) => volumes.push(VolumeQuota { bytes, pool }),
                _ => failed = true,
            }
        }
        let limits = [quota.domains, quota.running, quota.vcpus];
        if limits.iter().all(Option::is_none)
            && quota.memory.is_none()
            && quota.volumes.is_none()
            && !self.flaws.incomplete(at)
        {
            self.problems.push(
                Problem::error(
                    "access",
                    Some(self.document.place(at)),
                    "this quota limits nothing",
                )
                .help("add `domains`, `running`, `vcpus`, `memory` or `volumes`"),
            );
            return None;
        }
        let (who, memory) = (who??, memory?);
        if failed {
            return None;
        }
        let line = self.document.line(&self.document.place(at));
        let each = who.iter().map(|&identity| Quota {
            who: name_of(names, identity),
            line,
            domains: quota.domains,
            running: quota.running,
            vcpus: quota.vcpus,
            memory,
            volumes: volumes.clone(),
            identity,
        });
        Some(each.collect())
    }

    fn audit(
        &mut self,
        audit: Option<&raw::Audit>,
        at: &Pointer,
        sets: &mut Sets,
    ) -> Option<Audit> {
        let allowed = match audit.and_then(|audit| audit.allowed.as_ref()) {
            Some(texts) => self.permissions(texts, &at.key("allowed"), sets, &mut Vec::new()),
            None => Some(Default::default()),
        };
        let file = match audit.and_then(|audit| audit.file.as_ref()) {
            Some(path) => self.file_path(path, &at.key("file")).map(Some),
            None => Some(None),
        };
        Some(Audit {
            allowed: allowed?.0,
            file: file?,
            journal: audit.and_then(|audit| audit.journal).unwrap_or(true),
        })
    }

    pub(super) fn size(&mut self, size: &raw::Size, at: &Pointer) -> Option<u64> {
        let digits = size.0.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let exponent = match size.0.get(digits.len()..).unwrap_or_default() {
            "B" => 0,
            "KiB" => 1,
            "MiB" => 2,
            "GiB" => 3,
            "TiB" => 4,
            "PiB" => 5,
            _ => return None,
        };
        let bytes = digits
            .parse::<u64>()
            .ok()?
            .checked_mul(1024_u64.pow(exponent));
        if bytes.is_none() {
            let message = format!("{} is more than can be counted", quoted(&size.0));
            self.error("out-of-range", at, message);
        }
        bytes
    }
}

/// Our own mark, and those that the file names.
fn marks(settings: &raw::AccessSettings) -> Option<Vec<OwnerMark>> {
    let named = settings.owner.iter().map(|mark| {
        let mark = mark.0.as_ref()?;
        let path = mark.element.iter().flat_map(|path| path.split('/'));
        Some(OwnerMark {
            namespace: mark.namespace.clone(),
            path: path.map(str::to_owned).collect(),
            attribute: mark.attribute.clone(),
        })
    });
    std::iter::once(Some(OwnerMark::ours()))
        .chain(named)
        .collect()
}

/// The owners that conditions ask for, each once.
fn owners(on: &[(Class, Condition)]) -> Vec<&Pattern> {
    let mut owners: Vec<&Pattern> = Vec::new();
    for test in on
        .iter()
        .flat_map(|(_, condition)| condition.0.iter().flatten())
    {
        if let Test::Text(Attribute::Owner, patterns) = test {
            owners.extend(patterns);
        }
    }
    owners.dedup_by_key(|owner| owner.to_string());
    owners
}

fn name_of(names: &Names, place: usize) -> Arc<str> {
    let mut names = names.iter();
    let found = names.find(|(_, known)| **known == place);
    found.map_or_else(|| Arc::from(""), |(name, _)| Arc::clone(name))
}
