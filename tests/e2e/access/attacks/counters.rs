//! What a client can count: it must not tell whether what it asked about is there.

use super::super::host::{Host, SMALL, WAYS, Way, usual_access};
use crate::support::caller::Caller;
use crate::support::tenants::{ACME, Driver, GLOBEX, NOBODY, Tenant};
use crate::support::value::Value;

/// The id of the refusal of a call that acme may not make of its own domain.
fn refusal(client: &mut Caller, host: &Host, number: usize) -> String {
    let dom = ("dom", ACME.object("domain", number, host.dir()));
    let to = ("to", Value::from("/nonexistent/x"));
    let error = client.call("DOMAIN_CORE_DUMP", &[dom, to]).unwrap_err();
    let (_, id) = error.message.split_once("(refusal ").unwrap();
    id.trim_end_matches(')').to_owned()
}

/// By how much the ids of refusals have grown where between them a tenant's things were asked about.
/// `None` if they do not grow.
fn growth(host: &Host, way: Way, tenant: Tenant) -> Option<i64> {
    let mut client = host.caller("acme", way);
    let number = |id: &str| {
        let digits = id.rsplit(|char: char| !char.is_ascii_digit()).next()?;
        digits.parse::<i64>().ok()
    };
    let first = refusal(&mut client, host, 1);
    for number in 0..SMALL.domains {
        let uuid = ("uuid", Value::Uuid(tenant.uuid("domain", number)));
        client.call("DOMAIN_LOOKUP_BY_UUID", &[uuid]).unwrap_err();
        let dom = || ("dom", tenant.object("domain", number, host.dir()));
        client.call("DOMAIN_GET_STATE", &[dom()]).unwrap_err();
        client.call("DOMAIN_DESTROY", &[dom()]).unwrap_err();
    }
    let second = refusal(&mut client, host, 2);
    let stem = |id: &str| {
        id.trim_end_matches(|char: char| char.is_ascii_digit())
            .len()
    };
    // Where they are no numbers that follow each other, nothing can be counted.
    (first[..stem(&first)] == second[..stem(&second)] && stem(&first) > 0)
        .then(|| Some(number(&second)? - number(&first)?))?
}

#[test]
fn the_ids_of_refusals_do_not_tell_what_is_there() {
    let host = Host::with_access(Driver::Test, SMALL, |_| {
        usual_access() + "- who: acme\n  deny: domain:core_dump\n"
    });
    for way in WAYS {
        let [theirs, nobodys] = [GLOBEX, NOBODY].map(|tenant| growth(&host, way, tenant));
        assert_eq!(theirs, nobodys, "by {way:?}");
    }
}
