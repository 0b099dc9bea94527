//! Replies on their way to the client, and answers to what the proxy has asked itself.

use super::case::{self, Case, Follow, Form, Passage};
use super::question::{Answer, Answers, Question};
use super::redaction::redact;
use super::stand_in::Texts;
use super::subject::{Asked, Resolved};
use super::task::{Kind, ROUNDS, Reply, Task};
use super::{Access, Line, Note, NoteId, Outcome, What};
use crate::policy::access::{Permission, Ruling};
use crate::protocol::fault::Fault;
use crate::protocol::frame::Frame;
use crate::protocol::header::{Header, Status};
use crate::protocol::object::Object;
use crate::protocol::payload::{self, Payload};
use crate::protocol::table::{self, ProcedureInfo};
use crate::protocol::xdr::{self, XdrError};
use crate::session::calls::Effect;
use crate::session::{Peer, Verdict};

/// What becomes of a reply.
pub(super) enum Fate {
    /// It goes on as it is.
    Same,
    /// This goes on in its place.
    Other(Status, Vec<u8>),
    /// The call is made again with these arguments, in which stand-ins are.
    Again(Texts, Vec<u8>),
    /// The daemon must be asked first.
    Ask(Asked),
}

impl Access {
    /// Decides on the reply to a call with a note.
    pub(in crate::session) fn reply(
        &mut self,
        note: NoteId,
        frame: &Frame<'_>,
        line: &mut Line<'_>,
    ) -> Verdict {
        let Some(note) = self.notes.remove(&note) else {
            return Verdict::Consumed;
        };
        let Note {
            original,
            since,
            turn,
            what,
        } = note;
        if let Some(turn) = turn {
            line.give_back(turn, true);
        }
        let (header, payload) = (frame.header, frame.arguments());
        let good = header.status == Status::OK;
        match (what, original) {
            (What::Watch(watch), _) => {
                let callback = good.then(|| payload.first_chunk::<4>()).flatten();
                let callback = callback.map(|word| i32::from_be_bytes(*word));
                self.watches.answered(watch, callback);
                Verdict::Consumed
            }
            (What::Registered(watch), _) => {
                // Old forms answer with nothing, or with a word that is no id.
                let is_new = header.procedure == watch.register();
                let callback = payload.first_chunk::<4>().filter(|_| is_new);
                let callback = callback.map(|word| i32::from_be_bytes(*word));
                if good {
                    self.watches.registered(watch, callback);
                } else {
                    self.watches.ended(watch);
                }
                Verdict::Relay(Peer::Client)
            }
            (What::Deregistered(watch), _) => {
                if good {
                    self.watches.ended(watch);
                    self.knowledge.forget(watch.class);
                }
                Verdict::Relay(Peer::Client)
            }
            (What::Answer(question), _) => {
                if let Question::Release(watch, _) = &question {
                    self.watches.ended(*watch);
                    self.knowledge.forget(watch.class);
                }
                if let Some(tasks) = self.questions.answered(&question) {
                    let answer = if good {
                        question.good(payload, self.table.owner_marks())
                    } else {
                        question.bad(payload)
                    };
                    match (&question, &answer) {
                        (Question::Owner(uuid, place), Answer::Owner(owner)) => {
                            let owner = owner.as_deref();
                            self.knowledge.learn_owner(*uuid, *place, owner, since);
                        }
                        (Question::Owner(..), _) => {}
                        _ => self.learn(header, payload, since),
                    }
                    for task in tasks {
                        if let Some(task) = self.tasks.answered(task, &question, answer.clone()) {
                            self.resume(task, line);
                        }
                    }
                }
                self.ask_next(line);
                Verdict::Consumed
            }
            (What::Client { .. }, None) => Verdict::Consumed,
            (
                What::Client {
                    follow,
                    texts,
                    arguments,
                },
                Some(original),
            ) => {
                if table::lookup(header.program, header.procedure).is_some_and(super::teaches) {
                    self.learn(header, payload, since);
                }
                let reply = Reply {
                    original,
                    follow,
                    texts,
                    arguments,
                };
                let untouched = header.procedure == original.procedure;
                self.finish(reply, header, payload, Answers::new(), untouched, line)
            }
        }
    }

