//! Records in the daemon's log, which under systemd is the journal.

use super::entry::{Client, Entry, Verdict};

/// Target of the records; they pass whatever filter the log has.
pub(crate) const TARGET: &str = "virtproxyd::audit";

/// The whole record, field by field. In the journal the fields have these names in capitals, with
/// `F_` before them.
pub(super) fn write(entry: &Entry) {
    let nobody = Client::default();
    let client = entry.client.as_deref().unwrap_or(&nobody);
    let identities = entry.identities.as_ref().map(|names| names.join(","));
    tracing::info!(
        target: TARGET,
        time = &*entry.time,
        verdict = entry.verdict.word(),
        id = entry.id.as_deref(),
        connection = entry.connection.as_deref(),
        identities = identities.as_deref(),
        user = client.user.as_deref(),
        uid = client.uid,
        gid = client.gid,
        pid = client.pid,
        sasl = client.sasl.as_deref(),
        dn = client.dn.as_deref(),
        address = client.address.as_deref(),
        listener = entry.listener.as_deref(),
        upstream = entry.upstream.as_deref(),
        procedure = entry.procedure.as_deref(),
        object = entry.object.as_deref(),
        permission = entry.permission.as_deref(),
        rule = entry.rule,
        cause = entry.cause.map(|cause| cause.word()),
        reason = entry.reason.as_deref(),
        generation = entry.generation,
        policy = entry.policy.as_deref(),
        count = entry.count,
        "{entry}"
    );
}

/// The least that must be said of a record where the policy wants it nowhere.
pub(super) fn mention(entry: &Entry) {
    if entry.verdict == Verdict::Allowed {
        return;
    }
    let identities = entry.identities.as_ref().map(|names| names.join(","));
    tracing::info!(id = entry.id.as_deref(), identities, "{entry}");
}
