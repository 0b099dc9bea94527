//! What is forwarded of a client to its daemon (`CONNECT_SET_IDENTITY`), under libvirt's names.

use crate::policy::facts::{ClientFacts, UnixFacts};
use crate::protocol::args::ParamValue;

/// The client's identity; each part only where it is known.
pub(super) fn params(facts: &ClientFacts) -> Vec<(&'static str, ParamValue<'_>)> {
    let mut params = Vec::new();
    if let Some(unix) = &facts.unix {
        unix_params(unix, &mut params);
    }
    if let Some(sasl) = &facts.sasl {
        params.push((
            "sasl-user-name",
            ParamValue::Text(sasl.user.as_str().into()),
        ));
    }
    if let Some(x509) = &facts.x509 {
        // In the order that the daemons' own access rules are written for.
        let dn = x509.libvirt_dn();
        params.push(("x509-distinguished-name", ParamValue::Text(dn.into())));
    }
    params
}

fn unix_params<'a>(unix: &'a UnixFacts, params: &mut Vec<(&'static str, ParamValue<'a>)>) {
    let text = |name, value: &'a Option<String>| {
        value
            .as_deref()
            .map(|value| (name, ParamValue::Text(value.into())))
    };
    params.extend(text("user-name", &unix.user));
    params.push(("unix-user-id", ParamValue::U64(unix.uid.into())));
    params.extend(text("group-name", &unix.group));
    params.push(("unix-group-id", ParamValue::U64(unix.gid.into())));
    // The two only together: a pid without its start time may by now be somebody else's.
    if let (1.., Some(start)) = (unix.pid, unix.start_time) {
        params.push(("process-id", ParamValue::I64(unix.pid.into())));
        params.push(("process-time", ParamValue::U64(start)));
    }
    params.extend(text("selinux-context", &unix.selinux));
}
