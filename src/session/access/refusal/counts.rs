//! Which refusals of a connection are the same, and how often they have happened.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Record, Verdict};
use crate::session::Action;

/// Refusals of one connection that are told apart. Those beyond are counted together, so that a
/// client that asks for one thing after the other neither fills the log nor the memory.
const TOLD_APART: usize = 64;

/// After this time the refusals so far may make room for others.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// The refusals of one connection. What the client is told of and what it is not are counted apart:
/// from the ids that it sees, it must not learn how much was hidden from it.
#[derive(Debug)]
pub(in crate::session::access) struct Refusals {
    told: Counts,
    untold: Counts,
}

impl Refusals {
    pub(in crate::session::access) fn new(prefix: &Arc<str>) -> Self {
        Self {
            told: Counts::new(format!("{prefix}-")),
            untold: Counts::new(format!("{prefix}-h")),
        }
    }

    /// Counts a refusal and records it if it is the first of its kind, or their number has doubled.
    /// Returns its id.
    pub(super) fn count(
        &mut self,
        record: Record,
        now: Instant,
        actions: &mut VecDeque<Action>,
    ) -> Arc<str> {
        let counts = match record.verdict {
            Verdict::Refused => &mut self.told,
            Verdict::Allowed | Verdict::Hidden | Verdict::Shadow => &mut self.untold,
        };
        counts.count(record, now, actions)
    }

    /// Forgets all refusals, and records the counts that are not recorded yet.
    pub(super) fn finish(&mut self) -> impl Iterator<Item = Action> {
        self.told.finish().chain(self.untold.finish())
    }
}

/// Refusals that are told apart.
#[derive(Debug)]
struct Counts {
    /// What ids begin with.
    prefix: String,
    next: u64,
    seen: HashMap<u64, Record>,
    /// When the first of those seen came.
    since: Option<Instant>,
}

impl Counts {
    fn new(prefix: String) -> Self {
        Self {
            prefix,
            next: 1,
            seen: HashMap::new(),
            since: None,
        }
    }

    fn count(&mut self, record: Record, now: Instant, actions: &mut VecDeque<Action>) -> Arc<str> {
        let mut key = key(&record);
        let mut record = record;
        if self.seen.len() >= TOLD_APART && !self.seen.contains_key(&key) {
            if self.since.is_some_and(|since| now >= since + FORGET_AFTER) {
                actions.extend(self.finish());
            } else {
                record = other(record);
                key = self::key(&record);
            }
        }
        self.since.get_or_insert(now);
        let (prefix, next) = (&self.prefix, &mut self.next);
        let seen = self.seen.entry(key).or_insert_with(|| {
            record.id = format!("{prefix}{next}").into();
            record.count = 0;
            *next += 1;
            record
        });
        seen.count += 1;
        if seen.count.is_power_of_two() {
            actions.push_back(Action::Audit(Box::new(seen.clone())));
        }
        Arc::clone(&seen.id)
    }

    fn finish(&mut self) -> impl Iterator<Item = Action> + use<> {
        self.since = None;
        let seen = std::mem::take(&mut self.seen).into_values();
        seen.filter(|record| !record.count.is_power_of_two())
            .map(|record| Action::Audit(Box::new(record)))
    }
}

/// The same for refusals that are the same.
fn key(record: &Record) -> u64 {
    let mut hasher = DefaultHasher::new();
    (record.verdict, record.program.0, record.procedure.0).hash(&mut hasher);
    (
        &record.object,
        &record.reason,
        record.permission,
        record.rule,
    )
        .hash(&mut hasher);
    hasher.finish()
}

/// One of the many that are not told apart. The procedure is that of the first of them.
fn other(record: Record) -> Record {
    Record {
        object: String::new(),
        permission: None,
        rule: None,
        cause: None,
        reason: "one of many calls of this connection that are not recorded one by one".into(),
        ..record
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::header::{Procedure, Program};

    fn record(object: &str) -> Record {
        Record {
            id: Arc::default(),
            verdict: Verdict::Refused,
            upstream: "qemu".into(),
            program: Program::REMOTE,
            procedure: Procedure(9),
            object: object.to_owned(),
            permission: None,
            rule: Some(3),
            cause: None,
            reason: "no".into(),
            generation: 1,
            count: 1,
        }
    }

    /// Ids, objects and counts of the records.
    fn told(actions: &mut VecDeque<Action>) -> Vec<(String, String, u64)> {
        let records = actions.drain(..).filter_map(|action| match action {
            Action::Audit(record) => Some(record),
            _ => None,
        });
        records
            .map(|it| (it.id.to_string(), it.object, it.count))
            .collect()
    }

    fn expected(id: &str, object: &str, count: u64) -> (String, String, u64) {
        (id.to_owned(), object.to_owned(), count)
    }

    #[test]
    fn the_same_refusal_is_recorded_when_its_count_doubles_and_at_the_end() {
        let (mut refusals, mut actions) = (Refusals::new(&"p".into()), VecDeque::new());
        let now = Instant::now();
        for _ in 0..5 {
            let id = refusals.count(record("a"), now, &mut actions);
            assert_eq!(&*id, "p-1");
        }
        assert_eq!(&*refusals.count(record("b"), now, &mut actions), "p-2");
        let counts = [
            ("p-1", "a", 1),
            ("p-1", "a", 2),
            ("p-1", "a", 4),
            ("p-2", "b", 1),
        ];
        assert_eq!(
            told(&mut actions),
            counts.map(|(id, it, n)| expected(id, it, n))
        );
        actions.extend(refusals.finish());
        assert_eq!(told(&mut actions), [expected("p-1", "a", 5)]);
        actions.extend(refusals.finish());
        assert_eq!(told(&mut actions), []);
        // Ids are never used again.
        assert_eq!(&*refusals.count(record("a"), now, &mut actions), "p-3");
    }

    #[test]
    fn what_is_hidden_leaves_no_trace_in_the_ids_that_the_client_sees() {
        let (mut refusals, mut actions) = (Refusals::new(&"p".into()), VecDeque::new());
        let now = Instant::now();
        for number in 0..2 * TOLD_APART {
            let hidden = Record {
                verdict: Verdict::Hidden,
                ..record(&number.to_string())
            };
            let id = refusals.count(hidden, now, &mut actions);
            assert!(id.starts_with("p-h"), "{id}");
        }
        for (number, object) in (1..).zip(["a", "b"]) {
            let id = refusals.count(record(object), now, &mut actions);
            assert_eq!(&*id, format!("p-{number}"));
        }
    }

    #[test]
    fn many_different_refusals_are_counted_together_until_a_minute_has_passed() {
        let (mut refusals, mut actions) = (Refusals::new(&"p".into()), VecDeque::new());
        let now = Instant::now();
        for number in 0..TOLD_APART + 3 {
            refusals.count(record(&number.to_string()), now, &mut actions);
        }
        let last = format!("p-{}", TOLD_APART + 1);
        let recorded = told(&mut actions);
        assert_eq!(recorded.len(), TOLD_APART + 2);
        assert_eq!(recorded.last(), Some(&expected(&last, "", 2)));
        // One that is known stays known.
        refusals.count(record("0"), now, &mut actions);
        assert_eq!(told(&mut actions), [expected("p-1", "0", 2)]);
        let later = now + FORGET_AFTER;
        refusals.count(record("new"), later, &mut actions);
        let new = format!("p-{}", TOLD_APART + 2);
        assert_eq!(
            told(&mut actions),
            [expected(&last, "", 3), expected(&new, "new", 1)]
        );
    }
}
