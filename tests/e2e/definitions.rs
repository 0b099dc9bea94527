//! A real libvirt reads a document as the proxy reads it: names, UUIDs and owners, and the places
//! of paths.

use std::fs;

use serde_json::Value;
use virtproxyd::policy::access::OwnerMark;
use virtproxyd::policy::guard::{
    Content, Guards, Named, NamedOwner, domain_named, named, owner_in_metadata, stamp,
};
use virtproxyd::protocol::header::{Procedure, Program};
use virtproxyd::protocol::payload::Payload;
use virtproxyd::protocol::table::{lookup, remote as r};
use virtproxyd::protocol::xdr::Writer;

use crate::support::guest::guest_xml;
use crate::support::libvirtd::Libvirtd;
use crate::support::scripts::DEFINITIONS;
use crate::support::tool::{python, virsh};

const UUID: &str = "c7a5fdbd-edaf-9455-926a-d65c16db1809";
const OURS: &str = OwnerMark::OURS;

/// What a daemon says of each document; `None` if it refuses it.
fn told(daemon: &Libvirtd, uri: &str, kind: &str, documents: &[String]) -> Vec<Option<Value>> {
    let file = daemon.dir().join("documents.json");
    fs::write(&file, serde_json::to_string(documents).unwrap()).unwrap();
    let args = [&daemon.uri(uri), kind, file.to_str().unwrap()];
    let said = python(DEFINITIONS, &args).run().ok();
    let said: Vec<Option<Value>> = said
        .split('\n')
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|line| line.get("error").is_none().then_some(line))
        .collect();
    assert_eq!(said.len(), documents.len());
    said
}

fn domain(inner: &str) -> String {
    format!("<domain type='test'>{inner}<memory>1024</memory><os><type>hvm</type></os></domain>")
}

/// What a call names by one document.
fn read(procedure: Procedure, xml: &str) -> Option<Named> {
    let fields = lookup(Program::REMOTE, procedure).unwrap().args;
    let mut bytes = Vec::new();
    for field in fields {
        let mut writer = Writer::new(&mut bytes);
        match field.name {
            "xml" => {
                writer.string(xml);
            }
            "pool" => writer.string("default-pool").raw(&[0; 16]),
            _ => {
                writer.u32(0);
            }
        }
    }
    let args = Payload::read(fields, &bytes).unwrap();
    let named = named(Program::REMOTE, procedure, &args, &[]).ok()?;
    named.into_iter().next()
}

