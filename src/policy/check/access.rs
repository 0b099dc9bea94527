//! Access rules that cannot be meant as they are written.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::Checker;
use crate::policy::access::condition::{Condition, Test};
use crate::policy::access::rule::Rule;
use crate::policy::access::{Attribute, Permission, PermissionSet};
use crate::policy::compile::access::RuleDraft;
use crate::policy::guard::{Forbid, Guards};
use crate::policy::pattern::Pattern;
use crate::policy::report::{Problem, listing, quoted};
use crate::protocol::object::Class;

/// Steps of comparing conditions with conditions; beyond it, allows that a denial swallows go
/// unnoticed. Some ten milliseconds of work.
const MAX_COMPARED: u64 = 1_000_000;

impl Checker<'_, '_> {
    /// What is hardly meant of each rule by itself, and of rules together.
    pub(super) fn access(&self, problems: &mut Vec<Problem>) {
        let Some(access) = &self.draft.access else {
            return;
        };
        let rules = access
            .rules
            .iter()
            .filter_map(|draft| Some((draft, draft.value.as_ref()?)));
        for (draft, rule) in rules.clone() {
            self.idle_conditions(draft, rule, problems);
            self.odd_patterns(draft, rule, problems);
            self.limited_in_part(draft, rule, problems);
            self.idle_stamp(draft, rule, problems);
            self.idle_mode(draft, rule, problems);
        }
        let rules: Vec<(&RuleDraft, &Rule)> = rules.collect();
        self.swallowed(&rules, problems);
        self.unguarded(&rules, problems);
        self.shut_out(&rules, problems);
        self.blind(&rules, problems);
        self.idle_quotas(&rules, problems);
        for (name, at) in &access.unused_sets {
            problems.push(
                Problem::warning(
                    "unused",
                    Some(self.document.key_place(at)),
                    format!("nothing uses the set {}", quoted(name)),
                )
                .help("remove it, or name it in a rule"),
            );
        }
    }

    /// Conditions on objects of a class that no permission of the rule is about.
    fn idle_conditions(&self, draft: &RuleDraft, rule: &Rule, problems: &mut Vec<Problem>) {
        for (class, _) in &rule.on {
            if !rule.permissions.iter().any(|it| it.class() == *class) {
                let at = draft.at.key("on").key(class.name());
                problems.push(
                    Problem::warning(
                        "idle-condition",
                        Some(self.document.key_place(&at)),
                        format!("no permission of this rule is about {}", plural(*class)),
                    )
                    .help("remove it, or name a permission of that class"),
                );
            }
        }
    }

    /// Patterns that can match nothing, or are written in another language.
    fn odd_patterns(&self, draft: &RuleDraft, rule: &Rule, problems: &mut Vec<Problem>) {
        let mut warn = |class: Class, attribute: Attribute, message: String, help: &str| {
            let at = draft.at.key("on").key(class.name()).key(attribute.key());
            let place = Some(self.document.place(&at));
            problems.push(Problem::warning("never-matches", place, message).help(help));
        };
        for (class, condition) in &rule.on {
            for test in condition.0.iter().flatten() {
                let Test::Text(attribute, patterns) = test else {
                    continue;
                };
                for pattern in patterns {
                    let text = pattern.to_string();
                    if Pattern::is_regex(&text) {
                        continue;
                    }
                    if let Some(help) = odd(*attribute, &text) {
                        let message = format!("{} hardly matches what it should", quoted(&text));
                        warn(*class, *attribute, message, help);
                    }
                }
            }
            let has_no_usage = |tests: &Vec<Test>| {
                let usage = |test: &Test| matches!(test, Test::Text(Attribute::Usage, _));
                let none = |test: &Test| matches!(test, Test::UsageType(types) if types == &[0]);
                tests.iter().any(usage) && tests.iter().any(none)
            };
            if condition.0.iter().any(has_no_usage) {
                let message = "a secret of the type `none` has no usage".to_owned();
                warn(*class, Attribute::Usage, message, "remove one of the two");
            }
        }
    }

    /// A rule that is limited to some objects of one class and changes all of another.
    fn limited_in_part(&self, draft: &RuleDraft, rule: &Rule, problems: &mut Vec<Problem>) {
        if rule.on.is_empty() || rule.is_deny() {
            return;
        }
        let changes = rule.permissions.intersection(&CHANGES);
        let mut classes: Vec<Class> = changes
            .iter()
            .map(Permission::class)
            .filter(|class| *class != Class::Connect && rule.condition(*class).is_none())
            .collect();
        classes.dedup();
        if classes.is_empty() {
            return;
        }
        let all = plurals(&classes);
        problems.push(
            Problem::warning(
                "limited-in-part",
                Some(self.document.key_place(&draft.at.key("on"))),
                format!("this rule lets its clients change all {all} of the host"),
            )
            .help(format!(
                "`on` says nothing of {}: add conditions, or allow what is for all of them by a rule without `on`",
                listing(classes.iter().map(|class| class.name()))
            )),
        );
    }

