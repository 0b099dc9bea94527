//! The named sets of permissions.

use super::permission::{Permission, PermissionSet};
use crate::protocol::object::Class;

/// A named set of permissions.
#[derive(Debug, Clone, Copy)]
pub struct NamedSet {
    /// Its name, with `-` between words.
    pub name: &'static str,
    /// What it is for, in a sentence.
    pub description: &'static str,
    members: fn(Permission) -> bool,
}

impl NamedSet {
    /// The permissions in it.
    #[must_use]
    pub fn permissions(&self) -> PermissionSet {
        Permission::all().filter(|it| (self.members)(*it)).collect()
    }
}

/// The sets that every policy has. All but `read-only` keep to one kind of object besides the
/// connection itself, so that a condition on it limits the whole set.
pub const NAMED_SETS: [NamedSet; 5] = [
    NamedSet {
        name: "read-only",
        description: "what libvirt lets everyone do on its read-only socket",
        members: Permission::is_anonymous,
    },
    NamedSet {
        name: "viewer",
        description: "see the host and domains, their configuration and statistics, no secrets",
        members: is_viewer,
    },
    NamedSet {
        name: "operator",
        description: "viewer, and start, stop, reboot, reset and suspend domains, and use their \
                      console, display and keyboard",
        members: is_operator,
    },
    NamedSet {
        name: "owner",
        description: "operator, and everything else on domains but to migrate them or to enter \
                      their namespaces on the host",
        members: is_owner,
    },
    NamedSet {
        name: "volume-owner",
        description: "see pools, and everything on volumes",
        members: is_volume_owner,
    },
];

fn is_viewer(permission: Permission) -> bool {
    matches!(
        (permission.class(), permission.action()),
        (Class::Connect, "getattr" | "read" | "search_domains")
            | (Class::Domain, "getattr" | "read")
    )
}

fn is_operator(permission: Permission) -> bool {
    is_viewer(permission)
        || permission.class() == Class::Domain
            && matches!(
                permission.action(),
                "start"
                    | "stop"
                    | "init_control"
                    | "reset"
                    | "suspend"
                    | "pm_control"
                    | "open_device"
                    | "open_graphics"
                    | "screenshot"
                    | "send_input"
            )
}

fn is_owner(permission: Permission) -> bool {
    // What leaves the host, or opens it, is not the owner's to decide.
    is_viewer(permission)
        || permission.class() == Class::Domain
            && !matches!(permission.action(), "migrate" | "open_namespace")
}

fn is_volume_owner(permission: Permission) -> bool {
    matches!(
        (permission.class(), permission.action()),
        (Class::Connect, "getattr" | "search_storage_pools")
            | (
                Class::StoragePool,
                "getattr" | "read" | "search_storage_vols"
            )
            | (Class::StorageVol, _)
    )
}
