//! What is named by the content of calls: XML, files, new names.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use super::super::host::{Host, SMALL, WAYS, Way};
use super::super::said::{said, said_as_of_nobody};
use crate::support::caller::Caller;
use crate::support::table::procedure;
use crate::support::tenants::{ACME, Driver, GLOBEX, NOBODY, Tenant, Xml, text_param, uuid_text};
use crate::support::value::Value;
use crate::support::wire::RpcError;
use crate::support::xdr::Writer;

/// Makes the same call about globex's and nobody's, and shows that both are answered alike, by an
/// error. Returns it.
#[track_caller]
fn refused_alike(
    client: &mut Caller,
    name: &str,
    args: impl Fn(Tenant) -> Vec<(&'static str, Value)>,
) -> RpcError {
    let procedure = procedure(name);
    let mut ask = |tenant| client.call_raw(procedure, procedure.body(&args(tenant)));
    let [theirs, nobodys] = [GLOBEX, NOBODY].map(&mut ask);
    let of_theirs = said_as_of_nobody(procedure, &theirs, GLOBEX);
    assert_eq!(of_theirs, said(procedure, &nobodys), "{name}");
    theirs.error()
}

/// The names of all domains, networks, pools and filters, and the uses of secrets.
fn everything(root: &mut Caller) -> String {
    let mut names = String::new();
    for list in [
        "CONNECT_LIST_ALL_DOMAINS",
        "CONNECT_LIST_ALL_NETWORKS",
        "CONNECT_LIST_ALL_STORAGE_POOLS",
        "CONNECT_LIST_ALL_NWFILTERS",
        "CONNECT_LIST_ALL_SECRETS",
    ] {
        let list = root.call(list, &[("need_results", Value::Int(1))]).unwrap();
        let mut lines: Vec<_> = list[0].list().iter().map(|it| format!("{it:?}")).collect();
        lines.sort();
        writeln!(names, "{}", lines.join("\n")).unwrap();
    }
    names
}

#[test]
fn a_domain_is_not_renamed_into_anothers_names() {
    let host = Host::start(Driver::Qemu, SMALL);
    let before = everything(&mut host.root());
    for way in WAYS {
        let mut client = host.caller("acme", way);
        let dom = ACME.object("domain", 6, host.dir());
        // One that there is, and one that there is not.
        for number in [1, 9] {
            let error = refused_alike(&mut client, "DOMAIN_RENAME", |tenant| {
                let name = Value::from(tenant.name("domain", number));
                vec![("dom", dom.clone()), ("new_name", name)]
            });
            assert_eq!(error.code, 88, "{error:?}");
        }
    }
    assert_eq!(before, everything(&mut host.root()));
}

/// A tenant may choose UUIDs, so it may meet one that is taken; it is not told by whom.
#[test]
fn what_is_in_the_way_of_a_definition_is_not_named() {
    let host = Host::start(Driver::Qemu, SMALL);
    let before = everything(&mut host.root());
    let theirs = |kind| uuid_text(GLOBEX.uuid(kind, 1));
    let own = host.xml(ACME);
    let with_uuid = |xml: String, kind: &str, number| {
        let uuid = uuid_text(ACME.uuid(kind, number));
        assert!(xml.contains(&uuid), "{xml}");
        xml.replace(&uuid, &uuid_text(GLOBEX.uuid(kind, 1)))
    };
    let fresh = |xml: String, name: &str| xml.replace(name, "acme-99");
    let domain = with_uuid(own.domain(5), "domain", 5);
    let network = with_uuid(own.network(3), "network", 3);
    let secret = with_uuid(own.secret(3), "secret", 3);
    let pool = own.pool().replace(
        &uuid_text(ACME.uuid("storage_pool", 0)),
        &uuid_text(GLOBEX.uuid("storage_pool", 0)),
    );
    let nwfilter = own.nwfilter().replace(
        &uuid_text(ACME.uuid("nwfilter", 0)),
        &uuid_text(GLOBEX.uuid("nwfilter", 0)),
    );
    let bridge = own
        .network(3)
        .replace(
            &uuid_text(ACME.uuid("network", 3)),
            &uuid_text(NOBODY.uuid("network", 3)),
        )
        .replace("'acme-br-3'", "'globex-br-0'");
    let attempts = [
        ("DOMAIN_DEFINE_XML", "xml", domain.clone()),
        ("DOMAIN_DEFINE_XML", "xml", fresh(domain.clone(), "acme-5")),
        ("DOMAIN_CREATE_XML", "xml_desc", fresh(domain, "acme-5")),
        ("NETWORK_DEFINE_XML", "xml", network.clone()),
        (
            "NETWORK_DEFINE_XML",
            "xml",
            fresh(network.clone(), "acme-net-3"),
        ),
        ("NETWORK_CREATE_XML", "xml", fresh(network, "acme-net-3")),
        ("NETWORK_DEFINE_XML", "xml", fresh(bridge, "acme-net-3")),
        ("STORAGE_POOL_DEFINE_XML", "xml", pool.clone()),
        ("STORAGE_POOL_CREATE_XML", "xml", pool),
        ("SECRET_DEFINE_XML", "xml", secret.clone()),
        ("SECRET_DEFINE_XML", "xml", fresh(secret, "acme-secret-3")),
        ("NWFILTER_DEFINE_XML", "xml", nwfilter.clone()),
        ("NWFILTER_DEFINE_XML", "xml", fresh(nwfilter, "acme-filter")),
    ];
    for way in WAYS {
        let mut client = host.caller("acme", way);
        for (name, field, xml) in &attempts {
            let procedure = procedure(name);
            let body = procedure.body(&[(field, Value::from(xml.as_str()))]);
            let answer = client.call_raw(procedure, body);
            let error = answer.error();
            // It has sent the UUID and the bridge itself.
            let mut said = String::from_utf8_lossy(&answer.body).into_owned();
            for sent in ["domain", "network", "secret"].map(theirs) {
                said = said.replace(&sent, "");
            }
            for kind in ["storage_pool", "nwfilter"] {
                said = said.replace(&uuid_text(GLOBEX.uuid(kind, 0)), "");
            }
            said = said.replace("globex-br-0", "");
            assert!(!GLOBEX.is_in(said.as_bytes()), "{name}: {error:?}\n{xml}");
        }
    }
    assert_eq!(before, everything(&mut host.root()));
}

#[test]
fn a_snapshot_is_not_redefined_as_one_of_anothers_domain() {
    let host = Host::start(Driver::Qemu, SMALL);
    let own = host.xml(ACME);
    let snapshot = |domain: String| {
        format!(
            "<domainsnapshot><name>acme-other</name><state>shutoff</state>\
             <creationTime>1</creationTime>{domain}</domainsnapshot>"
        )
    };
    for way in WAYS {
        let mut client = host.caller("acme", way);
        let redefine = |client: &mut Caller, of: &dyn Fn(Tenant) -> String| {
            refused_alike(client, "DOMAIN_SNAPSHOT_CREATE_XML", |tenant| {
                vec![
                    ("dom", ACME.object("domain", 5, host.dir())),
                    ("xml_desc", snapshot(of(tenant)).into()),
                    ("flags", Value::Int(1)),
                ]
            })
        };
        redefine(&mut client, &|tenant| host.xml(tenant).domain(1));
        redefine(&mut client, &|tenant| {
            own.domain_called("acme-5", tenant.uuid("domain", 1), 5)
        });
        redefine(&mut client, &|tenant| {
            let name = tenant.name("domain", 1);
            own.domain_called(&name, ACME.uuid("domain", 5), 5)
        });
    }
    let dom = ("dom", ACME.object("domain", 5, host.dir()));
    let number = host.root().call("DOMAIN_SNAPSHOT_NUM", &[dom]).unwrap();
    assert_eq!(number, [Value::Int(0)]);
}

#[test]
fn nothing_is_made_from_anothers_volume() {
    let host = Host::start(Driver::Qemu, SMALL);
    let before = everything(&mut host.root());
    let dir = host.dir().to_path_buf();
    for way in WAYS {
        let mut client = host.caller("acme", way);
        let error = refused_alike(&mut client, "STORAGE_VOL_CREATE_XML_FROM", |tenant| {
            vec![
                ("pool", ACME.object("storage_pool", 0, &dir)),
                ("xml", Xml::volume("acme-clone").into()),
                ("clonevol", tenant.object("storage_vol", 1, &dir)),
            ]
        });
        assert_eq!(error.code, 49, "{error:?}");
        // By a name that leads out of the own pool.
        for name in ["../globex/globex-vol-1", "../globex/evil", "..", "a/b"] {
            let xml = ("xml", Xml::volume(name).into());
            let pool = ("pool", ACME.object("storage_pool", 0, &dir));
            client
                .call("STORAGE_VOL_CREATE_XML", &[pool, xml])
                .unwrap_err();
        }
        for (name, field, kind) in [
            ("STORAGE_VOL_LOOKUP_BY_PATH", "path", "storage_vol"),
            ("STORAGE_VOL_LOOKUP_BY_KEY", "key", "storage_vol"),
            ("STORAGE_POOL_LOOKUP_BY_TARGET_PATH", "path", "storage_pool"),
        ] {
            let path = |tenant: Tenant| match kind {
                "storage_vol" => tenant.volume_path(1, &dir),
                _ => tenant.pool_path(&dir),
            };
            for change in PATHS {
                let error = refused_alike(&mut client, name, |tenant| {
                    vec![(field, change(&path(tenant).display().to_string()).into())]
                });
                assert!([49, 50].contains(&error.code), "{error:?}");
            }
        }
    }
    assert_eq!(before, everything(&mut host.root()));
    assert!(!GLOBEX.pool_path(&dir).join("evil").exists());
}

/// Other ways to write a path, of which the daemon takes some.
const PATHS: [fn(&str) -> String; 6] = [
    str::to_owned,
    |path| format!("{path}/"),
    |path| path.replace("/pools", "//pools"),
    |path| path.replace("/pools", "/./pools"),
    |path| path.replace("/pools", "/pools/acme/../../pools"),
    |path| format!("/{path}"),
];

#[test]
fn anothers_save_image_is_neither_restored_nor_read_nor_changed() {
    let host = Host::start(Driver::Qemu, SMALL);
    let dir = host.dir().to_path_buf();
    for tenant in [ACME, GLOBEX] {
        let dom = || ("dom", tenant.object("domain", 1, &dir));
        let to = ("to", image(tenant, &dir));
        host.root().call("DOMAIN_SAVE", &[dom(), to]).unwrap();
    }
    let before = everything(&mut host.root());
    let before_image = fs::read(dir.join("globex.save")).unwrap();
    for way in WAYS {
        let mut client = host.caller("acme", way);
        let paused = || ("flags", Value::Int(4));
        refused_alike(&mut client, "DOMAIN_RESTORE", |tenant| {
            vec![("from", image(tenant, &dir))]
        });
        refused_alike(&mut client, "DOMAIN_RESTORE_FLAGS", |tenant| {
            vec![("from", image(tenant, &dir)), paused()]
        });
        refused_alike(&mut client, "DOMAIN_RESTORE_FLAGS", |tenant| {
            let xml = host.xml(ACME).domain(1).into();
            vec![("from", image(tenant, &dir)), ("dxml", xml), paused()]
        });
        refused_alike(&mut client, "DOMAIN_RESTORE_PARAMS", |tenant| {
            let file = text_param("file", image(tenant, &dir).text());
            vec![("params", Value::List(vec![file])), paused()]
        });
        refused_alike(&mut client, "DOMAIN_SAVE_IMAGE_GET_XML_DESC", |tenant| {
            vec![("file", image(tenant, &dir))]
        });
        refused_alike(&mut client, "DOMAIN_SAVE_IMAGE_DEFINE_XML", |tenant| {
            let xml = host.xml(ACME).domain(1).into();
            vec![("file", image(tenant, &dir)), ("dxml", xml)]
        });
        // An own image, to be another's domain.
        refused_alike(&mut client, "DOMAIN_RESTORE_FLAGS", |tenant| {
            let xml = host.xml(tenant).domain(1).into();
            vec![("from", image(ACME, &dir)), ("dxml", xml), paused()]
        });
        let file = ("file", image(ACME, &dir));
        client
            .call("DOMAIN_SAVE_IMAGE_GET_XML_DESC", &[file])
            .unwrap();
    }
    assert_eq!(before, everything(&mut host.root()));
    assert_eq!(before_image, fs::read(dir.join("globex.save")).unwrap());
    let mut client = host.caller("acme", Way::Unix);
    let paused = ("flags", Value::Int(4));
    let from = ("from", image(ACME, &dir));
    client
        .call("DOMAIN_RESTORE_FLAGS", &[from, paused])
        .unwrap();
}

/// The save image of a tenant's domain 1.
fn image(tenant: Tenant, dir: &Path) -> Value {
    let path = dir.join(format!("{}.save", tenant.name));
    path.display().to_string().into()
}

#[test]
fn no_domain_comes_or_goes_as_anothers_by_migration() {
    let host = Host::start(Driver::Qemu, SMALL);
    let before = everything(&mut host.root());
    let dir = host.dir().to_path_buf();
    let dom = || ("dom", ACME.object("domain", 0, &dir));
    let params = |tenant: Tenant, number| {
        let name = text_param("destination_name", &tenant.name("domain", number));
        ("params", Value::List(vec![name]))
    };
    for way in WAYS {
        let mut client = host.caller("acme", way);
        for number in [2, 9] {
            let dname = |tenant: Tenant| ("dname", Value::from(tenant.name("domain", number)));
            refused_alike(&mut client, "DOMAIN_MIGRATE_BEGIN3", |tenant| {
                vec![dom(), dname(tenant)]
            });
            refused_alike(&mut client, "DOMAIN_MIGRATE_BEGIN3_PARAMS", |tenant| {
                vec![dom(), params(tenant, number)]
            });
            refused_alike(&mut client, "DOMAIN_MIGRATE_PREPARE_TUNNEL3", |tenant| {
                let xml = host.xml(ACME).domain(5).into();
                vec![dname(tenant), ("dom_xml", xml)]
            });
            refused_alike(&mut client, "DOMAIN_MIGRATE_PREPARE3_PARAMS", |tenant| {
                let (_, name) = params(tenant, number);
                let xml = text_param("destination_xml", &host.xml(ACME).domain(5));
                let name = name.list()[0].clone();
                vec![("params", Value::List(vec![name, xml]))]
            });
            for finish in [
                "DOMAIN_MIGRATE_FINISH",
                "DOMAIN_MIGRATE_FINISH2",
                "DOMAIN_MIGRATE_FINISH3",
            ] {
                refused_alike(&mut client, finish, |tenant| vec![dname(tenant)]);
            }
            refused_alike(&mut client, "DOMAIN_MIGRATE_FINISH3_PARAMS", |tenant| {
                vec![params(tenant, number)]
            });
        }
    }
    assert_eq!(before, everything(&mut host.root()));
}

/// Documents that say one thing to one reader and another to the next, or that cost too much to
/// read. `NAME` is a name of another's.
fn hostile(xml: &Xml<'_>, name: &str) -> Vec<String> {
    let named = |as_written: &str| xml.domain(5).replace("acme-5", as_written);
    let plain = named(name);
    let deep = |depth: usize| {
        let (open, close) = ("<a>".repeat(depth), "</a>".repeat(depth));
        named(name).replace("<metadata>", &format!("<metadata>{open}{close}"))
    };
    let utf16: String = format!("<?xml version='1.0' encoding='UTF-16'?>{plain}");
    vec![
        format!("<!DOCTYPE d [<!ENTITY n '{name}'>]>{}", named("&n;")),
        format!(
            "<!DOCTYPE d [<!ENTITY a 'lol'>{}]>{}",
            (0..9)
                .map(|n| format!("<!ENTITY b{n} '{}'>", "&a;".repeat(10)))
                .collect::<String>(),
            named("acme-&b8;")
        ),
        format!(
            "<!DOCTYPE d SYSTEM 'file:///etc/passwd'>{}",
            named("acme-5")
        ),
        format!(
            "<!DOCTYPE d [<!ENTITY x SYSTEM 'file:///etc/hostname'>]>{}",
            named("acme-&x;")
        ),
        named(name).replace("<name>", "<name>acme-5</name><name>"),
        named("acme-5").replace("</name>", &format!("</name><name>{name}</name>")),
        named(&format!("{}<!-- -->{}", &name[..3], &name[3..])),
        named(&format!("<![CDATA[{name}]]>")),
        named(&format!("{}<?pi?>{}", &name[..3], &name[3..])),
        named(&name.replace('g', "&#103;").replace('n', "&#x6e;")),
        named(&format!(" {name} ")),
        named(&format!("<x>{name}</x>")),
        format!("{plain}{}", named("acme-5")),
        format!("{}{plain}", named("acme-5")),
        format!("\u{feff}{plain}"),
        utf16,
        plain.replace("<domain ", "<domain xmlns='urn:x' "),
        plain.replace("<name>", "<x:name xmlns:x='urn:x'>acme-5</x:name><name>"),
        deep(300),
        deep(30_000),
        plain.replace("<name>", &format!("<!-- {} --><name>", "x".repeat(3 << 20))),
        plain.replace("<devices>", "<devices><name>acme-5</name>"),
        plain.clone(),
    ]
}

#[test]
fn hostile_documents_make_nothing_of_anothers() {
    let host = Host::start(Driver::Qemu, SMALL);
    let before = everything(&mut host.root());
    let own = host.xml(ACME);
    for way in WAYS {
        let mut client = host.caller("acme", way);
        for (name, field) in [
            ("DOMAIN_DEFINE_XML", "xml"),
            ("DOMAIN_DEFINE_XML_FLAGS", "xml"),
            ("DOMAIN_CREATE_XML", "xml_desc"),
        ] {
            let existing = hostile(&own, &GLOBEX.name("domain", 1));
            for xml in existing.into_iter().chain(hostile(&own, "globex-new")) {
                // It may be refused, or be what the daemon makes of it: one of acme's.
                match client.call(name, &[(field, xml.as_str().into())]) {
                    Err(error) => assert!(
                        error.code == 88 || !error.message.contains("already"),
                        "{error:?}"
                    ),
                    Ok(made) => {
                        assert_eq!(made[0].field(0).text(), "acme-5", "{xml}");
                        let dom = ("dom", made[0].clone());
                        // One that was to run does so, in vain.
                        if name == "DOMAIN_CREATE_XML" {
                            host.root().call("DOMAIN_DESTROY", &[dom]).unwrap();
                        }
                    }
                }
            }
            assert_eq!(before, everything(&mut host.root()), "{name}");
        }
        // What no string may have in it, and what no reader may pass over.
        let bad: [&[u8]; 4] = [
            b"<domain type='qemu'><name>acme-5\0</name></domain>",
            b"globex-1\0",
            b"acme-1\0globex",
            b"acme-\xff\xfe",
        ];
        for bytes in bad {
            for name in [
                "DOMAIN_DEFINE_XML",
                "DOMAIN_LOOKUP_BY_NAME",
                "NETWORK_LOOKUP_BY_NAME",
            ] {
                let body = Writer::new().opaque(bytes).end();
                client.call_raw(procedure(name), body).error();
            }
        }
        let with_more = Writer::new().string("acme-1").string("globex-1").end();
        client
            .call_raw(procedure("DOMAIN_LOOKUP_BY_NAME"), with_more)
            .error();
        client.call("CONNECT_GET_HOSTNAME", &[]).unwrap();
    }
}
