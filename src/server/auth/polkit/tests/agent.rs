//! A polkit agent: what asks the user for a password, played for one client process.

use std::collections::HashMap;

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::timeout;
use zbus::connection::Builder;
use zbus::{Connection, DBusError, OwnedVariant, Variant, interface};

use super::host::{Client, PATIENCE};

const PATH: &str = "/test/Agent";

/// What it does when it is to ask the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reply {
    /// Vouches for the user, as its privileged half does after a right password.
    Authenticated,
    /// Ends without vouching for the user.
    WrongPassword,
    /// Says that the user closed the window.
    Dismissed,
    /// Waits for the user for ever.
    Never,
}

/// What polkit told it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// To ask about this action.
    Asked(String),
    /// Not to ask any longer.
    TakenBack,
}

/// A registered agent; gone when dropped.
pub(super) struct Agent {
    events: UnboundedReceiver<Event>,
    _connection: Connection,
}

impl Agent {
    pub(super) async fn start(bus: &str, client: &Client, reply: Reply) -> Self {
        let (sender, events) = unbounded_channel();
        let served = Served {
            reply,
            events: sender,
        };
        let connection = Builder::address(bus)
            .serve_at(PATH, served)
            .build()
            .await
            .unwrap();
        let facts = &client.facts;
        let subject = HashMap::from([
            ("pid", Variant::from(facts.pid.cast_unsigned())),
            ("start-time", Variant::from(facts.start_time.unwrap())),
            ("uid", Variant::from(facts.uid.cast_signed())),
        ]);
        let body = (("unix-process", subject), "C", PATH);
        authority(&connection, "RegisterAuthenticationAgent", &body)
            .await
            .unwrap();
        Self {
            events,
            _connection: connection,
        }
    }

    pub(super) async fn event(&mut self) -> Event {
        let event = timeout(PATIENCE, self.events.recv()).await;
        event.expect("polkit speaks to its agent").unwrap()
    }
}

async fn authority(
    connection: &Connection,
    method: &str,
    body: &(impl serde::Serialize + zbus::Type),
) -> zbus::Result<()> {
    connection
        .call_method(
            Some("org.freedesktop.PolicyKit1"),
            "/org/freedesktop/PolicyKit1/Authority",
            Some("org.freedesktop.PolicyKit1.Authority"),
            method,
            body,
        )
        .await
        .map(drop)
}

struct Served {
    reply: Reply,
    events: UnboundedSender<Event>,
}

#[derive(Debug, DBusError)]
#[zbus(prefix = "org.freedesktop.PolicyKit1.Error")]
enum Failure {
    #[zbus(error)]
    Bus(zbus::Error),
    Cancelled(String),
}

type Identity = (String, HashMap<String, OwnedVariant>);

#[interface(name = "org.freedesktop.PolicyKit1.AuthenticationAgent")]
impl Served {
    #[allow(clippy::too_many_arguments, reason = "polkit's interface has them")]
    async fn begin_authentication(
        &self,
        #[zbus(connection)] connection: &Connection,
        action_id: String,
        _message: String,
        _icon_name: String,
        _details: HashMap<String, String>,
        cookie: String,
        identities: Vec<Identity>,
    ) -> Result<(), Failure> {
        let _test_ended = self.events.send(Event::Asked(action_id));
        match self.reply {
            Reply::WrongPassword => Ok(()),
            Reply::Dismissed => Err(Failure::Cancelled("closed".into())),
            Reply::Never => std::future::pending().await,
            Reply::Authenticated => {
                let identity = identities.into_iter().next().unwrap();
                let body = (0u32, cookie, identity);
                authority(connection, "AuthenticationAgentResponse2", &body).await?;
                Ok(())
            }
        }
    }

    async fn cancel_authentication(&self, _cookie: String) {
        let _test_ended = self.events.send(Event::TakenBack);
    }
}
