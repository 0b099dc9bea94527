//! All listening sockets, and how a new policy changes them: staged first, then committed whole.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::{TcpListener, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::accept::{self, Served, Socket};
use super::access::Access;
use super::activation::{self, Bound, Inherited, Passed};
use super::context::Context;
use super::names;
use super::socket_file::{BindError, SocketFile};
use super::tcp_socket;
use super::workers::Workers;
use crate::policy::model::{ListenAddress, Listener, Policy};

/// Ids of the groups that the listeners of a policy name.
pub(crate) type GroupIds = HashMap<String, u32>;

/// The listening sockets.
#[derive(Debug)]
pub(crate) struct Listeners {
    ctx: Arc<Context>,
    workers: Arc<Workers>,
    open: Vec<Open>,
}

/// One listening socket and its accept task.
#[derive(Debug)]
struct Open {
    origin: Origin,
    serves: watch::Sender<Option<Served>>,
    /// It was logged that its clients are turned away.
    warned: bool,
    task: JoinHandle<()>,
}

#[derive(Debug)]
enum Origin {
    /// A UNIX socket that we made.
    File(SocketFile),
    /// A TCP socket that we made.
    Address(SocketAddr),
    /// A socket of systemd's.
    Inherited {
        name: String,
        bound: Bound,
        is_unix: bool,
    },
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => file.path().display().fmt(f),
            Self::Address(address) => address.fmt(f),
            Self::Inherited { bound, .. } => bound.fmt(f),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // The socket is closed when the runtime drops the task, which is after `origin`.
        self.task.abort();
    }
}

/// Everything that could fail of a change, done; [`Listeners::commit`] cannot fail.
#[derive(Debug)]
pub(crate) struct Stage {
    /// What each open socket is to serve.
    serves: Vec<Option<Served>>,
    added: Vec<(Socket, Origin, Arc<Listener>)>,
}

/// Looks up the groups that the listeners name. Blocks on the group database.
///
/// # Errors
/// A group does not exist, or the database could not be asked.
pub(crate) fn resolve_groups(policy: &Policy) -> Result<GroupIds, BindError> {
    let mut ids = GroupIds::new();
    for listener in &policy.listeners {
        let ListenAddress::Unix {
            path,
            group: Some(group),
            ..
        } = &listener.address
        else {
            continue;
        };
        let id = names::group_id(group).map_err(|source| BindError::Io {
            path: path.clone(),
            action: "look up its group",
            source,
        })?;
        let id = id.or_else(|| group.parse().ok());
        let id = id.ok_or_else(|| BindError::NoGroup {
            path: path.clone(),
            group: group.clone(),
        })?;
        ids.insert(group.clone(), id);
    }
    Ok(ids)
}

impl Stage {
    fn serve(&mut self, index: usize, listener: &Arc<Listener>, admits: Option<Access>) {
        if let Some(serves) = self.serves.get_mut(index) {
            *serves = Some(Served {
                listener: Arc::clone(listener),
                admits,
            });
        }
    }

    fn add(&mut self, socket: Socket, origin: Origin, listener: &Arc<Listener>) {
        self.added.push((socket, origin, Arc::clone(listener)));
    }
}

/// The permissions that the policy gives a listener's UNIX socket.
fn access(listener: &Listener, groups: &GroupIds) -> Option<Access> {
    match &listener.address {
        ListenAddress::Unix { mode, group, .. } => Some(Access {
            mode: *mode,
            gid: group.as_ref().and_then(|group| groups.get(group)).copied(),
        }),
        ListenAddress::Tcp { .. } => None,
    }
}

fn open_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::from_std(tcp_socket::open(address)?)
}

impl Listeners {
    /// Takes over the inherited sockets. The first commit tells what they serve; until then they
    /// turn clients away, so make it before the runtime runs anything else.
    ///
    /// # Errors
    /// The runtime refuses a socket.
    pub(crate) fn new(
        ctx: Arc<Context>,
        workers: Arc<Workers>,
        inherited: Vec<Inherited>,
    ) -> io::Result<Self> {
        let mut listeners = Self {
            ctx,
            workers,
            open: Vec::new(),
        };
        for Inherited {
            name,
            bound,
            socket,
        } in inherited
        {
            let (socket, is_unix) = match socket {
                Passed::Unix(socket) => (Socket::Unix(UnixListener::from_std(socket)?), true),
                Passed::Tcp(socket) => (Socket::Tcp(TcpListener::from_std(socket)?), false),
            };
            let origin = Origin::Inherited {
                name,
                bound,
                is_unix,
            };
            listeners.open(socket, origin, None);
        }
        Ok(listeners)
    }

