//! What calls name.

use super::*;
use crate::protocol::object::{Class, Uuid};
use crate::protocol::table::remote as r;

const UUID: &str = "c7a5fdbd-edaf-9455-926a-d65c16db1809";

fn uuid() -> Uuid {
    UUID.parse().unwrap()
}

/// The name and UUID of the one domain that a define names.
fn defined(xml: &str) -> Result<(Option<String>, Option<Uuid>), Unreadable> {
    let mut named = names(r::DOMAIN_DEFINE_XML, &[("xml", xml.into())])?;
    let only = named.pop().unwrap();
    assert!(named.is_empty());
    assert_eq!(only.class, Class::Domain);
    Ok((only.name, only.uuid))
}

#[test]
fn a_name_is_read_as_xpath_reads_it() {
    for (written, name) in [
        ("<name>acme-1</name>", "acme-1"),
        ("<name>ac<!-- globex -->me<![CDATA[-1]]></name>", "acme-1"),
        ("<name><![CDATA[<&>]]></name>", "<&>"),
        ("<name>&#97;cme&#x2d;1</name>", "acme-1"),
        ("<name> a b </name>", " a b "),
        ("<x><name>no</name></x><name>yes</name>", "yes"),
        ("<!-- <name>no</name> --><name>yes</name>", "yes"),
        (
            "<metadata><a:name xmlns:a='urn:a'>no</a:name></metadata><name>yes</name>",
            "yes",
        ),
    ] {
        let xml = format!("<domain>{written}</domain>");
        assert_eq!(defined(&xml).unwrap().0.as_deref(), Some(name), "{written}");
    }
}

#[test]
fn a_name_that_could_be_another_is_refused() {
    for written in [
        "",
        "<name/>",
        "<name></name>",
        "<name>a</name><name>b</name>",
        "<name>a</name><name>a</name>",
        "<name>a<b>c</b></name>",
        "<name>a&#10;</name>",
        "<name>a\n</name>",
        "<name>a&nbsp;</name>",
        "<a:name xmlns:a='urn:a'>a</a:name>",
        "<a:name xmlns:a='urn:a'>a</a:name><name>b</name>",
        "<name xmlns='urn:a'>a</name>",
        "<name>a</name><uuid>x</uuid>",
        "<name>a</name><metadata/><metadata/>",
    ] {
        let xml = format!("<domain>{written}</domain>");
        assert!(defined(&xml).is_err(), "{written}");
    }
    assert!(defined("<network><name>a</name></network>").is_err());
    assert!(defined("<domain><name>a</name></domain><!-- --><domain/>").is_err());
    assert!(defined("not XML").is_err());
}

#[test]
fn a_uuid_is_read_in_every_spelling_of_libvirt() {
    for written in [
        UUID,
        "C7A5FDBD-EDAF-9455-926A-D65C16DB1809",
        "c7a5fdbdedaf9455926ad65c16db1809",
        " c7a5fdbd edaf 9455 926a d65c16db1809\n",
        "c7a5<!-- -->fdbd-edaf-9455-926a-d65c16db1809",
    ] {
        let xml = format!("<domain><name>a</name><uuid>{written}</uuid></domain>");
        assert_eq!(defined(&xml).unwrap().1, Some(uuid()), "{written}");
    }
    for written in ["<uuid/>", "<uuid></uuid>", ""] {
        let xml = format!("<domain><name>a</name>{written}</domain>");
        assert_eq!(defined(&xml).unwrap().1, None, "{written}");
    }
    let twice = format!("<domain><name>a</name><uuid>{UUID}</uuid><uuid>{UUID}</uuid></domain>");
    assert!(defined(&twice).is_err());
}