    /// Finishes a reply; the verdict is about its frame, if it is still there.
    fn finish(
        &mut self,
        reply: Reply,
        header: Header,
        payload: &[u8],
        answers: Answers,
        untouched: bool,
        line: &mut Line<'_>,
    ) -> Verdict {
        let original = reply.original;
        match self.judge_reply(&reply, header, payload, &answers, line) {
            Fate::Same if untouched => return Verdict::Relay(Peer::Client),
            Fate::Same => line.reply(original, header.status, payload),
            Fate::Other(status, bytes) => line.reply(original, status, &bytes),
            Fate::Again(texts, arguments) => {
                let passage = Passage::with_stand_in(original.procedure, arguments, texts);
                self.send(original, Effect::None, passage, &[], None, line);
            }
            Fate::Ask(asked) => {
                let task = Task::new(Kind::Reply(reply), header, payload, answers, line.out.now);
                self.start(task, asked.into_questions(), line);
            }
        }
        Verdict::Consumed
    }

    /// The answers are there.
    pub(super) fn resume(&mut self, task: Task, line: &mut Line<'_>) {
        if let Kind::Call(effect) = task.kind {
            self.resume_call(effect, task, line);
            return;
        }
        let Task {
            kind,
            header,
            payload,
            answers,
            ..
        } = task;
        match kind {
            Kind::Held | Kind::Call(_) => {}
            Kind::Event => self.resume_events(answers, line),
            Kind::Reply(reply) => {
                _ = self.finish(reply, header, &payload, answers, false, line);
            }
        }
    }

    fn resume_call(&mut self, effect: Effect, task: Task, line: &mut Line<'_>) {
        if task.late {
            self.refuse_late(&task, line);
            return;
        }
        let Task {
            header,
            payload,
            answers,
            rounds,
            turn,
            ..
        } = task;
        let row = table::lookup(header.program, header.procedure);
        let outcome =
            row.and_then(|row| self.judge(header.program, row, &payload, &answers, turn.as_ref()));
        match outcome {
            None => {
                line.release(turn);
                self.refuse_unreadable(header, line);
            }
            Some(Outcome::Refuse(refusal)) => {
                line.release(turn);
                self.refuse(header, refusal, line);
            }
            Some(Outcome::Pass(passage)) => {
                self.record(header, &passage.records, line);
                self.send(header, effect, passage, &payload, turn, line);
            }
            Some(Outcome::Ask(_) | Outcome::Await(_)) if rounds >= ROUNDS => {
                line.release(turn);
                self.refuse_undecided(header, line);
            }
            Some(outcome @ (Outcome::Ask(_) | Outcome::Await(_))) => {
                let task = Task::new(Kind::Call(effect), header, &payload, answers, line.out.now);
                let mut task = task.with_turn(turn);
                task.rounds = rounds;
                self.put_off(task, outcome, line);
            }
        }
    }

    fn judge_reply(
        &mut self,
        reply: &Reply,
        header: Header,
        payload: &[u8],
        answers: &Answers,
        line: &mut Line<'_>,
    ) -> Fate {
        let good = header.status == Status::OK;
        let Some(row) = table::lookup(reply.original.program, header.procedure) else {
            return Fate::Same;
        };
        let instead = |error: Result<Vec<u8>, XdrError>| match error {
            Ok(error) => Fate::Other(header.status, error),
            Err(_) => internal(),
        };
        if !good && !reply.texts.is_empty() {
            return instead(payload::replace_in_error(payload, &reply.texts));
        }
        match &reply.follow {
            Follow::Made if !good => instead(redact(payload, &reply.arguments)),
            Follow::Filter { permission, form } if good => {
                self.filter(*permission, form, row, payload, answers)
            }
            Follow::Leases { count } if good => self.leases(*count, row, payload, answers),
            Follow::Check if good => self.check_found(reply, row, payload, answers, line),
            _ => Fate::Same,
        }
    }