#[test]
fn domains_are_named_as_libvirt_names_them() {
    let daemon = Libvirtd::start();
    // What a domain's XML may be like, and whether the proxy reads it. What it does not read, libvirt
    // may.
    let documents: Vec<(String, bool)> = [
        (domain("<name>a</name>"), true),
        (domain("<name>ac<!-- globex -->me</name>"), true),
        (domain("<name>ac<![CDATA[me<&]]>x</name>"), true),
        (domain("<name>&#97;c&#x6d;e&amp;&lt;</name>"), true),
        (domain("<name> a b </name>"), true),
        (domain("<name>ä€😀</name>"), true),
        (domain("<!-- <name>x</name> --><name>a</name>"), true),
        (domain("<description><name>x</name></description><name>a</name>"), true),
        (domain("<devices><name>x</name></devices><name>a</name>"), true),
        (format!("<?xml version='1.0' encoding='utf-8'?>\r\n{}", domain("\r\n<name>a</name>")), true),
        (format!("<!-- x -->{}<!-- y -->", domain("<name>a</name>")), true),
        (domain(&format!("<name>a</name><uuid>{UUID}</uuid>")), true),
        (domain(&format!("<name>a</name><uuid> {} \n</uuid>", UUID.to_uppercase())), true),
        (domain(&format!("<name>a</name><uuid>{}</uuid>", UUID.replace('-', ""))), true),
        (domain(&format!("<name>a</name><uuid>{}</uuid>", UUID.replace('-', " - "))), true),
        (domain(&format!("<name>a</name><uuid>{}<!-- -->{}</uuid>", &UUID[..9], &UUID[9..])), true),
        (domain("<name>a</name><uuid/>"), true),
        (domain(&format!("<name>a</name><metadata><v:owner xmlns:v='{OURS}'>acme</v:owner></metadata>")), true),
        (domain(&format!("<name>a</name><metadata><owner xmlns='{OURS}'>a<!-- -->cme</owner></metadata>")), true),
        (domain(&format!("<name>a</name><metadata><v:owner xmlns:v='{OURS}'>R&amp;D</v:owner><x:y xmlns:x='urn:x'/></metadata>")), true),
        (domain("<name>a</name><metadata><owner>acme</owner></metadata>"), true),
        // Read by libvirt alone, in one of two ways.
        (domain("<name>a</name><name>b</name>"), false),
        (domain("<name>a<b>c</b></name>"), false),
        (domain("<x:name xmlns:x='urn:x'>b</x:name><name>a</name>"), false),
        (domain("<name>a</name><name xmlns='urn:x'>b</name>"), false),
        (domain("<:name>b</:name><name>a</name>"), false),
        (domain("<y:name>b</y:name><name>a</name>"), false),
        (domain(&format!("<name>a</name><uuid>{UUID}</uuid><uuid>{}</uuid>", UUID.replace('c', "d"))), false),
        (domain(&format!("<name>a</name><metadata><v:owner xmlns:v='{OURS}'>acme</v:owner><w:owner xmlns:w='{OURS}'>globex</w:owner></metadata>")), false),
        (domain(&format!("<name>a</name><metadata/><metadata><v:owner xmlns:v='{OURS}'>acme</v:owner></metadata>")), false),
        (format!("<!DOCTYPE domain [<!ENTITY b 'b'>]>{}", domain("<name>a</name>")), false),
        (format!("<?xml version='1.0' encoding='iso-8859-1'?>{}", domain("<name>ä</name>")), false),
        (format!("<?xml version='1.0' encoding='utf-7'?>{}", domain("<name>+AGE-</name>")), false),
        (format!("<?xml version='1.1'?>{}", domain("<name>a</name>")), false),
        (format!("\u{feff}{}", domain("<name>a</name>")), false),
        (format!("<?x y?>{}", domain("<name>a</name>")), false),
        (domain("<name xml:lang='en'>a</name>"), false),
    ]
    .into();
    let texts: Vec<String> = documents.iter().map(|(text, _)| text.clone()).collect();
    let told = told(&daemon, "test:///default", "domain", &texts);
    for ((text, readable), told) in documents.iter().zip(told) {
        let read = domain_named(text, &[OwnerMark::ours()]);
        assert_eq!(read.is_ok(), *readable, "{text}: {read:?}");
        let told = told.unwrap_or_else(|| panic!("libvirt refuses {text}"));
        let Ok(read) = read else {
            continue;
        };
        assert_eq!(read.name.as_deref(), told["name"].as_str(), "{text}");
        if let Some(uuid) = read.uuid {
            assert_eq!(
                Some(uuid.to_string().as_str()),
                told["uuid"].as_str(),
                "{text}"
            );
        } else {
            assert_ne!(told["uuid"], UUID, "{text}");
        }
        let owner = told["owner"].as_str();
        let owner = owner.and_then(|xml| owner_in_metadata(xml, &OwnerMark::ours()).unwrap());
        let expected = owner.map_or(NamedOwner::None, NamedOwner::Is);
        assert_eq!(read.owner, expected, "{text}");
    }
}

#[test]
fn a_stamped_domain_has_its_owner_with_libvirt_too() {
    let daemon = Libvirtd::start();
    let documents = [
        domain("<name>a</name>"),
        domain("<name>a</name><metadata/>"),
        domain("<name>a</name><metadata>\n<x:x xmlns:x='urn:x'/></metadata>"),
        format!(
            "<?xml version='1.0'?>\n<!-- <domain> -->{}",
            domain("<name>a</name>")
        ),
    ]
    .map(|text| stamp(&text, "R&D", &[OwnerMark::ours()]).unwrap().unwrap());
    for told in told(&daemon, "test:///default", "domain", &documents) {
        let told = told.unwrap();
        let owner = owner_in_metadata(told["owner"].as_str().unwrap(), &OwnerMark::ours());
        assert_eq!(owner.unwrap().as_deref(), Some("R&D"));
    }
}

