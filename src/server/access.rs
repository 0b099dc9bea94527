//! Who may connect to a UNIX socket: the mode and group that the policy gives it.
//!
//! The kernel holds clients to it where the socket file is ours. The file of an inherited socket has
//! the permissions of its systemd unit, perhaps wider ones; there the policy's are held here, against
//! the credentials of each client.

use crate::policy::facts::UnixFacts;

/// Permission bits and group of a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Access {
    /// Permission bits.
    pub(crate) mode: u32,
    /// Group id; `None` is the process's own.
    pub(crate) gid: Option<u32>,
}

/// Connecting takes the right to write.
const OWNER: u32 = 0o200;
const GROUP: u32 = 0o020;
const OTHERS: u32 = 0o002;

impl Access {
    /// Whether a socket file with these permissions, owned by this process, would let the client
    /// connect.
    pub(crate) fn admits(self, client: &UnixFacts) -> bool {
        let (owner, group) = (
            rustix::process::geteuid().as_raw(),
            rustix::process::getegid().as_raw(),
        );
        self.admits_to_file_of(owner, self.gid.unwrap_or(group), client)
    }

    fn admits_to_file_of(self, owner: u32, group: u32, client: &UnixFacts) -> bool {
        let has = |bit| self.mode & bit != 0;
        if client.uid == 0 {
            true
        } else if client.uid == owner {
            has(OWNER)
        } else if client.gid == group || client.groups.contains(&group) {
            has(GROUP)
        } else if client.unproven {
            // It may be in the group or not.
            has(GROUP) && has(OTHERS)
        } else {
            has(OTHERS)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admits(mode: u32, client: &UnixFacts) -> bool {
        let access = Access {
            mode,
            gid: Some(50),
        };
        access.admits_to_file_of(7, 50, client)
    }

    #[test]
    fn is_what_the_kernel_would_say_of_a_file() {
        let client = |uid, gid, groups: &[u32]| UnixFacts {
            uid,
            gid,
            groups: groups.to_vec(),
            ..UnixFacts::default()
        };
        let root = client(0, 0, &[]);
        let owner = client(7, 8, &[50]);
        let by_gid = client(9, 50, &[]);
        let by_groups = client(9, 9, &[1, 50]);
        let other = client(9, 9, &[1]);
        let gone = UnixFacts {
            unproven: true,
            ..client(9, 9, &[])
        };
        for (mode, expected) in [
            (0o000, [true, false, false, false, false, false]),
            (0o600, [true, true, false, false, false, false]),
            (0o660, [true, true, true, true, false, false]),
            (0o666, [true, true, true, true, true, true]),
            (0o606, [true, true, false, false, true, false]),
            (0o066, [true, false, true, true, true, true]),
            // The right to read alone does not connect.
            (0o444, [true, false, false, false, false, false]),
        ] {
            let clients = [&root, &owner, &by_gid, &by_groups, &other, &gone];
            assert_eq!(
                clients.map(|client| admits(mode, client)),
                expected,
                "{mode:o}"
            );
        }
    }
}
