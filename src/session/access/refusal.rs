//! What a client is told of a refused call, and what is recorded of decisions.
//!
//! A refusal has an id, which the client sees in the error and which is in the record. The same
//! refusal again has the same id and is counted; it is recorded anew each time that its count has
//! doubled, so that a client that goes on trying fills no log.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::case::Refusal;
use super::{Access, Line};
use crate::policy::access::{Denial, Permission, needs};
use crate::protocol::fault::Fault;
use crate::protocol::header::{Header, Procedure, Program};
use crate::protocol::table;
use crate::session::Action;

/// Refusals of one connection that are told apart; all are forgotten when one more comes.
const REMEMBERED: usize = 256;

/// What happened to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It was passed on.
    Allowed,
    /// It was refused.
    Refused,
    /// It was answered as if its object did not exist.
    Hidden,
    /// It was passed on, and would have been refused if the rule were not in shadow.
    Shadow,
}

/// A record of one decision. No text of it is longer than a name: no XML, no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Names the refusal; empty for allowed calls.
    pub id: Arc<str>,
    /// What happened.
    pub verdict: Verdict,
    /// Program of the call.
    pub program: Program,
    /// Procedure of the call.
    pub procedure: Procedure,
    /// The object, with what is known of it.
    pub object: String,
    /// The permission that decided.
    pub permission: Option<Permission>,
    /// Line of the rule that decided.
    pub rule: Option<usize>,
    /// Why it was refused.
    pub reason: String,
    /// Generation of the policy.
    pub generation: u64,
    /// How often it has happened by now.
    pub count: u64,
}

impl Record {
    /// Name of the procedure, or its number.
    #[must_use]
    pub fn procedure_name(&self) -> String {
        match table::lookup(self.program, self.procedure) {
            Some(row) => row.name.to_owned(),
            None => format!("{}:{}", self.program.0, self.procedure.0),
        }
    }
}

/// The refusals of one connection.
#[derive(Debug)]
pub(super) struct Refusals {
    prefix: Arc<str>,
    next: u64,
    seen: HashMap<u64, (Arc<str>, u64)>,
}

impl Refusals {
    pub(super) fn new(prefix: &Arc<str>) -> Self {
        Self {
            prefix: Arc::clone(prefix),
            next: 1,
            seen: HashMap::new(),
        }
    }

    /// The id of a refusal, and how often it has happened by now.
    fn count(&mut self, header: Header, refusal: &Refusal) -> (Arc<str>, u64) {
        let mut hasher = DefaultHasher::new();
        let rule = refusal.denial.as_ref().and_then(|denial| denial.rule);
        (header.program.0, header.procedure.0, rule).hash(&mut hasher);
        (&refusal.object, &refusal.reason, refusal.hidden).hash(&mut hasher);
        let key = hasher.finish();
        if self.seen.len() >= REMEMBERED && !self.seen.contains_key(&key) {
            self.seen.clear();
        }
        let (prefix, next) = (&self.prefix, &mut self.next);
        let (id, count) = self.seen.entry(key).or_insert_with(|| {
            let id = format!("{prefix}-{next}").into();
            *next += 1;
            (id, 0)
        });
        *count += 1;
        (Arc::clone(id), *count)
    }
}

/// A procedure that is refused whatever its object.
pub(super) fn of_gate(header: Header, denial: Denial) -> Refusal {
    let reason = match (
        denial.permission,
        table::lookup(header.program, header.procedure),
    ) {
        (Some(permission), _) => format!("{permission} is not allowed"),
        (None, Some(row)) => format!("{} is not allowed", row.name),
        (None, None) => format!("procedure {} is not known to the proxy", header.procedure.0),
    };
    Refusal {
        permission: denial.permission,
        object: String::new(),
        reason,
        denial: Some(denial),
        hidden: false,
    }
}

/// A call with descriptors whose object is called otherwise than it says.
pub(super) fn misnamed() -> Refusal {
    Refusal {
        permission: None,
        object: String::new(),
        denial: None,
        reason: "the object has another name than the call says".into(),
        hidden: false,
    }
}

/// A call of which the rules cannot say what it is.
pub(super) fn undecided() -> Refusal {
    Refusal {
        reason: "it cannot be told what the call does".into(),
        ..misnamed()
    }
}

impl Access {
    /// Refuses a call.
    pub(super) fn refuse(&mut self, header: Header, refusal: Refusal, line: &mut Line<'_>) {
        let id = self.write(header, &refusal, Verdict::Refused, line);
        let text = format!("{} (refusal {id})", refusal.reason);
        line.answer(header, &Fault::denied(text));
    }

    /// Records what a decision has left aside: hidden objects, and rules in shadow.
    pub(super) fn record(&mut self, header: Header, records: &[Refusal], line: &mut Line<'_>) {
        for refusal in records {
            let shadow = refusal.denial.as_ref().is_some_and(|denial| denial.shadow);
            let verdict = if shadow {
                Verdict::Shadow
            } else {
                Verdict::Hidden
            };
            self.write(header, refusal, verdict, line);
        }
    }

    /// Records an allowed call, if the policy wants calls of its kind recorded.
    pub(super) fn allowed(&mut self, header: Header, object: &str, line: &mut Line<'_>) {
        let needs = needs(header.program, header.procedure);
        let mut needs = needs.iter().flat_map(|needs| &needs.permissions);
        let Some(need) = needs.find(|need| self.table.records(need.permission)) else {
            return;
        };
        line.actions.push_back(Action::Audit(Box::new(Record {
            id: "".into(),
            verdict: Verdict::Allowed,
            program: header.program,
            procedure: header.procedure,
            object: object.to_owned(),
            permission: Some(need.permission),
            rule: None,
            reason: String::new(),
            generation: self.generation,
            count: 1,
        })));
    }

    fn write(
        &mut self,
        header: Header,
        refusal: &Refusal,
        verdict: Verdict,
        line: &mut Line<'_>,
    ) -> Arc<str> {
        let (id, count) = self.refusals.count(header, refusal);
        if count.is_power_of_two() {
            line.actions.push_back(Action::Audit(Box::new(Record {
                id: Arc::clone(&id),
                verdict,
                program: header.program,
                procedure: header.procedure,
                object: refusal.object.clone(),
                permission: refusal.permission,
                rule: refusal
                    .denial
                    .as_ref()
                    .and_then(|denial| self.table.rule(denial.rule?))
                    .map(|rule| rule.line),
                reason: refusal.reason.clone(),
                generation: self.generation,
                count,
            })));
        }
        id
    }
}