    fn idle_stamp(&self, draft: &RuleDraft, rule: &Rule, problems: &mut Vec<Problem>) {
        let creates = |it: Permission| it.class() == Class::Domain && it.action() == "write";
        if rule.stamp().is_some() && !rule.permissions.iter().any(creates) {
            problems.push(
                Problem::warning(
                    "idle-stamp",
                    Some(self.document.key_place(&draft.at.key("stamp"))),
                    "this rule lets nobody create domains, so there is nothing to stamp",
                )
                .help(
                    "domains are created with `domain:write` and `domain:save` or `domain:start`",
                ),
            );
        }
    }

    /// A trial of a rule that neither denies nor guards: what it allows is allowed all the same.
    fn idle_mode(&self, draft: &RuleDraft, rule: &Rule, problems: &mut Vec<Problem>) {
        if rule.shadow && !rule.is_deny() && rule.guards().is_none() {
            problems.push(
                Problem::warning(
                    "idle-mode",
                    Some(self.document.key_place(&draft.at.key("mode"))),
                    "this rule allows what it allows: there is nothing to refuse or to record",
                )
                .help(
                    "`mode: shadow` is for rules with `deny` or `guards`, or for all of `access`",
                ),
            );
        }
    }

    /// Allows of which a denial leaves nothing.
    fn swallowed(&self, rules: &[(&RuleDraft, &Rule)], problems: &mut Vec<Problem>) {
        // By the first identity that they are for.
        let mut denies: HashMap<Option<usize>, Vec<(&RuleDraft, &Rule)>> = HashMap::new();
        for (draft, rule) in rules.iter().filter(|(_, it)| it.is_deny() && !it.shadow) {
            match &rule.who {
                None => denies.entry(None).or_default().push((draft, rule)),
                Some(who) => {
                    for identity in who {
                        denies
                            .entry(Some(*identity))
                            .or_default()
                            .push((draft, rule));
                    }
                }
            }
        }
        if denies.is_empty() {
            return;
        }
        let mut fuel = MAX_COMPARED;
        for (draft, rule) in rules.iter().filter(|(_, rule)| !rule.is_deny()) {
            // One that covers the rule's clients is for each of them.
            let first = rule.who.iter().flatten().next().copied();
            let of_first = first.and_then(|identity| denies.get(&Some(identity)));
            let denies = denies.get(&None).into_iter().chain(of_first).flatten();
            let mut taken = PermissionSet::EMPTY;
            let mut by = None;
            for (denier, deny) in denies {
                fuel = fuel.saturating_sub(1);
                if !deny.permissions.meets(&rule.permissions) || !is_for_all(deny, rule) {
                    continue;
                }
                for permission in rule.permissions.iter() {
                    let class = permission.class();
                    if deny.permissions.contains(permission)
                        && !taken.contains(permission)
                        && covers(deny.condition(class), rule.condition(class), &mut fuel)
                    {
                        taken.insert(permission);
                        by.get_or_insert((denier, permission));
                    }
                }
            }
            let Some((denier, _)) = by else { continue };
            let related = self.document.place(&denier.at.key("deny"));
            let warn = |span, message: &str| {
                Problem::warning("swallowed", Some(span), message)
                    .related(related.clone(), "this rule denies it")
                    .help("deny wins wherever it stands: remove one of the two")
            };
            if taken.covers(&rule.permissions) {
                let span = self.document.place(&draft.at.key("allow"));
                problems.push(warn(span, "this rule allows nothing: all of it is denied"));
                continue;
            }
            for (at, granted) in &draft.grants {
                if taken.covers(granted) {
                    let span = self.document.place(at);
                    problems.push(warn(
                        span,
                        "this is denied to everyone that the rule is for",
                    ));
                }
            }
        }
    }

