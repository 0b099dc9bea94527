//! From the objects in a call or reply to what the rules look at: wire objects get the attributes
//! that are proven, and nothing that a client wrote counts before.

use std::collections::HashSet;

use super::Class;
use super::knowledge::Knowledge;
use super::question::{Answer, Answers, Question};
use crate::policy::access::{Attribute, Owner, OwnerMark, Subject, Table};
use crate::protocol::object::{Object, Uuid};

/// Domains of one call beyond which all are asked about at once.
const ONE_BY_ONE: usize = 16;

/// What is known while one decision is made.
pub(super) struct View<'a> {
    pub(super) table: &'a Table,
    pub(super) knowledge: &'a Knowledge,
    pub(super) answers: &'a Answers,
    /// Where a domain's owner is written.
    pub(super) marks: &'a [OwnerMark],
}

/// An object as the rules see it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Resolved<'a> {
    /// It is there, and this is what the rules need of it.
    Subject(Subject<'a>),
    /// There is no such object.
    Absent,
    /// The daemon must be asked first.
    Pending,
}

/// One fact about an object.
enum Fact<T> {
    Is(T),
    Absent,
    /// The daemon does not say.
    Failed,
    /// It must be asked.
    Pending,
}

/// What the decision waits for.
#[derive(Debug, Default)]
pub(super) struct Asked {
    questions: Vec<Question>,
    known: HashSet<Question>,
}