#[test]
fn every_call_that_carries_a_domain_names_it() {
    let xml = format!("<domain><name>acme-1</name><uuid>{UUID}</uuid></domain>");
    let snapshot = format!("<domainsnapshot><name>s</name>{xml}</domainsnapshot>");
    let checkpoint = format!("<domaincheckpoint>{xml}</domaincheckpoint>");
    let cookie = format!("<qemu-migration>{xml}</qemu-migration>\0");
    let text = |name| Value::Params(vec![(name, ParamValue::Text(xml.as_str().into()))]);
    for (procedure, argument, value) in [
        (r::DOMAIN_CREATE_XML, "xml_desc", xml.as_str().into()),
        (
            r::DOMAIN_CREATE_XML_WITH_FILES,
            "xml_desc",
            xml.as_str().into(),
        ),
        (r::DOMAIN_DEFINE_XML, "xml", xml.as_str().into()),
        (r::DOMAIN_DEFINE_XML_FLAGS, "xml", xml.as_str().into()),
        (r::DOMAIN_SAVE_FLAGS, "dxml", xml.as_str().into()),
        (r::DOMAIN_RESTORE_FLAGS, "dxml", xml.as_str().into()),
        (r::DOMAIN_SAVE_IMAGE_DEFINE_XML, "dxml", xml.as_str().into()),
        (
            r::DOMAIN_MANAGED_SAVE_DEFINE_XML,
            "dxml",
            xml.as_str().into(),
        ),
        (r::DOMAIN_SAVE_PARAMS, "params", text("dxml")),
        (r::DOMAIN_RESTORE_PARAMS, "params", text("dxml")),
        (
            r::DOMAIN_SNAPSHOT_CREATE_XML,
            "xml_desc",
            snapshot.as_str().into(),
        ),
        (
            r::DOMAIN_CHECKPOINT_CREATE_XML,
            "xml_desc",
            checkpoint.as_str().into(),
        ),
        (
            r::DOMAIN_BACKUP_BEGIN,
            "checkpoint_xml",
            checkpoint.as_str().into(),
        ),
        (r::DOMAIN_MIGRATE_PREPARE2, "dom_xml", xml.as_str().into()),
        (
            r::DOMAIN_MIGRATE_PREPARE_TUNNEL,
            "dom_xml",
            xml.as_str().into(),
        ),
        (r::DOMAIN_MIGRATE_PREPARE3, "dom_xml", xml.as_str().into()),
        (
            r::DOMAIN_MIGRATE_PREPARE3,
            "cookie_in",
            Value::Bytes(cookie.as_bytes()),
        ),
        (
            r::DOMAIN_MIGRATE_PREPARE_TUNNEL3,
            "dom_xml",
            xml.as_str().into(),
        ),
        (r::DOMAIN_MIGRATE_BEGIN3, "xmlin", xml.as_str().into()),
        (r::DOMAIN_MIGRATE_PERFORM3, "xmlin", xml.as_str().into()),
        (
            r::DOMAIN_MIGRATE_FINISH3_PARAMS,
            "cookie_in",
            Value::Bytes(cookie.as_bytes()),
        ),
        (
            r::DOMAIN_MIGRATE_PREPARE3_PARAMS,
            "params",
            text("destination_xml"),
        ),
        (
            r::DOMAIN_MIGRATE_PREPARE_TUNNEL3_PARAMS,
            "params",
            text("destination_xml"),
        ),
        (
            r::DOMAIN_MIGRATE_PERFORM3_PARAMS,
            "params",
            text("persistent_xml"),
        ),
    ] {
        let mut values = vec![(argument, value)];
        // XDR has it always.
        if procedure == r::DOMAIN_MIGRATE_PREPARE3 && argument == "cookie_in" {
            values.push(("dom_xml", xml.as_str().into()));
        }
        let row = lookup(Program::REMOTE, procedure).unwrap();
        let named = names(procedure, &values);
        let named = named.unwrap_or_else(|error| panic!("{}: {error}", row.name));
        assert_eq!(named.len(), values.len(), "{}", row.name);
        for domain in named {
            assert_eq!(domain.class, Class::Domain, "{}", row.name);
            assert_eq!(domain.name.as_deref(), Some("acme-1"), "{}", row.name);
            assert_eq!(domain.uuid, Some(uuid()), "{}", row.name);
            assert_eq!(domain.owner, NamedOwner::None, "{}", row.name);
        }
    }
}

#[test]
fn both_domains_of_a_snapshot_are_named() {
    let xml = "<domainsnapshot><domain><name>a</name></domain>\
               <inactiveDomain><name>b</name></inactiveDomain></domainsnapshot>";
    let named = names(r::DOMAIN_SNAPSHOT_CREATE_XML, &[("xml_desc", xml.into())]).unwrap();
    let found: Vec<_> = named.iter().map(|named| named.name.as_deref()).collect();
    assert_eq!(found, [Some("a"), Some("b")]);
    let xml = "<domainsnapshot><domain><name>a</name></domain><domain><name>b</name></domain>\
               </domainsnapshot>";
    assert!(names(r::DOMAIN_SNAPSHOT_CREATE_XML, &[("xml_desc", xml.into())]).is_err());
}

