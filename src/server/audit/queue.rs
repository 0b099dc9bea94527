//! Records on their way to the thread that writes them, bounded: nobody waits for room.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::entry::Entry;
use super::writer::Sinks;

/// Records that wait; what comes beyond is lost, and counted. Of a few hundred bytes each as a
/// rule, and 5 KiB at most.
pub(super) const MAX_RECORDS: usize = 4096;

/// Something for the thread to do.
#[derive(Debug)]
pub(super) enum Job {
    /// Write a record.
    Record(Box<Entry>),
    /// Write to these from now on.
    SetSinks(Sinks),
    /// Open the file anew.
    Reopen,
    /// Say when everything so far is written.
    Flush(oneshot::Sender<()>),
}

/// What waits for the thread.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// Something has come.
    news: Condvar,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    records: usize,
    /// Records that came when there was no room.
    lost: u64,
    ended: bool,
}

/// What has come, in order.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) jobs: VecDeque<Job>,
    /// Records that came after these, and are lost.
    pub(super) lost: u64,
}

impl Queue {
    /// A record, if there is room.
    pub(super) fn push(&self, entry: Entry) {
        let mut state = self.lock();
        if state.records >= MAX_RECORDS {
            state.lost += 1;
            return;
        }
        state.records += 1;
        state.jobs.push_back(Job::Record(Box::new(entry)));
        self.news.notify_one();
    }

    /// Something that is never left out.
    pub(super) fn order(&self, job: Job) {
        self.lock().jobs.push_back(job);
        self.news.notify_one();
    }

    /// Nothing will come any more.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.news.notify_one();
    }

    /// Waits for something; `None` if nothing will come. Blocks.
    pub(super) fn wait(&self) -> Option<Batch> {
        let mut state = self.lock();
        while state.jobs.is_empty() && !state.ended {
            state = self
                .news
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let batch = Batch {
            jobs: std::mem::take(&mut state.jobs),
            lost: std::mem::take(&mut state.lost),
        };
        state.records = 0;
        (!batch.jobs.is_empty()).then_some(batch)
    }

    /// A change that was only half made is no harm: each is one step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;

    #[test]
    fn what_there_is_no_room_for_is_counted_and_orders_always_find_room() {
        let queue = Queue::default();
        for _ in 0..MAX_RECORDS + 2 {
            queue.push(Entry::default());
        }
        queue.order(Job::Reopen);
        let batch = queue.wait().unwrap();
        assert_eq!((batch.jobs.len(), batch.lost), (MAX_RECORDS + 1, 2));
        assert!(matches!(batch.jobs.back(), Some(Job::Reopen)));
        // There is room again.
        queue.push(Entry::default());
        queue.end();
        let batch = queue.wait().unwrap();
        assert_eq!((batch.jobs.len(), batch.lost), (1, 0));
        assert!(queue.wait().is_none());
    }
}
