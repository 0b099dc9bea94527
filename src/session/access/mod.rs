//! What one client may do and see on its open connection, call by call.
//!
//! The table of the policy in force says of most procedures at once that they are relayed or
//! refused. The rest is judged here: the frame is kept, the daemon is asked what must be known, and
//! the call goes on, is refused, or is made on an object that does not exist. Replies and events
//! leave out what the client may not see.
//!
//! - `case`: the judgement of one call, with `look_up`, `permit`, `content` and `reference` for its
//!   parts.
//! - `subject`: objects with what is proven of them.
//! - `question`, `questions`: what is asked of the daemon.
//! - `knowledge`: what has been learned and still holds.
//! - `watches`, `registration`: the events that tell how long it holds.
//! - `stand_in`: objects that do not exist.
//! - `old_list`: the old forms of lists.
//! - `reply`, `event`, `leases`: what comes back.
//! - `task`: what waits for answers.
//! - [`quota`]: what identities may use in total.
//! - `redaction`: errors that would tell of hidden objects.
//! - [`refusal`]: what the client is told, and what is recorded.

mod case;
mod content;
mod event;
mod knowledge;
mod leases;
mod look_up;
mod old_list;
mod permit;
mod question;
mod questions;
pub mod quota;
mod redaction;
mod reference;
pub mod refusal;
mod registration;
mod reply;
mod stand_in;
mod subject;
mod task;
mod watches;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use case::{Case, Follow, Outcome, Passage};
use knowledge::{Knowledge, Since};
use question::{Answers, Question};
use questions::Questions;
use quota::{Turn, TurnId};
use refusal::Refusals;
use stand_in::{StandIn, Texts};
use subject::View;
use task::{Held, Kind, Task, Tasks};
use watches::{Watch, Watches};

use super::calls::{Call, Calls, Effect};
use super::links::{Links, Outgoing};
use super::streams::Streams;
use super::{Action, Peer, Setup, Verdict, action, callbacks};
use crate::policy::access::{Allowed, Gate, Ruling, Table};
use crate::policy::model::Upstream;
use crate::protocol::driver::Driver;
use crate::protocol::fault::Fault;
use crate::protocol::frame::{self, Frame};
use crate::protocol::header::{Header, MessageType, Procedure, Program, Serial, Status};
pub(crate) use crate::protocol::object::Class;
use crate::protocol::payload::Payload;
use crate::protocol::shape::Field;
use crate::protocol::table::{self, ProcedureInfo};
use crate::protocol::xdr::{self, Writer};

/// The connection that the decisions are about.
pub(super) struct Line<'a> {
    pub(super) links: &'a mut Links,
    pub(super) streams: &'a Streams,
    pub(super) out: Outgoing<'a>,
}

/// Notes of one connection; the next call that may need one waits in the client's socket. Each may
/// be of a long list that must be asked about.
const NOTES: usize = 64;

/// Names a note.
pub(super) type NoteId = u32;

/// What a reply is for, where it is not just for the client.
#[derive(Debug)]
struct Note {
    /// The client's call that it answers in the end; `None` if it answers the proxy.
    original: Option<Header>,
    /// When the call was made.
    since: Since,
    /// The turn that ends with it.
    turn: Option<TurnId>,
    what: What,
}

#[derive(Debug)]
enum What {
    /// The client's call, with its arguments where they may be needed again, and what is to be
    /// turned back in an error.
    Client {
        follow: Follow,
        texts: Texts,
        arguments: Vec<u8>,
    },
    /// An answer that tasks wait for.
    Answer(Question),
    /// An answer to a registration of the proxy's own.
    Watch(Watch),
    /// An answer to a registration of the client's that both use.
    Registered(Watch),
    /// An answer to the end of a registration of the client's that both used.
    Deregistered(Watch),
}

/// The decisions on one connection.
#[derive(Debug)]
pub(super) struct Access {
    table: Arc<Table>,
    /// There are no rules any more: everything passes.
    open: bool,
    /// Of the policy that the table is of.
    generation: u64,
    knowledge: Knowledge,
    watches: Watches,
    stand_in: StandIn,
    tasks: Tasks,
    questions: Questions,
    notes: HashMap<NoteId, Note>,
    next_note: NoteId,
    next_serial: u32,
    next_turn: u32,
    refusals: Refusals,
}

