//! The judgement of one call: a pure function of the call, the table in force and what is known.
//!
//! In this order: what the call names is looked up; what the client may not see is replaced by a
//! stand-in, and nothing else is said of it; then every permission that the call needs must be
//! granted by a rule whose guards its content keeps.

use std::ops::Range;
use std::sync::Arc;

use super::content::{self, Named};
use super::question::Question;
use super::quota::{Claimed, Turn};
use super::stand_in::{StandIn, Texts};
use super::subject::{Asked, Resolved, View};
use super::{Class, old_list::OldList};
use crate::policy::access::{Allowed, Denial, Need, Permission, RuleId, Ruling, Subject, needs};
use crate::policy::guard;
use crate::protocol::header::{Procedure, Program};
use crate::protocol::object::{Object, Uuid};
use crate::protocol::payload::{self, Found, Payload};
use crate::protocol::table::{ProcedureInfo, remote};
use crate::protocol::xdr::Writer;

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
    granted: Option<Granted>,
    claimed: Claimed,
    /// The domain that the call acts on.
    pub(super) domain: Option<Uuid>,
    /// The XML in the save image that the call reads.
    pub(super) saved: Option<&'a str>,
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
        let getattr = Permission::getattr(parent.class);
        !matches!(self.view.table.settle(getattr, &parent), Ruling::Allow(_))
    }

    /// A look-up by a name alone that no rule lets the client see, whatever else the object may be.
    fn hide_by_name(&self, acted: &[Acted<'a>], progress: &mut Progress<'a>) -> Option<Passage> {
        let subject = self.looked_up(acted)?;
        let Ruling::Deny(denial) = self.view.table.visible(&subject) else {
            return None;
        };
        progress.records.push(hidden(&subject, Some(denial)));
        // A pool or network that is hidden itself has its stand-in already.
        self.look_for_none(&mut progress.edits, &mut progress.texts)?;
        Some(self.passage(Follow::Learn, progress))
    }

    /// What a look-up says of the object that it looks for.
    fn looked_up(&self, acted: &[Acted<'a>]) -> Option<Subject<'a>> {
        let class = looks_up(self.row)?;
        let of = |class| acted.iter().find(|act| act.subject.class == class);
        let mut subject = Subject::of(class);
        subject.uuid = self.args.uuid("uuid");
        match class {
            Class::StorageVol => {
                let pool = of(Class::StoragePool);
                subject.pool = pool.and_then(|act| act.subject.name);
                subject.name = self.args.text("name");
            }
            Class::NetworkPort => {
                subject.network = of(Class::Network).and_then(|act| act.subject.name);
            }
            Class::Secret => {
                subject.usage = self.args.text("usageID");
                let kind = self.args.word("usageType").map(u64::cast_signed);
                subject.usage_type = kind.and_then(|kind| kind.try_into().ok());
            }
            _ => {
                subject.name = self.args.text("name");
                subject.mac = self.args.text("mac");
            }
        }
        Some(subject)
    }

    /// The arguments of this look-up with all that it looks for replaced.
    pub(super) fn look_up_stand_in(&self) -> Option<(Vec<u8>, Texts)> {
        let (mut edits, mut texts) = (Vec::new(), Texts::new());
        self.look_for_none(&mut edits, &mut texts)?;
        Some((splice(self.args.bytes(), &edits), texts))
    }

    /// Replaces all that this look-up looks for.
    fn look_for_none(
        &self,
        edits: &mut Vec<(Range<usize>, Vec<u8>)>,
        texts: &mut Texts,
    ) -> Option<()> {
        for field in self.row.args {
            let name = field.name;
            let range = self.args.range(name)?;
            if edits.iter().any(|(edited, _)| *edited == range) {
                continue;
            }
            let bytes = match name {
                "path" => {
                    let path = self.stand_in.path(self.args.text(name)?, texts);
                    xdr(|writer| _ = writer.string(&path))
                }
                "name" | "key" | "usageID" | "wwnn" | "wwpn" => {
                    let text = self.stand_in.text(self.args.text(name)?, texts);
                    xdr(|writer| _ = writer.string(&text))
                }
                "mac" => {
                    let mac = self.stand_in.mac(self.args.text(name)?, texts);
                    xdr(|writer| _ = writer.string(&mac))
                }
                "uuid" => {
                    let uuid = self.args.uuid(name)?;
                    self.stand_in.uuid(uuid, texts).0.to_vec()
                }
                "id" => {
                    let id = i32::try_from(self.args.word(name)?.cast_signed()).ok()?;
                    self.stand_in.id(id, texts).to_be_bytes().to_vec()
                }
                // A pool is looked up by one of its volumes.
                "vol" => {
                    let found = self.args.objects().next()?;
                    self.stand_in.object(&found.object, true, texts)
                }
                _ => continue,
            };
            edits.push((range, bytes));
        }
        Some(())
    }

    /// Every permission on every object that it is needed on.
    fn check_needs(
        &self,
        acted: &[Acted<'a>],
        named: &[Named],
        progress: &mut Progress<'a>,
    ) -> Result<(), Stop> {
        let needs = needs(self.program, self.row.number);
        for need in needs.iter().flat_map(|needs| &needs.permissions) {
            if !self.applies(need) {
                continue;
            }
            let class = need.permission.class();
            if is_clone(self.program, self.row) && class == Class::StorageVol {
                self.check_clone(acted, progress)?;
            }
            let subjects = self.subjects(class, acted, named, progress)?;
            for subject in &subjects {
                self.check_need(need.permission, subject, progress)?;
            }
        }
        Ok(())
    }

    /// What a permission of a class is needed on.
    fn subjects<'s>(
        &'s self,
        class: Class,
        acted: &[Acted<'a>],
        named: &'s [Named],
        progress: &mut Progress<'a>,
    ) -> Result<Vec<Subject<'s>>, Stop> {
        if class == Class::Connect {
            return Ok(vec![Subject::of(class)]);
        }
        let mut subjects = Vec::new();
        if !is_clone(self.program, self.row) {
            let of_class = acted.iter().filter(|act| act.subject.class == class);
            subjects.extend(of_class.map(|act| act.subject));
        }
        let lies_in = match class {
            Class::StorageVol => Class::StoragePool,
            Class::NetworkPort => Class::Network,
            other => other,
        };
        let is_absent = |class| progress.replaced.contains(&class);
        if subjects.is_empty() && (is_absent(class) || is_absent(lies_in)) {
            // It does not exist, or what it would be in.
            return Ok(subjects);
        }
        for named in named.iter().filter(|named| named.class == class) {
            subjects.push(content::subject(named));
            for question in content::existing(&self.view, named, acted) {
                match self.view.existing(class, question, &mut progress.asked) {
                    Resolved::Subject(subject) => subjects.push(subject),
                    Resolved::Absent => {}
                    Resolved::Pending => return Err(Stop::Ask),
                }
            }
        }
        if subjects.is_empty() && looks_up(self.row) != Some(class) {
            // It acts on something that cannot be told: only who may do it to all may.
            subjects.push(Subject::of(class));
        }
        Ok(subjects)
    }

    /// What is copied is read.
    fn check_clone(&self, acted: &[Acted<'a>], progress: &mut Progress<'a>) -> Result<(), Stop> {
        let Some(read) = Permission::find(Class::StorageVol, "data_read") else {
            return Ok(());
        };
        let sources = acted.iter().map(|act| &act.subject);
        for source in sources.filter(|subject| subject.class == Class::StorageVol) {
            self.check_need(read, source, progress)?;
        }
        Ok(())
    }

    /// The condition of a need on the call's arguments holds. An argument that is not there leaves
    /// the need standing.
    fn applies(&self, need: &Need) -> bool {
        need.condition.is_none_or(|condition| {
            let word = self.args.word(condition.field);
            word.is_none_or(|word| {
                let [.., a, b, c, d] = word.to_be_bytes();
                u32::from_be_bytes([a, b, c, d]) & condition.mask == condition.value
            })
        })
    }

    fn check_need(
        &self,
        permission: Permission,
        subject: &Subject<'_>,
        progress: &mut Progress<'a>,
    ) -> Result<(), Stop> {
        let allowed = match self.view.table.settle(permission, subject) {
            Ruling::Allow(allowed) => allowed,
            Ruling::Deny(denial) => {
                let reason = format!("{permission} is not allowed");
                return Err(refuse(Some(permission), subject, Some(denial), reason));
            }
            Ruling::Unknown => {
                let reason = format!("{permission} cannot be decided on what the call names");
                return Err(refuse(Some(permission), subject, None, reason));
            }
        };
        if let Some(shadow) = allowed.shadow {
            let reason = format!("{permission} would not be allowed");
            let refusal = refusal(Some(permission), subject, Some(shadow), reason);
            progress.records.push(refusal);
        }
        let rule = self.check_guards(permission, subject, &allowed, progress)?;
        if guard::has_content(self.program, self.row.number) {
            self.check_references(permission, rule, progress)?;
        }
        if progress.granted.is_none() && self.view.table.records(permission) {
            progress.granted = Some(granted(permission, subject, rule));
        }
        Ok(())
    }

    /// One of the rules that grant the permission must find its guards kept. Returns the rule that
    /// counts.
    fn check_guards(
        &self,
        permission: Permission,
        subject: &Subject<'_>,
        allowed: &Allowed,
        progress: &mut Progress<'a>,
    ) -> Result<Option<RuleId>, Stop> {
        let mut broken = None;
        for id in &allowed.guarded {
            let Some(rule) = self.view.table.rule(*id) else {
                continue;
            };
            let Some(guards) = rule.guards else {
                return Ok(Some(*id));
            };
            match self.check_content(guards, progress)? {
                Ok(()) => return Ok(Some(*id)),
                Err(reason) => {
                    let denial = Denial::of_guards(*id, permission, rule.shadow);
                    let refusal = refusal(Some(permission), subject, Some(denial), reason);
                    if rule.shadow {
                        progress.records.push(refusal);
                        return Ok(Some(*id));
                    }
                    broken = Some(refusal);
                }
            }
        }
        match broken {
            None => Ok(allowed.rule),
            Some(refusal) => Err(Stop::Refuse(Box::new(refusal))),
        }
    }

    /// The guards of the rules that grant the permission on some object, which is not known yet.
    pub(super) fn check_guards_of_any(
        &self,
        permission: Permission,
        progress: &mut Progress<'a>,
    ) -> Result<(), Stop> {
        let mut broken = None;
        for rule in self.view.table.grants(permission) {
            let Some(guards) = rule.guards.filter(|_| !rule.shadow) else {
                return Ok(());
            };
            match self.check_content(guards, progress)? {
                Ok(()) => return Ok(()),
                Err(reason) => broken = Some(reason),
            }
        }
        let subject = Subject::of(permission.class());
        broken.map_or(Ok(()), |reason| {
            Err(refuse(Some(permission), &subject, None, reason))
        })
    }

    /// A name that the client wrote and that is not the object's own is corrected, so that no
    /// driver can find another object by it than the one that was judged.
    fn correct_name(&self, act: &Acted<'a>, progress: &mut Progress<'a>) {
        let object = correct(act);
        if object == act.found.object {
            return;
        }
        let bytes = xdr(|writer| object.encode(writer));
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

    fn passage(&self, follow: Follow, progress: &mut Progress<'a>) -> Passage {
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

fn splice(bytes: &[u8], edits: &[(Range<usize>, Vec<u8>)]) -> Vec<u8> {
    let edits: Vec<_> = edits
        .iter()
        .map(|(range, bytes)| (range.clone(), bytes.as_slice()))
        .collect();
    payload::splice(bytes, &edits)
}

pub(super) fn xdr(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut Writer::new(&mut bytes));
    bytes
}

/// The class that a procedure looks for: it needs to see one object, which it finds by what the
/// arguments say of it.
fn looks_up(row: &ProcedureInfo) -> Option<Class> {
    let [rule] = row.acl else {
        return None;
    };
    let class = Class::from_name(rule.object)?;
    (rule.action == "getattr" && class != Class::Connect).then_some(class)
}

/// A call that asks for events: what it may name is judged with each event.
fn is_registration(row: &ProcedureInfo) -> bool {
    row.filter.is_some() && row.name.contains("EVENT") && row.name.contains("REGISTER")
}

/// The call that tells the leases of a network.
fn is_leases(program: Program, row: &ProcedureInfo) -> bool {
    (program, row.number) == (Program::REMOTE, remote::NETWORK_GET_DHCP_LEASES)
}

/// The call that copies a volume.
fn is_clone(program: Program, row: &ProcedureInfo) -> bool {
    (program, row.number) == (Program::REMOTE, remote::STORAGE_VOL_CREATE_XML_FROM)
}
