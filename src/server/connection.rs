//! One client connection, from accept to close.

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::Context;
use super::pump::Pump;
use super::transport::Transport;
use crate::policy::facts::ClientFacts;
use crate::policy::model::Listener;
use crate::session::{Auth, Session, Setup};

/// Serves one client until it leaves or the daemon drains. Runs as one task on a worker.
///
/// `conn` is non-blocking.
pub(crate) async fn serve(
    conn: UnixStream,
    facts: ClientFacts,
    listener: Arc<Listener>,
    ctx: Arc<Context>,
) {
    tracing::debug!(?facts, "client connected");
    let transport = match Transport::unix(conn) {
        Ok(transport) => transport,
        Err(error) => {
            tracing::error!(%error, "cannot watch the client's socket: closing");
            return;
        }
    };
    let setup = Setup {
        facts: Arc::new(facts),
        keepalive: listener.keepalive,
        descriptors: transport.carries_descriptors(),
        auth: Auth::None,
        auth_timeout: Duration::from_secs(60),
    };
    let session = Session::new(setup, Instant::now());
    Pump::new(transport, session, &ctx.policy, ctx.drain.begun()).await;
}