    /// Rules that let others than administrators write what the host runs or opens, unguarded.
    fn unguarded(&self, rules: &[(&RuleDraft, &Rule)], problems: &mut Vec<Problem>) {
        let administrators: Vec<&Rule> = rules
            .iter()
            .map(|(_, rule)| *rule)
            .filter(|rule| rule.allows_everything())
            .collect();
        for (draft, rule) in rules {
            let is_tried = rule.shadow && rule.guards().is_some();
            if rule.is_deny()
                || is_tried
                || rule.allows_everything()
                || administrators.iter().any(|admin| is_for_all(admin, rule))
            {
                continue;
            }
            let dangers = rule.permissions.intersection(&ROOT);
            let open = |it: &Permission| !is_guarded(it.class(), rule.guards());
            let names = dangers.iter().filter(open).map(|it| it.to_string());
            let names: Vec<String> = names.collect();
            if names.is_empty() {
                continue;
            }
            let what = listing(names.iter().map(String::as_str));
            let (key, with) = match rule.guards() {
                None => ("allow", "without guards"),
                Some(_) => ("guards", "with guards that do not limit it"),
            };
            problems.push(
                Problem::warning(
                    "unguarded",
                    Some(self.document.place(&draft.at.key(key))),
                    format!("this equals root on the host: {what} {with}"),
                )
                .help(
                    "add `guards` with `host_paths`, the folders that every file must be in; they \
                     close the other ways too",
                ),
            );
        }
    }

    /// Clients that a route lets in and no rule lets open a connection.
    fn shut_out(&self, rules: &[(&RuleDraft, &Rule)], problems: &mut Vec<Problem>) {
        let open = Permission::getattr(Class::Connect);
        let mut opens = rules
            .iter()
            .filter(|(_, rule)| !rule.is_deny() && rule.permissions.contains(open));
        let mut may_open = vec![false; self.draft.identities.len()];
        if opens.clone().any(|(_, rule)| rule.who.is_none()) {
            return;
        }
        for index in opens
            .by_ref()
            .flat_map(|(_, rule)| rule.who.iter().flatten())
        {
            if let Some(may) = may_open.get_mut(*index) {
                *may = true;
            }
        }
        let mut first_rule: HashMap<usize, &RuleDraft> = HashMap::new();
        for (draft, rule) in rules.iter().filter(|(_, rule)| !rule.is_deny()) {
            for index in rule.who.iter().flatten() {
                first_rule.entry(*index).or_insert(draft);
            }
        }
        let enters = |index: usize| {
            let mut clients = self
                .routes()
                .filter_map(|(_, route)| route.clients.as_ref());
            clients.any(|clients| clients.contains(&index))
        };
        for (index, entry) in self.draft.identities.iter().enumerate() {
            let Some(draft) = first_rule.get(&index) else {
                continue;
            };
            if may_open.get(index) == Some(&false) && enters(index) {
                problems.push(
                    Problem::warning(
                        "shut-out",
                        Some(self.document.place(&draft.at.key("who"))),
                        format!("{} may not even open a connection", quoted(&entry.name)),
                    )
                    .help("allow `connect:getattr` too"),
                );
            }
        }
    }

    /// Clients that may act on objects of a class and see none of them.
    fn blind(&self, rules: &[(&RuleDraft, &Rule)], problems: &mut Vec<Problem>) {
        for (index, entry) in self.draft.identities.iter().enumerate() {
            let mut granted = PermissionSet::EMPTY;
            let mut first = None;
            for (draft, rule) in rules.iter().filter(|(_, rule)| !rule.is_deny()) {
                let is_its = rule.names(index);
                if is_its || rule.who.is_none() {
                    granted = granted | rule.permissions;
                }
                if is_its {
                    first.get_or_insert(draft);
                }
            }
            let Some(draft) = first else { continue };
            let unseen = |class: &Class| {
                *class != Class::Connect
                    && !granted.contains(Permission::getattr(*class))
                    && granted.iter().any(|it| it.class() == *class)
            };
            let classes: Vec<Class> = Class::ALL.into_iter().filter(unseen).collect();
            if classes.is_empty() {
                continue;
            }
            let needed: Vec<String> = classes
                .iter()
                .map(|class| Permission::getattr(*class).to_string())
                .collect();
            problems.push(
                Problem::warning(
                    "blind",
                    Some(self.document.place(&draft.at.key("who"))),
                    format!(
                        "{} may act on {}, but sees none",
                        quoted(&entry.name),
                        plurals(&classes)
                    ),
                )
                .help(format!(
                    "what a client may not see does not exist for it: allow {} too",
                    listing(needed.iter().map(String::as_str))
                )),
            );
        }
    }

    fn idle_quotas(&self, rules: &[(&RuleDraft, &Rule)], problems: &mut Vec<Problem>) {
        let Some(access) = &self.draft.access else {
            return;
        };
        for quota in access.quotas.iter().flatten().flatten() {
            let makes = |class: Class| {
                let mut rules = rules.iter();
                rules.any(|(_, rule)| rule.makes_for(quota.identity, class))
            };
            let idle = match (quota.limits_domains(), quota.volumes.is_empty()) {
                (true, _) if !makes(Class::Domain) => "start or define domains",
                (_, false) if !makes(Class::StorageVol) => "create volumes",
                _ => continue,
            };
            let at = access.quota_at(quota);
            problems.push(
                Problem::warning(
                    "idle-quota",
                    Some(self.document.place(&at)),
                    format!(
                        "this quota counts nothing: no rule for {} lets it {idle}",
                        quoted(&quota.who)
                    ),
                )
                .help("counted is what the rules whose `who` names the identity let it make"),
            );
        }
    }
}

