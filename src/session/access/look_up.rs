//! Look-ups: calls that find one object by what they say of it.

use std::ops::Range;

use super::Class;
use super::case::{Acted, Case, Follow, Passage, Progress, hidden, splice};
use super::stand_in::Texts;
use crate::policy::access::{Ruling, Subject};
use crate::protocol::table::ProcedureInfo;
use crate::protocol::xdr;

impl<'a> Case<'a> {
    /// A look-up by a name alone that no rule lets the client see, whatever else the object may be.
    pub(super) fn hide_by_name(
        &self,
        acted: &[Acted<'a>],
        progress: &mut Progress<'a>,
    ) -> Option<Passage> {
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
                    xdr::write(|writer| _ = writer.string(&path))
                }
                "name" | "key" | "usageID" | "wwnn" | "wwpn" => {
                    let text = self.stand_in.text(self.args.text(name)?, texts);
                    xdr::write(|writer| _ = writer.string(&text))
                }
                "mac" => {
                    let mac = self.stand_in.mac(self.args.text(name)?, texts);
                    xdr::write(|writer| _ = writer.string(&mac))
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
}

/// The class that a procedure looks for: it needs to see one object, which it finds by what the
/// arguments say of it.
pub(super) fn looks_up(row: &ProcedureInfo) -> Option<Class> {
    let [rule] = row.acl else {
        return None;
    };
    let class = Class::from_name(rule.object)?;
    (rule.action == "getattr" && class != Class::Connect).then_some(class)
}
