//! The judgement of one call: a pure function of the call, the table in force and what is known.
//!
//! In this order: what the call names is looked up; what the client may not see is replaced by a
//! stand-in, and nothing else is said of it; then every permission that the call needs must be
//! granted by a rule whose guards its content keeps.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;

use super::look_up::looks_up;
use super::question::Question;
use super::quota::{Claimed, Turn};
use super::stand_in::{StandIn, Texts};
use super::subject::{Asked, Resolved, View};
use super::{Class, old_list::OldList};
use crate::policy::access::{Denial, Permission, RuleId, Ruling, Subject, needs};
use crate::policy::guard::{Content, Unreadable};
use crate::protocol::header::{Procedure, Program};
use crate::protocol::object::{Object, Uuid};
use crate::protocol::payload::{self, Found, Payload};
use crate::protocol::table::{ProcedureInfo, remote};
use crate::protocol::xdr;

/// A call that is judged.
pub(super) struct Case<'a> {
    pub(super) program: Program,
    pub(super) row: &'static ProcedureInfo,
    pub(super) args: Payload<'a>,
    pub(super) view: View<'a>,
    pub(super) stand_in: &'a StandIn,
    /// Its turn to be counted, if it has it.
    pub(super) turn: Option<&'a Turn>,
}

/// What becomes of it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It goes on.
    Pass(Passage),
    /// The client gets an error.
    Refuse(Refusal),
    /// The daemon must be asked first.
    Ask(Vec<Question>),
    /// It must wait for its turn to be counted for these identities.
    Await(Vec<Arc<str>>),
}

/// How a call goes on.
#[derive(Debug)]
pub(super) struct Passage {
    /// What is called.
    pub(super) procedure: Procedure,
    /// Its arguments, where they are not as the client wrote them.
    pub(super) arguments: Option<Vec<u8>>,
    /// What its reply is for.
    pub(super) follow: Follow,
    /// Stand-ins that are in the arguments, to be turned back in an error.
    pub(super) texts: Texts,
    /// What is to be recorded of objects that were hidden, and of rules in shadow.
    pub(super) records: Vec<Refusal>,
    /// What allows it, if that is to be recorded.
    pub(super) granted: Option<Granted>,
    /// What others must count until it is answered.
    pub(super) claimed: Claimed,
}

impl Passage {
    /// A call in whose arguments stand-ins are: nothing comes of it.
    pub(super) fn with_stand_in(procedure: Procedure, arguments: Vec<u8>, texts: Texts) -> Self {
        Self {
            procedure,
            arguments: Some(arguments),
            follow: Follow::Learn,
            texts,
            records: Vec::new(),
            granted: None,
            claimed: Claimed::new(),
        }
    }
}

/// A permission that was granted and is to be recorded.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) permission: Permission,
    /// On what, as the rules know it.
    pub(super) object: String,
    /// The rule that grants it, if it is one.
    pub(super) rule: Option<RuleId>,
}

/// What is done with a reply.
#[derive(Debug)]
pub(super) enum Follow {
    /// Learn from it, and pass it on.
    Learn,
    /// It names an object that the client must be allowed to see; if not, the call is made again
    /// with a stand-in.
    Check,
    /// The call makes something, and what is in its way may be hidden.
    Made,
    /// A list: only what the client may see stays.
    Filter { permission: Permission, form: Form },
    /// Leases: only those of domains that the client may see stay, or their number.
    Leases { count: bool },
}

/// The form of a list that the client asked for.
#[derive(Debug, Clone)]
pub(super) enum Form {
    /// As the daemon sends it.
    New,
    /// Only the count is wanted.
    Count,
    /// The old form of it.
    Old(OldList),
}

/// Why a call is refused, or would be.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    /// Which permission is not granted.
    pub(super) permission: Option<Permission>,
    /// On what, as the rules know it.
    pub(super) object: String,
    /// What the rules say.
    pub(super) denial: Option<Denial>,
    /// What the client is told; nothing where an object is hidden.
    pub(super) reason: String,
}

/// Stops the judgement.
pub(super) enum Stop {
    Refuse(Box<Refusal>),
    Ask,
    Await(Vec<Arc<str>>),
}

/// What one judgement has come to so far.
#[derive(Default)]
pub(super) struct Progress<'a> {
    pub(super) asked: Asked,
    pub(super) edits: Vec<(Range<usize>, Vec<u8>)>,
    pub(super) texts: Texts,
    /// Classes of which an object was replaced.
    pub(super) replaced: Vec<Class>,
    pub(super) records: Vec<Refusal>,
    pub(super) granted: Option<Granted>,
    claimed: Claimed,
    /// The domain that the call acts on.
    pub(super) domain: Option<Uuid>,
    /// The XML in the save image that the call reads.
    pub(super) saved: Option<&'a str>,
    /// What the call carries, once that was asked for.
    pub(super) contents: Option<Result<Rc<[Content<'a>]>, Unreadable>>,
}

/// An object of the arguments, and what the rules know of it.
pub(super) struct Acted<'a> {
    pub(super) found: Found<'a>,
    pub(super) subject: Subject<'a>,
}

