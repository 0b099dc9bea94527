//! Domains that count towards a quota, and what a call makes of one.

use std::collections::HashMap;

use super::amount::{Amount, Claim, Claims, Thing};
use super::effect::{Effect, size_in_documents};
use super::{Halt, Limit};
use crate::policy::access::{Owner, Quota, Subject};
use crate::policy::definition::{self, DomainSize, Reverted};
use crate::protocol::limits::STRING;
use crate::protocol::object::Uuid;
use crate::protocol::xdr::Reader;
use crate::session::access::Class;
use crate::session::access::case::{Acted, Case, Progress};
use crate::session::access::content::Named;
use crate::session::access::question::{Answer, Listed, Question};
use crate::session::access::subject::{Asked, Resolved};

/// A domain as it is after the call.
struct Made<'a> {
    subject: Subject<'a>,
    how: How,
}

#[derive(Clone, Copy)]
enum How {
    /// At most so much of everything, or as before.
    UpTo(Amount),
    /// So much more memory than before.
    More(u64),
    /// As before.
    Same,
}

impl Made<'_> {
    fn thing(&self) -> Thing {
        Thing::Domain {
            uuid: self.subject.uuid,
            name: self.subject.name.map(Into::into),
        }
    }
}

impl<'a> Case<'a> {
    /// Counts the domains of a quota and holds them against it. Returns what the call claims.
    pub(super) fn count_domains(
        &self,
        quota: &Quota,
        effect: Effect,
        acted: &[Acted<'a>],
        named: &[Named],
        progress: &mut Progress<'a>,
    ) -> Result<Claims, Halt> {
        let table = self.view.table;
        let (asked, saved) = (&mut progress.asked, progress.saved);
        let is_sized = quota.vcpus.is_some() || quota.memory.is_some();
        // With what else is to be asked, for it is needed in any case.
        _ = self.ask(Question::Domains, asked);
        let mut made = self.made(effect, is_sized, acted, named, saved, asked)?;
        // In doubt it counts.
        made.retain(|made| table.counts(quota, &made.subject) != Some(false));
        if made.is_empty() {
            return Ok(Claims::default());
        }
        let mut used = self.domains(quota, is_sized, asked)?;
        used.add_all(&self.others(quota));
        let mut claims = Claims::default();
        for made in &made {
            let thing = made.thing();
            let now = self.as_it_is(made.subject.uuid, is_sized, asked)?;
            // Whatever another call makes of it meanwhile, it may yet be as it is now.
            let now = now.max(used.of(&thing));
            let amount = match made.how {
                How::UpTo(amount) => now.max(amount),
                How::More(memory) => now.plus(Amount {
                    memory,
                    ..Amount::default()
                }),
                How::Same => now,
            };
            claims.add(Claim { thing, amount });
        }
        let mut wanted = used.clone();
        wanted.add_all(&claims);
        check(quota, used.total(), wanted.total())?;
        Ok(claims)
    }

    /// What the call makes of which domains.
    fn made<'s>(
        &'s self,
        effect: Effect,
        is_sized: bool,
        acted: &'s [Acted<'a>],
        named: &'s [Named],
        saved: Option<&str>,
        asked: &mut Asked,
    ) -> Result<Vec<Made<'s>>, Halt> {
        let of = |how: How| {
            let domains = acted
                .iter()
                .filter(|act| act.subject.class == Class::Domain);
            domains
                .map(|act| Made {
                    subject: act.subject,
                    how,
                })
                .collect()
        };
        let named = named.iter().filter(|named| named.class == Class::Domain);
        Ok(match effect {
            Effect::Domains { runs } => {
                let amount = Amount::domain(runs, self.size_of_named(saved)?);
                let how = How::UpTo(amount);
                let named = named.map(|named| Made {
                    subject: named.subject(),
                    how,
                });
                named.collect()
            }
            Effect::Start { resumes } => {
                let uuid = acted.iter().find_map(|act| act.subject.uuid);
                let size = match uuid.filter(|_| resumes && is_sized) {
                    Some(uuid) => self.saved_size(uuid, asked)?,
                    None => DomainSize::default(),
                };
                of(How::UpTo(Amount::domain(true, size)))
            }
            Effect::Revert { starts } => {
                let reverted = self.reverted(acted, asked)?;
                let runs = starts || reverted.runs;
                of(How::UpTo(Amount::domain(runs, reverted.size)))
            }
            Effect::Grow(size) => of(How::UpTo(Amount::domain(false, size))),
            Effect::Module(bytes) => of(How::More(bytes)),
            Effect::Rename => {
                let domain = acted.iter().find(|act| act.subject.class == Class::Domain);
                let named = named.filter_map(|named| {
                    let subject = renamed(&domain?.subject, named);
                    let how = How::Same;
                    Some(Made { subject, how })
                });
                named.collect()
            }
            _ => return Err(uncountable("it does not say what the domain is")),
        })
    }

    /// What the documents of the call, and the file that it restores from, say of their domains.
    fn size_of_named(&self, saved: Option<&str>) -> Result<DomainSize, Halt> {
        let unreadable = |why: definition::Unreadable| Halt::Uncountable(why.to_string());
        let mut size = size_in_documents(&self.args).map_err(unreadable)?;
        if self.saved().is_some() {
            let saved =
                saved.ok_or_else(|| uncountable("the daemon does not tell what is saved"))?;
            let saved = definition::domain_size(saved).map_err(unreadable)?;
            size = Some(saved.max(size.unwrap_or_default()));
        }
        Ok(size.unwrap_or_default())
    }

    /// What the domain takes that a managed save image holds.
    fn saved_size(&self, uuid: Uuid, asked: &mut Asked) -> Result<DomainSize, Halt> {
        let question = Question::HasManagedSave(uuid);
        let has = match self.ask(question.clone(), asked)? {
            Answer::Reply(reply) => {
                let has = question.read(reply).and_then(|reply| reply.word("result"));
                has.ok_or_else(|| uncountable("the daemon does not tell of a saved image"))?
            }
            // There is nothing to start, or a driver that cannot save.
            _ => 0,
        };
        if has == 0 {
            return Ok(DomainSize::default());
        }
        match self.ask(Question::SavedSize(uuid), asked)? {
            Answer::Size(size) => Ok(*size),
            Answer::Absent => Ok(DomainSize::default()),
            _ => Err(uncountable(
                "the daemon does not tell what is in the saved image",
            )),
        }
    }

    /// What the snapshot makes of its domain.
    fn reverted(&self, acted: &[Acted<'a>], asked: &mut Asked) -> Result<Reverted, Halt> {
        let unknown = || uncountable("the daemon does not tell what is in the snapshot");
        let snapshot = acted.iter().find_map(|act| {
            let uuid = act.subject.uuid?;
            // The name comes before the domain.
            let field = self.args.range("snap")?;
            let bytes = self.args.bytes().get(field.start..act.found.range.start)?;
            let name = Reader::new(bytes).string(STRING).ok()?;
            Some(Question::Snapshot(uuid, name.to_owned()))
        });
        match self.ask(snapshot.ok_or_else(unknown)?, asked)? {
            Answer::Snapshot(reverted) => Ok(*reverted),
            _ => Err(unknown()),
        }
    }

    /// The domains that count, each with what it takes.
    fn domains(&self, quota: &Quota, is_sized: bool, asked: &mut Asked) -> Result<Claims, Halt> {
        let mut domains = Claims::default();
        for (&uuid, listed) in self.all_domains(asked)? {
            let Resolved::Subject(subject) = self.view.told(&listed.object(uuid), asked) else {
                continue;
            };
            if self.view.table.counts(quota, &subject) == Some(false) {
                continue;
            }
            if let Some(amount) = self.amount(uuid, listed, is_sized, asked)? {
                let thing = Thing::Domain {
                    uuid: Some(uuid),
                    name: Some((&*listed.name).into()),
                };
                domains.push(Claim { thing, amount });
            }
        }
        if asked.is_empty() {
            Ok(domains)
        } else {
            Err(Halt::Ask)
        }
    }

    fn all_domains(&self, asked: &mut Asked) -> Result<&'a HashMap<Uuid, Listed>, Halt> {
        match self.ask(Question::Domains, asked)? {
            Answer::Domains(domains) => Ok(domains),
            _ => Err(uncountable("the daemon does not tell its domains")),
        }
    }

    /// What a domain takes; `None` if it is not known yet, or if it has gone.
    fn amount(
        &self,
        uuid: Uuid,
        listed: &Listed,
        is_sized: bool,
        asked: &mut Asked,
    ) -> Result<Option<Amount>, Halt> {
        // It may run with more than it is defined with, and be defined with more than it runs with.
        let forms = [
            (is_sized, Question::DefinedSize(uuid)),
            (is_sized && listed.runs, Question::RunningSize(uuid)),
        ];
        let (mut size, mut is_known) = (DomainSize::default(), true);
        for (_, question) in forms.into_iter().filter(|(is_asked, _)| *is_asked) {
            match self.view.answers.get(&question) {
                None => {
                    asked.add(question);
                    is_known = false;
                }
                Some(Answer::Size(its)) => size = size.max(*its),
                Some(Answer::Absent) => return Ok(None),
                Some(_) => {
                    let name = &listed.name;
                    let why = format!("the daemon does not tell the size of domain {name}");
                    return Err(Halt::Uncountable(why));
                }
            }
        }
        Ok(is_known.then(|| Amount::domain(listed.runs, size)))
    }

    /// What a domain takes that is there, whether it has counted before or not.
    fn as_it_is(
        &self,
        uuid: Option<Uuid>,
        is_sized: bool,
        asked: &mut Asked,
    ) -> Result<Amount, Halt> {
        let domains = self.all_domains(asked)?;
        let listed = uuid.and_then(|uuid| domains.get_key_value(&uuid));
        let amount = match listed {
            Some((uuid, listed)) => self.amount(*uuid, listed, is_sized, asked)?,
            None => None,
        };
        if asked.is_empty() {
            Ok(amount.unwrap_or_default())
        } else {
            Err(Halt::Ask)
        }
    }

    /// An answer, if it is there.
    pub(super) fn ask(&self, question: Question, asked: &mut Asked) -> Result<&'a Answer, Halt> {
        self.view.answers.get(&question).ok_or_else(|| {
            asked.add(question);
            Halt::Ask
        })
    }
}

