//! The permissions that procedures need, looked up once.

use std::sync::LazyLock;

use super::permission::Permission;
use crate::protocol::header::{Procedure, Program};
use crate::protocol::object::Class;
use crate::protocol::shape::Shape;
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
    /// The classes of objects, other than the connection, that permissions are about or that
    /// arguments and reply name, each once.
    pub classes: Vec<Class>,
}

/// One permission that a procedure needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The permission.
    pub permission: Permission,
    /// When it is needed; `None` is always.
    pub condition: Option<Condition>,
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
    let programs = PROGRAMS.iter().map(|program| table::rows(*program));
    programs
        .map(|rows| rows.iter().map(Needs::of).collect())
        .collect()
});

impl Needs {
    fn of(info: &table::ProcedureInfo) -> Option<Self> {
        if info.kind == Kind::Event {
            return None;
        }
        let permissions = info.acl.iter().map(|rule| {
            Some(Need {
                permission: Permission::of(rule)?,
                condition: rule.condition,
            })
        });
        // One that is not known (held by a test) would make the procedure unknown.
        let permissions: Vec<Need> = permissions.collect::<Option<_>>()?;
        let filter = match &info.filter {
            Some(rule) => Some(Permission::of(rule)?),
            None => None,
        };
        let needed = permissions.iter().map(|need| need.permission);
        let mut classes: Vec<Class> = needed.chain(filter).map(Permission::class).collect();
        for field in info.args.iter().chain(info.ret) {
            classes_in(&field.shape, &mut classes);
        }
        classes.retain(|class| *class != Class::Connect);
        classes.sort_unstable();
        classes.dedup();
        Some(Self {
            permissions,
            filter,
            classes,
        })
    }
}

/// The classes of the objects that a value of this shape may name.
fn classes_in(shape: &Shape, classes: &mut Vec<Class>) {
    match shape {
        Shape::Struct(record) => {
            classes.extend(record.class);
            for field in record.fields {
                classes_in(&field.shape, classes);
            }
        }
        Shape::Array(inner, _) | Shape::Fixed(inner, _) | Shape::Optional(inner) => {
            classes_in(inner, classes);
        }
        _ => {}
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;
    use crate::protocol::table::{qemu, remote};

    #[test]
    fn the_objects_of_arguments_and_replies_count() {
        let classes = |procedure| &*needs(Program::REMOTE, procedure).unwrap().classes;
        assert_eq!(
            classes(remote::STORAGE_POOL_LOOKUP_BY_VOLUME),
            [Class::StoragePool, Class::StorageVol]
        );
        assert_eq!(classes(remote::DOMAIN_SNAPSHOT_NUM), [Class::Domain]);
        assert_eq!(classes(remote::CONNECT_GET_CAPABILITIES), []);
    }

    #[test]
    fn what_is_no_call_needs_nothing_that_could_be_had() {
        for number in [i32::MIN, -1, 0, 454, remote::DOMAIN_EVENT_LIFECYCLE.0] {
            assert!(
                needs(Program::REMOTE, Procedure(number)).is_none(),
                "{number}"
            );
        }
        assert!(needs(Program::QEMU, qemu::DOMAIN_MONITOR_EVENT).is_none());
        assert!(needs(Program::ADMIN, Procedure(1)).is_none());
        assert!(
            needs(Program::REMOTE, remote::AUTH_LIST)
                .unwrap()
                .permissions
                .is_empty()
        );
    }
}
