//! One client connection, from accept to close.

use std::os::unix::net::UnixStream;
use std::sync::Arc;

use tokio::io::AsyncReadExt;

use super::context::Context;
use crate::policy::facts::ClientFacts;
use crate::policy::model::Listener;

/// Serves one client until it leaves or the daemon drains. Runs as one task on a worker.
///
/// `conn` is non-blocking.
pub(crate) async fn serve(
    conn: UnixStream,
    facts: ClientFacts,
    listener: Arc<Listener>,
    ctx: Arc<Context>,
) {
    tracing::debug!(?facts, listener = &*listener.name, "client connected");
    let Ok(mut conn) = tokio::net::UnixStream::from_std(conn) else {
        return;
    };
    let mut buffer = [0; 4096];
    let read = async { while !matches!(conn.read(&mut buffer).await, Ok(0) | Err(_)) {} };
    tokio::select! {
        () = read => {}
        () = ctx.drain.begun() => {}
    }
}