impl Access {
    /// Under this table.
    pub(super) fn new(table: Arc<Table>, generation: u64, setup: &Setup) -> Self {
        Self {
            table,
            open: false,
            generation,
            knowledge: Knowledge::default(),
            watches: Watches::default(),
            stand_in: StandIn::new(setup.seed),
            tasks: Tasks::default(),
            questions: Questions::default(),
            notes: HashMap::new(),
            next_note: 0,
            next_serial: u32::MAX,
            next_turn: 0,
            refusals: Refusals::new(&setup.refusals),
        }
    }

    /// Another policy generation is in force; `None`: one without rules.
    pub(super) fn set_table(&mut self, table: Option<Arc<Table>>, generation: u64) {
        self.open = table.is_none();
        self.generation = generation;
        if let Some(table) = table {
            // What the marks of the old rules said may be in another place by now.
            if self.table.owner_marks() != table.owner_marks() {
                self.knowledge.forget(Class::Domain);
                let is_owner = |question: &Question| matches!(question, Question::Owner(..));
                self.tasks.forget(is_owner);
                self.questions.ask_owners_again();
            }
            self.table = table;
        }
    }

    /// Calls of this procedure pass whatever they carry.
    pub(super) fn relays(&self, program: Program, procedure: Procedure) -> bool {
        self.open || matches!(self.table.gate(program, procedure), Gate::Relay)
    }

    /// A call of the client's waits for a decision under this serial.
    pub(super) fn uses(&self, serial: Serial) -> bool {
        self.tasks.uses(serial)
    }

    /// A call of the proxy's own is outstanding under this serial.
    pub(super) fn is_own(&self, calls: &Calls, serial: Serial) -> bool {
        let call = calls.find(serial);
        call.is_some_and(|call| self.is_own_call(call))
    }

    fn is_own_call(&self, call: &Call) -> bool {
        let note = call.note.and_then(|note| self.notes.get(&note));
        note.is_some_and(|note| note.original.is_none())
    }

    /// Calls of the client's are outstanding, or wait for a decision.
    pub(super) fn has_calls(&self, calls: &Calls) -> bool {
        self.tasks.has_calls() || calls.iter().any(|call| !self.is_own_call(call))
    }