impl<'a> Case<'a> {
    /// Judges it.
    pub(super) fn judge(&self) -> Outcome {
        let mut progress = Progress::default();
        match self.steps(&mut progress) {
            Ok(passage) => Outcome::Pass(passage),
            Err(Stop::Refuse(refusal)) => Outcome::Refuse(*refusal),
            Err(Stop::Ask) => Outcome::Ask(progress.asked.into_questions()),
            Err(Stop::Await(identities)) => Outcome::Await(identities),
        }
    }

    fn steps(&self, progress: &mut Progress<'a>) -> Result<Passage, Stop> {
        let acted = self.find_objects(progress)?;
        progress.domain = acted.iter().find_map(|act| match act.found.object {
            Object::Domain { uuid, .. } => Some(uuid),
            _ => None,
        });
        if let Some(passage) = self.hide_by_name(&acted, progress) {
            return Ok(passage);
        }
        let named = self.named_by_content(&acted, progress)?;
        self.check_needs(&acted, &named, progress)?;
        progress.claimed = self.check_quotas(&acted, &named, progress)?;
        for act in &acted {
            self.correct_name(act, progress);
        }
        Ok(self.pass_on(&acted, !named.is_empty(), progress))
    }

    /// Looks up every object of the arguments and replaces those that are absent or hidden.
    fn find_objects(&self, progress: &mut Progress<'a>) -> Result<Vec<Acted<'a>>, Stop> {
        if is_registration(self.row) {
            // Events are judged one by one when they come.
            return Ok(Vec::new());
        }
        let mut acted = Vec::new();
        let mut end = 0;
        for found in self.args.objects() {
            // The network of a port is judged with the port.
            if found.range.start < end {
                continue;
            }
            end = found.range.end;
            match self.view.named(&found.object, &mut progress.asked) {
                Resolved::Pending => {}
                Resolved::Absent => self.replace(&found, progress),
                Resolved::Subject(subject) => {
                    if self.sees(&subject, progress) {
                        acted.push(Acted { found, subject });
                    } else {
                        self.replace(&found, progress);
                    }
                }
            }
        }
        if progress.asked.is_empty() {
            Ok(acted)
        } else {
            Err(Stop::Ask)
        }
    }

    /// Whether the client may see an object of which nothing more can be learned.
    pub(super) fn sees(&self, subject: &Subject<'_>, progress: &mut Progress<'a>) -> bool {
        let getattr = Permission::getattr(subject.class);
        match self.view.table.settle(getattr, subject) {
            Ruling::Allow(allowed) => {
                if let Some(shadow) = allowed.shadow {
                    progress.records.push(hidden(subject, Some(shadow)));
                }
                true
            }
            Ruling::Deny(denial) => {
                progress.records.push(hidden(subject, Some(denial)));
                false
            }
            Ruling::Unknown => {
                progress.records.push(hidden(subject, None));
                false
            }
        }
    }

    fn replace(&self, found: &Found<'_>, progress: &mut Progress<'a>) {
        let parent = self.is_parent_hidden(&found.object);
        let bytes = self
            .stand_in
            .object(&found.object, parent, &mut progress.texts);
        progress.edits.push((found.range.clone(), bytes));
        progress.replaced.push(found.object.class());
    }

    /// Whether what a volume or port lies in is hidden as well.
    fn is_parent_hidden(&self, object: &Object<'_>) -> bool {
        let parent = match *object {
            Object::StorageVol { pool, .. } => Subject {
                name: Some(pool),
                ..Subject::of(Class::StoragePool)
            },
            Object::NetworkPort { network_uuid, .. } => Subject {
                name: self.view.knowledge.network(network_uuid),
                uuid: Some(network_uuid),
                ..Subject::of(Class::Network)
            },
            _ => return false,
        };
        !self.view.table.shows(&parent)
    }

    /// A name that the client wrote and that is not the object's own is corrected, so that no
    /// driver can find another object by it than the one that was judged.
    fn correct_name(&self, act: &Acted<'a>, progress: &mut Progress<'a>) {
        let object = correct(act);
        if object == act.found.object {
            return;
        }
        let bytes = xdr::write(|writer| object.encode(writer));
        progress.edits.push((act.found.range.clone(), bytes));
    }

    pub(super) fn edit(&self, field: &str, bytes: &[u8], progress: &mut Progress<'a>) {
        if let Some(range) = self.args.range(field) {
            progress.edits.push((range, bytes.to_vec()));
        }
    }

    /// The call goes on; what comes back is a list, an object that was looked for, or to be learned
    /// from.
    fn pass_on(&self, acted: &[Acted<'a>], makes: bool, progress: &mut Progress<'a>) -> Passage {
        let list = needs(self.program, self.row.number).and_then(|needs| needs.filter);
        if let Some(permission) = list.filter(|_| !is_registration(self.row)) {
            let any = Subject::of(permission.class());
            let all = self.view.table.decide(permission, &any);
            if !matches!(all, Ruling::Allow(_)) {
                return self.pass_list(permission, acted, progress);
            }
        }
        if let Some(procedure) = self.restore_as_judged(progress) {
            let mut passage = self.passage(Follow::Made, progress);
            passage.procedure = procedure;
            return passage;
        }
        if is_leases(self.program, self.row) && !self.view.table.sees_all(Class::Domain) {
            let count = self.ask_for_results(progress);
            return self.passage(Follow::Leases { count }, progress);
        }
        let checks = |class| {
            let table = self.view.table;
            !table.sees_all(class) || table.records(Permission::getattr(class))
        };
        let follow = if looks_up(self.row).is_some_and(checks) {
            Follow::Check
        } else if makes {
            Follow::Made
        } else {
            Follow::Learn
        };
        self.passage(follow, progress)
    }

    fn pass_list(
        &self,
        permission: Permission,
        acted: &[Acted<'a>],
        progress: &mut Progress<'a>,
    ) -> Passage {
        let old = (self.program == Program::REMOTE)
            .then(|| OldList::of(self.row.number, &self.args, acted.first().map(correct)))
            .flatten();
        if let Some(old) = old.filter(|_| progress.replaced.is_empty()) {
            let (procedure, arguments) = (old.procedure, old.arguments.clone());
            let form = Form::Old(old);
            let mut passage = self.passage(Follow::Filter { permission, form }, progress);
            passage.procedure = procedure;
            passage.arguments = Some(arguments);
            return passage;
        }
        let form = match self.ask_for_results(progress) {
            true => Form::Count,
            false => Form::New,
        };
        self.passage(Follow::Filter { permission, form }, progress)
    }

    /// Has the daemon send a list whole, also where only its count is wanted. Returns whether it is.
    fn ask_for_results(&self, progress: &mut Progress<'a>) -> bool {
        let count = self.args.word("need_results") == Some(0);
        if count {
            self.edit("need_results", &1u32.to_be_bytes(), progress);
        }
        count
    }

    pub(super) fn passage(&self, follow: Follow, progress: &mut Progress<'a>) -> Passage {
        let mut edits = std::mem::take(&mut progress.edits);
        edits.sort_by_key(|(range, _)| range.start);
        Passage {
            procedure: self.row.number,
            texts: std::mem::take(&mut progress.texts),
            arguments: (!edits.is_empty()).then(|| splice(self.args.bytes(), &edits)),
            follow,
            records: std::mem::take(&mut progress.records),
            // What was replaced is hidden, and the call recorded as that.
            granted: progress
                .granted
                .take()
                .filter(|_| progress.replaced.is_empty()),
            claimed: std::mem::take(&mut progress.claimed),
        }
    }
}

/// That a permission was granted, for the record.
pub(super) fn granted(
    permission: Permission,
    subject: &Subject<'_>,
    rule: Option<RuleId>,
) -> Granted {
    Granted {
        permission,
        object: subject.to_string(),
        rule,
    }
}

pub(super) fn refusal(
    permission: Option<Permission>,
    subject: &Subject<'_>,
    denial: Option<Denial>,
    reason: String,
) -> Refusal {
    Refusal {
        permission,
        object: subject.to_string(),
        denial,
        reason,
    }
}

/// The object under its true name.
fn correct<'a>(act: &Acted<'a>) -> Object<'a> {
    let Some(name) = View::true_name(&act.found.object, &act.subject) else {
        return act.found.object;
    };
    match act.found.object {
        Object::Domain { uuid, id, .. } => Object::Domain { name, uuid, id },
        Object::Network { uuid, .. } => Object::Network { name, uuid },
        Object::StoragePool { uuid, .. } => Object::StoragePool { name, uuid },
        Object::Nwfilter { uuid, .. } => Object::Nwfilter { name, uuid },
        Object::NetworkPort {
            network_uuid, uuid, ..
        } => Object::NetworkPort {
            network: name,
            network_uuid,
            uuid,
        },
        other => other,
    }
}

/// Stops the judgement with a refusal.
pub(super) fn refuse(
    permission: Option<Permission>,
    subject: &Subject<'_>,
    denial: Option<Denial>,
    reason: String,
) -> Stop {
    Stop::Refuse(Box::new(refusal(permission, subject, denial, reason)))
}

/// That an object is hidden, or would be.
pub(super) fn hidden(subject: &Subject<'_>, denial: Option<Denial>) -> Refusal {
    let getattr = Permission::getattr(subject.class);
    refusal(Some(getattr), subject, denial, String::new())
}

pub(super) fn splice(bytes: &[u8], edits: &[(Range<usize>, Vec<u8>)]) -> Vec<u8> {
    let edits: Vec<_> = edits
        .iter()
        .map(|(range, bytes)| (range.clone(), bytes.as_slice()))
        .collect();
    payload::splice(bytes, &edits)
}

/// A call that asks for events: what it may name is judged with each event.
fn is_registration(row: &ProcedureInfo) -> bool {
    row.filter.is_some() && row.name.contains("EVENT") && row.name.contains("REGISTER")
}

/// The call that tells the leases of a network.
fn is_leases(program: Program, row: &ProcedureInfo) -> bool {
    (program, row.number) == (Program::REMOTE, remote::NETWORK_GET_DHCP_LEASES)
}
