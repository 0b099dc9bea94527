//! Replies on their way to the client, and answers to what the proxy has asked itself.

use super::case::{self, Case, Follow, Form};
use super::question::{Answer, Answers, Question};
use super::quota::Claimed;
use super::stand_in::Texts;
use super::subject::{Asked, Resolved};
use super::task::{Kind, ROUNDS, Task};
use super::{Access, Line, Note, NoteId, Outcome, What};
use crate::policy::access::{Permission, Ruling};
use crate::protocol::fault::Fault;
use crate::protocol::frame::Frame;
use crate::protocol::header::{Header, Procedure, Status};
use crate::protocol::object::Object;
use crate::protocol::payload::{self, Payload};
use crate::protocol::table::{self, ProcedureInfo};
use crate::protocol::xdr::Writer;
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
                    self.learn_answer(&question, good, payload, since);
                    let answer = if good {
                        question.good(payload, self.table.owner_marks())
                    } else {
                        question.bad(payload)
                    };
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
                let kind = Kind::Reply {
                    original,
                    procedure: header.procedure,
                    follow,
                    texts,
                    arguments,
                    since,
                };
                let untouched = header.procedure == original.procedure;
                self.finish(kind, header, payload, Answers::new(), untouched, line)
            }
        }
    }

    /// Finishes a reply; the verdict is about its frame, if it is still there.
    fn finish(
        &mut self,
        kind: Kind,
        header: Header,
        payload: &[u8],
        answers: Answers,
        untouched: bool,
        line: &mut Line<'_>,
    ) -> Verdict {
        let Kind::Reply {
            original,
            procedure,
            follow,
            texts,
            arguments,
            since,
        } = kind
        else {
            return Verdict::Consumed;
        };
        let fate = self.judge_reply(
            original,
            procedure,
            &follow,
            &texts,
            &arguments,
            header.status,
            payload,
            &answers,
            line,
        );
        match fate {
            Fate::Same if untouched => return Verdict::Relay(Peer::Client),
            Fate::Same => line.reply(original, header.status, payload),
            Fate::Other(status, bytes) => line.reply(original, status, &bytes),
            Fate::Again(texts, arguments) => {
                let passage = super::Passage {
                    procedure: original.procedure,
                    arguments: Some(arguments),
                    follow: Follow::Learn,
                    texts,
                    records: Vec::new(),
                    granted: None,
                    claimed: Claimed::new(),
                };
                self.send(original, Effect::None, passage, &[], None, line);
            }
            Fate::Ask(asked) => {
                let kind = Kind::Reply {
                    original,
                    procedure,
                    follow,
                    texts,
                    arguments,
                    since,
                };
                let task = Task::new(kind, header, payload, answers, line.now);
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
            reply @ Kind::Reply { .. } => {
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
                let task = Task::new(Kind::Call(effect), header, &payload, answers, line.now);
                let mut task = task.with_turn(turn);
                task.rounds = rounds;
                self.put_off(task, outcome, line);
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "the parts of one reply")]
    fn judge_reply(
        &mut self,
        original: Header,
        procedure: Procedure,
        follow: &Follow,
        texts: &Texts,
        arguments: &[u8],
        status: Status,
        payload: &[u8],
        answers: &Answers,
        line: &mut Line<'_>,
    ) -> Fate {
        let good = status == Status::OK;
        let Some(row) = table::lookup(original.program, procedure) else {
            return Fate::Same;
        };
        if !good && !texts.is_empty() {
            return match payload::replace_in_error(payload, texts) {
                Ok(error) => Fate::Other(status, error),
                Err(_) => internal(),
            };
        }
        match follow {
            Follow::Made if !good => match super::redaction::redact(payload, arguments) {
                Ok(error) => Fate::Other(status, error),
                Err(_) => internal(),
            },
            Follow::Filter { permission, form } if good => {
                self.filter(*permission, form, row, payload, answers)
            }
            Follow::Leases { count } if good => self.leases(*count, row, payload, answers),
            Follow::Check if good => {
                self.check_found(original, arguments, row, payload, answers, line)
            }
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
            Resolved::Subject(subject) => match self.table.settle(permission, &subject) {
                Ruling::Allow(_) => true,
                Ruling::Deny(_) | Ruling::Unknown => false,
            },
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
                let mut bytes = Vec::new();
                old.carries.encode(&objects, &mut Writer::new(&mut bytes));
                bytes
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
        original: Header,
        arguments: &[u8],
        row: &'static ProcedureInfo,
        reply: &[u8],
        answers: &Answers,
        line: &mut Line<'_>,
    ) -> Fate {
        let Ok(found) = Payload::read(row.ret, reply) else {
            return internal();
        };
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
        let stand_in = Payload::read(row.args, arguments).ok().and_then(|args| {
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
        if since.is_blind() {
            return;
        }
        if header.status != Status::OK {
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

    fn learn_answer(
        &mut self,
        question: &Question,
        good: bool,
        payload: &[u8],
        since: super::Since,
    ) {
        if let Question::Owner(uuid, place) = question {
            let answer = if good {
                question.good(payload, self.table.owner_marks())
            } else {
                question.bad(payload)
            };
            if let Answer::Owner(owner) = &answer {
                let owner = owner.as_deref();
                self.knowledge.learn_owner(*uuid, *place, owner, since);
            }
        } else if good {
            let header =
                Header::remote_call(question.procedure(), crate::protocol::header::Serial(0));
            self.learn(header, payload, since);
        }
    }
}

/// A reply that cannot be judged is not passed on.
pub(super) fn internal() -> Fate {
    let mut bytes = Vec::new();
    Fault::undecided().encode(&mut Writer::new(&mut bytes));
    Fate::Other(Status::ERROR, bytes)
}
