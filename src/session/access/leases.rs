//! Leases of a network: those of domains that the client does not see are left out.
//!
//! A lease names no domain, only a hardware address. It stays if a domain has it that the client
//! sees, and no other domain does: whoever could give his own domain the address of another's
//! would learn of that one's leases.

use std::collections::HashSet;

use super::Access;
use super::question::{Answer, Answers, Question};
use super::reply::{Fate, internal};
use super::subject::{Asked, Resolved};
use crate::protocol::header::Status;
use crate::protocol::payload;
use crate::protocol::table::ProcedureInfo;

/// The field of a lease with its hardware address.
const MAC: &str = "mac";

impl Access {
    /// A reply with leases, of which only the number is wanted with `count`.
    pub(super) fn leases(
        &self,
        count: bool,
        row: &'static ProcedureInfo,
        reply: &[u8],
        answers: &Answers,
    ) -> Fate {
        let mut asked = Asked::default();
        let macs = self.visible_macs(answers, &mut asked);
        if !asked.is_empty() {
            return Fate::Ask(asked);
        }
        let mut kept = 0_u32;
        let filtered = payload::filter_records(row.ret, reply, MAC, &mut |mac| {
            let mac = mac.map(str::to_ascii_lowercase);
            let keep = mac.is_some_and(|mac| macs.contains(&*mac));
            kept += u32::from(keep);
            keep && !count
        });
        match filtered {
            Ok(mut bytes) => {
                // The number comes last.
                if let Some(ret) = bytes.last_chunk_mut() {
                    *ret = kept.to_be_bytes();
                }
                Fate::Other(Status::OK, bytes)
            }
            Err(error) => {
                tracing::warn!(%error, "leases cannot be read: not passed on");
                internal()
            }
        }
    }

    /// The hardware addresses that only domains have that the client sees. What the daemon does
    /// not tell is nobody's.
    fn visible_macs<'a>(&self, answers: &'a Answers, asked: &mut Asked) -> HashSet<&'a str> {
        let (mut visible, mut hidden) = (HashSet::new(), HashSet::new());
        let domains = match answers.get(&Question::Domains) {
            None => {
                asked.add(Question::Domains);
                return visible;
            }
            Some(Answer::Domains(domains)) => domains,
            Some(_) => return visible,
        };
        let view = self.view(answers);
        for (&uuid, listed) in domains {
            let object = listed.object(uuid);
            let question = Question::Macs(uuid);
            let macs = match answers.get(&question) {
                None => {
                    asked.add(question);
                    &[]
                }
                Some(Answer::Macs(macs)) => macs.as_slice(),
                Some(_) => &[],
            };
            let sees = match view.told(&object, asked) {
                Resolved::Subject(subject) => self.table.shows(&subject),
                Resolved::Absent | Resolved::Pending => false,
            };
            let set = if sees { &mut visible } else { &mut hidden };
            set.extend(macs.iter().map(String::as_str));
        }
        visible.retain(|mac| !hidden.contains(mac));
        visible
    }
}
