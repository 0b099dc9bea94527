//! One client connection, from its handshake to its close.

use std::sync::Arc;
use std::time::Instant;

use nix::sys::socket::{getsockopt, sockopt};

use super::auth::authenticator::{Authenticator, Way};
use super::auth::certificates::CertificateId;
use super::auth::unauthenticated::Waiting;
use super::context::Context;
use super::pump::{Pump, Unproven};
use super::transport::{Channel, Transport};
use crate::policy::facts::ClientFacts;
use crate::policy::model::{self, Listener};
use crate::session::{Auth, Session, Setup};

/// A client that has arrived.
pub(crate) struct Client {
    transport: Transport,
    /// The certificates that it showed, its own first.
    chain: Vec<CertificateId>,
    session: Session,
    unproven: Option<Unproven>,
    listener: Arc<Listener>,
}

impl Client {
    /// A client about whom `facts` are known so far. `waiting` is its place among those that have
    /// not proven who they are. `None`, with a word in the log, if there is no means in force by
    /// which it could prove it, or nothing random to serve it with.
    pub(crate) fn new(
        channel: Channel,
        facts: ClientFacts,
        waiting: Option<Waiting>,
        listener: Arc<Listener>,
        ctx: &Context,
    ) -> Option<Self> {
        tracing::debug!(listener = &*listener.name, client = %facts, "client connected");
        let Ok(way) = way_to_prove(&channel, &facts, &listener, ctx) else {
            tracing::error!(
                listener = &*listener.name,
                "client refused: the listener has no way to authenticate in force"
            );
            return None;
        };
        let Some(seed) = ctx.audit.seed() else {
            tracing::error!("client refused: the system has no random numbers");
            return None;
        };
        let chain = channel.client_chain();
        let transport = Transport::new(channel);
        let authenticator = way.map(|way| Authenticator::new(way, transport.over()));
        let auth = authenticator
            .as_ref()
            .map_or(Auth::None, |authenticator| authenticator.auth(&facts));
        let unproven = authenticator.zip(waiting);
        let setup = Setup {
            facts: Arc::new(facts),
            keepalive: listener.keepalive,
            descriptors: transport.carries_descriptors(),
            auth,
            auth_timeout: listener.auth_timeout,
            seed,
            refusals: ctx.audit.name_connection(),
        };
        Some(Self {
            transport,
            chain,
            session: Session::new(setup, Instant::now()),
            unproven: unproven
                .map(|(authenticator, waiting)| Unproven::new(authenticator, waiting)),
            listener,
        })
    }

    /// Serves it until it leaves or the daemon drains. It is closed early when its certificate is
    /// revoked.
    pub(crate) async fn serve(mut self: Box<Self>, ctx: &Context) {
        let chain = std::mem::take(&mut self.chain);
        if chain.is_empty() {
            self.pump(ctx).await;
            return;
        }
        let listener = Arc::clone(&self.listener);
        let facts = Arc::clone(self.session.facts());
        let pump = self.pump(ctx);
        // In a box, so that it costs nothing where there is no certificate.
        Box::pin(until_revoked(pump, chain, &facts, &listener, ctx)).await;
    }

    /// In a box of its own, so that it is not held twice while it is made.
    fn pump(self, ctx: &Context) -> Box<Pump<'_>> {
        Box::new(Pump::new(self.transport, self.session, self.unproven, ctx))
    }
}

/// Serves a client with a certificate.
async fn until_revoked(
    pump: Box<Pump<'_>>,
    chain: Vec<CertificateId>,
    facts: &ClientFacts,
    listener: &Listener,
    ctx: &Context,
) {
    tokio::select! {
        () = pump => {}
        () = ctx.certificates.revoked(&chain) => {
            let dn = facts.x509.as_ref().map(|x509| &*x509.dn);
            tracing::warn!(
                dn,
                serial = chain.first().map(|own| &*own.serial),
                listener = &*listener.name,
                "client closed: its certificate is revoked, or its CA's"
            );
        }
    }
}

/// The listener wants a proof, and there is no means in force to check it by.
struct NoWay;

/// How this client has to prove who it is; `None` if its socket says all that is asked.
fn way_to_prove(
    channel: &Channel,
    facts: &ClientFacts,
    listener: &Listener,
    ctx: &Context,
) -> Result<Option<Way>, NoWay> {
    match (listener.auth, channel) {
        (model::Auth::None, _) => Ok(None),
        // As libvirt's daemon does: root could do all of it without us.
        (model::Auth::Polkit, Channel::Unix(_))
            if facts.unix.as_ref().is_some_and(|unix| unix.uid == 0) =>
        {
            Ok(None)
        }
        (model::Auth::Polkit, Channel::Unix(socket)) => Ok(Some(Way::Polkit {
            polkit: ctx.polkit.clone().within(listener.auth_timeout),
            pidfd: getsockopt(socket, sockopt::PeerPidfd).ok(),
        })),
        (model::Auth::Polkit, _) => Err(NoWay),
        (model::Auth::Sasl, _) => {
            let config = ctx.certificates.load().sasl(&listener.name);
            config.map(|config| Some(Way::Sasl(config))).ok_or(NoWay)
        }
    }
}