impl Asked {
    pub(super) fn add(&mut self, question: Question) {
        if self.known.insert(question.clone()) {
            self.questions.push(question);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.questions.is_empty()
    }

    /// The questions; many of one kind become one for all.
    pub(super) fn into_questions(self) -> Vec<Question> {
        let mut questions = self.questions;
        let is_domain = |question: &Question| matches!(question, Question::Domain(_));
        let domains = questions.iter().filter(|question| is_domain(question));
        if domains.count() > ONE_BY_ONE {
            questions.retain(|question| !is_domain(question));
            questions.push(Question::Domains);
        }
        questions
    }
}

impl<'a> View<'a> {
    /// An object that a client named: what identifies it is taken, the rest is looked up.
    pub(super) fn named(&self, object: &Object<'a>, asked: &mut Asked) -> Resolved<'a> {
        let class = object.class();
        let asks = self.table.asks(class);
        let mut subject = Subject::of(class);
        match *object {
            Object::Domain { uuid, .. } => {
                subject.uuid = Some(uuid);
                if asks.contains(Attribute::Name) || asks.contains(Attribute::Owner) {
                    match self.domain(uuid, asked) {
                        Fact::Is(name) => subject.name = Some(name),
                        other => return other.without(subject),
                    }
                }
                if asks.contains(Attribute::Owner) {
                    match self.owner(uuid, asked) {
                        Fact::Is(owner) => subject.owner = owner,
                        other => return other.without(subject),
                    }
                }
            }
            Object::Network { uuid, .. } => {
                subject.uuid = Some(uuid);
                // Some drivers go by the name: it must be true even where no rule looks at it.
                if !asks.is_empty() {
                    match self.network(uuid, asked) {
                        Fact::Is(name) => subject.name = Some(name),
                        other => return other.without(subject),
                    }
                }
            }
            Object::NetworkPort {
                network_uuid, uuid, ..
            } => {
                subject.uuid = Some(uuid);
                if asks.contains(Attribute::Network) {
                    match self.network(network_uuid, asked) {
                        Fact::Is(name) => subject.network = Some(name),
                        other => return other.without(subject),
                    }
                }
            }
            Object::StoragePool { uuid, .. } => {
                subject.uuid = Some(uuid);
                // Some drivers go by the name: it must be true even where no rule looks at it.
                if !asks.is_empty() {
                    match self.pool(uuid, asked) {
                        Fact::Is(name) => subject.name = Some(name),
                        other => return other.without(subject),
                    }
                }
            }
            Object::Nwfilter { uuid, .. } => {
                subject.uuid = Some(uuid);
                if asks.contains(Attribute::Name) {
                    match self.answer(Question::Nwfilter(uuid), asked) {
                        Fact::Is(Object::Nwfilter { name, .. }) => subject.name = Some(name),
                        other => return other.without(subject),
                    }
                }
            }
            Object::Secret { uuid, .. } => {
                subject.uuid = Some(uuid);
                if asks.contains(Attribute::Usage) || asks.contains(Attribute::UsageType) {
                    match self.secret(uuid, asked) {
                        Fact::Is((kind, usage)) => {
                            subject.usage_type = Some(kind);
                            subject.usage = Some(usage);
                        }
                        other => return other.without(subject),
                    }
                }
            }
            Object::StorageVol { pool, name, .. } => {
                subject.pool = Some(pool);
                subject.name = Some(name);
                if asks.contains(Attribute::Key) {
                    match self.volume(pool, name, asked) {
                        Fact::Is(Object::StorageVol { key, .. }) => subject.key = Some(key),
                        other => return other.without(subject),
                    }
                }
            }
            Object::NodeDevice { name } => subject.name = Some(name),
            Object::Interface { name, .. } => {
                subject.name = Some(name);
                if asks.contains(Attribute::Mac) {
                    match self.answer(Question::Interface(name.to_owned()), asked) {
                        Fact::Is(Object::Interface { mac, .. }) => subject.mac = Some(mac),
                        other => return other.without(subject),
                    }
                }
            }
            Object::NwfilterBinding { port_dev, .. } => {
                subject.name = Some(port_dev);
                if asks.contains(Attribute::Filter) {
                    match self.answer(Question::Binding(port_dev.to_owned()), asked) {
                        Fact::Is(Object::NwfilterBinding { filter, .. }) => {
                            subject.filter = Some(filter);
                        }
                        other => return other.without(subject),
                    }
                }
            }
        }
        Resolved::Subject(subject)
    }

    /// An object in what the daemon said: all of it is true, and only a domain's owner may have to
    /// be asked for.
    pub(super) fn told(&self, object: &Object<'a>, asked: &mut Asked) -> Resolved<'a> {
        let class = object.class();
        let mut subject = Subject::of(class);
        match *object {
            Object::Domain { name, uuid, .. } => {
                (subject.name, subject.uuid) = (Some(name), Some(uuid));
                if self.table.asks(class).contains(Attribute::Owner) {
                    match self.owner(uuid, asked) {
                        Fact::Is(owner) => subject.owner = owner,
                        Fact::Pending => return Resolved::Pending,
                        // It has gone meanwhile, or cannot be read: the rules decide in doubt.
                        Fact::Absent | Fact::Failed => {}
                    }
                }
            }
            Object::Network { name, uuid }
            | Object::StoragePool { name, uuid }
            | Object::Nwfilter { name, uuid } => {
                (subject.name, subject.uuid) = (Some(name), Some(uuid));
            }
            Object::NetworkPort { network, uuid, .. } => {
                (subject.network, subject.uuid) = (Some(network), Some(uuid));
            }
            Object::NwfilterBinding { port_dev, filter } => {
                (subject.name, subject.filter) = (Some(port_dev), Some(filter));
            }
            Object::Interface { name, mac } => {
                (subject.name, subject.mac) = (Some(name), Some(mac));
            }
            Object::StorageVol { pool, name, key } => {
                (subject.pool, subject.name, subject.key) = (Some(pool), Some(name), Some(key));
            }
            Object::NodeDevice { name } => subject.name = Some(name),
            Object::Secret {
                uuid,
                usage_type,
                usage,
            } => {
                subject.uuid = Some(uuid);
                (subject.usage_type, subject.usage) = (Some(usage_type), Some(usage));
            }
        }
        Resolved::Subject(subject)
    }

    /// The true name of the object that a client named, where it was looked up and differs from
    /// what the client wrote.
    pub(super) fn true_name(object: &Object<'_>, subject: &Subject<'a>) -> Option<&'a str> {
        let (written, known) = match object {
            Object::Domain { name, .. }
            | Object::Network { name, .. }
            | Object::StoragePool { name, .. }
            | Object::Nwfilter { name, .. } => (name, subject.name),
            Object::NetworkPort { network, .. } => (network, subject.network),
            _ => return None,
        };
        known.filter(|name| name != written)
    }

    fn domain(&self, uuid: Uuid, asked: &mut Asked) -> Fact<&'a str> {
        if let Some(name) = self.knowledge.domain(uuid) {
            return Fact::Is(name);
        }
        if let Some(answer) = self.answers.get(&Question::Domains) {
            return self.among_domains(uuid, answer);
        }
        match self.answer(Question::Domain(uuid), asked) {
            Fact::Is(Object::Domain { name, .. }) => Fact::Is(name),
            other => other.other(),
        }
    }

