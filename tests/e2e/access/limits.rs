//! What an identity may use in total.

use super::host::{Host, SMALL, WAYS, denied, tenant_rule};
use crate::support::caller::Caller;
use crate::support::tenants::{ACME, Driver, GLOBEX, NOBODY, Xml};
use crate::support::value::Value;

/// One more than there is of each; domains have one processor and 16 MiB, volumes 1 MiB.
fn with_quotas() -> String {
    let rules = [ACME, GLOBEX].map(|tenant| tenant_rule(tenant, "").replace('\n', "\n  "));
    format!(
        "access:
  quotas:
  - who: acme
    domains: 9
    running: 3
    vcpus: 10
    memory: 160MiB
    volumes: {{ acme: 5MiB }}
  rules:
  {}
  {}
",
        rules[0].trim_end(),
        rules[1].trim_end()
    )
}

fn define(client: &mut Caller, xml: String) -> Result<Value, i32> {
    let made = client.call("DOMAIN_DEFINE_XML", &[("xml", xml.into())]);
    made.map(|made| made[0].clone()).map_err(|error| error.code)
}

fn new_domain(host: &Host, number: usize) -> String {
    let uuid = NOBODY.uuid("domain", number);
    host.xml(ACME)
        .domain_called(&format!("acme-{number}"), uuid, 2)
}

#[test]
fn no_more_domains_are_defined_than_the_quota_says() {
    for driver in [Driver::Qemu, Driver::Test] {
        let host = Host::with_access(driver, SMALL, |_| with_quotas());
        for way in WAYS {
            let mut client = host.caller("acme", way);
            let made = define(&mut client, new_domain(&host, 90)).unwrap();
            assert_eq!(define(&mut client, new_domain(&host, 91)), Err(88));
            let transient = ("xml_desc", new_domain(&host, 91).into());
            denied(&mut client, "DOMAIN_CREATE_XML", &[transient]);
            // What is there may be changed.
            define(&mut client, new_domain(&host, 90)).unwrap();
            define(&mut client, host.xml(ACME).domain(5)).unwrap();
            // Others have no quota.
            let mut other = host.caller("globex", way);
            let theirs = host.xml(GLOBEX);
            let theirs = theirs.domain_called("globex-90", NOBODY.uuid("domain", 80), 2);
            let theirs = define(&mut other, theirs).unwrap();
            client.call("DOMAIN_UNDEFINE", &[("dom", made)]).unwrap();
            other.call("DOMAIN_UNDEFINE", &[("dom", theirs)]).unwrap();
            let made = define(&mut client, new_domain(&host, 91)).unwrap();
            client.call("DOMAIN_UNDEFINE", &[("dom", made)]).unwrap();
        }
    }
}

#[test]
fn no_more_domains_run_than_the_quota_says() {
    let host = Host::with_access(Driver::Test, SMALL, |_| with_quotas());
    for way in WAYS {
        let mut client = host.caller("acme", way);
        let dom = |number| ("dom", ACME.object("domain", number, host.dir()));
        client.call("DOMAIN_CREATE", &[dom(2)]).unwrap();
        for start in ["DOMAIN_CREATE", "DOMAIN_CREATE_WITH_FLAGS"] {
            denied(&mut client, start, &[dom(5)]);
        }
        client.call("DOMAIN_DESTROY", &[dom(2)]).unwrap();
        client.call("DOMAIN_CREATE", &[dom(5)]).unwrap();
        client.call("DOMAIN_DESTROY", &[dom(5)]).unwrap();
    }
}

#[test]
fn processors_and_memory_are_counted_over_all_domains() {
    let host = Host::with_access(Driver::Qemu, SMALL, |_| with_quotas());
    for way in WAYS {
        let mut client = host.caller("acme", way);
        let vcpus = |count: u32| {
            let one = host.xml(ACME).domain(5);
            one.replace("<vcpu>1<", &format!("<vcpu>{count}<"))
        };
        define(&mut client, vcpus(3)).unwrap();
        assert_eq!(define(&mut client, vcpus(4)), Err(88));
        let dom = || ("dom", ACME.object("domain", 5, host.dir()));
        let set = [dom(), ("nvcpus", Value::Int(4)), ("flags", Value::Int(6))];
        denied(&mut client, "DOMAIN_SET_VCPUS_FLAGS", &set);
        define(&mut client, vcpus(1)).unwrap();
        let memory = |mib: u32| {
            let one = host.xml(ACME).domain(5);
            one.replace(
                "<memory unit='MiB'>16<",
                &format!("<memory unit='MiB'>{mib}<"),
            )
        };
        define(&mut client, memory(48)).unwrap();
        assert_eq!(define(&mut client, memory(49)), Err(88));
        let set = [
            dom(),
            ("memory", Value::Int(49 << 10)),
            ("flags", Value::Int(6)),
        ];
        denied(&mut client, "DOMAIN_SET_MEMORY_FLAGS", &set);
        define(&mut client, memory(16)).unwrap();
    }
}

#[test]
fn volumes_are_counted_by_their_pool() {
    let host = Host::with_access(Driver::Qemu, SMALL, |_| with_quotas());
    for way in WAYS {
        let mut client = host.caller("acme", way);
        let pool = || ("pool", ACME.object("storage_pool", 0, host.dir()));
        let create = |client: &mut Caller, name: &str, mib: u32| {
            let xml = Xml::volume(name).replace("'MiB'>1<", &format!("'MiB'>{mib}<"));
            let made = client.call("STORAGE_VOL_CREATE_XML", &[pool(), ("xml", xml.into())]);
            made.map(|made| made[0].clone()).map_err(|error| error.code)
        };
        assert_eq!(create(&mut client, "acme-big", 2), Err(88));
        let made = create(&mut client, "acme-new", 1).unwrap();
        assert_eq!(create(&mut client, "acme-newer", 1), Err(88));
        let vol = || ("vol", made.clone());
        let clone = [
            pool(),
            ("xml", Xml::volume("acme-clone").into()),
            ("clonevol", made.clone()),
        ];
        denied(&mut client, "STORAGE_VOL_CREATE_XML_FROM", &clone);
        let resize = [vol(), ("capacity", Value::Int(2 << 20))];
        denied(&mut client, "STORAGE_VOL_RESIZE", &resize);
        client.call("STORAGE_VOL_DELETE", &[vol()]).unwrap();
    }
}
