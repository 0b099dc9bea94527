//! Who can open a socket: those whom its own mode lets write, and every directory above it pass.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Component, Path, PathBuf};

use nix::unistd::{Gid, Group, Uid, User};
use rustix::fs::getxattr;
use serde::{Serialize, Serializer};

/// Where an access list is kept that grants more than the mode shows.
const ACCESS_LIST: &str = "system.posix_acl_access";

/// Those beside root that can open a socket; nobody in it is root alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reach(BTreeSet<Who>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Everybody,
    User(u32),
    /// Who is in all of them.
    Groups(BTreeSet<u32>),
}

impl Reach {
    pub(super) fn everybody() -> Self {
        Self([Who::Everybody].into())
    }

    /// The socket at the end of these steps. If the last of them could not be looked at, what is
    /// found so far is the most that it can be.
    pub(super) fn through(steps: &[Step]) -> Self {
        steps.iter().fold(Self::everybody(), |reach, step| {
            let let_in = step.lets_in();
            let pairs = reach
                .0
                .iter()
                .flat_map(|one| let_in.iter().map(move |other| (one, other)));
            Self(pairs.filter_map(|(one, other)| one.and(other)).collect())
        })
    }

    /// Whether nobody but root and this user can.
    pub(super) fn is_closed_to_all_but(&self, uid: u32) -> bool {
        self.0.iter().all(|who| *who == Who::User(uid))
    }

    pub(super) fn is_everybody(&self) -> bool {
        self.0.contains(&Who::Everybody)
    }

    pub(super) fn words(&self, ids: Ids) -> String {
        if self.0.is_empty() {
            return "root only".to_owned();
        }
        if self.is_everybody() {
            return "everybody".to_owned();
        }
        let words: Vec<String> = self.0.iter().map(|who| who.words(ids)).collect();
        words.join(", ")
    }
}

impl Who {
    /// Those who are both. A user may be in any group, so that a user and a group are the user.
    fn and(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Everybody, who) | (who, Self::Everybody) => Some(who.clone()),
            (Self::User(one), Self::User(other)) => (one == other).then_some(Self::User(*one)),
            (Self::User(user), Self::Groups(_)) | (Self::Groups(_), Self::User(user)) => {
                Some(Self::User(*user))
            }
            (Self::Groups(one), Self::Groups(other)) => Some(Self::Groups(one | other)),
        }
    }

    fn words(&self, ids: Ids) -> String {
        match self {
            Self::Everybody => "everybody".to_owned(),
            Self::User(uid) => format!("user {}", ids.user(*uid)),
            Self::Groups(gids) => {
                let names: Vec<String> = gids.iter().map(|gid| ids.group(*gid)).collect();
                format!("group {}", names.join(" and "))
            }
        }
    }
}

/// A directory on the way to a socket, or the socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Step {
    pub(super) path: PathBuf,
    pub(super) uid: u32,
    pub(super) gid: u32,
    #[serde(serialize_with = "octal")]
    pub(super) mode: u32,
    /// It has an access list, which is not read: it may let in anybody.
    pub(super) access_list: bool,
    pub(super) socket: bool,
}

impl Step {
    /// Whether it keeps anybody out.
    pub(super) fn limits(&self) -> bool {
        !self.lets_in().contains(&Who::Everybody)
    }

    /// `root:libvirt 0660`
    pub(super) fn words(&self, ids: Ids) -> String {
        let (user, group) = (ids.user(self.uid), ids.group(self.gid));
        let list = if self.access_list { "+" } else { "" };
        format!("{user}:{group} {:04o}{list}", self.mode)
    }

    /// Connecting asks for the right to write to the socket and to pass the directories. The group
    /// root is taken to have root alone in it.
    fn lets_in(&self) -> BTreeSet<Who> {
        let bit = if self.socket { 0o2 } else { 0o1 };
        if self.mode & bit != 0 || self.access_list {
            return [Who::Everybody].into();
        }
        let user = self.uid != 0 && self.mode & (bit << 6) != 0;
        let group = self.gid != 0 && self.mode & (bit << 3) != 0;
        let user = user.then_some(Who::User(self.uid));
        let group = group.then(|| Who::Groups([self.gid].into()));
        user.into_iter().chain(group).collect()
    }
}

