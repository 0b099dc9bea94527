//! The users that daemons and clients run as.

use nix::unistd::{Group, Uid, User};

/// A user of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) name: String,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Supplementary groups in place of those that the user database gives it.
    pub(crate) groups: Vec<u32>,
}

impl Account {
    /// The user running the tests.
    pub(crate) fn current() -> Self {
        Self::from(
            User::from_uid(Uid::current())
                .unwrap()
                .expect("the current uid has a name"),
        )
    }

    /// The user called `name`.
    pub(crate) fn named(name: &str) -> Self {
        let user = User::from_name(name).unwrap();
        Self::from(user.unwrap_or_else(|| panic!("this machine has no user {name}")))
    }

    /// A user without privileges for the daemons: the current one, or `nobody` in place of root.
    pub(crate) fn unprivileged() -> Self {
        let current = Self::current();
        if current.is_root() {
            Self::named("nobody")
        } else {
            current
        }
    }

    /// The same user with the group called `name` as its only supplementary one.
    pub(crate) fn with_group(mut self, name: &str) -> Self {
        self.groups = vec![group_id(name)];
        self
    }

    /// The same user with the group called `name` as its primary one.
    pub(crate) fn with_primary_group(mut self, name: &str) -> Self {
        self.gid = group_id(name);
        self
    }

    pub(crate) fn is_root(&self) -> bool {
        self.uid == 0
    }
}

fn group_id(name: &str) -> u32 {
    let group = Group::from_name(name).unwrap();
    group
        .unwrap_or_else(|| panic!("this machine has no group {name}"))
        .gid
        .as_raw()
}

impl From<User> for Account {
    fn from(user: User) -> Self {
        Self {
            name: user.name,
            uid: user.uid.as_raw(),
            gid: user.gid.as_raw(),
            groups: Vec::new(),
        }
    }
}
