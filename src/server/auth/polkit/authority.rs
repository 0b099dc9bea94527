//! polkit's interface on the system bus, `org.freedesktop.PolicyKit1.Authority`, and the one
//! connection on which all questions go.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::timeout;
use zbus::connection::Builder;
use zbus::{Connection, Fd, Message, Variant};

use super::Refused;
use crate::policy::facts::UnixFacts;

/// How long the bus may take to welcome us. It is a local process.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

const NAME: &str = "org.freedesktop.PolicyKit1";
const PATH: &str = "/org/freedesktop/PolicyKit1/Authority";
const INTERFACE: &str = "org.freedesktop.PolicyKit1.Authority";

/// `AllowUserInteraction`: agents may ask the user.
const ALLOW_INTERACTION: u32 = 1;

/// The action that a client of such a socket performs, by libvirt's name.
pub(super) const fn action(readonly: bool) -> &'static str {
    if readonly {
        "org.libvirt.unix.monitor"
    } else {
        "org.libvirt.unix.manage"
    }
}

/// What to ask: whether this process may do that.
#[derive(Debug)]
pub(super) struct Question {
    pid: u32,
    start_time: u64,
    uid: u32,
    pidfd: Option<OwnedFd>,
    action: &'static str,
}

impl Question {
    /// `None` if the process is not known well enough to be told from another one.
    pub(super) fn about(
        client: &UnixFacts,
        pidfd: Option<OwnedFd>,
        action: &'static str,
    ) -> Option<Self> {
        let pid = u32::try_from(client.pid).ok().filter(|pid| *pid != 0)?;
        // To polkit this uid means "find out yourself".
        let uid = Some(client.uid).filter(|uid| *uid != u32::MAX)?;
        Some(Self {
            pid,
            start_time: client.start_time?,
            uid,
            pidfd,
            action,
        })
    }

    pub(super) const fn uid(&self) -> u32 {
        self.uid
    }

    /// A `unix-process` subject. A polkit that does not know of pidfds reads the other keys.
    fn into_subject(self) -> (&'static str, HashMap<&'static str, Variant<'static>>) {
        let mut keys = HashMap::from([
            ("pid", Variant::from(self.pid)),
            ("start-time", Variant::from(self.start_time)),
            // Signed in polkit's interface; the bits are the same.
            ("uid", Variant::from(self.uid.cast_signed())),
        ]);
        if let Some(pidfd) = self.pidfd {
            keys.insert("pidfd", Variant::from(Fd::from(pidfd)));
        }
        ("unix-process", keys)
    }
}

/// Where polkit is found.
#[derive(Debug)]
pub(super) struct Authority {
    bus: Option<String>,
    connection: Mutex<Option<Connection>>,
    tickets: AtomicU64,
}

impl Authority {
    pub(super) fn new(bus: Option<String>) -> Self {
        Self {
            bus,
            connection: Mutex::new(None),
            tickets: AtomicU64::new(0),
        }
    }

    /// The connection to the bus, made now if there is none or the bus has closed it. When polkit
    /// itself restarts the connection stays good: its name leads to the new process.
    pub(super) async fn connection(&self) -> Result<Connection, Refused> {
        let mut slot = self.connection.lock().await;
        if let Some(connection) = &*slot
            && !connection.is_closed()
        {
            return Ok(connection.clone());
        }
        *slot = None;
        let builder = match self.bus.as_deref() {
            Some(address) => Builder::address(address),
            None => Builder::system(),
        };
        let connection = match timeout(CONNECT_DEADLINE, builder.build()).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                let reason = format!("cannot connect to the system bus: {error}");
                return Err(Refused::Unavailable(reason));
            }
            Err(_) => {
                let reason = "the system bus does not answer".to_owned();
                return Err(Refused::Unavailable(reason));
            }
        };
        *slot = Some(connection.clone());
        Ok(connection)
    }

    /// Uses this connection for no further question.
    pub(super) async fn abandon(&self, connection: &Connection) {
        let mut slot = self.connection.lock().await;
        if slot
            .as_ref()
            .is_some_and(|current| current.unique_name() == connection.unique_name())
        {
            *slot = None;
        }
    }

    #[cfg(test)]
    pub(super) async fn is_idle(&self) -> bool {
        self.connection.lock().await.is_none()
    }

    /// A name for one question, by which it can be taken back.
    pub(super) fn ticket(&self) -> String {
        let number = self.tickets.fetch_add(1, Ordering::Relaxed);
        format!("virtproxyd-{number}")
    }
}

/// Asks, and waits as long as polkit and the user's agent take. Once polled it must not be
/// dropped before it ends unless the connection is given up too: half a message may be out.
pub(super) async fn check(
    connection: &Connection,
    question: Question,
    ticket: &str,
) -> Result<(), Refused> {
    let action = question.action;
    let details = HashMap::<&str, &str>::new();
    let subject = question.into_subject();
    let body = (subject, action, details, ALLOW_INTERACTION, ticket);
    let reply = connection
        .call_method(
            Some(NAME),
            PATH,
            Some(INTERFACE),
            "CheckAuthorization",
            &body,
        )
        .await;
    let reply = reply.and_then(Verdict::read).map_err(|error| match error {
        // The bus' own errors (polkit is not there, has gone) are of the kind `FDO`.
        zbus::Error::MethodError(..) => Refused::Undecided(error.to_string()),
        _ => Refused::Unavailable(error.to_string()),
    })?;
    // In libvirt's order: a dismissed question is a challenge too.
    if reply.authorized {
        Ok(())
    } else if reply.dismissed {
        Err(Refused::Dismissed)
    } else if reply.challenge {
        Err(Refused::NoAgent(action))
    } else {
        Err(Refused::Denied)
    }
}

/// Takes a question back; its [`check`] then ends with an error.
pub(super) async fn cancel(connection: &Connection, ticket: &str) {
    let reply = connection
        .call_method(
            Some(NAME),
            PATH,
            Some(INTERFACE),
            "CancelCheckAuthorization",
            &ticket,
        )
        .await;
    if let Err(error) = reply {
        // It may have been answered in between.
        tracing::debug!(%error, ticket, "polkit: cannot take a question back");
    }
}

/// polkit's `AuthorizationResult`.
struct Verdict {
    authorized: bool,
    challenge: bool,
    dismissed: bool,
}

impl Verdict {
    fn read(reply: Message) -> zbus::Result<Self> {
        let body = reply.body();
        let ((authorized, challenge, details),): ((bool, bool, HashMap<String, String>),) =
            body.deserialize()?;
        let dismissed = details.get("polkit.dismissed").map(String::as_str) == Some("true");
        Ok(Self {
            authorized,
            challenge,
            dismissed,
        })
    }
}
