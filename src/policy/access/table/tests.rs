#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a failed unwrap is the failed test"
)]

use std::collections::BTreeSet;

use super::*;
use crate::policy::access::condition::{Condition, Test};
use crate::policy::access::permission::PermissionSet;
use crate::policy::access::rule::{Effect, Rule};
use crate::policy::access::subject::Attribute;
use crate::policy::facts::ClientFacts;
use crate::policy::guard;
use crate::policy::guard::Guards;
use crate::policy::pattern::Pattern;
use crate::protocol::table::{self, rows};

fn permission(text: &str) -> Permission {
    let (class, action) = text.split_once(':').unwrap();
    Permission::find(Class::from_name(class).unwrap(), action).unwrap()
}

fn text(attribute: Attribute, pattern: &str) -> Test {
    Test::Text(attribute, vec![Pattern::parse(pattern).unwrap()])
}

fn rule(effect: Effect, permissions: PermissionSet) -> Rule {
    Rule {
        line: 1,
        who: None,
        effect,
        permissions,
        everything: false,
        on: Vec::new(),
        shadow: false,
    }
}

fn allow(guarded: bool) -> Effect {
    Effect::Allow {
        guards: guarded.then(|| Box::new(Guards::default())),
        stamp: None,
    }
}

fn table_of(shadow: bool, rules: Vec<Rule>) -> Table {
    let rules = Rules {
        shadow,
        rules,
        ..Rules::default()
    };
    let nobody = IdentitySet::of(&ClientFacts::default(), &[], &[]);
    Table::of(Arc::new(rules), &nobody)
}

/// What a rule says of the subject of the test below.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum On {
    Holds,
    Fails,
    Unknown,
    Everywhere,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Allow,
    AllowGuarded,
    Deny,
    DenyInShadow,
}

/// The answer as far as it matters to a caller.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Answer {
    Deny,
    Allow {
        guarded: BTreeSet<usize>,
        shadow: bool,
    },
    Unknown,
}

/// The meaning, word for word, where every condition is known.
fn meaning(shadow: bool, rules: &[(Kind, bool)]) -> Answer {
    let holding = |kinds: &[Kind]| -> Vec<usize> {
        let places = rules.iter().enumerate();
        let holding = places.filter(|(_, (kind, holds))| *holds && kinds.contains(kind));
        holding.map(|(place, _)| place).collect()
    };
    let free = holding(&[Kind::Allow]);
    let guarded = holding(&[Kind::AllowGuarded]);
    let denied = !holding(&[Kind::Deny]).is_empty();
    let denied_in_shadow = !holding(&[Kind::DenyInShadow]).is_empty();
    let refused = denied || free.is_empty() && guarded.is_empty();
    match (refused || shadow && denied_in_shadow, shadow) {
        (true, false) => Answer::Deny,
        (true, true) => Answer::Allow {
            guarded: BTreeSet::new(),
            shadow: true,
        },
        (false, _) => Answer::Allow {
            guarded: match free.is_empty() {
                true => guarded.into_iter().collect(),
                false => BTreeSet::new(),
            },
            shadow: denied_in_shadow,
        },
    }
}

/// Every answer that is possible while conditions are not known.
fn possible(shadow: bool, rules: &[(Kind, On)]) -> Vec<Answer> {
    let doubts: Vec<usize> = rules
        .iter()
        .enumerate()
        .filter(|(_, (_, on))| *on == On::Unknown)
        .map(|(place, _)| place)
        .collect();
    let mut answers: Vec<Answer> = Vec::new();
    for assignment in 0..1_u32 << doubts.len() {
        let known = rules.iter().enumerate().map(|(place, (kind, on))| {
            let holds = match on {
                On::Holds | On::Everywhere => true,
                On::Fails => false,
                On::Unknown => {
                    let bit = doubts.iter().position(|doubt| *doubt == place).unwrap();
                    assignment >> bit & 1 == 1
                }
            };
            (*kind, holds)
        });
        let answer = meaning(shadow, &known.collect::<Vec<_>>());
        if !answers.contains(&answer) {
            answers.push(answer);
        }
    }
    answers
}

fn answer(ruling: Ruling) -> Answer {
    match ruling {
        Ruling::Deny(denial) => {
            assert!(!denial.shadow);
            Answer::Deny
        }
        Ruling::Unknown => Answer::Unknown,
        Ruling::Allow(allowed) => {
            assert!(allowed.shadow.is_none_or(|denial| denial.shadow));
            let guarded = allowed
                .guarded
                .iter()
                .map(|id| usize::try_from(id.0).unwrap());
            Answer::Allow {
                guarded: guarded.collect(),
                shadow: allowed.shadow.is_some(),
            }
        }
    }
}

