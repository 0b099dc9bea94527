//! Finds every door: the files in libvirt's directories, what the kernel says listens, and what the
//! policy names.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use virtproxyd::policy::model::{Address, ListenAddress, Policy};
use virtproxyd::server;

use super::door::{Door, Listening, Role};
use super::kernel::{self, Kernel};
use super::place::{self, Kind, Place};
use super::reach::{self, Reach};

/// The system's directories; users' own are in `/run/user`.
const DIRECTORIES: [&str; 2] = ["/run/libvirt", "/var/run/libvirt"];

/// What was found, and what could not be looked at.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) doors: Vec<Door>,
    pub(super) unseen: Vec<String>,
}

/// Looks at the system below `root`.
pub(super) fn scan(root: &Path, kernel: &Kernel, policy: &Policy) -> Found {
    let mut unseen = Vec::new();
    let own = of_policy(root, policy);
    let mut places = files(root, &mut unseen);
    places.extend(own.iter().map(|(place, _)| place.clone()));
    places.extend(kernel.places().filter_map(|it| listening(root, kernel, it)));
    let doors = places.into_iter().filter_map(|place| {
        let holders = listeners(root, kernel, &place);
        let role = role(policy, &own, &place);
        match door(root, role, place, holders) {
            Ok(door) => door,
            Err(problem) => {
                unseen.push(problem);
                None
            }
        }
    });
    let doors = doors.collect();
    Found { doors, unseen }
}

/// Sockets in libvirt's directories and those directly below, such as `/run/libvirt/driver`.
fn files(root: &Path, unseen: &mut Vec<String>) -> BTreeSet<Place> {
    let mut found = BTreeSet::new();
    for directory in directories(root) {
        let Some(entries) = read_dir(root, &directory, unseen) else {
            continue;
        };
        for (path, kind) in entries {
            if kind.is_dir() {
                let below = read_dir(root, &path, unseen);
                found.extend(below.into_iter().flatten().filter_map(socket));
            } else {
                found.extend(socket((path, kind)));
            }
        }
    }
    found
}

fn directories(root: &Path) -> BTreeSet<PathBuf> {
    let mut found: BTreeSet<PathBuf> = DIRECTORIES
        .iter()
        .filter_map(|directory| place::real(root, Path::new(directory)))
        .collect();
    let users = fs::read_dir(place::below(root, Path::new("/run/user")));
    for user in users.into_iter().flatten().flatten() {
        found.insert(
            Path::new("/run/user")
                .join(user.file_name())
                .join("libvirt"),
        );
    }
    if root == Path::new("/") {
        found.extend(server::runtime_parent().map(|parent| parent.join("libvirt")));
    }
    found
}

/// A directory that is closed to us and to everybody but root leads nobody past the proxy; of
/// another one it is not known.
fn read_dir(
    root: &Path,
    directory: &Path,
    unseen: &mut Vec<String>,
) -> Option<Vec<(PathBuf, fs::FileType)>> {
    let entries = fs::read_dir(place::below(root, directory)).and_then(|entries| {
        let entries = entries.map(|entry| {
            let entry = entry?;
            Ok((directory.join(entry.file_name()), entry.file_type()?))
        });
        entries.collect::<io::Result<Vec<_>>>()
    });
    let error = match entries {
        Ok(entries) => return Some(entries),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => error,
    };
    let (steps, _) = reach::steps(root, directory);
    if !Reach::through(&steps).is_closed_to_all_but(0) {
        unseen.push(format!("{}: {error}", directory.display()));
    }
    None
}

fn socket((path, kind): (PathBuf, fs::FileType)) -> Option<Place> {
    let name = path.file_name()?.to_string_lossy();
    let is_libvirts = kind.is_socket() && name.contains("-sock");
    is_libvirts.then_some(Place::File(path))
}

/// The UNIX sockets that the policy listens on and connects to, and what for. One that is both is a
/// listener's, which come first.
fn of_policy(root: &Path, policy: &Policy) -> Vec<(Place, Role)> {
    let mut own = Vec::new();
    let mut file = |path: &Path, role| {
        own.push((Place::File(place::real_or_same(root, path)), role));
    };
    for listener in &policy.listeners {
        if let ListenAddress::Unix { path, .. } = &listener.address {
            file(path, Role::Listener(listener.name.to_string()));
        }
    }
    for upstream in &policy.upstreams {
        for address in &upstream.addresses {
            if let Address::Unix { path, readonly } = address {
                for path in [Some(path), readonly.as_ref()].into_iter().flatten() {
                    file(path, Role::Upstream(upstream.name.to_string()));
                }
            }
        }
    }
    own
}

/// What a place is to the policy, with the UNIX sockets of [`of_policy`].
fn role(policy: &Policy, own: &[(Place, Role)], place: &Place) -> Option<Role> {
    if let Place::Tcp(address) = place {
        let mut listeners = policy.listeners.iter();
        let listener = listeners.find(|it| it.address.is_at(*address))?;
        return Some(Role::Listener(listener.name.to_string()));
    }
    let found = own.iter().find(|(its, _)| its == place);
    found.map(|(_, role)| role.clone())
}

/// A place where somebody listens, if it looks like one of libvirt's.
fn listening(root: &Path, kernel: &Kernel, place: &Place) -> Option<Place> {
    match place {
        Place::File(path) => {
            place::named(path)?;
            Some(Place::File(place::real_or_same(root, path)))
        }
        Place::Abstract(name) => place::named(Path::new(name)).map(|_| place.clone()),
        Place::Tcp(address) => {
            let holders = kernel.holders(place).unwrap_or_default();
            kernel::is_port_of_libvirt(address, &holders).then(|| place.clone())
        }
    }
}

/// A socket may be listed by another name than it is found by, or in another network's table. Then
/// it is asked itself. That starts nothing: what systemd listens on is listed.
fn listeners(root: &Path, kernel: &Kernel, place: &Place) -> Listening {
    let Some(holders) = kernel.holders(place) else {
        return match place {
            Place::File(path) if !accepts(&place::below(root, path)) => Listening::Nobody,
            _ => Listening::Unknown,
        };
    };
    if holders.is_empty() {
        return Listening::Unknown;
    }
    Listening::By(holders)
}

/// Whether somebody listens there; also where that cannot be told.
fn accepts(path: &Path) -> bool {
    let connected = || {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        connect(&socket, &SocketAddrUnix::new(path)?)
    };
    !matches!(connected(), Err(Errno::CONNREFUSED | Errno::NOENT))
}

/// `None`: there is no such file.
fn door(
    root: &Path,
    role: Option<Role>,
    place: Place,
    listening: Listening,
) -> Result<Option<Door>, String> {
    let mut steps = Vec::new();
    if let Place::File(path) = &place {
        let (found, problem) = reach::steps(root, path);
        match problem.map(|error| error.kind()) {
            None | Some(io::ErrorKind::PermissionDenied) => {}
            Some(io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            Some(kind) => return Err(format!("{place}: {kind}")),
        }
        steps = found;
    }
    let name = match &place {
        Place::File(path) => place::named(path),
        Place::Abstract(name) => place::named(Path::new(name)),
        Place::Tcp(_) => None,
    };
    let other = match place {
        Place::Tcp(_) => Kind::Tcp,
        Place::File(_) | Place::Abstract(_) => Kind::Other,
    };
    let (daemon, kind) = name.map_or((None, other), |(daemon, kind)| (Some(daemon), kind));
    Ok(Some(Door {
        place,
        daemon,
        kind,
        listening,
        steps,
        role,
    }))
}
