//! What a client is told of a refused call, and what is recorded of decisions.
//!
//! A refusal has an id, which the client sees in the error and which is in the record. The same
//! refusal again has the same id and is counted; it is recorded anew each time that its count has
//! doubled, and at the end, so that a client that goes on trying fills no log.
//!
//! - `counts`: which refusals are the same, and how often they have happened.

mod counts;

use std::collections::VecDeque;
use std::sync::Arc;

pub(super) use counts::Refusals;

use super::case::{Granted, Refusal};
use super::{Access, Line};
use crate::policy::access::{Denial, Permission, Reason, RuleId, Subject, Table};
use crate::protocol::fault::Fault;
use crate::protocol::header::{Header, Procedure, Program};
use crate::protocol::object::Class;
use crate::protocol::payload::Payload;
use crate::protocol::table::{self, remote};
use crate::session::Action;

/// Bytes of a text in a record: names and paths are shorter, and what is longer is cut.
const MAX_TEXT: usize = 1024;

/// What happened to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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

/// A record of one decision. Its texts are names, paths and words of the proxy's own, of a
/// kilobyte at most: no XML, no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Names the refusal; empty for allowed calls.
    pub id: Arc<str>,
    /// What happened.
    pub verdict: Verdict,
    /// Name of the daemon that the call was for; empty if none was chosen yet.
    pub upstream: Arc<str>,
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
    /// Why it was refused, if the rules say so.
    pub cause: Option<Reason>,
    /// Why it was refused, for people.
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

/// A procedure that is refused whatever its object, which only the record has.
pub(super) fn of_gate(header: Header, arguments: &[u8], denial: Denial) -> Refusal {
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
        denial: Some(denial),
        object: claimed(header, arguments).unwrap_or_default(),
        ..without_object(reason)
    }
}

/// The record of a client that may not even open a connection, with an id of its own.
pub(in crate::session) fn of_open(
    id: Arc<str>,
    denial: Denial,
    table: &Table,
    generation: u64,
) -> Record {
    let open = Permission::getattr(Class::Connect);
    let permission = denial.permission.unwrap_or(open);
    let rule = denial.rule.and_then(|rule| table.rule(rule));
    Record {
        id,
        verdict: Verdict::Refused,
        upstream: Arc::default(),
        program: Program::REMOTE,
        procedure: remote::CONNECT_OPEN,
        object: String::new(),
        permission: Some(permission),
        rule: rule.map(|rule| rule.line),
        cause: Some(denial.reason),
        reason: format!("{permission} is not allowed"),
        generation,
        count: 1,
    }
}

/// The first object in the arguments of a call, as the client names it: nothing of it is proven.
fn claimed(header: Header, arguments: &[u8]) -> Option<String> {
    let row = table::lookup(header.program, header.procedure)?;
    let arguments = Payload::read(row.args, arguments).ok()?;
    let object = arguments.objects().next()?.object;
    let subject = Subject::on_wire(&object);
    Some(format!("{subject} (as the client names it)"))
}

/// A call with descriptors whose object is called otherwise than it says.
pub(super) fn misnamed() -> Refusal {
    without_object("the object has another name than the call says")
}

/// A call that nothing can be said about.
fn without_object(reason: impl Into<String>) -> Refusal {
    Refusal {
        permission: None,
        object: String::new(),
        denial: None,
        reason: reason.into(),
    }
}

/// A call of which the rules cannot say what it is.
pub(super) fn undecided() -> Refusal {
    without_object("it cannot be told what the call does")
}

impl Access {
    /// Refuses a call.
    pub(super) fn refuse(&mut self, header: Header, refusal: Refusal, line: &mut Line<'_>) {
        let id = self.write(header, &refusal, Verdict::Refused, line);
        line.answer(header, &Fault::denied(bounded(&refusal.reason), &id));
    }

    /// Refuses a call whose arguments cannot be read, as the daemon would.
    pub(super) fn refuse_unreadable(&mut self, header: Header, line: &mut Line<'_>) {
        let refusal = without_object("the arguments cannot be read");
        self.write(header, &refusal, Verdict::Refused, line);
        line.answer(header, &Fault::undecodable());
    }

    /// Refuses a call because the daemon does not say what the decision rests on.
    pub(super) fn refuse_undecided(&mut self, header: Header, line: &mut Line<'_>) {
        let refusal = without_object("the daemon did not tell what access is decided on");
        self.write(header, &refusal, Verdict::Refused, line);
        line.answer(header, &Fault::undecided());
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

    /// Records an allowed call.
    pub(super) fn record_allowed(
        &mut self,
        header: Header,
        granted: &Granted,
        line: &mut Line<'_>,
    ) {
        let record = Record {
            object: bounded(&granted.object).to_owned(),
            permission: Some(granted.permission),
            rule: self.line_of(granted.rule),
            ..self.blank(header, Verdict::Allowed, line)
        };
        line.out.actions.push_back(Action::Audit(Box::new(record)));
    }

    /// Records how often refusals have happened whose last count is not recorded yet. They count
    /// from the beginning after that.
    pub(in crate::session) fn record_counts(&mut self, actions: &mut VecDeque<Action>) {
        actions.extend(self.refusals.finish());
    }

    fn write(
        &mut self,
        header: Header,
        refusal: &Refusal,
        verdict: Verdict,
        line: &mut Line<'_>,
    ) -> Arc<str> {
        let record = Record {
            object: bounded(&refusal.object).to_owned(),
            permission: refusal.permission,
            rule: self.line_of(refusal.denial.and_then(|denial| denial.rule)),
            cause: refusal.denial.map(|denial| denial.reason),
            reason: bounded(&refusal.reason).to_owned(),
            ..self.blank(header, verdict, line)
        };
        self.refusals.count(record, line.out.now, line.out.actions)
    }

    fn line_of(&self, rule: Option<RuleId>) -> Option<usize> {
        Some(self.table.rule(rule?)?.line)
    }

    /// What every record says of a call.
    fn blank(&self, header: Header, verdict: Verdict, line: &Line<'_>) -> Record {
        let upstream = line.upstream_for(header.program, header.procedure);
        Record {
            id: Arc::default(),
            verdict,
            upstream: Arc::clone(&upstream.name),
            program: header.program,
            procedure: header.procedure,
            object: String::new(),
            permission: None,
            rule: None,
            cause: None,
            reason: String::new(),
            generation: self.generation,
            count: 1,
        }
    }
}

/// The text, or as much of its beginning as a record has room for.
pub(crate) fn bounded(text: &str) -> &str {
    let mut end = MAX_TEXT.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters() {
        assert_eq!(bounded("acme-web1"), "acme-web1");
        assert_eq!(bounded(&"x".repeat(MAX_TEXT)).len(), MAX_TEXT);
        assert_eq!(bounded(&"x".repeat(MAX_TEXT + 1)).len(), MAX_TEXT);
        let text = bounded(&format!("x{}", "ä".repeat(MAX_TEXT))).to_owned();
        assert_eq!((text.len(), text.chars().last()), (MAX_TEXT - 1, Some('ä')));
    }
}
