//! What is forwarded of a client to its daemon (`CONNECT_SET_IDENTITY`), under libvirt's names.

use crate::policy::facts::{ClientFacts, UnixFacts, X509Facts};
use crate::protocol::args::ParamValue;

/// The certificate's name as the daemons' access rules expect it.
pub(super) fn distinguished_name(facts: &ClientFacts) -> Option<String> {
    facts.x509.as_ref().map(X509Facts::libvirt_dn)
}

/// The client's identity; each part only where it is known. `dn` is its
/// [`distinguished_name`].
pub(super) fn params<'a>(
    facts: &'a ClientFacts,
    dn: Option<&'a str>,
) -> Vec<(&'static str, ParamValue<'a>)> {
    let mut params = Vec::new();
    if let Some(unix) = &facts.unix {
        unix_params(unix, &mut params);
    }
    if let Some(sasl) = &facts.sasl {
        params.push(("sasl-user-name", ParamValue::Text(&sasl.user)));
    }
    if let Some(dn) = dn {
        params.push(("x509-distinguished-name", ParamValue::Text(dn)));
    }
    params
}

fn unix_params<'a>(unix: &'a UnixFacts, params: &mut Vec<(&'static str, ParamValue<'a>)>) {
    let text = |name, value: &'a Option<String>| {
        value
            .as_deref()
            .map(|value| (name, ParamValue::Text(value)))
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Its own daemons name a peer from the country down to the person (`Peer DN is C=DE,…`).
    #[test]
    fn a_certificate_is_named_in_libvirts_order() {
        let x509 = X509Facts {
            dn: "CN=ci,OU=Ops,O=Acme,C=DE".into(),
            ..X509Facts::default()
        };
        let facts = ClientFacts {
            x509: Some(x509),
            ..ClientFacts::default()
        };
        let dn = distinguished_name(&facts);
        let named = ParamValue::Text("C=DE,O=Acme,OU=Ops,CN=ci");
        assert_eq!(
            params(&facts, dn.as_deref()),
            [("x509-distinguished-name", named)]
        );
    }
}
