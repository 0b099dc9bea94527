//! Permissions and sets of them, as the file names them.

use std::collections::{HashMap, HashSet};

use crate::policy::access::sets::NAMED_SETS;
use crate::policy::access::{Permission, PermissionSet};
use crate::policy::compile::{Compiler, elements};
use crate::policy::pattern::Pattern;
use crate::policy::raw::{self, OneOrMany, Section};
use crate::policy::report::{MAX_PROBLEMS, Problem, listing, nearest, quoted};
use crate::policy::yaml::Pointer;
use crate::protocol::object::Class;

/// What a name stands for, and whether it is `*`.
pub(super) type Granted = (PermissionSet, bool);

/// The sets that the file defines.
#[derive(Debug, Default)]
pub(super) struct Sets {
    /// Places by name, with `_` between words.
    names: HashMap<String, usize>,
    /// By place; `None` for one that is wrong.
    values: Vec<Option<Granted>>,
    /// Places of those that something names.
    used: HashSet<usize>,
    /// What was named before: many rules name the same.
    known: HashMap<String, Named>,
}

impl Sets {
    pub(super) fn unused(
        &self,
        section: &Section<OneOrMany<raw::PermissionText>>,
        at: &Pointer,
    ) -> Vec<(String, Pointer)> {
        let names = section.0.iter().enumerate();
        names
            .filter(|(place, _)| !self.used.contains(place))
            .map(|(_, (name, _))| (name.clone(), at.key(name)))
            .collect()
    }
}

/// What an element of a list of permissions names.
#[derive(Debug, Clone, Copy)]
enum Named {
    Granted(Granted),
    /// A set of the file's own.
    Own(usize),
}

impl Compiler<'_, '_> {
    pub(super) fn sets(
        &mut self,
        section: &Section<OneOrMany<raw::PermissionText>>,
        at: &Pointer,
    ) -> Sets {
        let mut sets = Sets::default();
        for (place, (name, _)) in section.0.iter().enumerate() {
            let taken = sets.names.insert(in_words(name), place).is_some();
            if taken || named_set(name).is_some() {
                let message = format!("there is a set {} already", quoted(name));
                let place = Some(self.document.key_place(&at.key(name)));
                let help = if taken {
                    "`-` and `_` are the same in its name"
                } else {
                    "it is one of virtproxyd's own: choose another name"
                };
                self.problems
                    .push(Problem::error("set", place, message).help(help));
            }
        }
        let mut members: Vec<Option<Vec<Named>>> = Vec::new();
        for (name, texts) in &section.0 {
            let at = at.key(name);
            members.push(texts.0.as_ref().and_then(|texts| {
                let named: Vec<Option<Named>> = elements(texts, &at)
                    .map(|(at, text)| self.named(&text.0, &at, &mut sets))
                    .collect();
                named.into_iter().collect()
            }));
        }
        let references = members.iter().map(|members| {
            let own = members.iter().flatten().filter_map(|named| match named {
                Named::Own(place) => Some(*place),
                Named::Granted(_) => None,
            });
            own.collect()
        });
        let references = references.collect();
        let places = section
            .0
            .iter()
            .map(|(name, _)| (name.as_str(), at.key(name)));
        let places: Vec<(&str, Pointer)> = places.collect();
        let order = self.order(
            &places,
            references,
            "set-cycle",
            "a set must name permissions in the end",
        );
        sets.values.resize(members.len(), None);
        for place in order {
            let granted = members
                .get(place)
                .and_then(Option::as_ref)
                .and_then(|members| {
                    let each = members.iter().map(|named| match named {
                        Named::Granted(granted) => Some(*granted),
                        Named::Own(place) => {
                            sets.used.insert(*place);
                            sets.values.get(*place).copied().flatten()
                        }
                    });
                    union(each)
                });
            if let Some(value) = sets.values.get_mut(place) {
                *value = granted;
            }
        }
        sets
    }

    /// What a list of permissions stands for; each element's part goes to `grants`.
    pub(super) fn permissions(
        &mut self,
        texts: &OneOrMany<raw::PermissionText>,
        at: &Pointer,
        sets: &mut Sets,
        grants: &mut Vec<(Pointer, PermissionSet)>,
    ) -> Option<Granted> {
        let mut all = Vec::new();
        for (at, text) in elements(texts, at) {
            let granted = match self.named(&text.0, &at, sets) {
                Some(Named::Granted(granted)) => Some(granted),
                Some(Named::Own(place)) => {
                    sets.used.insert(place);
                    sets.values.get(place).copied().flatten()
                }
                None => None,
            };
            if let Some((permissions, _)) = granted {
                grants.push((at, permissions));
            }
            all.push(granted);
        }
        union(all.into_iter())
    }

