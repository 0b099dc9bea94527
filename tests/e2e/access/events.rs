//! Each client hears of its own only, however it has registered.

use std::thread;

use super::host::{Host, SMALL, WAYS, Way};
use crate::support::caller::Caller;
use crate::support::table::{Procedure, procedures};
use crate::support::tenants::{ACME, Driver, GLOBEX, Tenant};
use crate::support::value::Value;
use crate::support::wait::eventually;
use crate::support::wire::Frame;

/// Events of domains there are up to this number.
const LAST_DOMAIN_EVENT: i64 = 25;

/// The event that a frame is.
fn event(frame: &Frame) -> &'static Procedure {
    procedures()
        .iter()
        .find(|row| (row.program, row.number) == (frame.program, frame.procedure))
        .unwrap()
}

/// What has come of events that begin with `name`.
fn come(client: &Caller, name: &str) -> Vec<String> {
    let events = client.events().iter();
    let named = events.filter(|frame| event(frame).name.starts_with(name));
    named
        .map(|frame| format!("{:?}", event(frame).event(&frame.body)))
        .collect()
}

/// Waits for an event of this name that is of `tenant`.
#[track_caller]
fn wait(client: &mut Caller, name: &str, tenant: Tenant) {
    client.wait_for_event(|frame| event(frame).name == name && tenant.is_in(&frame.body));
}

/// Registers in the way of old clients, one event of which there can be only once.
fn register_old(client: &mut Caller) {
    client.call("CONNECT_DOMAIN_EVENT_REGISTER", &[]).unwrap();
    for number in 1..=8 {
        let id = ("eventID", Value::Int(number));
        client
            .call("CONNECT_DOMAIN_EVENT_REGISTER_ANY", &[id])
            .unwrap();
    }
}

/// Registers for all that there is, and for domains, networks and pools of both tenants by name.
fn register_all(client: &mut Caller, host: &Host) {
    let id = |number| ("eventID", Value::Int(number));
    for number in 0..=LAST_DOMAIN_EVENT {
        client
            .call("CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY", &[id(number)])
            .unwrap();
    }
    for (procedure, last) in [
        ("CONNECT_NETWORK_EVENT_REGISTER_ANY", 0),
        ("CONNECT_STORAGE_POOL_EVENT_REGISTER_ANY", 1),
        ("CONNECT_NODE_DEVICE_EVENT_REGISTER_ANY", 1),
        ("CONNECT_SECRET_EVENT_REGISTER_ANY", 1),
    ] {
        for number in 0..=last {
            // The test driver has no secrets.
            if host.driver == Driver::Qemu || !procedure.contains("SECRET") {
                client.call(procedure, &[id(number)]).unwrap();
            }
        }
    }
    for tenant in [ACME, GLOBEX] {
        let of = |field, kind| (field, tenant.object(kind, 2, host.dir()));
        client
            .call(
                "CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY",
                &[id(0), of("dom", "domain")],
            )
            .unwrap();
        client
            .call(
                "CONNECT_NETWORK_EVENT_REGISTER_ANY",
                &[id(0), of("net", "network")],
            )
            .unwrap();
        client
            .call(
                "CONNECT_STORAGE_POOL_EVENT_REGISTER_ANY",
                &[id(0), of("pool", "storage_pool")],
            )
            .unwrap();
    }
}

