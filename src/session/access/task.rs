//! Calls, replies and events that wait until the daemon has answered what must be known.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::case::Follow;
use super::question::{Answer, Answers, Question};
use super::quota::{Claims, Turn, TurnId};
use super::stand_in::Texts;
use crate::protocol::header::{Header, Serial};
use crate::session::calls::Effect;

/// How long the daemon may take to answer what a decision waits for. What it has not said by then
/// counts as not known.
const PATIENCE: Duration = Duration::from_secs(30);

/// Tasks of one connection; the next call waits in the client's socket.
const TASKS: usize = 64;

/// Bytes that tasks, or events that wait, may keep of more than one frame.
const BYTES: usize = 1 << 20;

/// Events that may wait behind one that is not decided. What comes beyond is lost to the client, as
/// it is when a daemon's own queue overflows.
const EVENTS: usize = 1024;

/// Times that one task may ask: a name, its owner, what a path leads to, and its owner; then, when its
/// turn to be counted has come, all of it anew, what there is, to whom it belongs, and how big it is.
pub(super) const ROUNDS: u8 = 16;

/// Something that waits.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) kind: Kind,
    /// The header that it came with.
    pub(super) header: Header,
    /// What follows the header.
    pub(super) payload: Vec<u8>,
    pub(super) answers: Answers,
    pub(super) rounds: u8,
    /// Its turn to be counted, if it has it.
    pub(super) turn: Option<Turn>,
    /// The turn that it waits for.
    pub(super) awaits: Option<TurnId>,
    /// Its turn did not come in time, or its time for it is over.
    pub(super) late: bool,
    pending: HashSet<Question>,
    deadline: Instant,
}

/// What waits.
#[derive(Debug)]
pub(super) enum Kind {
    /// A call of the client's.
    Call(Effect),
    /// A call with descriptors, whose frame waits in the inbox.
    Held,
    /// A reply to a client's call, which is the task's header and payload.
    Reply(Reply),
    /// The first of the events that wait.
    Event,
}

/// What a reply to a client's call is judged by.
#[derive(Debug)]
pub(super) struct Reply {
    /// What the client called.
    pub(super) original: Header,
    pub(super) follow: Follow,
    /// What is to be turned back in an error.
    pub(super) texts: Texts,
    /// What was called with, where that may be needed.
    pub(super) arguments: Vec<u8>,
}

impl Task {
    pub(super) fn new(
        kind: Kind,
        header: Header,
        payload: &[u8],
        answers: Answers,
        now: Instant,
    ) -> Self {
        Self {
            kind,
            header,
            payload: payload.to_vec(),
            answers,
            rounds: 0,
            turn: None,
            awaits: None,
            late: false,
            pending: HashSet::new(),
            deadline: now + PATIENCE,
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.late && (!self.pending.is_empty() || self.awaits.is_some())
    }

    /// The same with its turn, which is not to last longer than that.
    pub(super) fn with_turn(self, turn: Option<Turn>) -> Self {
        let until = turn.as_ref().map_or(self.deadline, |turn| turn.until);
        Self {
            deadline: self.deadline.min(until),
            turn,
            ..self
        }
    }

    /// The turn that it has or awaits.
    pub(super) fn turn_id(&self) -> Option<TurnId> {
        self.awaits.or(self.turn.as_ref().map(|turn| turn.id))
    }

    /// The client's call that waits for this.
    fn call(&self) -> Option<Header> {
        match &self.kind {
            Kind::Call(_) => Some(self.header),
            Kind::Reply(reply) => Some(reply.original),
            // Its frame will be offered again.
            Kind::Held | Kind::Event => None,
        }
    }

    fn fail(&mut self) {
        self.late = self.turn_id().is_some();
        for question in self.pending.drain() {
            self.answers.insert(question, Answer::Failed);
        }
    }
}

/// No task awaits that turn.
#[derive(Debug)]
pub(super) struct NoTask;

/// All that waits on one connection.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    tasks: BTreeMap<u32, Task>,
    next: u32,
    bytes: usize,
    /// Events in order; a task decides on the first of them.
    pub(super) events: VecDeque<Event>,
    /// Bytes of their payloads.
    event_bytes: usize,
}

/// An event that waits.
#[derive(Debug)]
pub(super) struct Event {
    pub(super) header: Header,
    pub(super) payload: Vec<u8>,
    /// What it is judged by, beside what is known.
    pub(super) answers: Answers,
}

impl Tasks {
    /// Nothing more can wait now, least of all so many bytes.
    pub(super) fn is_full(&self, bytes: usize) -> bool {
        self.tasks.len() >= TASKS || (self.bytes > 0 && self.bytes + bytes > BYTES)
    }

    /// A task that waits for these answers.
    pub(super) fn add(&mut self, mut task: Task, questions: &[Question]) -> u32 {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        task.rounds += 1;
        task.pending = questions.iter().cloned().collect();
        self.bytes += task.payload.len();
        self.tasks.insert(id, task);
        id
    }

    fn remove(&mut self, id: u32) -> Option<Task> {
        let task = self.tasks.remove(&id)?;
        self.bytes -= task.payload.len();
        Some(task)
    }

    /// An answer has come. Returns the task if it waits for no other, and goes on by itself.
    pub(super) fn answered(
        &mut self,
        id: u32,
        question: &Question,
        answer: Answer,
    ) -> Option<Task> {
        let task = self.tasks.get_mut(&id)?;
        task.pending.remove(question);
        task.answers.insert(question.clone(), answer);
        if task.is_waiting() || matches!(task.kind, Kind::Held) {
            return None;
        }
        self.remove(id)
    }

