//! The permissions that procedures need, looked up once.

use std::sync::LazyLock;

use super::permission::Permission;
use crate::protocol::header::{Procedure, Program};
use crate::protocol::object::Class;
use crate::protocol::table::{self, Condition, Kind};

/// The programs whose calls need permissions.
pub(super) const PROGRAMS: [Program; 3] = [Program::REMOTE, Program::QEMU, Program::LXC];

/// What a procedure needs.
#[derive(Debug, Default)]
pub struct Needs {
    /// All of these whose condition holds; none for what everyone may call.
    pub permissions: Vec<Need>,
    /// What each object in the reply needs to be left in.
    pub filter: Option<Permission>,
}

/// One permission that a procedure needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The permission.
    pub permission: Permission,
    /// When it is needed; `None` is always.
    pub condition: Option<Condition>,
}

impl Needs {
    /// The classes of objects, other than the connection, that the permissions are about. May have
    /// one twice.
    pub(super) fn classes(&self) -> impl Iterator<Item = Class> {
        let permissions = self.permissions.iter().map(|need| need.permission);
        permissions
            .chain(self.filter)
            .map(Permission::class)
            .filter(|class| *class != Class::Connect)
    }
}

/// What a call needs; `None` for one that is not known, and for what is no call.
#[must_use]
pub fn needs(program: Program, procedure: Procedure) -> Option<&'static Needs> {
    let place = PROGRAMS.iter().position(|known| *known == program)?;
    NEEDS.get(place)?.get(row(procedure)?)?.as_ref()
}

/// The place of a procedure among those of its program.
pub(super) fn row(procedure: Procedure) -> Option<usize> {
    usize::try_from(procedure.0).ok()?.checked_sub(1)
}

/// By place in [`PROGRAMS`] and [`row`].
static NEEDS: LazyLock<Vec<Vec<Option<Needs>>>> = LazyLock::new(|| {
    let of = |info: &table::ProcedureInfo| {
        if info.kind == Kind::Event {
            return None;
        }
        let permissions = info.acl.iter().map(|rule| {
            Some(Need {
                permission: Permission::of(rule)?,
                condition: rule.condition,
            })
        });
        Some(Needs {
            // One that is not known (held by a test) would make the procedure unknown.
            permissions: permissions.collect::<Option<_>>()?,
            filter: match &info.filter {
                Some(rule) => Some(Permission::of(rule)?),
                None => None,
            },
        })
    };
    let programs = PROGRAMS.iter().map(|program| table::rows(*program));
    programs.map(|rows| rows.iter().map(of).collect()).collect()
});
