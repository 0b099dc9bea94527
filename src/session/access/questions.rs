//! The questions of one connection that are not answered: each is asked once for all that wait for
//! it, and few at a time, so that no client can make the proxy, or the daemon, hold very many.

use std::collections::{HashMap, VecDeque};

use super::question::Question;

/// Questions that are with the daemon at once. It answers some 5 of a connection at a time.
const AT_ONCE: usize = 32;

#[derive(Debug, Default)]
pub(super) struct Questions {
    /// Who waits.
    waiting: HashMap<Question, Waiting>,
    /// In order, what is not asked yet.
    queue: VecDeque<Question>,
    /// With the daemon.
    asked: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    tasks: Vec<u32>,
    /// What it was asked for is not what is wanted now.
    stale: bool,
}

impl Questions {
    /// A task waits for this.
    pub(super) fn add(&mut self, question: Question, task: u32) {
        if !self.waiting.contains_key(&question) {
            self.queue.push_back(question.clone());
        }
        self.waiting.entry(question).or_default().tasks.push(task);
    }

    /// The next that is to be asked now.
    pub(super) fn next(&mut self) -> Option<Question> {
        if self.asked >= AT_ONCE {
            return None;
        }
        let question = self.queue.pop_front()?;
        self.asked += 1;
        if let Some(waiting) = self.waiting.get_mut(&question) {
            waiting.stale = false;
        }
        Some(question)
    }

    /// The daemon has answered; returns who waits. `None`: it is to be asked again.
    pub(super) fn answered(&mut self, question: &Question) -> Option<Vec<u32>> {
        self.asked = self.asked.saturating_sub(1);
        match self.waiting.remove(question) {
            Some(waiting) if waiting.stale => {
                self.waiting.insert(question.clone(), waiting);
                self.queue.push_back(question.clone());
                None
            }
            waiting => Some(waiting.unwrap_or_default().tasks),
        }
    }

    /// Answers about owners that are on their way are to other marks.
    pub(super) fn ask_owners_again(&mut self) {
        for (question, waiting) in &mut self.waiting {
            waiting.stale |= matches!(question, Question::Owner(..));
        }
    }

    /// Nobody waits any more.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}