    /// When [`Access::give_up`] is to be called at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.tasks.deadline()
    }

    /// Decides on a call of the client's.
    pub(super) fn call(
        &mut self,
        frame: &Frame<'_>,
        effect: Effect,
        line: &mut Line<'_>,
    ) -> Verdict {
        let header = frame.header;
        let gate = if self.open {
            Gate::Relay
        } else {
            self.table.gate(header.program, header.procedure)
        };
        if !matches!(gate, Gate::Refuse(_))
            && watches::concerns(header.program, header.procedure)
            && let Some(verdict) = self.register(frame, effect, line)
        {
            return verdict;
        }
        match gate {
            Gate::Relay => line.pass(frame, effect, None),
            Gate::Refuse(denial) => {
                let refusal = refusal::of_gate(header, frame.arguments(), denial);
                self.refuse(header, refusal, line);
                Verdict::Consumed
            }
            Gate::Judge => self.judge_frame(frame, effect, line),
        }
    }

    fn judge_frame(&mut self, frame: &Frame<'_>, effect: Effect, line: &mut Line<'_>) -> Verdict {
        let header = frame.header;
        let Some(row) = table::lookup(header.program, header.procedure) else {
            return self.unknown(frame, effect, line);
        };
        if self.tasks.is_full(frame.payload.len()) || self.notes.len() >= NOTES {
            return Verdict::Hold;
        }
        let has_descriptors = header.kind == MessageType::CALL_WITH_FDS;
        let (answers, turn) = if has_descriptors {
            match self.tasks.take_held(header.serial) {
                Held::Waiting => return Verdict::Hold,
                Held::Ready(task) if task.late => {
                    self.refuse_late(&task, line);
                    return Verdict::Consumed;
                }
                Held::Ready(task) => (task.answers, task.turn),
                Held::New => (Answers::new(), None),
            }
        } else {
            (Answers::new(), None)
        };
        let outcome = self.judge(
            header.program,
            row,
            frame.arguments(),
            &answers,
            turn.as_ref(),
        );
        let Some(outcome) = outcome else {
            line.release(turn);
            self.refuse_unreadable(header, line);
            return Verdict::Consumed;
        };
        match outcome {
            Outcome::Refuse(refusal) => {
                line.release(turn);
                self.refuse(header, refusal, line);
            }
            Outcome::Pass(passage) => {
                let same = passage.arguments.is_none() && passage.procedure == header.procedure;
                self.record(header, &passage.records, line);
                if same {
                    if let Some(granted) = &passage.granted {
                        self.record_allowed(header, granted, line);
                    }
                    let arguments = frame.arguments();
                    let note = self.follow(header, passage, arguments, arguments, turn, line);
                    return line.pass(frame, effect, note);
                }
                if has_descriptors && passage.texts.is_empty() {
                    // Its descriptors can go on only with the frame as it is.
                    line.release(turn);
                    let refusal = refusal::misnamed();
                    self.refuse(header, refusal, line);
                } else {
                    self.send(header, effect, passage, frame.arguments(), turn, line);
                }
            }
            Outcome::Ask(_) | Outcome::Await(_) => {
                let kind = if has_descriptors {
                    Kind::Held
                } else {
                    Kind::Call(effect)
                };
                let payload = if has_descriptors {
                    &[]
                } else {
                    frame.arguments()
                };
                let task = Task::new(kind, header, payload, answers, line.out.now).with_turn(turn);
                self.put_off(task, outcome, line);
                if has_descriptors {
                    return Verdict::Hold;
                }
            }
        }
        Verdict::Consumed
    }

    /// A procedure that is not known, and that only rules in shadow would refuse.
    fn unknown(&mut self, frame: &Frame<'_>, effect: Effect, line: &mut Line<'_>) -> Verdict {
        let header = frame.header;
        match self.table.decide_unknown() {
            Ruling::Allow(Allowed { shadow, .. }) => {
                let refusal = shadow.map(|denial| refusal::of_gate(header, &[], denial));
                self.record(header, refusal.as_slice(), line);
                line.pass(frame, effect, None)
            }
            Ruling::Deny(denial) => {
                self.refuse(header, refusal::of_gate(header, &[], denial), line);
                Verdict::Consumed
            }
            Ruling::Unknown => {
                self.refuse(header, refusal::undecided(), line);
                Verdict::Consumed
            }
        }
    }

    /// `None` if the arguments cannot be read.
    fn judge(
        &self,
        program: Program,
        row: &'static ProcedureInfo,
        arguments: &[u8],
        answers: &Answers,
        turn: Option<&Turn>,
    ) -> Option<Outcome> {
        let case = Case {
            program,
            row,
            args: Payload::read(row.args, arguments).ok()?,
            view: self.view(answers),
            stand_in: &self.stand_in,
            turn,
        };
        Some(case.judge())
    }

    fn view<'a>(&'a self, answers: &'a Answers) -> View<'a> {
        View {
            table: &self.table,
            knowledge: &self.knowledge,
            answers,
            marks: self.table.owner_marks(),
        }
    }

    /// Notes what the reply to a client's call is for; `None` if just for the client. `sent` are the
    /// arguments that the daemon gets in place of the client's.
    fn follow(
        &mut self,
        header: Header,
        passage: Passage,
        sent: &[u8],
        arguments: &[u8],
        turn: Option<Turn>,
        line: &mut Line<'_>,
    ) -> Option<NoteId> {
        let turn = line.claim(turn, passage.claimed);
        let row = table::lookup(header.program, passage.procedure)?;
        let is_plain = passage.texts.is_empty() && turn.is_none();
        let arguments = match &passage.follow {
            Follow::Learn if is_plain && !teaches(row) => return None,
            // What was asked for, with the objects under their true names.
            Follow::Check => sent.to_vec(),
            Follow::Made => arguments.to_vec(),
            _ => Vec::new(),
        };
        let what = What::Client {
            follow: passage.follow,
            texts: passage.texts,
            arguments,
        };
        Some(self.note(Some(header), what, turn))
    }

    fn note(&mut self, original: Option<Header>, what: What, turn: Option<TurnId>) -> NoteId {
        let id = self.next_note;
        self.next_note = self.next_note.wrapping_add(1);
        let since = self.knowledge.now(&self.watches);
        let note = Note {
            original,
            since,
            turn,
            what,
        };
        self.notes.insert(id, note);
        id
    }

    /// Makes a client's call as it was decided on, under its own serial.
    fn send(
        &mut self,
        header: Header,
        effect: Effect,
        mut passage: Passage,
        arguments: &[u8],
        turn: Option<Turn>,
        line: &mut Line<'_>,
    ) {
        if let Some(granted) = &passage.granted {
            self.record_allowed(header, granted, line);
        }
        let same = passage.procedure == header.procedure;
        let call = Header {
            procedure: passage.procedure,
            kind: MessageType::CALL,
            ..header
        };
        let sent = passage.arguments.take();
        let sent = sent.as_deref().unwrap_or(arguments);
        let note = self.follow(header, passage, sent, arguments, turn, line);
        let effect = if same { effect } else { Effect::None };
        line.send(call, sent, effect, note);
    }

    /// A call is decided on when the daemon has answered, or its turn to be counted has come.
    fn put_off(&mut self, task: Task, outcome: Outcome, line: &mut Line<'_>) {
        match outcome {
            Outcome::Ask(questions) => self.start(task, questions, line),
            Outcome::Await(identities) => self.await_turn(task, identities, line),
            Outcome::Pass(_) | Outcome::Refuse(_) => {}
        }
    }

    /// Asks the daemon what a task must know.
    fn start(&mut self, task: Task, questions: Vec<Question>, line: &mut Line<'_>) {
        for question in &questions {
            for class in classes(question) {
                for watch in self.watches.wanted(*class) {
                    let note = self.note(None, What::Watch(watch), None);
                    self.ask(watch.register(), note, line, |writer| watch.encode(writer));
                }
            }
        }
        let id = self.tasks.add(task, &questions);
        for question in questions {
            self.questions.add(question, id);
        }
        self.ask_next(line);
    }

    /// Asks as much as may be asked at once.
    fn ask_next(&mut self, line: &mut Line<'_>) {
        let table = Arc::clone(&self.table);
        while let Some(question) = self.questions.next() {
            let note = self.note(None, What::Answer(question.clone()), None);
            self.ask(question.procedure(), note, line, |writer| {
                question.encode(table.owner_marks(), writer);
            });
        }
    }

    /// A call of the proxy's own.
    fn ask(
        &mut self,
        procedure: Procedure,
        note: NoteId,
        line: &mut Line<'_>,
        arguments: impl FnOnce(&mut Writer<'_>),
    ) {
        let serial = self.own_serial(line);
        let call = Header::remote_call(procedure, serial);
        let effect = callbacks::effect(call.program, procedure);
        line.send(call, &xdr::write(arguments), effect, Some(note));
    }

    /// A serial that nothing of the client's waits for.
    fn own_serial(&mut self, line: &Line<'_>) -> Serial {
        loop {
            let serial = Serial(self.next_serial);
            self.next_serial = self.next_serial.wrapping_sub(1);
            if !line.out.calls.has(serial) && !line.streams.has(serial) && !self.tasks.uses(serial)
            {
                return serial;
            }
        }
    }

    /// Every daemon is lost, with these calls outstanding. Returns the client's calls that are to be
    /// answered.
    pub(super) fn abandon(
        &mut self,
        calls: &[Call],
        actions: &mut VecDeque<Action>,
    ) -> Vec<Header> {
        self.questions.clear();
        let mut unanswered = Vec::new();
        for call in calls {
            unanswered.extend(self.original(call, actions).0);
        }
        let (calls, turns) = self.tasks.abandon();
        for turn in turns {
            quota::give_back(turn, true, actions);
        }
        unanswered.extend(calls);
        unanswered
    }

    /// Calls that a daemon will not answer: what was to come of the replies does not. Returns the
    /// client's calls that are to be answered, those that wait for answers to the proxy's among
    /// them.
    pub(super) fn fail(&mut self, calls: &[Call], line: &mut Line<'_>) -> Vec<Header> {
        let mut unanswered = Vec::new();
        let mut events = false;
        for call in calls {
            let (original, what) = self.original(call, line.out.actions);
            unanswered.extend(original);
            match what {
                Some(What::Watch(watch) | What::Registered(watch)) => self.watches.ended(watch),
                Some(What::Answer(question)) => {
                    for task in self.questions.answered(&question).unwrap_or_default() {
                        let failed = self.tasks.failed(task, &question);
                        events |= failed.event;
                        unanswered.extend(failed.call);
                        if let Some(turn) = failed.turn {
                            line.give_back(turn, true);
                        }
                    }
                }
                Some(What::Client { .. } | What::Deregistered(_)) | None => {}
            }
        }
        if events {
            self.drop_event(line);
        }
        self.ask_next(line);
        unanswered
    }

    /// The daemon of these drivers is lost: nobody has told since of what changed there.
    pub(super) fn forget(&mut self, drivers: &[Option<Driver>]) {
        for class in drivers.iter().copied().filter_map(learned_of) {
            self.knowledge.forget(class);
        }
        self.tasks
            .forget(|question| drivers.contains(&question.driver()));
    }

    /// The daemon of these drivers is open. Where it did not take every registration again, nobody
    /// tells of changes.
    pub(super) fn opened(&mut self, drivers: &[Option<Driver>], all: bool) {
        for class in drivers.iter().copied().filter_map(learned_of) {
            self.watches.opened_again(class, all);
        }
    }

    /// The client's call behind an outstanding one that the daemon will not answer, if it is not
    /// the proxy's own, and what was to come of the reply.
    fn original(
        &mut self,
        call: &Call,
        actions: &mut VecDeque<Action>,
    ) -> (Option<Header>, Option<What>) {
        match call.note.and_then(|note| self.notes.remove(&note)) {
            Some(note) => {
                if let Some(turn) = note.turn {
                    // It may have been carried out.
                    quota::give_back(turn, false, actions);
                }
                (note.original, Some(note.what))
            }
            None => (Some(call.header()), None),
        }
    }

    /// Gives up what the daemon has not answered in time.
    pub(super) fn give_up(&mut self, line: &mut Line<'_>) {
        let (tasks, turns) = self.tasks.overdue(line.out.now);
        for turn in turns {
            line.give_back(turn, true);
        }
        for task in tasks {
            self.resume(task, line);
        }
    }
}