/// Whether a rule is for every client that another one is for.
fn is_for_all(wide: &Rule, narrow: &Rule) -> bool {
    match (&wide.who, &narrow.who) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => narrow.iter().all(|it| wide.binary_search(it).is_ok()),
    }
}

/// Whether one condition certainly holds wherever another does.
fn covers(wide: Option<&Condition>, narrow: Option<&Condition>, fuel: &mut u64) -> bool {
    let Some(wide) = wide else { return true };
    let Some(narrow) = narrow else { return false };
    narrow.0.iter().all(|narrow| {
        wide.0.iter().any(|wide| {
            wide.iter()
                .all(|wide| narrow.iter().any(|narrow| wide.covers(narrow, fuel)))
        })
    })
}

/// Permissions that change something.
static CHANGES: LazyLock<PermissionSet> =
    LazyLock::new(|| Permission::all().filter(|it| is_change(*it)).collect());

/// Permissions that let their holder write what the host runs, or open what it may open.
static ROOT: LazyLock<PermissionSet> =
    LazyLock::new(|| Permission::all().filter(|it| is_root(*it)).collect());

fn is_change(permission: Permission) -> bool {
    let action = permission.action();
    !matches!(action, "getattr" | "read") && !action.starts_with("search_")
}

fn is_root(permission: Permission) -> bool {
    match permission.class() {
        Class::Domain => matches!(
            permission.action(),
            "write"
                | "save"
                | "snapshot"
                | "checkpoint"
                | "block_write"
                | "core_dump"
                | "hibernate"
        ),
        Class::StorageVol => permission.action() == "create",
        Class::StoragePool | Class::Network => matches!(permission.action(), "write" | "save"),
        _ => false,
    }
}

/// Whether guards keep a writer of objects of a class from being root: those that also refuse what
/// goes round them.
fn is_guarded(class: Class, guards: Option<&Guards>) -> bool {
    guards.is_some_and(|guards| {
        let of_networks = guards.networks.is_some()
            || guards.bridges.is_some()
            || guards.forbid.contains(Forbid::DnsmasqNamespace);
        guards.host_paths.is_some() || class == Class::Network && of_networks
    })
}

/// What is probably wrong with a pattern over an attribute.
fn odd(attribute: Attribute, text: &str) -> Option<&'static str> {
    let is_quoted =
        |quote: char| text.len() > 1 && text.starts_with(quote) && text.ends_with(quote);
    if is_quoted('"') || is_quoted('\'') {
        return Some("the quotes are part of it: leave out one pair");
    }
    if text.trim() != text {
        return Some("spaces around it count: remove them");
    }
    if text.contains(", ") || text.contains(',') && text.contains(['*', '?']) {
        return Some("several patterns are a list: `[one, two]`");
    }
    let looks_like_regex = text.contains(".*")
        || text.contains(".+")
        || text.starts_with('^')
        || text.ends_with('$')
        || text.contains('|') && text.contains('(');
    if looks_like_regex {
        return Some("`*` is any text by itself; a regular expression begins with `regex:`");
    }
    if text.contains('%') && attribute == Attribute::Name {
        return Some("any text is `*`");
    }
    let is_mac = |c: char| c.is_ascii_hexdigit() || matches!(c, ':' | '*' | '?');
    let lengths_fit = text.contains('*') || text.len() == "00:00:00:00:00:00".len();
    if attribute == Attribute::Mac && !(text.chars().all(is_mac) && lengths_fit) {
        return Some(
            "an address is written `52:54:00:12:34:56`, `*` and `?` may stand for some of it",
        );
    }
    None
}

fn plurals(classes: &[Class]) -> String {
    let names: Vec<&str> = classes.iter().map(|class| plural(*class)).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

fn plural(class: Class) -> &'static str {
    match class {
        Class::Connect => "connections",
        Class::Domain => "domains",
        Class::Interface => "interfaces",
        Class::Network => "networks",
        Class::NetworkPort => "network ports",
        Class::NodeDevice => "node devices",
        Class::Nwfilter => "network filters",
        Class::NwfilterBinding => "filter bindings",
        Class::Secret => "secrets",
        Class::StoragePool => "storage pools",
        Class::StorageVol => "storage volumes",
    }
}