    /// The daemon that was asked is lost. A call of the client's that waits for the answer is over.
    pub(super) fn failed(&mut self, id: u32, question: &Question) -> Failed {
        let mut failed = Failed::default();
        let Some(task) = self.tasks.get_mut(&id) else {
            return failed;
        };
        if matches!(task.kind, Kind::Held) {
            // Its frame will be offered again.
            task.pending.remove(question);
            task.answers.insert(question.clone(), Answer::Failed);
            return failed;
        }
        if let Some(task) = self.remove(id) {
            failed.event = matches!(task.kind, Kind::Event);
            failed.call = task.call();
            failed.turn = task.turn_id();
        }
        failed
    }

    /// What was answered to such questions does not count any more.
    pub(super) fn forget(&mut self, is_old: impl Fn(&Question) -> bool) {
        let tasks = self.tasks.values_mut().map(|task| &mut task.answers);
        let events = self.events.iter_mut().map(|event| &mut event.answers);
        for answers in tasks.chain(events) {
            answers.retain(|question, _| !is_old(question));
        }
    }

    /// A turn has come. Returns the task that awaits it, unless its frame waits in the inbox; an
    /// error if none does any more. What it was told before its turn may be old by now.
    pub(super) fn acquired(
        &mut self,
        id: TurnId,
        others: Vec<(Arc<str>, Claims)>,
        now: Instant,
    ) -> Result<Option<Task>, NoTask> {
        let mut tasks = self.tasks.iter_mut();
        let (place, task) = tasks
            .find(|(_, task)| task.awaits == Some(id) && !task.late)
            .ok_or(NoTask)?;
        let until = now + PATIENCE;
        task.awaits = None;
        task.answers.clear();
        task.deadline = until;
        task.turn = Some(Turn { id, others, until });
        let place = *place;
        if matches!(task.kind, Kind::Held) {
            return Ok(None);
        }
        Ok(self.remove(place))
    }

    /// The task of a call whose frame waits in the inbox, if it waits no more.
    pub(super) fn take_held(&mut self, serial: Serial) -> Held {
        let held = self
            .tasks
            .iter()
            .find(|(_, task)| matches!(task.kind, Kind::Held) && task.header.serial == serial);
        match held.map(|(id, task)| (*id, task.is_waiting())) {
            None => Held::New,
            Some((_, true)) => Held::Waiting,
            Some((id, false)) => self
                .remove(id)
                .map_or(Held::New, |task| Held::Ready(Box::new(task))),
        }
    }

    /// A call of the client's waits under this serial.
    pub(super) fn uses(&self, serial: Serial) -> bool {
        let calls = self.tasks.values().filter_map(Task::call);
        calls.into_iter().any(|call| call.serial == serial)
    }

    pub(super) fn has_calls(&self) -> bool {
        self.tasks.values().any(|task| task.call().is_some())
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.tasks.values().map(|task| task.deadline).min()
    }

    /// Tasks whose time is over, with what was not answered as not known; and the turns that end
    /// with that, although the tasks stay.
    pub(super) fn overdue(&mut self, now: Instant) -> (Vec<Task>, Vec<TurnId>) {
        let ids: Vec<u32> = self
            .tasks
            .iter()
            .filter(|(_, task)| task.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        let (mut overdue, mut turns) = (Vec::new(), Vec::new());
        for id in ids {
            if let Some(task) = self.tasks.get_mut(&id) {
                // Nobody has asked for its answers for as long: its frame is gone.
                let is_left = matches!(task.kind, Kind::Held) && !task.is_waiting();
                if is_left {
                    turns.extend(task.turn_id());
                    self.remove(id);
                    continue;
                }
                task.fail();
                task.deadline = now + PATIENCE;
                if matches!(task.kind, Kind::Held) {
                    turns.extend(task.turn_id());
                    continue;
                }
            }
            overdue.extend(self.remove(id));
        }
        (overdue, turns)
    }

    /// Forgets everything; returns the client's calls that nobody answers now, and the turns that
    /// tasks had or awaited.
    pub(super) fn abandon(&mut self) -> (Vec<Header>, Vec<TurnId>) {
        self.events.clear();
        (self.bytes, self.event_bytes) = (0, 0);
        let tasks = std::mem::take(&mut self.tasks);
        let turns = tasks.values().filter_map(Task::turn_id).collect();
        (tasks.values().filter_map(Task::call).collect(), turns)
    }

    /// The first of the events that wait.
    pub(super) fn next_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        self.event_bytes -= event.payload.len();
        Some(event)
    }

    /// The first of the events must wait further.
    pub(super) fn put_event_back(&mut self, event: Event) {
        self.event_bytes += event.payload.len();
        self.events.push_front(event);
    }

    /// An event waits behind others. `false` if there are too many.
    pub(super) fn queue(&mut self, header: Header, payload: &[u8], answers: Answers) -> bool {
        let bytes = self.event_bytes + payload.len();
        let fits = self.events.len() < EVENTS && (self.events.is_empty() || bytes <= BYTES);
        if fits {
            self.event_bytes = bytes;
            self.events.push_back(Event {
                header,
                payload: payload.to_vec(),
                answers,
            });
        }
        fits
    }
}

/// What has become of a task whose daemon is lost.
#[derive(Debug, Default)]
pub(super) struct Failed {
    /// The client's call that is to be answered.
    pub(super) call: Option<Header>,
    /// The turn that it had or awaited.
    pub(super) turn: Option<TurnId>,
    /// It was about the first of the events that wait.
    pub(super) event: bool,
}

/// What is known of a call whose frame waits in the inbox.
#[derive(Debug)]
pub(super) enum Held {
    /// Nothing was asked about it yet.
    New,
    /// The answers are not there yet.
    Waiting,
    /// They are.
    Ready(Box<Task>),
}
