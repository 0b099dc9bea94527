//! One client connection, from accept to close.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::Context;
use super::pump::Pump;
use super::transport::{Channel, Transport};
use crate::policy::facts::{ClientFacts, X509Facts};
use crate::policy::model::Listener;
use crate::session::{Auth, Session, Setup};

/// Serves one client until it leaves or the daemon drains. Runs as one task on a worker.
///
/// It is closed early when its certificate is revoked.
pub(crate) async fn serve(
    channel: Channel,
    facts: ClientFacts,
    listener: Arc<Listener>,
    ctx: Arc<Context>,
) {
    tracing::debug!(?facts, "client connected");
    let transport = Transport::new(channel);
    let x509 = facts.x509.clone();
    let setup = Setup {
        facts: Arc::new(facts),
        keepalive: listener.keepalive,
        descriptors: transport.carries_descriptors(),
        auth: Auth::None,
        auth_timeout: Duration::from_secs(60),
    };
    let session = Session::new(setup, Instant::now());
    tokio::select! {
        () = Pump::new(transport, session, &ctx.policy, ctx.drain.begun()) => {}
        () = ctx.certificates.revoked(x509.as_ref()) => {
            let X509Facts { dn, serial, .. } = x509.unwrap_or_default();
            tracing::warn!(
                dn,
                serial,
                listener = &*listener.name,
                "client closed: its certificate is revoked"
            );
        }
    }
}
