//! Leases of a network that several share.

use super::host::{Domain, Host, uuid};
use super::*;
use crate::policy;
use crate::protocol::object::Object;

fn under(rules: &str) -> Rig {
    let text = format!(
        "version: 1
listeners: {{ main: {{ unix: /run/sock }} }}
upstreams: {{ one: {{ unix: /run/one }} }}
routes: [{{ uri: '*', upstream: one }}]
access:
  - {{ who: '*', allow: ['*']{rules} }}
"
    );
    let policy = policy::load("f", &text, &|_| None).unwrap().policy;
    let mut rig = Rig::start();
    rig.router.access = Some(policy.access(&ClientFacts::default()));
    rig.open();
    rig
}

fn ask(serial: u32, need_results: i32) -> Msg {
    let header = Header::remote_call(remote::NETWORK_GET_DHCP_LEASES, Serial(serial));
    Msg::new(header, |writer| {
        Object::Network {
            name: "shared",
            uuid: uuid(1),
        }
        .encode(writer);
        writer.optional_string(None).i32(need_results).u32(0);
    })
}

/// A reply with leases of these addresses.
fn leases(call: &Msg, macs: &[Option<&str>]) -> Msg {
    let count = u32::try_from(macs.len()).unwrap();
    call.reply(|writer| {
        writer.u32(count);
        for mac in macs {
            writer.string("virbr0").i64(7).i32(0).optional_string(*mac);
            writer.optional_string(None).string("10.0.0.2").u32(24);
            writer.optional_string(Some("host")).optional_string(None);
        }
        writer.u32(count);
    })
}

fn host() -> Host {
    let domain = |name, number, mac| Domain {
        mac,
        ..Domain::off(name, number)
    };
    Host {
        domains: vec![
            domain("acme-1", 1, "52:54:00:00:00:0A"),
            domain("acme-2", 2, "52:54:00:00:00:0b"),
            domain("globex-1", 9, "52:54:00:00:00:0f"),
            // It has the address of another's.
            domain("acme-3", 3, "52:54:00:00:00:0F"),
        ],
        ..Host::default()
    }
}

const ALL: [Option<&str>; 5] = [
    Some("52:54:00:00:00:0a"),
    Some("52:54:00:00:00:0f"),
    None,
    Some("52:54:00:00:00:0B"),
    Some("52:54:00:00:00:77"),
];

#[test]
fn only_leases_of_visible_domains_are_told() {
    let mut rig = under(", on: { domain: { name: 'acme-*' } }");
    let mut host = host();
    let call = ask(1, 1);
    rig.relays(&call);
    rig.daemon_sends(&leases(&call, &ALL));
    host.serve(&mut rig);
    let expected = leases(&call, &[ALL[0], ALL[3]]);
    assert_eq!(rig.client_gets(), expected);
}

#[test]
fn where_only_their_number_is_wanted_it_is_of_those() {
    let mut rig = under(", on: { domain: { name: 'acme-*' } }");
    let mut host = host();
    let call = ask(1, 0);
    rig.client_sends(&call);
    assert_eq!(rig.daemon_gets(), ask(1, 1));
    rig.daemon_sends(&leases(&call, &ALL));
    host.serve(&mut rig);
    let expected = call.reply(|writer| _ = writer.u32(0).u32(2));
    assert_eq!(rig.client_gets(), expected);
}

#[test]
fn what_the_daemon_does_not_tell_is_nobodys_lease() {
    let mut rig = under(", on: { domain: { name: 'acme-*' } }");
    let mut host = host();
    host.broken.push(remote::DOMAIN_GET_XML_DESC);
    let call = ask(1, 1);
    rig.relays(&call);
    rig.daemon_sends(&leases(&call, &ALL));
    host.serve(&mut rig);
    assert_eq!(rig.client_gets(), leases(&call, &[]));
}

#[test]
fn whoever_sees_all_domains_gets_all_leases_untouched() {
    let mut rig = under("");
    let call = ask(1, 0);
    rig.relays(&call);
    rig.delivers(&call.reply(|writer| _ = writer.u32(0).u32(5)));
}

#[test]
fn an_error_about_leases_is_passed_on() {
    let mut rig = under(", on: { domain: { name: 'acme-*' } }");
    let call = ask(1, 1);
    rig.relays(&call);
    rig.delivers(&call.error("no leases here"));
}