/// Every policy of up to four rules on one permission, against the meaning.
#[test]
fn what_is_missing_matters_only_if_it_can_change_the_answer() {
    let start = permission("domain:start");
    // Its name is known, its owner is not.
    let subject = Subject {
        name: Some("known"),
        ..Subject::of(Class::Domain)
    };
    let kinds = [
        Kind::Allow,
        Kind::AllowGuarded,
        Kind::Deny,
        Kind::DenyInShadow,
    ];
    let ons = [On::Holds, On::Fails, On::Unknown, On::Everywhere];
    let states: Vec<(Kind, On)> = kinds
        .into_iter()
        .flat_map(|kind| ons.map(|on| (kind, on)))
        .collect();
    let mut policies: Vec<Vec<usize>> = vec![Vec::new()];
    let mut tried = 0;
    while let Some(policy) = policies.pop() {
        if policy.len() < 4 {
            let least = policy.last().copied().unwrap_or(0);
            policies.extend((least..states.len()).map(|next| [&policy[..], &[next]].concat()));
        }
        let written = policy
            .iter()
            .filter_map(|place| states.get(*place).copied());
        let written: Vec<(Kind, On)> = written.collect();
        for shadow in [false, true] {
            let rules = written.iter().map(|(kind, on)| {
                let effect = match kind {
                    Kind::Allow => allow(false),
                    Kind::AllowGuarded => allow(true),
                    Kind::Deny | Kind::DenyInShadow => Effect::Deny,
                };
                let test = match on {
                    On::Holds => Some(text(Attribute::Name, "k*")),
                    On::Fails => Some(text(Attribute::Name, "other")),
                    On::Unknown => Some(text(Attribute::Owner, "acme")),
                    On::Everywhere => None,
                };
                Rule {
                    on: test
                        .map(|test| (Class::Domain, Condition(vec![vec![test]])))
                        .into_iter()
                        .collect(),
                    shadow: *kind == Kind::DenyInShadow,
                    ..rule(effect, [start].into_iter().collect())
                }
            });
            let table = table_of(shadow, rules.collect());
            let possible = possible(shadow, &written);
            let found = answer(table.decide(start, &subject));
            let expected = match possible.as_slice() {
                [only] => only.clone(),
                _ => Answer::Unknown,
            };
            assert_eq!(found, expected, "shadow: {shadow}, {written:?}");

            // In doubt, nothing is allowed and everything denied.
            let settled = written.iter().map(|(kind, on)| {
                let denies = matches!(kind, Kind::Deny | Kind::DenyInShadow);
                let holds = match on {
                    On::Holds | On::Everywhere => true,
                    On::Fails => false,
                    On::Unknown => denies,
                };
                (*kind, holds)
            });
            let settled = meaning(shadow, &settled.collect::<Vec<_>>());
            let found = answer(table.settle(start, &subject));
            assert_eq!(found, settled, "shadow: {shadow}, {written:?}");
            tried += 1;
        }
    }
    assert_eq!(tried, 2 * (1 + 16 + 136 + 816 + 3876));
}

/// A fixed sequence (xorshift), so that a failure can be seen again.
struct Chance(u64);

impl Chance {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound).unwrap()).unwrap()
    }

    fn once_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

fn some_rule(chance: &mut Chance) -> Rule {
    let everything = chance.once_in(4);
    let permissions = match everything || chance.once_in(2) {
        true => PermissionSet::all(),
        false => Permission::all().filter(|_| !chance.once_in(3)).collect(),
    };
    let effect = match chance.once_in(4) {
        true => Effect::Deny,
        false => allow(chance.once_in(4)),
    };
    let mut on = Vec::new();
    for class in Class::ALL {
        if class != Class::Connect && chance.once_in(12) {
            let test = text(Attribute::Name, "a*");
            on.push((class, Condition(vec![vec![test]])));
        }
    }
    // A denial of everything everywhere would leave nothing to see.
    let permissions = match effect {
        Effect::Deny => permissions.iter().filter(|_| chance.once_in(20)).collect(),
        Effect::Allow { .. } => permissions,
    };
    Rule {
        everything: everything && !matches!(effect, Effect::Deny),
        on,
        shadow: chance.once_in(6),
        ..rule(effect, permissions)
    }
}

