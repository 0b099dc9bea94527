//! Calls that are known to kill a daemon, refused whatever the policy says: one client's call must
//! not become every client's outage.
//!
//! | call | seen on |
//! |---|---|
//! | `DOMAIN_MIGRATE_PERFORM3` without `dconnuri` and `uri` | libvirtd 9.0.0, virtqemud 11.3 |
//! | `DOMAIN_MIGRATE_PERFORM3_PARAMS` without `dconnuri` and `migrate_uri` | libvirtd 9.0.0 |
//!
//! Both were seen with a scripted client, on domains that run and that do not. A migration that is
//! meant has one of the two: where the data go, or whom to ask where they go.

use crate::protocol::frame::Frame;
use crate::protocol::header::Program;
use crate::protocol::payload::Payload;
use crate::protocol::table::{self, remote};

/// The parameter that says where the data of a migration go.
const MIGRATE_URI: &str = "migrate_uri";

/// Whether this call is one of them. One that cannot be read is the daemon's to refuse.
pub(super) fn is_deadly(frame: &Frame<'_>) -> bool {
    let header = frame.header;
    let is_looked_at = header.program == Program::REMOTE
        && matches!(
            header.procedure,
            remote::DOMAIN_MIGRATE_PERFORM3 | remote::DOMAIN_MIGRATE_PERFORM3_PARAMS
        );
    if !is_looked_at {
        return false;
    }
    let row = table::lookup(header.program, header.procedure);
    let call = row.and_then(|row| Payload::read(row.args, frame.arguments()).ok());
    call.is_some_and(|call| {
        let asks_nobody = call.text("dconnuri").is_none();
        let goes_nowhere = call.text("uri").is_none()
            && !call.params("params").any(|(name, _)| name == MIGRATE_URI);
        asks_nobody && goes_nowhere
    })
}