    /// A list: what the client may not see is left out.
    fn filter(
        &self,
        permission: Permission,
        form: &Form,
        row: &'static ProcedureInfo,
        reply: &[u8],
        answers: &Answers,
    ) -> Fate {
        let view = self.view(answers);
        let mut asked = Asked::default();
        let mut keep = |object: &Object<'_>| match view.told(object, &mut asked) {
            Resolved::Subject(subject) => self.table.allows(permission, &subject),
            Resolved::Absent | Resolved::Pending => false,
        };
        let filtered = match form {
            Form::New if row.ret.iter().any(|field| field.shape.names_objects()) => {
                payload::filter(row.ret, reply, &mut keep)
            }
            // Devices are listed by name.
            Form::New => payload::filter_names(row.ret, reply, &mut |name| {
                keep(&Object::NodeDevice { name })
            }),
            Form::Count => payload::count(row.ret, reply, &mut keep),
            Form::Old(old) => Payload::read_from_daemon(row.ret, reply).map(|list| {
                let mut objects: Vec<Object<'_>> =
                    list.objects().map(|found| found.object).collect();
                objects.extend(list.texts("names").map(|name| Object::NodeDevice { name }));
                objects.retain(|object| keep(object));
                xdr::write(|writer| old.carries.encode(&objects, writer))
            }),
        };
        if !asked.is_empty() {
            return Fate::Ask(asked);
        }
        match filtered {
            Ok(bytes) => Fate::Other(Status::OK, bytes),
            Err(error) => {
                tracing::warn!(procedure = row.name, %error, "a list cannot be read: not passed on");
                internal()
            }
        }
    }

    /// A look-up has found something: the client gets it, or what it would get if it did not exist.
    fn check_found(
        &mut self,
        reply: &Reply,
        row: &'static ProcedureInfo,
        payload: &[u8],
        answers: &Answers,
        line: &mut Line<'_>,
    ) -> Fate {
        let Ok(found) = Payload::read(row.ret, payload) else {
            return internal();
        };
        let original = reply.original;
        let mut asked = Asked::default();
        let (mut refusals, mut is_hidden, mut grant) = (Vec::new(), false, None);
        for found in found.objects() {
            let subject = match self.view(answers).told(&found.object, &mut asked) {
                Resolved::Pending => return Fate::Ask(asked),
                Resolved::Absent => return internal(),
                Resolved::Subject(subject) => subject,
            };
            let getattr = Permission::getattr(subject.class);
            let denial = match self.table.settle(getattr, &subject) {
                Ruling::Allow(allowed) => {
                    if self.table.records(getattr) {
                        grant = Some(case::granted(getattr, &subject, allowed.rule));
                    }
                    let shadow = allowed
                        .shadow
                        .map(|shadow| case::hidden(&subject, Some(shadow)));
                    refusals.extend(shadow);
                    continue;
                }
                Ruling::Deny(denial) => Some(denial),
                Ruling::Unknown => None,
            };
            is_hidden = true;
            refusals.push(case::hidden(&subject, denial));
        }
        self.record(original, &refusals, line);
        if !is_hidden {
            if let Some(grant) = &grant {
                self.record_allowed(original, grant, line);
            }
            return Fate::Same;
        }
        let empty = Answers::new();
        let args = Payload::read(row.args, &reply.arguments);
        let stand_in = args.ok().and_then(|args| {
            let case = Case {
                program: original.program,
                row,
                args,
                view: self.view(&empty),
                stand_in: &self.stand_in,
                turn: None,
            };
            case.look_up_stand_in()
        });
        match stand_in {
            Some((arguments, texts)) => Fate::Again(texts, arguments),
            None => internal(),
        }
    }

    /// Learns what a reply says of objects.
    fn learn(&mut self, header: Header, payload: &[u8], since: super::Since) {
        // A long list is not read for nothing.
        if since.is_blind() || header.status != Status::OK {
            return;
        }
        let Some(row) = table::lookup(header.program, header.procedure) else {
            return;
        };
        if let Ok(reply) = Payload::read(row.ret, payload) {
            for found in reply.objects() {
                self.knowledge.learn(&found.object, since);
            }
        }
    }
}

/// A reply that cannot be judged is not passed on.
pub(super) fn internal() -> Fate {
    let error = xdr::write(|writer| Fault::undecided().encode(writer));
    Fate::Other(Status::ERROR, error)
}
