//! The client's registrations for events where the proxy has, or will have, the same.

use super::question::{Answers, Question};
use super::stand_in::Texts;
use super::task::{Held, Kind, Task};
use super::watches::Change;
use super::{Access, Line, Passage, What};
use crate::protocol::frame::Frame;
use crate::protocol::header::Status;
use crate::protocol::payload::Payload;
use crate::protocol::table;
use crate::session::Verdict;
use crate::session::calls::Effect;

impl Access {
    /// Decides on a call that registers or deregisters; `None` if it is decided on like any other.
    pub(super) fn register(
        &mut self,
        frame: &Frame<'_>,
        effect: Effect,
        line: &mut Line<'_>,
    ) -> Option<Verdict> {
        let header = frame.header;
        let row = table::lookup(header.program, header.procedure)?;
        let args = Payload::read(row.args, frame.arguments()).ok()?;
        let what = match self.watches.change(header.procedure, &args) {
            Change::None => return None,
            Change::Wait => return Some(Verdict::Hold),
            Change::Share(callback) => {
                line.reply(header, Status::OK, &callback.to_be_bytes());
                return Some(Verdict::Consumed);
            }
            Change::Keep => {
                line.reply(header, Status::OK, &[]);
                return Some(Verdict::Consumed);
            }
            Change::Absent(callback) => {
                let mut texts = Texts::new();
                let id = self.stand_in.id(callback, &mut texts);
                let arguments = id.to_be_bytes().to_vec();
                let passage = Passage::with_stand_in(header.procedure, arguments, texts);
                self.send(header, effect, passage, &[], None, line);
                return Some(Verdict::Consumed);
            }
            Change::Release(watch, callback) => {
                // The frame is offered again when the daemon has answered.
                match self.tasks.take_held(header.serial) {
                    Held::Waiting => {}
                    // The daemon has gone meanwhile. Whoever waits for it longer keeps all that
                    // comes after it waiting.
                    Held::Ready(task) if !task.answers.is_empty() => {
                        self.refuse_undecided(header, line);
                        return Some(Verdict::Consumed);
                    }
                    Held::Ready(_) | Held::New => {
                        let task = Task::new(Kind::Held, header, &[], Answers::new(), line.out.now);
                        let question = Question::Release(watch, callback);
                        self.start(task, vec![question], line);
                    }
                }
                return Some(Verdict::Hold);
            }
            Change::Register(watch) => What::Registered(watch),
            Change::Deregister(watch) => What::Deregistered(watch),
        };
        _ = self.tasks.take_held(header.serial);
        let note = self.note(Some(header), what, None);
        Some(line.pass(frame, effect, Some(note)))
    }
}