/// Lets things happen to what a tenant has, of which the daemon tells.
fn happen(host: &Host, tenant: Tenant) {
    let mut root = host.root();
    let object = |kind, number| tenant.object(kind, number, host.dir());
    let xml = host.xml(tenant);
    let mut act = |procedure: &str, args: &[(&str, Value)]| {
        root.call(procedure, args).unwrap();
    };
    let dom = |number| ("dom", object("domain", number));
    let paused = Value::Int(i64::from(host.driver == Driver::Qemu));
    act("DOMAIN_CREATE_WITH_FLAGS", &[dom(2), ("flags", paused)]);
    if host.driver == Driver::Qemu {
        act("DOMAIN_RESUME", &[dom(2)]);
    }
    act("DOMAIN_SUSPEND", &[dom(2)]);
    act(
        "DOMAIN_SET_METADATA",
        &[
            dom(2),
            ("metadata", "<x/>".into()),
            ("type", Value::Int(2)),
            ("key", "x".into()),
            ("uri", "urn:x".into()),
        ],
    );
    act("DOMAIN_DESTROY", &[dom(2)]);
    act("DOMAIN_UNDEFINE", &[dom(5)]);
    act("DOMAIN_DEFINE_XML", &[("xml", xml.domain(5).into())]);
    let net = || ("net", object("network", 2));
    act("NETWORK_CREATE", &[net()]);
    act("NETWORK_DESTROY", &[net()]);
    act("NETWORK_UNDEFINE", &[net()]);
    act("NETWORK_DEFINE_XML", &[("xml", xml.network(2).into())]);
    let pool = || ("pool", object("storage_pool", 0));
    act("STORAGE_POOL_REFRESH", &[pool()]);
    act("STORAGE_POOL_DESTROY", &[pool()]);
    act("STORAGE_POOL_CREATE", &[pool()]);
    if host.driver == Driver::Qemu {
        let secret = || ("secret", object("secret", 2));
        let value = ("value", Value::Bytes(b"new".to_vec()));
        act("SECRET_SET_VALUE", &[secret(), value]);
        act("SECRET_UNDEFINE", &[secret()]);
        act("SECRET_DEFINE_XML", &[("xml", xml.secret(2).into())]);
    }
}

/// The events that tell of what happens, by the daemon's queue that they come through.
fn telling(driver: Driver) -> Vec<&'static str> {
    let mut events = vec![
        "DOMAIN_EVENT_CALLBACK_LIFECYCLE",
        "DOMAIN_EVENT_CALLBACK_METADATA_CHANGE",
        "NETWORK_EVENT_LIFECYCLE",
        "STORAGE_POOL_EVENT_LIFECYCLE",
        "STORAGE_POOL_EVENT_REFRESH",
    ];
    if driver == Driver::Qemu {
        events.extend(["SECRET_EVENT_LIFECYCLE", "SECRET_EVENT_VALUE_CHANGED"]);
    }
    events
}

fn each_hears_of_its_own(driver: Driver) {
    let host = Host::start(driver, SMALL);
    for way in WAYS {
        let [mut acme, mut old, mut monitor, mut operator] =
            ["acme", "acme", "monitor", "operator"].map(|identity| host.caller(identity, way));
        register_old(&mut old);
        register_all(&mut acme, &host);
        register_all(&mut monitor, &host);
        register_old(&mut operator);
        // In this order: once acme hears of its own, it would have heard of the other's.
        happen(&host, GLOBEX);
        happen(&host, ACME);
        for name in telling(driver) {
            wait(&mut acme, name, ACME);
            wait(&mut monitor, name, ACME);
            wait(&mut monitor, name, GLOBEX);
        }
        wait(&mut old, "DOMAIN_EVENT_LIFECYCLE", ACME);
        wait(&mut operator, "DOMAIN_EVENT_LIFECYCLE", ACME);
        wait(&mut operator, "DOMAIN_EVENT_LIFECYCLE", GLOBEX);
        for client in [&acme, &old] {
            for frame in client.events() {
                assert!(
                    !GLOBEX.is_in(&frame.body),
                    "{}: {frame:?}",
                    event(frame).name
                );
            }
        }
        // All of it, as the monitor has heard it: that has a callback for globex's domain besides.
        let of_acme = |client: &Caller| -> Vec<String> {
            let mut events = come(client, "DOMAIN_EVENT_CALLBACK_LIFECYCLE");
            events.retain(|event| event.contains("acme"));
            let without_callback = |event: String| event.split_once("Record").unwrap().1.to_owned();
            events.into_iter().map(without_callback).collect()
        };
        assert_eq!(of_acme(&acme), of_acme(&monitor));
        assert!(of_acme(&acme).len() >= 6, "{:?}", of_acme(&acme));
    }
}

#[test]
fn a_tenant_hears_nothing_of_another() {
    each_hears_of_its_own(Driver::Qemu);
}

#[test]
fn nor_where_the_driver_is_another() {
    each_hears_of_its_own(Driver::Test);
}