    /// Makes everything ready for `policy`: new sockets are bound and listen, changed permissions
    /// are set.
    ///
    /// # Errors
    /// One of them fails; everything is then as before.
    pub(crate) fn stage(&mut self, policy: &Policy, groups: &GroupIds) -> Result<Stage, BindError> {
        let mut stage = Stage {
            serves: vec![None; self.open.len()],
            added: Vec::new(),
        };
        let mut changed: Vec<(usize, Access)> = Vec::new();
        for listener in &policy.listeners {
            let inherited = self.inherited_by(listener, &policy.listeners)?;
            let access = access(listener, groups);
            for index in &inherited {
                stage.serve(*index, listener, access);
            }
            if !inherited.is_empty() {
                continue;
            }
            match &listener.address {
                ListenAddress::Unix { path, .. } => {
                    let Some(access) = access else { continue };
                    let is_it = |origin: &Origin| matches!(origin, Origin::File(file) if file.path() == path);
                    if let Some(index) = self.position(is_it) {
                        changed.push((index, access));
                        stage.serve(index, listener, None);
                        continue;
                    }
                    let (socket, file) = SocketFile::bind(path, access)?;
                    let socket =
                        UnixListener::from_std(socket).map_err(|source| BindError::Io {
                            path: path.clone(),
                            action: "watch",
                            source,
                        })?;
                    stage.add(Socket::Unix(socket), Origin::File(file), listener);
                }
                ListenAddress::Tcp { addresses } => {
                    for address in addresses {
                        let is_it = |origin: &Origin| matches!(origin, Origin::Address(own) if own == address);
                        if let Some(index) = self.position(is_it) {
                            stage.serve(index, listener, None);
                            continue;
                        }
                        let socket = open_tcp(*address).map_err(|source| BindError::Tcp {
                            address: *address,
                            source,
                        })?;
                        stage.add(Socket::Tcp(socket), Origin::Address(*address), listener);
                    }
                }
            }
        }
        self.set_access(&changed)?;
        Ok(stage)
    }

    /// Puts a staged change in force. Own sockets that the policy no longer has are closed.
    pub(crate) fn commit(&mut self, stage: Stage) {
        let mut serves = stage.serves.into_iter();
        self.open.retain_mut(|open| {
            let next = serves.next().flatten();
            let used = next.is_some();
            open.serves.send_replace(next);
            match &open.origin {
                Origin::File(_) | Origin::Address(_) if !used => {
                    tracing::info!(at = %open.origin, "no longer listening");
                    false
                }
                Origin::Inherited { name, bound, .. } if !used && !open.warned => {
                    open.warned = true;
                    tracing::warn!(
                        name,
                        %bound,
                        "no listener of the policy matches this inherited socket; \
                         its clients are turned away"
                    );
                    true
                }
                _ => {
                    open.warned &= !used;
                    true
                }
            }
        });
        for (socket, origin, listener) in stage.added {
            tracing::info!(listener = &*listener.name, at = %origin, "listening");
            self.open(socket, origin, Some(listener));
        }
    }

    /// Stops accepting. Own sockets are closed and their files removed; inherited ones are closed
    /// on our side only, so that systemd keeps new clients for the next start.
    pub(crate) async fn close(&mut self) {
        for open in std::mem::take(&mut self.open) {
            let serves = open.serves.clone();
            drop(open);
            // The other end lives as long as the task, which owns the socket.
            serves.closed().await;
        }
    }

    /// How many listeners of the policy are served; one may have several sockets.
    pub(crate) fn serving(&self) -> usize {
        let served = self.open.iter().filter_map(|open| {
            let served = open.serves.borrow();
            served
                .as_ref()
                .map(|served| Arc::clone(&served.listener.name))
        });
        served.collect::<HashSet<_>>().len()
    }

    /// The inherited sockets that `listener` has; then it needs none of its own.
    fn inherited_by(
        &self,
        listener: &Arc<Listener>,
        all: &[Arc<Listener>],
    ) -> Result<Vec<usize>, BindError> {
        let mut found = Vec::new();
        for (index, open) in self.open.iter().enumerate() {
            let Origin::Inherited {
                name,
                bound,
                is_unix,
            } = &open.origin
            else {
                continue;
            };
            let owner = activation::matching(name, bound, all);
            if !owner.is_some_and(|owner| Arc::ptr_eq(owner, listener)) {
                continue;
            }
            let wants_unix = matches!(listener.address, ListenAddress::Unix { .. });
            if *is_unix != wants_unix {
                return Err(BindError::WrongKind {
                    listener: Arc::clone(&listener.name),
                    found: bound.to_string(),
                    wanted: if wants_unix {
                        "a UNIX socket"
                    } else {
                        "a TCP socket"
                    },
                });
            }
            found.push(index);
        }
        Ok(found)
    }

    fn position(&self, is_it: impl Fn(&Origin) -> bool) -> Option<usize> {
        self.open.iter().position(|open| is_it(&open.origin))
    }

    fn open(&mut self, socket: Socket, origin: Origin, listener: Option<Arc<Listener>>) {
        let served = listener.map(|listener| Served {
            listener,
            admits: None,
        });
        let (serves, receiver) = watch::channel(served);
        let task = tokio::spawn(accept::run(
            socket,
            receiver,
            Arc::clone(&self.ctx),
            Arc::clone(&self.workers),
        ));
        self.open.push(Open {
            origin,
            serves,
            warned: false,
            task,
        });
    }

    /// Sets the permissions of some own sockets, or of none.
    fn set_access(&mut self, changes: &[(usize, Access)]) -> Result<(), BindError> {
        let mut undo = Vec::new();
        for (index, access) in changes {
            let Some(Origin::File(file)) = self.open.get_mut(*index).map(|open| &mut open.origin)
            else {
                continue;
            };
            let before = file.access();
            match file.set_access(*access) {
                Ok(()) => undo.push((*index, before)),
                Err(error) => {
                    for (index, before) in undo {
                        if let Some(Origin::File(file)) =
                            self.open.get_mut(index).map(|open| &mut open.origin)
                            && let Err(error) = file.set_access(before)
                        {
                            tracing::error!(%error, "cannot restore the permissions of a socket");
                        }
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}
