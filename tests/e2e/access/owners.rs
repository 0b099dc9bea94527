//! Domains that belong to whom their metadata say, and marks that are written at birth.

use super::host::{Host, SMALL, WAYS, Way};
use crate::support::caller::Caller;
use crate::support::tenants::{ACME, Driver, GLOBEX, NOBODY, Tenant};
use crate::support::value::Value;
use crate::support::wait::eventually;

/// Our own mark.
const MARK: &str = "https://virtproxyd.org/xmlns/owner/1";
/// OpenStack's.
const NOVA: &str = "http://openstack.org/xmlns/libvirt/nova/1.1";

/// Each tenant may do what it wants with domains that say that they are its own.
fn by_owner() -> String {
    let rule = |tenant: Tenant| {
        format!(
            "  - who: {name}
    allow: [connect:getattr, connect:read, connect:search_domains, \"domain:*\"]
    on: {{ domain: {{ owner: {name} }} }}
    stamp: true
",
            name = tenant.name
        )
    };
    format!(
        "access:
  owner:
  - {{ namespace: \"{NOVA}\", element: owner/project, attribute: uuid }}
  rules:
{}{}",
        rule(ACME),
        rule(GLOBEX)
    )
}

fn names(client: &mut Caller) -> Vec<String> {
    let results = ("need_results", Value::Int(1));
    let list = client.call("CONNECT_LIST_ALL_DOMAINS", &[results]).unwrap();
    let names = list[0]
        .list()
        .iter()
        .map(|domain| domain.field(0).text().to_owned());
    let mut names: Vec<_> = names.collect();
    names.sort();
    names
}

fn own_names() -> Vec<String> {
    let names = (0..SMALL.domains).map(|number| ACME.name("domain", number));
    names.collect()
}

/// A domain called `name`, with `metadata` and a UUID that nobody else has.
fn domain(host: &Host, name: &str, number: usize, metadata: &str) -> String {
    let xml = host.xml(ACME);
    let xml = xml.domain_called(name, NOBODY.uuid("domain", number), 5);
    let (before, rest) = xml.split_once("<metadata>").unwrap();
    let (_, after) = rest.split_once("</metadata>").unwrap();
    format!("{before}<metadata>{metadata}</metadata>{after}")
}

fn mark(owner: &str) -> String {
    format!("<virtproxyd:owner xmlns:virtproxyd='{MARK}'>{owner}</virtproxyd:owner>")
}

#[test]
fn a_tenant_has_what_its_metadata_say() {
    for driver in [Driver::Qemu, Driver::Test] {
        let host = Host::with_access(driver, SMALL, |_| by_owner());
        for way in WAYS {
            let mut client = host.caller("acme", way);
            assert_eq!(names(&mut client), own_names(), "{driver:?} {way:?}");
            let state = |client: &mut Caller, tenant: Tenant| {
                let dom = ("dom", tenant.object("domain", 1, host.dir()));
                client.call("DOMAIN_GET_STATE", &[dom])
            };
            state(&mut client, ACME).unwrap();
            let error = state(&mut client, GLOBEX).unwrap_err();
            assert_eq!(error.code, 42, "{error:?}");
            // By name and by number too.
            let name = ("name", GLOBEX.name("domain", 1).into());
            client.call("DOMAIN_LOOKUP_BY_NAME", &[name]).unwrap_err();
            let uuid = ("uuid", Value::Uuid(GLOBEX.uuid("domain", 1)));
            client.call("DOMAIN_LOOKUP_BY_UUID", &[uuid]).unwrap_err();
        }
    }
}

#[test]
fn a_domain_is_marked_at_birth_and_belongs_to_who_made_it() {
    let host = Host::with_access(Driver::Qemu, SMALL, |_| by_owner());
    for (number, way) in WAYS.into_iter().enumerate() {
        let name = format!("newborn-{number}");
        let mut acme = host.caller("acme", way);
        let xml = ("xml", domain(&host, &name, number, "").into());
        let made = acme.call("DOMAIN_DEFINE_XML", &[xml]).unwrap();
        let dom = || ("dom", made[0].clone());
        let args = [dom(), ("type", Value::Int(2)), ("uri", MARK.into())];
        let metadata = host.root().call("DOMAIN_GET_METADATA", &args).unwrap();
        assert!(metadata[0].text().contains(">acme<"), "{metadata:?}");
        assert!(names(&mut acme).contains(&name));
        let mut globex = host.caller("globex", way);
        assert!(!names(&mut globex).contains(&name));
        globex.call("DOMAIN_UNDEFINE", &[dom()]).unwrap_err();
        acme.call("DOMAIN_UNDEFINE", &[dom()]).unwrap();
    }
}

#[test]
fn nobody_takes_or_gives_away_by_marks() {
    let host = Host::with_access(Driver::Qemu, SMALL, |_| by_owner());
    let nova = |owner: &str| {
        format!(
            "<n:instance xmlns:n='{NOVA}'><n:owner><n:project uuid='{owner}'/></n:owner></n:instance>"
        )
    };
    for way in WAYS {
        let mut acme = host.caller("acme", way);
        let foreign = [
            mark("globex"),
            nova("globex"),
            // Two marks, of which one is another's.
            mark("acme") + &nova("globex"),
            mark("globex") + &nova("acme"),
            mark("acme") + &mark("globex"),
            mark("globex") + &mark("acme"),
            mark("acme").replace(">acme<", "><!-- -->globex<"),
            mark("acme").replace(">acme<", "> globex <"),
        ];
        for metadata in &foreign {
            let xml = domain(&host, "acme-90", 9, metadata);
            let defined = acme.call("DOMAIN_DEFINE_XML", &[("xml", xml.into())]);
            if let Ok(made) = defined {
                // The proxy's own mark counts first: then it is acme's.
                assert!(metadata.starts_with(&mark("acme")), "{metadata}");
                acme.call("DOMAIN_UNDEFINE", &[("dom", made[0].clone())])
                    .unwrap();
            }
        }
        // An own domain, to be another's.
        let dom = || ("dom", ACME.object("domain", 5, host.dir()));
        for (uri, metadata) in [
            (MARK, "<owner>globex</owner>".to_owned()),
            (
                NOVA,
                "<instance><owner><project uuid='globex'/></owner></instance>".to_owned(),
            ),
        ] {
            let set = [
                dom(),
                ("type", Value::Int(2)),
                ("metadata", metadata.into()),
                ("key", "k".into()),
                ("uri", uri.into()),
                ("flags", Value::Int(2)),
            ];
            acme.call("DOMAIN_SET_METADATA", &set).unwrap_err();
        }
        let xml = host.xml(ACME);
        let stolen = xml.domain(5).replace("uuid='acme'", "uuid='globex'");
        acme.call("DOMAIN_DEFINE_XML", &[("xml", stolen.into())])
            .unwrap_err();
        // Another's domain, to be an own one.
        let xml = host.xml(GLOBEX);
        let stolen = xml.domain(5).replace("uuid='globex'", "uuid='acme'");
        acme.call("DOMAIN_DEFINE_XML", &[("xml", stolen.into())])
            .unwrap_err();
        assert_eq!(names(&mut acme), own_names());
    }
}

#[test]
fn a_mark_that_changes_is_heard_of() {
    let host = Host::with_access(Driver::Qemu, SMALL, |_| by_owner());
    let mut acme = host.caller("acme", Way::Unix);
    let mut globex = host.caller("globex", Way::Tls);
    let dom = || ("dom", ACME.object("domain", 6, host.dir()));
    let state = |client: &mut Caller| client.call("DOMAIN_GET_STATE", &[dom()]);
    state(&mut acme).unwrap();
    state(&mut globex).unwrap_err();
    let give_to = |owner: &str| {
        let set = [
            dom(),
            ("type", Value::Int(2)),
            ("metadata", format!("<owner>{owner}</owner>").into()),
            ("key", "virtproxyd".into()),
            ("uri", MARK.into()),
            ("flags", Value::Int(2)),
        ];
        host.root().call("DOMAIN_SET_METADATA", &set).unwrap();
    };
    give_to("globex");
    eventually("it is globex's", || state(&mut globex).is_ok());
    eventually("it is acme's no more", || state(&mut acme).is_err());
    assert!(!names(&mut acme).contains(&"acme-6".to_owned()));
    assert!(names(&mut globex).contains(&"acme-6".to_owned()));
    give_to("acme");
    eventually("it is acme's again", || state(&mut acme).is_ok());
    eventually("it is globex's no more", || state(&mut globex).is_err());
}
