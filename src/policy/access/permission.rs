//! libvirt's permissions, and sets of them.

use std::fmt;
use std::ops::BitOr;
use std::sync::LazyLock;

use crate::protocol::object::Class;
use crate::protocol::table;

/// One of libvirt's permissions: what is done to an object of some class, such as `domain:start`.
/// All that procedures need, which are all that libvirt documents.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Permission(u8);

impl Permission {
    /// How many there are.
    pub const COUNT: usize = TABLE.len();

    /// The permission of that class and action, the latter with `_` between words.
    #[must_use]
    pub fn find(class: Class, action: &str) -> Option<Self> {
        Self::all().find(|known| known.class() == class && known.action() == action)
    }

    /// The permission that a rule of the procedure table names.
    #[must_use]
    pub fn of(rule: &table::Rule) -> Option<Self> {
        Self::find(Class::from_name(rule.object)?, rule.action)
    }

    /// The permission to know that an object of that class is there at all.
    #[must_use]
    pub fn getattr(class: Class) -> Self {
        static BY_CLASS: LazyLock<Vec<Permission>> = LazyLock::new(|| {
            let all = Permission::all();
            all.filter(|it| it.action() == "getattr").collect()
        });
        // Classes are in one order here and there, and each has it (held by a test).
        let of_class = BY_CLASS.get(class as usize);
        of_class.copied().unwrap_or(Self(0))
    }

    /// All permissions, by class and action.
    pub fn all() -> impl Iterator<Item = Self> + Clone {
        (0..TABLE.len()).filter_map(|place| Some(Self(u8::try_from(place).ok()?)))
    }

    /// The class of objects that it is about.
    #[must_use]
    pub fn class(self) -> Class {
        self.row().0
    }

    /// What is done to them, with `_` between words.
    #[must_use]
    pub fn action(self) -> &'static str {
        self.row().1
    }

    /// Whether libvirt's own polkit rules give it to everyone on the read-only socket.
    #[must_use]
    pub fn is_anonymous(self) -> bool {
        self.row().2
    }

    /// Its place among all.
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }

    fn row(self) -> &'static (Class, &'static str, bool) {
        // Only made from places of the table.
        TABLE.get(self.index()).unwrap_or(&TABLE[0])
    }
}

/// `domain:start`
impl fmt::Display for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.class().name(), self.action())
    }
}

impl fmt::Debug for Permission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A set of permissions.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Default)]
pub struct PermissionSet([u64; WORDS]);

const WORDS: usize = Permission::COUNT.div_ceil(64);

impl PermissionSet {
    /// None.
    pub const EMPTY: Self = Self([0; WORDS]);

    /// Every permission.
    #[must_use]
    pub fn all() -> Self {
        Permission::all().collect()
    }

    /// Whether `permission` is in it.
    #[must_use]
    pub fn contains(&self, permission: Permission) -> bool {
        let (word, bit) = (permission.index() / 64, permission.index() % 64);
        self.0.get(word).is_some_and(|word| word >> bit & 1 == 1)
    }

    /// Adds one.
    pub fn insert(&mut self, permission: Permission) {
        let (word, bit) = (permission.index() / 64, permission.index() % 64);
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << bit;
        }
    }

    /// Whether nothing is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }

    /// Whether all of `other` is in it.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        *self | *other == *self
    }

    /// Whether something of `other` is in it.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        self.0
            .iter()
            .zip(&other.0)
            .any(|(one, other)| one & other != 0)
    }

    /// What is in it, by class and action.
    pub fn iter(&self) -> impl Iterator<Item = Permission> + use<> {
        let mut words = self.0;
        std::iter::from_fn(move || {
            let (place, word) = words.iter_mut().enumerate().find(|(_, word)| **word != 0)?;
            let bit = usize::try_from(word.trailing_zeros()).ok()?;
            *word &= *word - 1;
            Some(Permission(u8::try_from(place * 64 + bit).ok()?))
        })
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(mut self, other: &Self) -> Self {
        for (word, other) in self.0.iter_mut().zip(&other.0) {
            *word &= other;
        }
        self
    }
}

