//! Leases of a network that tenants share.

use std::fs;

use super::host::{Host, SMALL, Way};
use crate::support::tenants::{ACME, Driver, GLOBEX, Tenant};
use crate::support::value::Value;

/// The address of the interface of a tenant's first domain.
fn mac(tenant: Tenant) -> String {
    tenant.mac(0).replace(":00:00", ":01:00")
}

/// A lease as libvirt's helper of dnsmasq writes it.
fn lease(mac: &str, number: u8) -> String {
    format!(
        "{{ \"ip-address\": \"10.172.0.{number}\", \"mac-address\": \"{mac}\", \
         \"hostname\": \"host-{number}\", \"expiry-time\": 4000000000 }}"
    )
}

#[test]
fn a_tenant_is_told_only_the_leases_of_its_own_domains() {
    let host = Host::start(Driver::Qemu, SMALL);
    let bridge = ACME.name("interface", 0);
    let leases = [
        lease(&mac(ACME), 7),
        lease(&mac(GLOBEX), 8),
        lease("52:54:00:00:00:99", 9),
    ];
    let folder = host.dir().join("lib/dnsmasq");
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join(format!("{bridge}.status"));
    fs::write(file, format!("[ {} ]", leases.join(", "))).unwrap();

    let network = ACME.name("network", 0);
    let list = |host: &Host, identity: &str| {
        host.virsh(identity, Way::Unix, &["net-dhcp-leases", &network])
            .run()
            .ok()
    };
    let said = list(&host, "monitor");
    assert_eq!(said.matches("host-").count(), 3, "{said}");
    let said = list(&host, "acme");
    assert!(said.contains(&mac(ACME)), "{said}");
    assert_eq!(said.matches("host-").count(), 1, "{said}");
    let net = || ACME.object("network", 0, host.dir());
    for (way, need_results) in [(Way::Unix, 0), (Way::Unix, 1), (Way::Tls, 0), (Way::Tls, 1)] {
        let args = [("net", net()), ("need_results", Value::Int(need_results))];
        let answer = host
            .caller("acme", way)
            .call("NETWORK_GET_DHCP_LEASES", &args)
            .unwrap();
        assert_eq!(answer[1].int(), 1);
        let Value::List(leases) = &answer[0] else {
            panic!("{answer:?}");
        };
        assert_eq!(leases.len(), usize::try_from(need_results).unwrap());
    }
    // Whoever takes the address of another's domain does not get that one's lease.
    let domain = host
        .root()
        .call(
            "DOMAIN_GET_XML_DESC",
            &[("dom", ACME.object("domain", 1, host.dir()))],
        )
        .unwrap();
    let xml = domain[0].text().replace(
        "</devices>",
        &format!(
            "<interface type='user'><mac address='{}'/></interface></devices>",
            mac(GLOBEX)
        ),
    );
    let mut acme = host.caller("acme", Way::Unix);
    acme.call("DOMAIN_DEFINE_XML", &[("xml", xml.into())])
        .unwrap();
    let said = list(&host, "acme");
    assert_eq!(said.matches("host-").count(), 1, "{said}");
}