#[test]
fn a_new_name_in_a_migration_counts() {
    let xml = "<domain><name>acme-1</name></domain>";
    let values = [("dname", "globex-1".into()), ("dom_xml", xml.into())];
    let named = names(r::DOMAIN_MIGRATE_PREPARE3, &values).unwrap();
    assert_eq!(named[0].name.as_deref(), Some("globex-1"));
    for procedure in [
        r::DOMAIN_MIGRATE_PREPARE,
        r::DOMAIN_MIGRATE_BEGIN3,
        r::DOMAIN_MIGRATE_PERFORM,
        r::DOMAIN_MIGRATE_PERFORM3,
        r::DOMAIN_MIGRATE_FINISH,
        r::DOMAIN_MIGRATE_FINISH2,
        r::DOMAIN_MIGRATE_FINISH3,
    ] {
        let named = names(procedure, &[("dname", "globex-1".into())]).unwrap();
        assert_eq!(named.len(), 1);
        assert_eq!(named[0].name.as_deref(), Some("globex-1"));
        assert_eq!(named[0].owner, NamedOwner::Unknown);
    }
    let params = |count: usize| {
        let name = ParamValue::Text("globex-1".into());
        Value::Params(vec![("destination_name", name); count])
    };
    let named = names(r::DOMAIN_MIGRATE_PERFORM3_PARAMS, &[("params", params(1))]).unwrap();
    assert_eq!(named[0].name.as_deref(), Some("globex-1"));
    assert!(names(r::DOMAIN_MIGRATE_PERFORM3_PARAMS, &[("params", params(2))]).is_err());
    assert!(names(r::DOMAIN_MIGRATE_BEGIN3, &[("dname", "".into())]).is_err());
}

#[test]
fn a_cookie_is_one_text_with_a_nul_at_its_end() {
    for cookie in [
        &b"<qemu-migration/>"[..],
        b"<qemu-migration/>\0<x/>\0",
        b"\0",
        b"\xff\0",
        b"<!DOCTYPE a><qemu-migration/>\0",
    ] {
        let values = [("dname", "a".into()), ("cookie_in", Value::Bytes(cookie))];
        assert!(
            names(r::DOMAIN_MIGRATE_FINISH3, &values).is_err(),
            "{cookie:?}"
        );
    }
}

#[test]
fn a_rename_keeps_all_but_the_name() {
    let named = names(r::DOMAIN_RENAME, &[("new_name", "globex-1".into())]).unwrap();
    assert_eq!(named.len(), 1);
    assert_eq!(named[0].name.as_deref(), Some("globex-1"));
    assert_eq!(named[0].owner, NamedOwner::AsBefore);
}

#[test]
fn other_objects_are_named_by_their_xml() {
    let uuid_xml = format!("<uuid>{UUID}</uuid>");
    for (procedure, xml, class, name) in [
        (
            r::NETWORK_DEFINE_XML,
            "<network><name>n</name>U</network>",
            Class::Network,
            Some("n"),
        ),
        (
            r::NETWORK_CREATE_XML,
            "<network><name>n</name>U</network>",
            Class::Network,
            Some("n"),
        ),
        (
            r::NETWORK_DEFINE_XML_FLAGS,
            "<network><name>n</name>U</network>",
            Class::Network,
            Some("n"),
        ),
        (
            r::NETWORK_CREATE_XML_FLAGS,
            "<network><name>n</name>U</network>",
            Class::Network,
            Some("n"),
        ),
        (
            r::NETWORK_PORT_CREATE_XML,
            "<networkport>U</networkport>",
            Class::NetworkPort,
            None,
        ),
        (
            r::STORAGE_POOL_DEFINE_XML,
            "<pool><name>n</name>U</pool>",
            Class::StoragePool,
            Some("n"),
        ),
        (
            r::STORAGE_POOL_CREATE_XML,
            "<pool><name>n</name>U</pool>",
            Class::StoragePool,
            Some("n"),
        ),
        (
            r::NWFILTER_DEFINE_XML,
            "<filter name='n'>U</filter>",
            Class::Nwfilter,
            Some("n"),
        ),
        (
            r::NWFILTER_DEFINE_XML_FLAGS,
            "<filter name='n'>U</filter>",
            Class::Nwfilter,
            Some("n"),
        ),
    ] {
        let xml = xml.replace('U', &uuid_xml);
        let named = names(procedure, &[("xml", xml.as_str().into())]).unwrap();
        assert_eq!(named.len(), 1, "{xml}");
        assert_eq!(named[0].class, class, "{xml}");
        assert_eq!(named[0].name.as_deref(), name, "{xml}");
        assert_eq!(named[0].uuid, Some(uuid()), "{xml}");
    }
    for (procedure, xml) in [
        (r::NETWORK_DEFINE_XML, "<network/>"),
        // libvirt would take the name of the source.
        (
            r::STORAGE_POOL_DEFINE_XML,
            "<pool type='logical'><source><name>n</name></source></pool>",
        ),
        (
            r::STORAGE_POOL_DEFINE_XML,
            "<pool><name>a</name><name>b</name></pool>",
        ),
        (r::NWFILTER_DEFINE_XML, "<filter/>"),
        (
            r::NWFILTER_DEFINE_XML,
            "<filter xmlns:a='urn:a' a:name='x' name='y'/>",
        ),
        (r::STORAGE_VOL_CREATE_XML, "<volume/>"),
        (
            r::SECRET_DEFINE_XML,
            "<secret><usage type='other'><name>x</name></usage></secret>",
        ),
        (
            r::SECRET_DEFINE_XML,
            "<secret><usage type='ceph'/></secret>",
        ),
    ] {
        assert!(names(procedure, &[("xml", xml.into())]).is_err(), "{xml}");
    }
}