impl BitOr for PermissionSet {
    type Output = Self;

    fn bitor(mut self, other: Self) -> Self {
        for (word, other) in self.0.iter_mut().zip(other.0) {
            *word |= other;
        }
        self
    }
}

impl FromIterator<Permission> for PermissionSet {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        let mut set = Self::EMPTY;
        for permission in permissions {
            set.insert(permission);
        }
        set
    }
}

impl fmt::Debug for PermissionSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

use Class::{
    Connect, Domain, Interface, Network, NetworkPort, NodeDevice, Nwfilter, NwfilterBinding,
    Secret, StoragePool, StorageVol,
};

/// Class, action, and whether libvirt's polkit rules give it to everyone (`@anonymous` in its
/// sources, `allow_any` in `org.libvirt.api.policy`).
const TABLE: [(Class, &str, bool); 106] = [
    (Connect, "detect_storage_pools", false),
    (Connect, "getattr", true),
    (Connect, "interface_transaction", false),
    (Connect, "pm_control", false),
    (Connect, "read", true),
    (Connect, "search_domains", true),
    (Connect, "search_interfaces", true),
    (Connect, "search_networks", true),
    (Connect, "search_node_devices", true),
    (Connect, "search_nwfilter_bindings", true),
    (Connect, "search_nwfilters", true),
    (Connect, "search_secrets", true),
    (Connect, "search_storage_pools", true),
    (Connect, "write", false),
    (Domain, "block_read", false),
    (Domain, "block_write", false),
    (Domain, "checkpoint", false),
    (Domain, "core_dump", false),
    (Domain, "delete", false),
    (Domain, "fs_freeze", false),
    (Domain, "fs_trim", false),
    (Domain, "getattr", true),
    (Domain, "hibernate", false),
    (Domain, "init_control", false),
    (Domain, "inject_nmi", false),
    (Domain, "mem_read", false),
    (Domain, "migrate", false),
    (Domain, "open_device", false),
    (Domain, "open_graphics", false),
    (Domain, "open_namespace", false),
    (Domain, "pm_control", false),
    (Domain, "read", true),
    (Domain, "read_secure", false),
    (Domain, "reset", false),
    (Domain, "save", false),
    (Domain, "screenshot", false),
    (Domain, "send_input", false),
    (Domain, "send_signal", false),
    (Domain, "set_password", false),
    (Domain, "set_time", false),
    (Domain, "snapshot", false),
    (Domain, "start", false),
    (Domain, "stop", false),
    (Domain, "suspend", false),
    (Domain, "write", false),
    (Interface, "delete", false),
    (Interface, "getattr", true),
    (Interface, "read", true),
    (Interface, "save", false),
    (Interface, "start", false),
    (Interface, "stop", false),
    (Interface, "write", false),
    (Network, "delete", false),
    (Network, "getattr", true),
    (Network, "read", true),
    (Network, "save", false),
    (Network, "search_ports", false),
    (Network, "start", false),
    (Network, "stop", false),
    (Network, "write", false),
    (NetworkPort, "create", false),
    (NetworkPort, "delete", false),
    (NetworkPort, "getattr", true),
    (NetworkPort, "read", true),
    (NetworkPort, "write", false),
    (NodeDevice, "delete", false),
    (NodeDevice, "detach", false),
    (NodeDevice, "getattr", true),
    (NodeDevice, "read", false),
    (NodeDevice, "save", false),
    (NodeDevice, "start", false),
    (NodeDevice, "stop", false),
    (NodeDevice, "write", false),
    (Nwfilter, "delete", false),
    (Nwfilter, "getattr", true),
    (Nwfilter, "read", true),
    (Nwfilter, "save", false),
    (Nwfilter, "write", false),
    (NwfilterBinding, "create", false),
    (NwfilterBinding, "delete", false),
    (NwfilterBinding, "getattr", true),
    (NwfilterBinding, "read", true),
    (Secret, "delete", false),
    (Secret, "getattr", true),
    (Secret, "read", true),
    (Secret, "read_secure", false),
    (Secret, "save", false),
    (Secret, "write", false),
    (StoragePool, "delete", false),
    (StoragePool, "format", false),
    (StoragePool, "getattr", true),
    (StoragePool, "read", true),
    (StoragePool, "refresh", false),
    (StoragePool, "save", false),
    (StoragePool, "search_storage_vols", false),
    (StoragePool, "start", false),
    (StoragePool, "stop", false),
    (StoragePool, "write", false),
    (StorageVol, "create", false),
    (StorageVol, "data_read", false),
    (StorageVol, "data_write", false),
    (StorageVol, "delete", false),
    (StorageVol, "format", false),
    (StorageVol, "getattr", true),
    (StorageVol, "read", true),
    (StorageVol, "resize", false),
];

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;
    use crate::protocol::header::Program;

    #[test]
    fn every_procedure_needs_known_permissions_and_every_permission_is_needed() {
        let mut needed = PermissionSet::EMPTY;
        for program in [Program::REMOTE, Program::QEMU, Program::LXC] {
            for row in table::rows(program) {
                for rule in row.acl.iter().chain(&row.filter) {
                    needed.insert(Permission::of(rule).unwrap());
                }
            }
        }
        assert_eq!(needed, PermissionSet::all());
    }

    #[test]
    fn each_permission_is_found_by_its_name() {
        for permission in Permission::all() {
            let (class, action) = (permission.class(), permission.action());
            assert_eq!(Permission::find(class, action), Some(permission));
            assert_eq!(permission.to_string(), format!("{}:{action}", class.name()));
        }
        assert_eq!(Permission::all().count(), 106);
        assert_eq!(Permission::find(Class::Connect, "start"), None);
    }

    #[test]
    fn every_class_can_be_seen() {
        for class in Class::ALL {
            let expected = Permission::find(class, "getattr").unwrap();
            assert_eq!(Permission::getattr(class), expected);
        }
    }

    #[test]
    fn sets_are_sets() {
        let start = Permission::find(Class::Domain, "start").unwrap();
        let last = Permission::all().last().unwrap();
        let mut set = PermissionSet::EMPTY;
        assert!(set.is_empty() && PermissionSet::all().covers(&set));
        set.insert(start);
        set.insert(last);
        assert_eq!(set.iter().collect::<Vec<_>>(), [start, last]);
        assert!(!set.covers(&PermissionSet::all()) && set.meets(&PermissionSet::all()));
        assert!(!set.meets(&PermissionSet::EMPTY));
        assert_eq!(set, [start].into_iter().collect::<PermissionSet>() | set);
    }

    /// The file that libvirt installs for polkit says what everyone may do.
    #[test]
    fn anonymous_permissions_are_those_of_libvirts_own_polkit_actions() {
        let Ok(text) =
            std::fs::read_to_string("/usr/share/polkit-1/actions/org.libvirt.api.policy")
        else {
            return;
        };
        let mut seen = 0;
        for action in text.split("<action id=\"org.libvirt.api.").skip(1) {
            let (id, rest) = action.split_once('"').unwrap();
            let (class, action) = id.split_once('.').unwrap();
            let class = Class::from_name(&class.replace('-', "_")).unwrap();
            let permission = Permission::find(class, &action.replace('-', "_")).unwrap();
            let (rest, _) = rest.split_once("</action>").unwrap();
            assert_eq!(
                permission.is_anonymous(),
                rest.contains("<allow_any>yes"),
                "{id}"
            );
            seen += 1;
        }
        assert!(seen > 100, "{seen}");
    }
}