/// A domain with what a new name or owner mark changes of it.
fn renamed<'s>(domain: &Subject<'s>, named: &'s Named) -> Subject<'s> {
    let new = named.subject();
    Subject {
        name: new.name.or(domain.name),
        owner: match new.owner {
            Owner::Unknown => domain.owner,
            owner => owner,
        },
        ..*domain
    }
}

pub(super) fn uncountable(why: &str) -> Halt {
    Halt::Uncountable(why.to_owned())
}

/// Holds what there would be against a quota's limits on domains.
fn check(quota: &Quota, used: Amount, wanted: Amount) -> Result<(), Halt> {
    let limits = [
        (
            "domains",
            quota.domains,
            used.domains,
            wanted.domains,
            false,
        ),
        (
            "running domains",
            quota.running,
            used.running,
            wanted.running,
            false,
        ),
        ("virtual CPUs", quota.vcpus, used.vcpus, wanted.vcpus, false),
        ("memory", quota.memory, used.memory, wanted.memory, true),
    ];
    limits
        .into_iter()
        .try_for_each(|(what, most, used, wanted, is_bytes)| {
            let Some(most) = most else {
                return Ok(());
            };
            Limit {
                what,
                most,
                used,
                wanted,
                is_bytes,
            }
            .check()
        })
}