    fn among_domains(&self, uuid: Uuid, answer: &'a Answer) -> Fact<&'a str> {
        let Answer::Domains(domains) = answer else {
            return Fact::Failed;
        };
        let listed = domains.get(&uuid);
        listed.map_or(Fact::Absent, |listed| Fact::Is(&listed.name))
    }

    /// The owner of a domain by the first mark that has one.
    fn owner(&self, uuid: Uuid, asked: &mut Asked) -> Fact<Owner<'a>> {
        let (mut owner, mut pending) = (Owner::None, false);
        for place in (0..self.marks.len()).rev() {
            match self.knowledge.owner(uuid, place) {
                Some(Some(known)) => owner = Owner::Is(known),
                Some(None) => {}
                None => match self.answers.get(&Question::Owner(uuid, place)) {
                    None => {
                        asked.add(Question::Owner(uuid, place));
                        pending = true;
                    }
                    Some(Answer::Owner(Some(found))) => owner = Owner::Is(found),
                    Some(Answer::Owner(None)) => {}
                    Some(Answer::Absent) => return Fact::Absent,
                    Some(_) => return Fact::Failed,
                },
            }
        }
        if pending {
            Fact::Pending
        } else {
            Fact::Is(owner)
        }
    }

    fn network(&self, uuid: Uuid, asked: &mut Asked) -> Fact<&'a str> {
        if let Some(name) = self.knowledge.network(uuid) {
            return Fact::Is(name);
        }
        match self.answer(Question::Network(uuid), asked) {
            Fact::Is(Object::Network { name, .. }) => Fact::Is(name),
            other => other.other(),
        }
    }

    fn pool(&self, uuid: Uuid, asked: &mut Asked) -> Fact<&'a str> {
        if let Some(name) = self.knowledge.pool(uuid) {
            return Fact::Is(name);
        }
        match self.answer(Question::Pool(uuid), asked) {
            Fact::Is(Object::StoragePool { name, .. }) => Fact::Is(name),
            other => other.other(),
        }
    }

    fn secret(&self, uuid: Uuid, asked: &mut Asked) -> Fact<(i32, &'a str)> {
        if let Some(known) = self.knowledge.secret(uuid) {
            return Fact::Is(known);
        }
        match self.answer(Question::Secret(uuid), asked) {
            Fact::Is(Object::Secret {
                usage_type, usage, ..
            }) => Fact::Is((usage_type, usage)),
            other => other.other(),
        }
    }

    /// A volume, which is found by its pool's UUID, which is found by its name.
    fn volume(&self, pool: &str, name: &str, asked: &mut Asked) -> Fact<Object<'a>> {
        match self.answer(Question::PoolNamed(pool.to_owned()), asked) {
            Fact::Is(Object::StoragePool { uuid, .. }) => {
                self.answer(Question::Volume(uuid, name.to_owned()), asked)
            }
            other => other.other(),
        }
    }

    /// The object that the daemon answered with.
    fn answer(&self, question: Question, asked: &mut Asked) -> Fact<Object<'a>> {
        match self.answers.get(&question) {
            None => {
                asked.add(question);
                Fact::Pending
            }
            Some(Answer::Absent) => Fact::Absent,
            Some(Answer::Reply(reply)) => question
                .read(reply)
                .and_then(|payload| payload.objects().next())
                .map_or(Fact::Failed, |found| Fact::Is(found.object)),
            Some(_) => Fact::Failed,
        }
    }

    /// The object of this class that is there already, in answer to a question.
    pub(super) fn existing(
        &self,
        class: Class,
        question: Question,
        asked: &mut Asked,
    ) -> Resolved<'a> {
        match self.answer(question, asked) {
            Fact::Is(object) => self.told(&object, asked),
            Fact::Absent => Resolved::Absent,
            Fact::Pending => Resolved::Pending,
            // Something may be there, of which nothing is known: the rules decide in doubt.
            Fact::Failed => Resolved::Subject(Subject::of(class)),
        }
    }
}

impl<T> Fact<T> {
    fn other<U>(self) -> Fact<U> {
        match self {
            Self::Absent => Fact::Absent,
            Self::Pending => Fact::Pending,
            // An object of another class is no answer.
            Self::Is(_) | Self::Failed => Fact::Failed,
        }
    }

    /// The subject without this fact: what the daemon does not say stays unknown, and the rules
    /// decide in doubt.
    fn without<'a>(self, subject: Subject<'a>) -> Resolved<'a> {
        match self {
            Self::Absent => Resolved::Absent,
            Self::Pending => Resolved::Pending,
            Self::Is(_) | Self::Failed => Resolved::Subject(subject),
        }
    }
}
