//! What a call's documents refer to: a domain on a network, filtered, with a volume for a disk, with
//! a secret. Where rules look at objects of a class, a client can refer only to those that it sees,
//! unless the guards of the rule that allows the call list what it may refer to.

use super::Class;
use super::case::{Case, Progress, Stop, refuse};
use super::question::Question;
use super::subject::Resolved;
use crate::policy::access::{Attribute, Permission, RuleId};
use crate::policy::guard::{self, Guards, Named};
use crate::protocol::header::Program;
use crate::protocol::object::Object;

impl<'a> Case<'a> {
    /// Whether the client sees everything that the call's documents refer to. What is hidden and
    /// what does not exist are refused in the same words.
    pub(super) fn check_references(
        &self,
        permission: Permission,
        rule: Option<RuleId>,
        progress: &mut Progress<'a>,
    ) -> Result<(), Stop> {
        // Commands to QEMU and to guests are no documents.
        if self.program != Program::REMOTE || !self.view.table.asks_of_references() {
            return Ok(());
        }
        let rule = rule.and_then(|rule| self.view.table.rule(rule));
        let guards = rule.and_then(|rule| rule.guards);
        let references = self.contents(progress).and_then(|contents| {
            let each = contents.iter().map(guard::references);
            each.collect::<Result<Vec<_>, _>>()
        });
        let references = references.map_err(|why| self.unreadable(&why))?;
        let listed = |class| guards.is_some_and(|guards| lists(guards, class));
        let mut references: Vec<Named> = references.into_iter().flatten().collect();
        references.retain(|named| !listed(named.class));
        let hidden: Vec<&Named> = references
            .iter()
            .filter(|named| !self.may_refer(named, progress))
            .collect();
        if !progress.asked.is_empty() {
            return Err(Stop::Ask);
        }
        match hidden.first() {
            None => Ok(()),
            Some(named) => {
                let class = named.class.name().replace('_', " ");
                let reason = format!("a {class} that the call refers to may not be seen");
                Err(refuse(Some(permission), &named.subject(), None, reason))
            }
        }
    }

    fn may_refer(&self, named: &Named, progress: &mut Progress<'a>) -> bool {
        let table = self.view.table;
        let asks = table.asks(named.class);
        if asks.is_empty() {
            return true;
        }
        let sees = |subject: &_| table.shows(subject);
        let by = |attribute| asks.iter().all(|asked| asked == attribute);
        let existing = match (named.class, &named.name, named.uuid, &named.usage) {
            (Class::StorageVol, ..) => return sees(&named.subject()),
            (_, Some(_), ..) if by(Attribute::Name) => return sees(&named.subject()),
            (Class::Network, Some(name), ..) => Question::NetworkNamed(name.clone()),
            (Class::StoragePool, Some(name), ..) => Question::PoolNamed(name.clone()),
            (Class::Nwfilter, Some(name), ..) => Question::NwfilterNamed(name.clone()),
            (Class::Secret, _, Some(_), _) if by(Attribute::Uuid) => {
                return sees(&named.subject());
            }
            (Class::Secret, _, Some(uuid), _) => {
                let (usage_type, usage) = (0, "");
                let secret = Object::Secret {
                    uuid,
                    usage_type,
                    usage,
                };
                return match self.view.named(&secret, &mut progress.asked) {
                    Resolved::Subject(subject) => sees(&subject),
                    Resolved::Absent | Resolved::Pending => false,
                };
            }
            (Class::Secret, _, None, Some(_)) if by(Attribute::Usage) => {
                return sees(&named.subject());
            }
            // Of which kind the usage is depends on what it unlocks: nothing is known of it.
            _ => return sees(&named.subject()),
        };
        match self
            .view
            .existing(named.class, existing, &mut progress.asked)
        {
            Resolved::Subject(subject) => sees(&subject),
            Resolved::Absent | Resolved::Pending => false,
        }
    }
}

/// Whether guards list what may be referred to of a class.
fn lists(guards: &Guards, class: Class) -> bool {
    match class {
        Class::Network => guards.lists_networks(),
        Class::StoragePool | Class::StorageVol => guards.lists_pools(),
        _ => false,
    }
}
