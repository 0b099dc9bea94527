//! The named sets of permissions.

use super::permission::{Permission, PermissionSet};
use crate::protocol::object::Class;

/// A named set of permissions.
#[derive(Debug, Clone, Copy)]
pub struct NamedSet {
    /// Its name, with `-` between words.
    pub name: &'static str,
    members: fn(Permission) -> bool,
}

impl NamedSet {
    /// The permissions in it.
    #[must_use]
    pub fn permissions(&self) -> PermissionSet {
        Permission::all().filter(|it| (self.members)(*it)).collect()
    }
}

/// The sets that every policy has. `read-only` is libvirt's and spans all classes; the others keep
/// to domains, or to pools and volumes, so that conditions on these limit all that they let change.
pub const NAMED_SETS: [NamedSet; 5] = [
    NamedSet {
        name: "read-only",
        members: Permission::is_anonymous,
    },
    NamedSet {
        name: "viewer",
        members: is_viewer,
    },
    NamedSet {
        name: "operator",
        members: is_operator,
    },
    NamedSet {
        name: "owner",
        members: is_owner,
    },
    NamedSet {
        name: "volume-owner",
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;

    fn set(name: &str) -> PermissionSet {
        let mut sets = NAMED_SETS.iter();
        sets.find(|set| set.name == name).unwrap().permissions()
    }

    /// As libvirt's page on access control has it, and its polkit actions.
    #[test]
    fn readers_may_do_what_libvirt_lets_everyone_do() {
        let names: Vec<String> = set("read-only").iter().map(|it| it.to_string()).collect();
        assert_eq!(
            names,
            [
                "connect:getattr",
                "connect:read",
                "connect:search_domains",
                "connect:search_interfaces",
                "connect:search_networks",
                "connect:search_node_devices",
                "connect:search_nwfilter_bindings",
                "connect:search_nwfilters",
                "connect:search_secrets",
                "connect:search_storage_pools",
                "domain:getattr",
                "domain:read",
                "interface:getattr",
                "interface:read",
                "network:getattr",
                "network:read",
                "network_port:getattr",
                "network_port:read",
                "node_device:getattr",
                "nwfilter:getattr",
                "nwfilter:read",
                "nwfilter_binding:getattr",
                "nwfilter_binding:read",
                "secret:getattr",
                "secret:read",
                "storage_pool:getattr",
                "storage_pool:read",
                "storage_vol:getattr",
                "storage_vol:read",
            ]
        );
    }

    #[test]
    fn each_step_of_the_ladder_holds_the_one_below() {
        let ladder = ["viewer", "operator", "owner"].map(set);
        assert!(ladder.is_sorted_by(|low, high| high.covers(low) && low != high));
        let [viewer, operator, owner] = ladder;
        assert!(set("read-only").covers(&viewer));
        let of = |action| Permission::find(Class::Domain, action).unwrap();
        for action in ["write", "save", "delete", "read_secure", "core_dump"] {
            assert!(
                !operator.contains(of(action)) && owner.contains(of(action)),
                "{action}"
            );
        }
        for action in ["migrate", "open_namespace"] {
            assert!(!owner.contains(of(action)), "{action}");
        }
    }

    #[test]
    fn conditions_on_few_classes_limit_what_a_set_lets_change() {
        for (name, classes) in [
            ("viewer", &[Class::Connect, Class::Domain][..]),
            ("operator", &[Class::Connect, Class::Domain]),
            ("owner", &[Class::Connect, Class::Domain]),
            (
                "volume-owner",
                &[Class::Connect, Class::StoragePool, Class::StorageVol],
            ),
        ] {
            let of_classes = set(name).iter().all(|it| classes.contains(&it.class()));
            assert!(of_classes && !set(name).is_empty(), "{name}");
            let looks = |it: Permission| {
                matches!(it.action(), "getattr" | "read") || it.action().starts_with("search_")
            };
            let mut others = set(name);
            others = others
                .iter()
                .filter(|it| !matches!(it.class(), Class::Domain | Class::StorageVol))
                .collect();
            assert!(others.iter().all(looks), "{name}");
        }
    }
}