impl Line<'_> {
    /// A client's frame goes on as it came.
    fn pass(&mut self, frame: &Frame<'_>, effect: Effect, note: Option<NoteId>) -> Verdict {
        self.links.pass(frame, effect, note, &mut self.out)
    }

    /// A call goes on in a frame of the proxy's own.
    fn send(&mut self, call: Header, arguments: &[u8], effect: Effect, note: Option<NoteId>) {
        self.links
            .send(call, arguments, effect, note, &mut self.out);
    }

    /// The daemon that serves a procedure.
    fn upstream_for(&self, program: Program, procedure: Procedure) -> &Arc<Upstream> {
        let place = self.links.place_for(program, procedure);
        &self.links.get(place).upstream
    }

    /// An error for the client.
    fn answer(&mut self, header: Header, fault: &Fault) {
        let mut bytes = Vec::new();
        fault.answer(header, &mut bytes);
        self.tell(bytes);
    }

    /// A reply for the client, to its call.
    fn reply(&mut self, to: Header, status: Status, payload: &[u8]) {
        self.tell(frame::encode(to.answer(status), payload));
    }

    fn tell(&mut self, bytes: Vec<u8>) {
        action::send(self.out.actions, Peer::Client, bytes);
    }
}

/// The reply names an object as the daemon knows it. Where the call names one too, daemons repeat
/// what the client wrote.
fn teaches(row: &ProcedureInfo) -> bool {
    let names = |fields: &[Field]| fields.iter().any(|field| field.shape.names_objects());
    names(row.ret) && !names(row.args)
}

/// The class of a driver's objects that is learned about.
fn learned_of(driver: Option<Driver>) -> Option<Class> {
    match driver {
        None => Some(Class::Domain),
        Some(Driver::Network) => Some(Class::Network),
        Some(Driver::Storage) => Some(Class::StoragePool),
        Some(Driver::Secret) => Some(Class::Secret),
        Some(Driver::Nodedev | Driver::Nwfilter | Driver::Interface) => None,
    }
}

/// The classes that a question is about: their events tell how long the answer holds.
fn classes(question: &Question) -> &'static [Class] {
    match question {
        Question::Domain(_) | Question::Domains | Question::Owner(..) => &[Class::Domain],
        Question::Network(_) => &[Class::Network],
        Question::Pool(_) | Question::Pools => &[Class::StoragePool],
        Question::Secret(_) => &[Class::Secret],
        _ => &[],
    }
}