#[test]
fn volumes_bindings_secrets_interfaces_and_devices_are_named() {
    let values = [("xml", "<volume><name>v</name><key>k</key></volume>".into())];
    for procedure in [r::STORAGE_VOL_CREATE_XML, r::STORAGE_VOL_CREATE_XML_FROM] {
        let named = names(procedure, &values).unwrap();
        assert_eq!(named[0].class, Class::StorageVol);
        assert_eq!(named[0].name.as_deref(), Some("v"));
    }

    let xml = "<filterbinding><owner><name>d</name></owner><portdev name='vnet0'/>\
               <mac address='52:54:00:00:00:01'/><filterref filter='clean'/></filterbinding>";
    let named = names(r::NWFILTER_BINDING_CREATE_XML, &[("xml", xml.into())]).unwrap();
    assert_eq!(named[0].name.as_deref(), Some("vnet0"));
    assert_eq!(named[0].filter.as_deref(), Some("clean"));

    for (usage, kind, thing) in [
        ("", 0, ""),
        ("<usage type='none'/>", 0, ""),
        (
            "<usage type='volume'><volume>/srv/a</volume></usage>",
            1,
            "/srv/a",
        ),
        ("<usage type='ceph'><name>c</name></usage>", 2, "c"),
        ("<usage type='iscsi'><target>i</target></usage>", 3, "i"),
        ("<usage type='tls'><name>t</name></usage>", 4, "t"),
        ("<usage type='vtpm'><name>p</name></usage>", 5, "p"),
    ] {
        let xml = format!("<secret><uuid>{UUID}</uuid>{usage}</secret>");
        let named = names(r::SECRET_DEFINE_XML, &[("xml", xml.as_str().into())]).unwrap();
        assert_eq!(named[0].uuid, Some(uuid()));
        assert_eq!(named[0].usage_type, Some(kind));
        assert_eq!(named[0].usage.as_deref(), Some(thing));
    }

    let xml = "<interface type='bridge' name='br0'><mac address='52:54:00:00:00:01'/><bridge>\
               <interface type='ethernet' name='eth0'/></bridge></interface>";
    let named = names(r::INTERFACE_DEFINE_XML, &[("xml", xml.into())]).unwrap();
    let found: Vec<_> = named.iter().map(|named| named.name.as_deref()).collect();
    assert_eq!(found, [Some("br0"), Some("eth0")]);
    assert_eq!(named[0].mac.as_deref(), Some("52:54:00:00:00:01"));

    let xml = "<device><name>mine</name><parent>scsi_host3</parent></device>";
    let named = names(r::NODE_DEVICE_CREATE_XML, &[("xml_desc", xml.into())]).unwrap();
    let found: Vec<_> = named.iter().map(|named| named.name.as_deref()).collect();
    assert_eq!(found, [None, Some("scsi_host3")]);
}

#[test]
fn a_process_that_is_attached_to_may_be_any_domain() {
    use crate::protocol::table::qemu::DOMAIN_ATTACH;
    let bytes = payload(Program::QEMU, DOMAIN_ATTACH, &[("pid_value", 1.into())]);
    let args = read(Program::QEMU, DOMAIN_ATTACH, &bytes);
    let named = named(Program::QEMU, DOMAIN_ATTACH, &args, &[]).unwrap();
    assert_eq!((named.len(), &named[0].name), (1, &None));
}