#[test]
fn registrations_are_the_clients_own_to_end() {
    let host = Host::start(Driver::Test, SMALL);
    for way in WAYS {
        let mut client = host.caller("acme", way);
        // Before it has registered for anything, there is nothing to end, whatever the number.
        for number in 0..16 {
            for procedure in [
                "CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY",
                "CONNECT_NETWORK_EVENT_DEREGISTER_ANY",
                "CONNECT_STORAGE_POOL_EVENT_DEREGISTER_ANY",
            ] {
                let callback = ("callbackID", Value::Int(number));
                client.call(procedure, &[callback]).unwrap_err();
            }
        }
        client
            .call("CONNECT_DOMAIN_EVENT_DEREGISTER", &[])
            .unwrap_err();
        let id = || ("eventID", Value::Int(0));
        let register = "CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY";
        let callback = client.call(register, &[id()]).unwrap();
        happen(&host, ACME);
        wait(&mut client, "DOMAIN_EVENT_CALLBACK_LIFECYCLE", ACME);
        let callback = || ("callbackID", callback[0].clone());
        let deregister = "CONNECT_DOMAIN_EVENT_CALLBACK_DEREGISTER_ANY";
        client.call(deregister, &[callback()]).unwrap();
        client.call(deregister, &[callback()]).unwrap_err();
        client.forget_events();
        // And again, which shows that nothing was left over.
        happen(&host, ACME);
        client
            .call("CONNECT_NETWORK_EVENT_REGISTER_ANY", &[id()])
            .unwrap();
        happen(&host, ACME);
        wait(&mut client, "NETWORK_EVENT_LIFECYCLE", ACME);
        assert_eq!(come(&client, "DOMAIN_EVENT"), Vec::<String>::new());
    }
}

/// Pairs of a name and a UUID are believed only while they are true.
#[test]
fn a_domain_that_becomes_anothers_is_gone_at_once() {
    let host = Host::start(Driver::Qemu, SMALL);
    for way in WAYS {
        let mut client = host.caller("acme", way);
        let dom = || ("dom", ACME.object("domain", 6, host.dir()));
        let state = |client: &mut Caller| client.call("DOMAIN_GET_STATE", &[dom()]);
        state(&mut client).unwrap();
        let rename = |dom: Value, name: &str| {
            let name = ("new_name", Value::from(name));
            host.root()
                .call("DOMAIN_RENAME", &[("dom", dom), name])
                .unwrap();
        };
        rename(dom().1, "globex-60");
        // The daemon may tell of it after it has answered.
        eventually("the renamed domain is gone", || state(&mut client).is_err());
        let error = state(&mut client).unwrap_err();
        assert_eq!(error.code, 42, "{error:?}");
        assert!(!error.message.contains("globex"), "{error:?}");
        let Value::Record(mut fields) = dom().1 else {
            panic!("a domain is a record");
        };
        fields[0] = "globex-60".into();
        rename(Value::Record(fields), "acme-6");
        eventually("it is there again", || state(&mut client).is_ok());
    }
}

/// Many clients at once, each of which gets its own while everything happens.
#[test]
fn many_clients_hear_each_their_own_at_once() {
    let host = Host::start(Driver::Test, SMALL);
    let mut clients: Vec<_> = (0..12)
        .map(|number| {
            let tenant = if number % 2 == 0 { ACME } else { GLOBEX };
            let way = if number % 4 < 2 { Way::Unix } else { Way::Tls };
            (tenant, host.caller(tenant.name, way))
        })
        .collect();
    for (_, client) in &mut clients {
        let id = ("eventID", Value::Int(0));
        let register = "CONNECT_DOMAIN_EVENT_CALLBACK_REGISTER_ANY";
        client.call(register, &[id]).unwrap();
    }
    for _ in 0..5 {
        happen(&host, GLOBEX);
        happen(&host, ACME);
    }
    thread::scope(|scope| {
        for (tenant, client) in &mut clients {
            scope.spawn(|| {
                wait(client, "DOMAIN_EVENT_CALLBACK_LIFECYCLE", *tenant);
                let other = if *tenant == ACME { GLOBEX } else { ACME };
                client.call("CONNECT_NUM_OF_DOMAINS", &[]).unwrap();
                for frame in client.events() {
                    assert!(!other.is_in(&frame.body), "{frame:?}");
                }
            });
        }
    });
}