    fn named(&mut self, text: &str, at: &Pointer, sets: &mut Sets) -> Option<Named> {
        if let Some(named) = sets.known.get(text) {
            return Some(*named);
        }
        let named = self.look_up(text, at, sets)?;
        sets.known.insert(text.to_owned(), named);
        Some(named)
    }

    fn look_up(&mut self, text: &str, at: &Pointer, sets: &Sets) -> Option<Named> {
        let words = in_words(text);
        let Some((class, action)) = words.split_once(':') else {
            if words == "*" {
                return Some(Named::Granted((PermissionSet::all(), true)));
            }
            if let Some(place) = sets.names.get(&words) {
                return Some(Named::Own(*place));
            }
            if let Some(permissions) = named_set(&words) {
                return Some(Named::Granted((permissions, false)));
            }
            self.unknown_set(text, &words, at, sets);
            return None;
        };
        let (Ok(of_class), Ok(of_action)) = (Pattern::glob(class), Pattern::glob(action)) else {
            self.unknown_permission(text, class, action, at);
            return None;
        };
        let permissions: PermissionSet = Permission::all()
            .filter(|it| of_class.matches(it.class().name()) && of_action.matches(it.action()))
            .collect();
        if permissions.is_empty() {
            self.unknown_permission(text, class, action, at);
            return None;
        }
        Some(Named::Granted((permissions, words == "*:*")))
    }

    fn unknown_permission(&mut self, text: &str, class: &str, action: &str, at: &Pointer) {
        let problem = Problem::error(
            "unknown-permission",
            Some(self.document.place(at)),
            format!("there is no permission {}", quoted(text)),
        );
        if self.problems.len() >= MAX_PROBLEMS {
            self.problems.push(problem);
            return;
        }
        let classes = Class::ALL.map(Class::name);
        let help = match Class::from_name(class) {
            Some(class) => {
                let actions = Permission::all().filter(|it| it.class() == class);
                let actions: Vec<&str> = actions.map(Permission::action).collect();
                match nearest(action, actions.iter().copied()) {
                    Some(near) => meant(&format!("{}:{near}", class.name())),
                    None => format!("on {} there are {}", class.name(), listing(actions)),
                }
            }
            None => match nearest(class, classes) {
                Some(near) => meant(&format!("{near}:{action}")),
                None => format!("classes are {}", listing(classes)),
            },
        };
        self.problems.push(problem.help(help));
    }

    fn unknown_set(&mut self, text: &str, words: &str, at: &Pointer, sets: &Sets) {
        let problem = Problem::error(
            "unknown-set",
            Some(self.document.place(at)),
            format!("there is no set of permissions {}", quoted(text)),
        );
        if self.problems.len() >= MAX_PROBLEMS {
            self.problems.push(problem);
            return;
        }
        let mut own: Vec<(&str, usize)> = sets
            .names
            .iter()
            .map(|(name, place)| (name.as_str(), *place))
            .collect();
        own.sort_unstable_by_key(|(_, place)| *place);
        let known = NAMED_SETS.iter().map(|set| set.name);
        let known: Vec<&str> = known.chain(own.iter().map(|(name, _)| *name)).collect();
        let action = Permission::all().find(|it| it.action() == words);
        let help = if let Some(permission) = action {
            meant(&permission.to_string())
        } else if Class::from_name(words).is_some() {
            meant(&format!("{words}:*"))
        } else if let Some(near) = nearest(text, known.iter().copied()) {
            meant(near)
        } else {
            format!("a permission is CLASS:ACTION; sets are {}", listing(known))
        };
        self.problems.push(problem.help(help));
    }
}

fn meant(name: &str) -> String {
    format!("did you mean {}?", quoted(name))
}

/// With `_` between words, as the table of procedures has them.
fn in_words(name: &str) -> String {
    name.replace('-', "_")
}

fn named_set(name: &str) -> Option<PermissionSet> {
    let name = in_words(name);
    let mut sets = NAMED_SETS.iter();
    sets.find(|set| in_words(set.name) == name)
        .map(|set| set.permissions())
}

fn union(mut each: impl Iterator<Item = Option<Granted>>) -> Option<Granted> {
    let none = (PermissionSet::EMPTY, false);
    each.try_fold(none, |(sum, everything), granted| {
        let (permissions, all) = granted?;
        Some((sum | permissions, everything || all))
    })
}
