//! Events on their way to the client: each is judged by the table in force when it comes.

use super::question::{Answer, Answers, Question};
use super::subject::{Asked, Resolved};
use super::task::{Kind, Task};
use super::{Access, Class, Line};
use crate::policy::access::{Permission, Ruling, Subject};
use crate::protocol::frame::{self, Frame};
use crate::protocol::header::{Header, Program};
use crate::protocol::object::Object;
use crate::protocol::payload::Payload;
use crate::protocol::table;
use crate::session::{Peer, Verdict};

/// What becomes of an event.
enum Fate {
    Pass,
    Drop,
    Ask(Asked),
}

impl Access {
    /// Decides on an event.
    pub(in crate::session) fn event(&mut self, frame: &Frame<'_>, line: &mut Line<'_>) -> Verdict {
        let header = frame.header;
        let Some(answers) = self.hear(header, frame.payload) else {
            return Verdict::Consumed;
        };
        if self.open {
            return Verdict::Relay(Peer::Client);
        }
        if !self.tasks.events.is_empty() {
            self.queue_event(header, frame.payload, answers);
            return Verdict::Consumed;
        }
        match self.judge_event(header, frame.payload, &answers) {
            Fate::Pass => Verdict::Relay(Peer::Client),
            Fate::Drop => Verdict::Consumed,
            Fate::Ask(asked) => {
                self.queue_event(header, frame.payload, answers);
                self.ask_about_event(asked, line);
                Verdict::Consumed
            }
        }
    }

    /// Lets an event change what is known, at once: what waits for a decision, or finds no place to
    /// wait, has happened all the same. Returns what was known of an object that has come to its
    /// end, for the event is judged by that; `None` if the event is for the proxy alone.
    fn hear(&mut self, header: Header, payload: &[u8]) -> Option<Answers> {
        let mut answers = Answers::new();
        let row = table::lookup(header.program, header.procedure);
        let Some(row) = row.filter(|_| header.program == Program::REMOTE) else {
            return Some(answers);
        };
        let Ok(event) = Payload::read(row.args, payload) else {
            // Of what, cannot be told.
            self.knowledge.forget_all();
            return Some(answers);
        };
        let Some(found) = event.objects().next() else {
            return Some(answers);
        };
        if let Object::Domain { uuid, .. } = found.object
            && is_end(row.name, &event, found.range.end)
        {
            for place in 0..self.table.owner_marks().len() {
                if let Some(owner) = self.knowledge.owner(uuid, place) {
                    let owner = Answer::Owner(owner.map(ToOwned::to_owned));
                    answers.insert(Question::Owner(uuid, place), owner);
                }
            }
        }
        self.knowledge.heard(header.procedure, &event);
        let callback = event.word("callbackID").map(u64::cast_signed);
        let callback = callback.and_then(|callback| i32::try_from(callback).ok());
        let class = found.object.class();
        let is_own = callback.is_some_and(|callback| self.watches.is_own(class, callback));
        (!is_own).then_some(answers)
    }

    fn queue_event(&mut self, header: Header, payload: &[u8], answers: Answers) {
        if !self.tasks.queue(header, payload, answers) {
            tracing::warn!("too many events wait to be decided on: one is lost to the client");
        }
    }

    fn ask_about_event(&mut self, asked: Asked, line: &mut Line<'_>) {
        let Some(event) = self.tasks.events.front() else {
            return;
        };
        let (header, answers) = (event.header, event.answers.clone());
        let task = Task::new(Kind::Event, header, &[], answers, line.out.now);
        self.start(task, asked.into_questions(), line);
    }

    /// The answers are there: decides on the first event that waits, and on those behind it.
    pub(super) fn resume_events(&mut self, answers: Answers, line: &mut Line<'_>) {
        if let Some(first) = self.tasks.events.front_mut() {
            first.answers = answers;
        }
        self.decide_events(line);
    }

    /// There are no answers to be had: nobody is told of the first event that waits.
    pub(super) fn drop_event(&mut self, line: &mut Line<'_>) {
        _ = self.tasks.next_event();
        self.decide_events(line);
    }

    /// Decides on the events that wait, up to the next that must wait further.
    fn decide_events(&mut self, line: &mut Line<'_>) {
        while let Some(event) = self.tasks.next_event() {
            match self.judge_event(event.header, &event.payload, &event.answers) {
                Fate::Drop => {}
                Fate::Pass => {
                    line.tell(frame::encode(event.header, &event.payload));
                }
                Fate::Ask(asked) => {
                    self.tasks.put_event_back(event);
                    self.ask_about_event(asked, line);
                    return;
                }
            }
        }
    }

    fn judge_event(&self, header: Header, payload: &[u8], answers: &Answers) -> Fate {
        let Some(row) = table::lookup(header.program, header.procedure) else {
            // A newer daemon's: of what, is not known.
            return match self.table.decide_unknown() {
                Ruling::Allow(_) => Fate::Pass,
                Ruling::Deny(_) | Ruling::Unknown => Fate::Drop,
            };
        };
        let Ok(event) = Payload::read(row.args, payload) else {
            tracing::warn!(event = row.name, "an event cannot be read: not passed on");
            return Fate::Drop;
        };
        let Some(found) = event.objects().next() else {
            // Of the connection itself.
            return Fate::Pass;
        };
        let mut asked = Asked::default();
        match self.view(answers).told(&found.object, &mut asked) {
            Resolved::Pending => Fate::Ask(asked),
            Resolved::Absent => Fate::Drop,
            Resolved::Subject(subject) => {
                if self.may_hear(found.object.class()) && self.table.shows(&subject) {
                    Fate::Pass
                } else {
                    Fate::Drop
                }
            }
        }
    }

    /// Whether the client may still be told of events of a class at all.
    fn may_hear(&self, class: Class) -> bool {
        let action = match class {
            Class::Domain => "search_domains",
            Class::Network => "search_networks",
            Class::StoragePool => "search_storage_pools",
            Class::NodeDevice => "search_node_devices",
            Class::Secret => "search_secrets",
            _ => return true,
        };
        Permission::find(Class::Connect, action)
            .is_some_and(|permission| self.table.allows(permission, &Subject::of(Class::Connect)))
    }
}

/// A lifecycle event that says that its object is gone.
fn is_end(name: &str, event: &Payload<'_>, object: usize) -> bool {
    let kind = event
        .bytes()
        .get(object..)
        .and_then(|rest| rest.first_chunk::<4>());
    let kind = kind.map(|word| i32::from_be_bytes(*word));
    // `_UNDEFINED` is 1 in every class, `VIR_DOMAIN_EVENT_STOPPED` 5, `VIR_NETWORK_EVENT_STOPPED`
    // and that of pools 3.
    match name {
        "DOMAIN_EVENT_LIFECYCLE" | "DOMAIN_EVENT_CALLBACK_LIFECYCLE" => {
            matches!(kind, Some(1 | 5))
        }
        "NETWORK_EVENT_LIFECYCLE" | "STORAGE_POOL_EVENT_LIFECYCLE" => matches!(kind, Some(1 | 3)),
        "SECRET_EVENT_LIFECYCLE" => kind == Some(1),
        _ => false,
    }
}
