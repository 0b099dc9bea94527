//! Whether the client may make a call: every permission on every object that it is needed on, by a
//! rule whose guards the call's content keeps.

use super::Class;
use super::case::{Acted, Case, Progress, Stop, granted, refusal, refuse};
use super::content::{self, Named};
use super::look_up::looks_up;
use super::subject::Resolved;
use crate::policy::access::{Allowed, Denial, Need, Permission, RuleId, Ruling, Subject, needs};
use crate::policy::guard;
use crate::protocol::header::Program;
use crate::protocol::table::{ProcedureInfo, remote};

impl<'a> Case<'a> {
    /// Every permission on every object that it is needed on.
    pub(super) fn check_needs(
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
            subjects.push(named.subject());
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
}

/// The call that copies a volume.
fn is_clone(program: Program, row: &ProcedureInfo) -> bool {
    (program, row.number) == (Program::REMOTE, remote::STORAGE_VOL_CREATE_XML_FROM)
}
