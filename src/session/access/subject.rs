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
type Fact<T> = Result<T, Unknown>;

/// Why a fact is not known.
enum Unknown {
    /// There is no such object.
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
        let mut subject = Subject::of(object.class());
        match self.prove(object, &mut subject, asked) {
            // What the daemon does not say stays unknown, and the rules decide in doubt.
            Ok(()) | Err(Unknown::Failed) => Resolved::Subject(subject),
            Err(Unknown::Absent) => Resolved::Absent,
            Err(Unknown::Pending) => Resolved::Pending,
        }
    }

    fn prove(&self, object: &Object<'a>, subject: &mut Subject<'a>, asked: &mut Asked) -> Fact<()> {
        let asks = self.table.asks(subject.class);
        match *object {
            Object::Domain { uuid, .. } => {
                subject.uuid = Some(uuid);
                if asks.contains(Attribute::Name) || asks.contains(Attribute::Owner) {
                    subject.name = Some(self.domain(uuid, asked)?);
                }
                if asks.contains(Attribute::Owner) {
                    subject.owner = self.owner(uuid, asked)?;
                }
            }
            Object::Network { uuid, .. } => {
                subject.uuid = Some(uuid);
                // Some drivers go by the name: it must be true even where no rule looks at it.
                if !asks.is_empty() {
                    subject.name = Some(self.network(uuid, asked)?);
                }
            }
            Object::NetworkPort {
                network_uuid, uuid, ..
            } => {
                subject.uuid = Some(uuid);
                if asks.contains(Attribute::Network) {
                    subject.network = Some(self.network(network_uuid, asked)?);
                }
            }
            Object::StoragePool { uuid, .. } => {
                subject.uuid = Some(uuid);
                // Some drivers go by the name: it must be true even where no rule looks at it.
                if !asks.is_empty() {
                    subject.name = Some(self.pool(uuid, asked)?);
                }
            }
            Object::Nwfilter { uuid, .. } => {
                subject.uuid = Some(uuid);
                if asks.contains(Attribute::Name) {
                    subject.name = Some(self.nwfilter(uuid, asked)?);
                }
            }
            Object::Secret { uuid, .. } => {
                subject.uuid = Some(uuid);
                if asks.contains(Attribute::Usage) || asks.contains(Attribute::UsageType) {
                    let (kind, usage) = self.secret(uuid, asked)?;
                    (subject.usage_type, subject.usage) = (Some(kind), Some(usage));
                }
            }
            Object::StorageVol { pool, name, .. } => {
                (subject.pool, subject.name) = (Some(pool), Some(name));
                if asks.contains(Attribute::Key) {
                    subject.key = Some(self.key(pool, name, asked)?);
                }
            }
            Object::NodeDevice { name } => subject.name = Some(name),
            Object::Interface { name, .. } => {
                subject.name = Some(name);
                if asks.contains(Attribute::Mac) {
                    subject.mac = Some(self.mac(name, asked)?);
                }
            }
            Object::NwfilterBinding { port_dev, .. } => {
                subject.name = Some(port_dev);
                if asks.contains(Attribute::Filter) {
                    subject.filter = Some(self.filter(port_dev, asked)?);
                }
            }
        }
        Ok(())
    }

    /// An object in what the daemon said: all of it is true, and only a domain's owner may have to
    /// be asked for.
    pub(super) fn told(&self, object: &Object<'a>, asked: &mut Asked) -> Resolved<'a> {
        let mut subject = Subject::on_wire(object);
        if let Object::Domain { uuid, .. } = *object
            && self.table.asks(subject.class).contains(Attribute::Owner)
        {
            match self.owner(uuid, asked) {
                Ok(owner) => subject.owner = owner,
                Err(Unknown::Pending) => return Resolved::Pending,
                // It has gone meanwhile, or cannot be read: the rules decide in doubt.
                Err(Unknown::Absent | Unknown::Failed) => {}
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
            return Ok(name);
        }
        if let Some(answer) = self.answers.get(&Question::Domains) {
            return among_domains(uuid, answer);
        }
        match self.answer(Question::Domain(uuid), asked)? {
            Object::Domain { name, .. } => Ok(name),
            _ => Err(Unknown::Failed),
        }
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
                    Some(Answer::Absent) => return Err(Unknown::Absent),
                    Some(_) => return Err(Unknown::Failed),
                },
            }
        }
        if pending {
            Err(Unknown::Pending)
        } else {
            Ok(owner)
        }
    }

    fn network(&self, uuid: Uuid, asked: &mut Asked) -> Fact<&'a str> {
        if let Some(name) = self.knowledge.network(uuid) {
            return Ok(name);
        }
        match self.answer(Question::Network(uuid), asked)? {
            Object::Network { name, .. } => Ok(name),
            _ => Err(Unknown::Failed),
        }
    }

    fn pool(&self, uuid: Uuid, asked: &mut Asked) -> Fact<&'a str> {
        if let Some(name) = self.knowledge.pool(uuid) {
            return Ok(name);
        }
        match self.answer(Question::Pool(uuid), asked)? {
            Object::StoragePool { name, .. } => Ok(name),
            _ => Err(Unknown::Failed),
        }
    }

    fn secret(&self, uuid: Uuid, asked: &mut Asked) -> Fact<(i32, &'a str)> {
        if let Some(known) = self.knowledge.secret(uuid) {
            return Ok(known);
        }
        match self.answer(Question::Secret(uuid), asked)? {
            Object::Secret {
                usage_type, usage, ..
            } => Ok((usage_type, usage)),
            _ => Err(Unknown::Failed),
        }
    }

    fn nwfilter(&self, uuid: Uuid, asked: &mut Asked) -> Fact<&'a str> {
        match self.answer(Question::Nwfilter(uuid), asked)? {
            Object::Nwfilter { name, .. } => Ok(name),
            _ => Err(Unknown::Failed),
        }
    }

    /// The key of a volume, which is found by its pool's UUID, which is found by its name.
    fn key(&self, pool: &str, name: &str, asked: &mut Asked) -> Fact<&'a str> {
        let pool = self.answer(Question::PoolNamed(pool.to_owned()), asked)?;
        let Object::StoragePool { uuid, .. } = pool else {
            return Err(Unknown::Failed);
        };
        match self.answer(Question::Volume(uuid, name.to_owned()), asked)? {
            Object::StorageVol { key, .. } => Ok(key),
            _ => Err(Unknown::Failed),
        }
    }

    fn mac(&self, interface: &str, asked: &mut Asked) -> Fact<&'a str> {
        match self.answer(Question::Interface(interface.to_owned()), asked)? {
            Object::Interface { mac, .. } => Ok(mac),
            _ => Err(Unknown::Failed),
        }
    }

    fn filter(&self, binding: &str, asked: &mut Asked) -> Fact<&'a str> {
        match self.answer(Question::Binding(binding.to_owned()), asked)? {
            Object::NwfilterBinding { filter, .. } => Ok(filter),
            _ => Err(Unknown::Failed),
        }
    }

    /// The object that the daemon answered with; one of another class is no answer.
    fn answer(&self, question: Question, asked: &mut Asked) -> Fact<Object<'a>> {
        match self.answers.get(&question) {
            None => {
                asked.add(question);
                Err(Unknown::Pending)
            }
            Some(Answer::Absent) => Err(Unknown::Absent),
            Some(Answer::Reply(reply)) => question
                .read(reply)
                .and_then(|payload| payload.objects().next())
                .map_or(Err(Unknown::Failed), |found| Ok(found.object)),
            Some(_) => Err(Unknown::Failed),
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
            Ok(object) => self.told(&object, asked),
            Err(Unknown::Absent) => Resolved::Absent,
            Err(Unknown::Pending) => Resolved::Pending,
            // Something may be there, of which nothing is known: the rules decide in doubt.
            Err(Unknown::Failed) => Resolved::Subject(Subject::of(class)),
        }
    }
}

fn among_domains(uuid: Uuid, answer: &Answer) -> Fact<&str> {
    let Answer::Domains(domains) = answer else {
        return Err(Unknown::Failed);
    };
    let listed = domains.get(&uuid).ok_or(Unknown::Absent)?;
    Ok(&listed.name)
}
