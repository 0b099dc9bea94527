//! What may be said of calls by their procedure alone.

use super::{Entry, Table, id};
use crate::policy::access::needs::{Needs, PROGRAMS, needs};
use crate::policy::access::permission::Permission;
use crate::policy::access::rule::{Rule, Rules};
use crate::policy::access::ruling::{Denial, Gate};
use crate::policy::guard;
use crate::protocol::header::{Procedure, Program};
use crate::protocol::object::Class;
use crate::protocol::table;

/// What is to be said of a permission without looking at the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Verdict {
    /// Allowed on every object. `free`: whatever the content, and nothing is stamped.
    Always { free: bool },
    /// Refused on every object.
    Never(Denial),
    #[default]
    Depends,
}

/// What rules say of a permission whatever the object.
pub(super) fn verdict(rules: &Rules, permission: Permission, entry: &Entry) -> Verdict {
    let at = |place: &usize| rules.rules.get(*place).map(|rule| (id(*place), rule));
    let everywhere = |rule: &Rule| rule.condition(permission.class()).is_none();
    let denies = |rule: &Rule| everywhere(rule) && (!rule.shadow || rules.shadow);
    if let Some((id, _)) = entry
        .deny
        .iter()
        .filter_map(at)
        .find(|(_, rule)| denies(rule))
    {
        return Verdict::Never(Denial::by(id, permission));
    }
    if entry.allow.is_empty() {
        return Verdict::Never(Denial::of(permission));
    }
    if !entry.deny.is_empty() {
        return Verdict::Depends;
    }
    let allows = || {
        entry
            .allow
            .iter()
            .filter_map(at)
            .filter(|(_, rule)| everywhere(rule))
    };
    let stamps = entry
        .allow
        .iter()
        .filter_map(at)
        .any(|(_, rule)| rule.stamp().is_some());
    match allows().next() {
        None => Verdict::Depends,
        Some(_) => Verdict::Always {
            free: !stamps && allows().any(|(_, rule)| rule.guards().is_none()),
        },
    }
}

impl Table {
    pub(super) fn make_gates(&self) -> Vec<Vec<Gate>> {
        let gate = |program: Program, info: &table::ProcedureInfo| match needs(program, info.number)
        {
            Some(needs) => self.gate_of(program, info.number, needs),
            None => self.other,
        };
        let programs = PROGRAMS.iter();
        programs
            .map(|program| {
                let rows = table::rows(*program).iter();
                rows.map(|info| gate(*program, info)).collect()
            })
            .collect()
    }

    fn gate_of(&self, program: Program, procedure: Procedure, needs: &Needs) -> Gate {
        let has_content = guard::has_content(program, procedure);
        let mut judge = needs.classes.iter().any(|class| !self.sees_all(*class));
        judge |= has_content && self.asks_of_references();
        if (program, procedure) == (Program::REMOTE, table::remote::NETWORK_GET_DHCP_LEASES) {
            // Leases are of domains, although they name none.
            judge |= !self.sees_all(Class::Domain);
        }
        for need in &needs.permissions {
            let permission = need.permission;
            match self.verdict(permission) {
                // What is hidden is not forbidden: a look-up finds nothing.
                Verdict::Never(denial)
                    if need.condition.is_none()
                        && (permission.class() == Class::Connect
                            || permission.action() != "getattr") =>
                {
                    return self.refuse(denial);
                }
                Verdict::Never(_) | Verdict::Depends => judge = true,
                Verdict::Always { free } => judge |= !free && has_content,
            }
            judge |= self.records(permission) || self.is_limited(permission);
        }
        if let Some(filter) = needs.filter {
            judge |= !matches!(self.verdict(filter), Verdict::Always { .. });
        }
        if judge { Gate::Judge } else { Gate::Relay }
    }

    /// Whether what is done with the permission may count towards a quota.
    fn is_limited(&self, permission: Permission) -> bool {
        self.quotas().any(|quota| match permission.class() {
            Class::Domain => match permission.action() {
                "write" | "save" | "start" | "migrate" | "snapshot" => quota.limits_domains(),
                "block_write" => !quota.volumes.is_empty(),
                _ => false,
            },
            Class::StorageVol => {
                matches!(permission.action(), "create" | "resize" | "data_write")
                    && !quota.volumes.is_empty()
            }
            _ => false,
        })
    }
}