#[test]
fn other_objects_are_named_as_libvirt_names_them() {
    let daemon = Libvirtd::start();
    let uuid = format!("<uuid>{}</uuid>", UUID.to_uppercase());
    let cases: [(&str, &str, Procedure, Vec<String>); 5] = [
        (
            "test:///default",
            "network",
            r::NETWORK_DEFINE_XML,
            vec![
                format!("<network><name>n<!-- -->1</name>{uuid}<bridge name='virbr7'/></network>"),
                "<network><name>&#110;</name><bridge name='virbr7'/></network>".into(),
            ],
        ),
        (
            "test:///default",
            "pool",
            r::STORAGE_POOL_DEFINE_XML,
            vec![format!(
                "<pool type='dir'><name><![CDATA[p]]></name>{uuid}<target><path>/p</path></target></pool>"
            )],
        ),
        (
            "test:///default",
            "volume",
            r::STORAGE_VOL_CREATE_XML,
            vec![
                "<volume><name>v<!-- -->1</name><key>other</key><capacity>1</capacity></volume>"
                    .into(),
            ],
        ),
        (
            "test:///default",
            "interface",
            r::INTERFACE_DEFINE_XML,
            vec![
                "<interface type='ethernet' name='eth&#55;'><start mode='none'/>\
                 <mac address='52:54:00:00:00:07'/></interface>"
                    .into(),
            ],
        ),
        (
            "secret:///session",
            "secret",
            r::SECRET_DEFINE_XML,
            vec![
                format!("<secret>{uuid}</secret>"),
                format!("<secret>{uuid}<usage type='volume'><volume>/a</volume></usage></secret>"),
                format!("<secret>{uuid}<usage type='ceph'><name>c</name></usage></secret>"),
                format!("<secret>{uuid}<usage type='iscsi'><target>i</target></usage></secret>"),
                format!("<secret>{uuid}<usage type='tls'><name>t</name></usage></secret>"),
                format!("<secret>{uuid}<usage type='vtpm'><name>v</name></usage></secret>"),
            ],
        ),
    ];
    for (uri, kind, procedure, documents) in cases {
        let told = told(&daemon, uri, kind, &documents);
        for (text, told) in documents.iter().zip(told) {
            let told = told.unwrap_or_else(|| panic!("libvirt refuses {text}"));
            let read = read(procedure, text).unwrap_or_else(|| panic!("we refuse {text}"));
            for (key, value) in [
                ("name", read.name),
                ("uuid", read.uuid.map(|uuid| uuid.to_string())),
                ("mac", read.mac),
                ("usage", read.usage),
                (
                    "usage_type",
                    read.usage_type.map(|number| number.to_string()),
                ),
            ] {
                if let (Some(value), Some(told)) = (value, told.get(key)) {
                    let told = told
                        .as_str()
                        .map_or_else(|| told.to_string(), str::to_owned);
                    assert_eq!(value, told, "{key} of {text}");
                }
            }
        }
    }
}

/// Guards with one folder.
fn in_folder(folder: &str) -> Guards {
    let mut guards = Guards::default();
    guards.host_paths = Some(vec![folder.to_owned()]);
    guards
}

#[test]
fn every_place_where_libvirt_keeps_a_path_is_guarded() {
    let template = include_str!("../fixtures/domains/host_paths.xml");
    let (_, template) = template.split_once("-->").unwrap();
    let places: Vec<&str> = template
        .split('@')
        .skip(1)
        .map(|rest| rest.split(['\'', '<']).next().unwrap())
        .collect();
    assert!(places.len() > 45, "{places:?}");

    // libvirt takes each for a path, and gives it back.
    let daemon = Libvirtd::start();
    let outside = template.replace('@', "/etc");
    let told = told(&daemon, "test:///default", "domain", &[outside]);
    let xml = told[0].as_ref().unwrap()["xml"].as_str().unwrap();
    for place in &places {
        let path = format!("/etc{place}");
        let kept = [format!("'{path}'"), format!(">{path}<")];
        assert!(kept.iter().any(|kept| xml.contains(kept)), "{path}: {xml}");
    }

    // No place can be left out of the folder without a refusal that names it.
    let guards = in_folder("/srv/acme");
    let mut word = Guards::default();
    word.host_paths = Some(Vec::new());
    let inside = without_host_cards(&template.replace('@', "/srv/acme"));
    assert_eq!(guards.check(&Content::domain(&inside).unwrap()), Ok(()));
    assert!(word.check(&Content::domain(&inside).unwrap()).is_err());
    for place in &places {
        let one = template.replace(&format!("@{place}"), &format!("/etc{place}"));
        let one = one.replace('@', "/srv/acme");
        let one = if place.contains("certificates") {
            one
        } else {
            without_host_cards(&one)
        };
        let said = guards
            .check(&Content::domain(&one).unwrap())
            .unwrap_err()
            .to_string();
        // What is not known to be a path is not repeated: it may be a secret.
        let named = said.contains(place.trim_end_matches('/'))
            || said.contains("smartcard")
            || said.contains("may be a path");
        assert!(named, "{place}: {said}");
    }
}

/// Certificates of the host are devices of the host wherever they are.
fn without_host_cards(xml: &str) -> String {
    let (before, rest) = xml.split_once("<smartcard").unwrap();
    let (_, after) = rest.split_once("</smartcard>").unwrap();
    format!("{before}{after}")
}

#[test]
fn what_libvirt_writes_of_a_guest_can_be_defined_again() {
    let daemon = Libvirtd::start();
    let uri = daemon.uri("qemu:///session");
    let file = guest_xml(&daemon, "acme-1");
    let guards = in_folder(daemon.dir().to_str().unwrap());
    virsh(&uri, &["define", file.to_str().unwrap()]).run().ok();
    virsh(&uri, &["start", "acme-1"]).run().ok();
    for args in [
        &["dumpxml", "acme-1", "--inactive"][..],
        &["dumpxml", "acme-1", "--migratable"],
        &["dumpxml", "acme-1", "--inactive", "--security-info"],
    ] {
        let xml = virsh(&uri, args).run().ok();
        assert!(xml.contains("<emulator>"), "{xml}");
        let content = Content::domain(&xml).unwrap();
        assert_eq!(guards.check(&content), Ok(()), "{xml}");
        assert!(in_folder("/srv/acme").check(&content).is_err());
    }
}
