//! One way to libvirt, and whether it goes past the proxy.

use serde::Serialize;

use super::kernel::{Holder, Program};
use super::place::{Kind, Place};
use super::reach::{Ids, Reach, Step};

/// A socket or port that is, or may be, one of libvirt's.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) place: Place,
    /// Daemon that its name tells.
    pub(super) daemon: Option<String>,
    pub(super) kind: Kind,
    pub(super) listening: Listening,
    /// From `/` to the socket's file, as far as could be looked at.
    pub(super) steps: Vec<Step>,
    pub(super) role: Option<Role>,
}

/// Who listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Listening {
    Nobody,
    /// Somebody does, and it is not known who.
    Unknown,
    By(Vec<Holder>),
}

/// What the policy has a socket for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Role {
    Listener(String),
    Upstream(String),
}

/// What comes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    /// Somebody else than root and the proxy can open it, and reaches libvirt without the proxy.
    Past,
    /// The same, to a daemon's settings alone.
    AdminOpen,
    /// A front door of the proxy.
    Proxy,
    /// A daemon behind the proxy, closed to others.
    Upstream,
    /// A daemon that no upstream of the policy names, closed to others.
    Closed,
    /// A daemon's settings, closed to others.
    Admin,
    /// A user's own daemon, which gives its user nothing new, closed to others.
    Session,
    /// A file that nobody listens on.
    Dead,
}

impl Verdict {
    pub(super) fn is_finding(self) -> bool {
        matches!(self, Self::Past | Self::AdminOpen)
    }
}

/// The proxy on this system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proxy {
    /// The user that it runs as.
    pub(super) uid: u32,
    /// It is running. Then it holds all its sockets, since systemd hands them over at the start.
    pub(super) is_running: bool,
}

impl Door {
    pub(super) fn reach(&self) -> Reach {
        match self.place {
            Place::File(_) => Reach::through(&self.steps),
            Place::Abstract(_) | Place::Tcp(_) => Reach::everybody(),
        }
    }

    pub(super) fn verdict(&self, proxy: Proxy) -> Verdict {
        if self.listening == Listening::Nobody {
            return Verdict::Dead;
        }
        if matches!(self.role, Some(Role::Listener(_))) && self.may_be(proxy) {
            return Verdict::Proxy;
        }
        let reach = self.reach();
        let is_upstream = matches!(self.role, Some(Role::Upstream(_)));
        if reach.is_closed_to_all_but(proxy.uid) {
            return match self.kind {
                Kind::Admin => Verdict::Admin,
                _ if is_upstream => Verdict::Upstream,
                _ => Verdict::Closed,
            };
        }
        let is_own = |user| reach.is_closed_to_all_but(user);
        if !is_upstream && self.user().is_some_and(is_own) {
            return Verdict::Session;
        }
        match self.kind {
            Kind::Admin => Verdict::AdminOpen,
            _ => Verdict::Past,
        }
    }

    /// Whether it is the proxy that listens, as far as is known.
    fn may_be(&self, proxy: Proxy) -> bool {
        let systemd = |holder: &Holder| holder.program == Program::Systemd;
        if self.is_held_by(Program::Proxy) {
            return !self.is_held_by(Program::Libvirt);
        }
        // Of no holder known too.
        self.holders().is_empty() || !proxy.is_running && self.holders().iter().all(systemd)
    }

    pub(super) fn is_held_by(&self, program: Program) -> bool {
        self.holders().iter().any(|it| it.program == program)
    }

    pub(super) fn holders(&self) -> &[Holder] {
        match &self.listening {
            Listening::By(holders) => holders,
            Listening::Nobody | Listening::Unknown => &[],
        }
    }

    /// The one user whose processes listen.
    fn user(&self) -> Option<u32> {
        let (first, others) = self.holders().split_first()?;
        let same = others.iter().all(|other| other.uid == first.uid);
        same.then_some(first.uid)
    }

    /// Who listens, in words.
    pub(super) fn holders_words(&self) -> String {
        match &self.listening {
            Listening::Nobody => "nobody".to_owned(),
            Listening::Unknown => "unknown".to_owned(),
            Listening::By(holders) => {
                let words: Vec<String> = holders.iter().map(Holder::words).collect();
                words.join(", ")
            }
        }
    }

    /// Who can open it, in words, and what decides that.
    pub(super) fn reach_words(&self, ids: Ids) -> String {
        let reach = self.reach().words(ids);
        match &self.place {
            Place::Tcp(address) if address.ip().is_loopback() => format!("{reach} on this host"),
            Place::Tcp(_) | Place::Abstract(_) => reach,
            Place::File(_) => {
                let own = self.steps.iter().filter(|step| step.socket);
                let own = own.map(|step| step.words(ids));
                let above = self.steps.iter().filter(|it| !it.socket && it.limits());
                let above = above.map(|it| format!("{} {}", it.path.display(), it.words(ids)));
                let modes: Vec<String> = own.chain(above).collect();
                format!("{reach} ({})", modes.join(", in "))
            }
        }
    }

    /// The verdict in words.
    pub(super) fn verdict_words(&self, verdict: Verdict) -> String {
        match (verdict, &self.role) {
            (Verdict::Proxy, Some(Role::Listener(name))) => format!("proxy, listener {name}"),
            (Verdict::Upstream, Some(Role::Upstream(name))) => format!("upstream {name}, closed"),
            (Verdict::Past, Some(Role::Listener(name))) => {
                format!("PAST THE PROXY, in the place of listener {name}")
            }
            (Verdict::Past, Some(Role::Upstream(name))) => {
                format!("PAST THE PROXY, to upstream {name}")
            }
            (Verdict::Past, None) => "PAST THE PROXY".to_owned(),
            (Verdict::AdminOpen, _) => "ADMIN, OPEN".to_owned(),
            (Verdict::Admin, _) => "admin".to_owned(),
            (Verdict::Session, _) => "a user's own".to_owned(),
            (Verdict::Dead, _) => "dead".to_owned(),
            (Verdict::Proxy | Verdict::Upstream | Verdict::Closed, _) => "closed".to_owned(),
        }
    }
}