/// Every step to a path in a system whose files are below `root`, from `/` on. It ends before the
/// first one that cannot be looked at, and says why.
pub(super) fn steps(root: &Path, path: &Path) -> (Vec<Step>, Option<io::Error>) {
    let mut steps = Vec::new();
    let mut shown = PathBuf::from("/");
    for part in path.components() {
        if let Component::Normal(name) = part {
            shown.push(name);
        }
        match step(&super::place::below(root, &shown), &shown) {
            Ok(step) => steps.push(step),
            Err(error) => return (steps, Some(error)),
        }
    }
    (steps, None)
}

fn step(file: &Path, shown: &Path) -> io::Result<Step> {
    let metadata = fs::metadata(file)?;
    Ok(Step {
        path: shown.to_path_buf(),
        uid: metadata.uid(),
        gid: metadata.gid(),
        mode: metadata.mode() & 0o7777,
        access_list: getxattr(file, ACCESS_LIST, &mut [0_u8; 0]).is_ok_and(|length| length > 0),
        socket: metadata.file_type().is_socket(),
    })
}

/// How ids are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ids {
    /// By the names of this system.
    Names,
    /// As numbers: another system's ids have other names.
    Numbers,
}

impl Ids {
    fn user(self, uid: u32) -> String {
        let known = || User::from_uid(Uid::from_raw(uid)).ok().flatten();
        self.show(uid, || Some(known()?.name))
    }

    fn group(self, gid: u32) -> String {
        let known = || Group::from_gid(Gid::from_raw(gid)).ok().flatten();
        self.show(gid, || Some(known()?.name))
    }

    fn show(self, id: u32, name: impl FnOnce() -> Option<String>) -> String {
        let name = match self {
            _ if id == 0 => Some("root".to_owned()),
            Self::Names => name(),
            Self::Numbers => None,
        };
        name.unwrap_or_else(|| id.to_string())
    }
}

fn octal<S: Serializer>(mode: &u32, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{mode:04o}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(mode: u32, uid: u32, gid: u32) -> Step {
        Step {
            path: PathBuf::new(),
            uid,
            gid,
            mode,
            access_list: false,
            socket: false,
        }
    }

    fn socket(mode: u32, uid: u32, gid: u32) -> Step {
        Step {
            socket: true,
            ..step(mode, uid, gid)
        }
    }

    #[test]
    fn a_socket_is_open_to_those_whom_every_step_lets_through() {
        let listed = Step {
            access_list: true,
            ..socket(0o600, 0, 0)
        };
        for (steps, expected) in [
            (vec![socket(0o666, 0, 0)], "everybody"),
            (vec![step(0o755, 0, 0), socket(0o666, 0, 0)], "everybody"),
            (vec![step(0o700, 0, 0), socket(0o666, 0, 0)], "root only"),
            // A directory that may be read and not passed.
            (vec![step(0o744, 0, 0), socket(0o666, 0, 0)], "root only"),
            // Reading a socket is nothing.
            (vec![socket(0o644, 7, 8)], "user 7"),
            (vec![socket(0o660, 0, 0)], "root only"),
            (vec![socket(0o660, 0, 8)], "group 8"),
            (vec![socket(0o660, 7, 8)], "user 7, group 8"),
            (vec![step(0o700, 7, 7), socket(0o660, 7, 8)], "user 7"),
            (vec![step(0o700, 7, 7), socket(0o600, 9, 9)], "root only"),
            (
                vec![step(0o750, 0, 8), socket(0o660, 0, 9)],
                "group 8 and 9",
            ),
            (vec![step(0o750, 0, 8), socket(0o666, 0, 0)], "group 8"),
            (vec![listed], "everybody"),
        ] {
            let reach = Reach::through(&steps);
            assert_eq!(reach.words(Ids::Numbers), expected, "{steps:?}");
        }
    }

    #[test]
    fn a_users_own_socket_is_closed_to_all_but_the_user() {
        let reach = Reach::through(&[socket(0o600, 7, 8)]);
        assert!(reach.is_closed_to_all_but(7) && !reach.is_closed_to_all_but(0));
        assert!(Reach::through(&[socket(0o600, 0, 0)]).is_closed_to_all_but(7));
        assert!(!Reach::through(&[socket(0o660, 7, 8)]).is_closed_to_all_but(7));
        assert_eq!(Ids::Names.user(0), "root");
        assert_eq!(Ids::Names.group(3_999_999_999), "3999999999");
    }
}