/// What a gate says holds on every object.
#[test]
fn gates_agree_with_the_decisions_that_they_save() {
    let mut chance = Chance(0x9e37_79b9_7f4a_7c15);
    let (mut relayed, mut refused, mut judged) = (0, 0, 0);
    for _ in 0..200 {
        let shadow = chance.once_in(5);
        let rules: Vec<Rule> = (0..=chance.below(3))
            .map(|_| some_rule(&mut chance))
            .collect();
        let table = table_of(shadow, rules);
        let subjects = |class| {
            [None, Some("a1"), Some("b1")].map(|name| Subject {
                name,
                ..Subject::of(class)
            })
        };
        for program in PROGRAMS {
            for info in rows(program) {
                let Some(needs) = needs(program, info.number) else {
                    continue;
                };
                let rulings = |permission: Permission| {
                    subjects(permission.class()).map(|subject| table.settle(permission, &subject))
                };
                let wanted = needs.permissions.iter();
                match table.gate(program, info.number) {
                    Gate::Relay => {
                        relayed += 1;
                        for need in wanted {
                            for ruling in rulings(need.permission) {
                                match ruling {
                                    Ruling::Allow(allowed) => assert!(
                                        (allowed.guarded.is_empty()
                                            || !guard::has_content(program, info.number))
                                            && allowed.shadow.is_none(),
                                        "{info:?}"
                                    ),
                                    ruling => panic!("{}: {ruling:?}", info.name),
                                }
                            }
                        }
                        for class in &needs.classes {
                            for subject in subjects(*class) {
                                assert!(matches!(table.visible(&subject), Ruling::Allow(_)));
                            }
                        }
                        if let Some(filter) = needs.filter {
                            for subject in subjects(filter.class()) {
                                let ruling = table.passes(filter, &subject);
                                assert!(matches!(ruling, Ruling::Allow(_)), "{info:?}");
                            }
                        }
                    }
                    Gate::Refuse(denial) => {
                        refused += 1;
                        assert!(!shadow && !denial.shadow);
                        let permission = denial.permission.unwrap();
                        let mut wanted = wanted.filter(|need| need.condition.is_none());
                        assert!(wanted.any(|need| need.permission == permission));
                        for ruling in rulings(permission) {
                            assert_eq!(ruling, Ruling::Deny(denial));
                        }
                    }
                    Gate::Judge => judged += 1,
                }
            }
        }
    }
    assert!(relayed > 1000 && refused > 1000 && judged > 1000);
}

#[test]
fn what_is_not_known_is_for_those_who_may_do_everything() {
    let everything = |effect| Rule {
        everything: true,
        ..rule(effect, PermissionSet::all())
    };
    let some_domains = || {
        (
            Class::Domain,
            Condition(vec![vec![text(Attribute::Name, "a")]]),
        )
    };
    let deny = || {
        rule(
            Effect::Deny,
            [permission("secret:delete")].into_iter().collect(),
        )
    };
    let unknown = |shadow, rules| {
        let table = table_of(shadow, rules);
        let gate = table.gate(Program::REMOTE, Procedure(454));
        assert_eq!(table.gate(Program::ADMIN, Procedure(1)), gate);
        (gate, table.decide_unknown())
    };
    let relayed = (Gate::Relay, Ruling::Allow(Allowed::default()));
    let refused = (
        Gate::Refuse(Denial::of_procedure()),
        Ruling::Deny(Denial::of_procedure()),
    );
    assert_eq!(unknown(false, vec![everything(allow(false))]), relayed);
    let in_shadow = Rule {
        shadow: true,
        ..deny()
    };
    let with_shadow = vec![everything(allow(false)), in_shadow];
    assert_eq!(unknown(false, with_shadow), relayed);
    for rules in [
        vec![],
        vec![rule(allow(false), PermissionSet::all())],
        vec![everything(allow(true))],
        vec![everything(Effect::Deny)],
        vec![everything(allow(false)), deny()],
        vec![Rule {
            on: vec![some_domains()],
            ..everything(allow(false))
        }],
    ] {
        assert_eq!(unknown(false, rules), refused);
    }
    let (gate, ruling) = unknown(true, vec![]);
    assert_eq!(gate, Gate::Judge);
    assert_eq!(
        ruling,
        Ruling::Allow(Allowed {
            shadow: Some(Denial::of_procedure().in_shadow()),
            ..Allowed::default()
        })
    );
}

/// A procedure with any of these conditions needs more than its gate could say.
#[test]
fn conditional_permissions_keep_a_call_from_being_relayed() {
    let conditional =
        |info: &table::ProcedureInfo| info.acl.iter().any(|it| it.condition.is_some());
    let calls = rows(Program::REMOTE)
        .iter()
        .filter(|info| conditional(info));
    let mut seen = 0;
    for info in calls {
        let needs = needs(Program::REMOTE, info.number).unwrap();
        let all = needs.permissions.iter().map(|need| need.permission);
        let of_classes = needs
            .classes
            .iter()
            .map(|class| Permission::getattr(*class));
        let all: PermissionSet = all.chain(of_classes).collect();
        let gate = |granted: PermissionSet| {
            let table = table_of(false, vec![rule(allow(false), granted)]);
            table.gate(Program::REMOTE, info.number)
        };
        assert_eq!(gate(all), Gate::Relay, "{}", info.name);
        let unconditional = needs
            .permissions
            .iter()
            .filter(|need| need.condition.is_none());
        let unconditional: PermissionSet = unconditional.map(|need| need.permission).collect();
        for need in needs
            .permissions
            .iter()
            .filter(|need| need.condition.is_some())
        {
            if unconditional.contains(need.permission) {
                continue;
            }
            let without = all.iter().filter(|it| *it != need.permission).collect();
            assert_eq!(gate(without), Gate::Judge, "{}", info.name);
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen}");
}
