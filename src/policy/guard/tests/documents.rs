//! Documents other than domains.

use super::*;
use crate::protocol::table::remote as r;

fn against(guards: &Guards, procedure: Procedure, argument: &str, xml: &str) -> String {
    said(
        guards,
        Program::REMOTE,
        procedure,
        &[(argument, xml.into())],
    )
}

#[test]
fn domains_are_checked_wherever_they_come() {
    let bad =
        "<domain><name>a</name><devices><disk><source file='/etc/x'/></disk></devices></domain>";
    let snapshot = format!("<domainsnapshot>{bad}</domainsnapshot>");
    let inactive = bad.replace("domain>", "inactiveDomain>");
    let inactive = format!("<domainsnapshot>{inactive}</domainsnapshot>");
    let checkpoint = format!("<domaincheckpoint>{bad}</domaincheckpoint>");
    let cookie = format!("<qemu-migration>{bad}</qemu-migration>\0");
    let params = |name| Value::Params(vec![(name, ParamValue::Text(bad.into()))]);
    let cookie = || Value::Bytes(cookie.as_bytes());
    let backup = "<domainbackup/>";
    for (procedure, values) in [
        (r::DOMAIN_CREATE_XML, vec![("xml_desc", bad.into())]),
        (
            r::DOMAIN_CREATE_XML_WITH_FILES,
            vec![("xml_desc", bad.into())],
        ),
        (r::DOMAIN_DEFINE_XML, vec![("xml", bad.into())]),
        (r::DOMAIN_DEFINE_XML_FLAGS, vec![("xml", bad.into())]),
        (
            r::CONNECT_DOMAIN_XML_TO_NATIVE,
            vec![("domainXml", bad.into())],
        ),
        (
            r::DOMAIN_SNAPSHOT_CREATE_XML,
            vec![("xml_desc", snapshot.as_str().into())],
        ),
        (
            r::DOMAIN_SNAPSHOT_CREATE_XML,
            vec![("xml_desc", inactive.as_str().into())],
        ),
        (
            r::DOMAIN_CHECKPOINT_CREATE_XML,
            vec![("xml_desc", checkpoint.as_str().into())],
        ),
        (
            r::DOMAIN_BACKUP_BEGIN,
            vec![
                ("backup_xml", backup.into()),
                ("checkpoint_xml", checkpoint.as_str().into()),
            ],
        ),
        (
            r::DOMAIN_SAVE_FLAGS,
            vec![("to", "/srv/acme/x".into()), ("dxml", bad.into())],
        ),
        (
            r::DOMAIN_RESTORE_FLAGS,
            vec![("from", "/srv/acme/x".into()), ("dxml", bad.into())],
        ),
        (
            r::DOMAIN_SAVE_IMAGE_DEFINE_XML,
            vec![("file", "/srv/acme/x".into()), ("dxml", bad.into())],
        ),
        (
            r::DOMAIN_MANAGED_SAVE_DEFINE_XML,
            vec![("dxml", bad.into())],
        ),
        (r::DOMAIN_SAVE_PARAMS, vec![("params", params("dxml"))]),
        (r::DOMAIN_RESTORE_PARAMS, vec![("params", params("dxml"))]),
        (r::DOMAIN_MIGRATE_PREPARE2, vec![("dom_xml", bad.into())]),
        (r::DOMAIN_MIGRATE_PREPARE3, vec![("dom_xml", bad.into())]),
        (
            r::DOMAIN_MIGRATE_PREPARE_TUNNEL,
            vec![("dom_xml", bad.into())],
        ),
        (
            r::DOMAIN_MIGRATE_PREPARE_TUNNEL3,
            vec![("dom_xml", bad.into())],
        ),
        (r::DOMAIN_MIGRATE_BEGIN3, vec![("xmlin", bad.into())]),
        (r::DOMAIN_MIGRATE_PERFORM3, vec![("xmlin", bad.into())]),
        (r::DOMAIN_MIGRATE_FINISH3, vec![("cookie_in", cookie())]),
        (
            r::DOMAIN_MIGRATE_FINISH3_PARAMS,
            vec![("cookie_in", cookie())],
        ),
        (r::DOMAIN_MIGRATE_CONFIRM3, vec![("cookie_in", cookie())]),
        (
            r::DOMAIN_MIGRATE_PERFORM3_PARAMS,
            vec![("params", params("persistent_xml"))],
        ),
        (
            r::DOMAIN_MIGRATE_PREPARE3_PARAMS,
            vec![("params", params("destination_xml"))],
        ),
        (
            r::DOMAIN_MIGRATE_BEGIN3_PARAMS,
            vec![("params", params("destination_xml"))],
        ),
        (
            r::DOMAIN_MIGRATE_PREPARE_TUNNEL3_PARAMS,
            vec![("params", params("destination_xml"))],
        ),
    ] {
        let row = lookup(Program::REMOTE, procedure).unwrap();
        let said = said(&in_acme(), Program::REMOTE, procedure, &values);
        assert!(said.starts_with("host_paths: "), "{}: {said:?}", row.name);
    }
    let image = Content::domain(bad).unwrap();
    assert_eq!(in_acme().check(&image).unwrap_err().guard, "host_paths");
    assert!(Content::domain("<network/>").is_err());
}

#[test]
fn every_domain_of_a_document_is_measured() {
    let guards = Guards {
        max: Max {
            vcpus: Some(2),
            ..Max::default()
        },
        ..Guards::default()
    };
    let big = "<name>a</name><vcpu>3</vcpu>";
    for xml in [
        format!("<domainsnapshot><domain>{big}</domain></domainsnapshot>"),
        format!("<domainsnapshot><domain/><inactiveDomain>{big}</inactiveDomain></domainsnapshot>"),
    ] {
        let said = against(&guards, r::DOMAIN_SNAPSHOT_CREATE_XML, "xml_desc", &xml);
        assert!(said.starts_with("max: "), "{xml}: {said:?}");
    }
}

#[test]
fn snapshots_and_backups_write_in_the_folders() {
    for (procedure, argument, xml) in [
        (
            r::DOMAIN_SNAPSHOT_CREATE_XML,
            "xml_desc",
            "<domainsnapshot><memory snapshot='external' file='@'/></domainsnapshot>",
        ),
        (
            r::DOMAIN_SNAPSHOT_CREATE_XML,
            "xml_desc",
            "<domainsnapshot><disks><disk name='vda' snapshot='external'><driver type='qcow2'/>\
             <source file='@'/></disk></disks></domainsnapshot>",
        ),
        (
            r::DOMAIN_SNAPSHOT_CREATE_XML,
            "xml_desc",
            "<domainsnapshot><disks><disk name='vda' type='block'><source dev='@'/></disk></disks>\
             </domainsnapshot>",
        ),
        (
            r::DOMAIN_BACKUP_BEGIN,
            "backup_xml",
            "<domainbackup><disks><disk name='vda' type='file'><target file='@'/></disk></disks></domainbackup>",
        ),
        (
            r::DOMAIN_BACKUP_BEGIN,
            "backup_xml",
            "<domainbackup><disks><disk name='vda' type='block'><target dev='@'/></disk></disks></domainbackup>",
        ),
        (
            r::DOMAIN_BACKUP_BEGIN,
            "backup_xml",
            "<domainbackup mode='pull'><server transport='unix' socket='@'/></domainbackup>",
        ),
        (
            r::DOMAIN_BACKUP_BEGIN,
            "backup_xml",
            "<domainbackup mode='pull'><disks><disk name='vda'><scratch file='@'/></disk></disks></domainbackup>",
        ),
    ] {
        let of = |path: &str| against(&in_acme(), procedure, argument, &xml.replace('@', path));
        assert_eq!(of("/srv/acme/x"), "", "{xml}");
        assert!(of("/etc/x").starts_with("host_paths: "), "{xml}");
        assert!(of("x").starts_with("host_paths: "), "{xml}");
    }
    // The files of a snapshot are called after it.
    let name = "<domainsnapshot><name>a/../../x</name></domainsnapshot>";
    assert!(
        against(&in_acme(), r::DOMAIN_SNAPSHOT_CREATE_XML, "xml_desc", name)
            .starts_with("host_paths: ")
    );
}

#[test]
fn pools_and_volumes_are_in_the_folders() {
    let pool = |xml: &str| against(&in_acme(), r::STORAGE_POOL_DEFINE_XML, "xml", xml);
    let at = |path: &str| {
        format!("<pool type='dir'><name>acme</name><target><path>{path}</path></target></pool>")
    };
    assert_eq!(pool(&at("/srv/acme")), "");
    assert_eq!(pool(&at("/srv/acme/x")), "");
    for path in ["/", "/etc", "/srv", "/srv/acme/..", "/srv/acmex", "etc"] {
        assert!(pool(&at(path)).starts_with("host_paths: "), "{path}");
    }
    assert!(pool(&at("/srv/acme").replace(">acme<", ">globex<")).starts_with("pools: "));
    for xml in [
        "<pool type='fs'><name>acme</name><source><device path='/dev/sdb1'/></source></pool>",
        "<pool type='netfs'><name>acme</name><source><host name='h'/><dir path='/export'/></source></pool>",
        "<pool type='logical'><name>acme</name><source><name>vg0</name></source></pool>",
        "<pool type='scsi'><name>acme</name><source><adapter name='host0'/></source></pool>",
        "<pool type='mpath'><name>acme</name></pool>",
        "<pool type='zfs'><name>acme</name><source><name>tank</name></source></pool>",
        "<pool type='dir'><name>acme</name><new><path>/etc</path></new></pool>",
        "<pool type='fs' xmlns:fs='http://libvirt.org/schemas/storagepool/fs/1.0'><name>acme</name>\
         <fs:mount_opts><fs:option name='bind'/></fs:mount_opts></pool>",
        "<pool type='rbd' xmlns:rbd='http://libvirt.org/schemas/storagepool/rbd/1.0'><name>acme</name>\
         <rbd:config_opts/></pool>",
    ] {
        assert!(
            pool(xml).starts_with("host_paths: "),
            "{xml}: {:?}",
            pool(xml)
        );
    }
    for (word, xml) in [
        (
            Forbid::NetworkDisk,
            "<pool type='rbd'><name>a</name></pool>",
        ),
        (
            Forbid::BlockDevice,
            "<pool type='logical'><name>a</name></pool>",
        ),
        (
            Forbid::MountOptions,
            "<pool type='fs' xmlns:x='http://libvirt.org/schemas/storagepool/fs/1.0'><name>a</name><x:mount_opts/></pool>",
        ),
    ] {
        let said = against(&forbidding(word), r::STORAGE_POOL_CREATE_XML, "xml", xml);
        assert!(said.contains(word.word()), "{xml}: {said:?}");
    }
    let source = "<source><device path='/dev/sdb'/></source>";
    assert!(
        against(
            &in_acme(),
            r::CONNECT_FIND_STORAGE_POOL_SOURCES,
            "srcSpec",
            source
        )
        .starts_with("host_paths: ")
    );

    for procedure in [r::STORAGE_VOL_CREATE_XML, r::STORAGE_VOL_CREATE_XML_FROM] {
        let volume = |xml: &str| against(&in_acme(), procedure, "xml", xml);
        let good = "<volume><name>x</name><key>/srv/acme/x</key><target><path>/srv/acme/x</path></target>\
                    <backingStore><path>/srv/acme/b</path></backingStore></volume>";
        assert_eq!(volume(good), "");
        for xml in [
            "<volume><name>../x</name></volume>",
            "<volume><name>x</name><target><path>/etc/x</path></target></volume>",
            "<volume><name>x</name><backingStore><path>/etc/shadow</path></backingStore></volume>",
            "<volume><name>x</name><backingStore><path>../shadow</path></backingStore></volume>",
        ] {
            assert!(volume(xml).starts_with("host_paths: "), "{xml}");
        }
    }
}

#[test]
fn networks_are_on_the_bridges_of_the_rule() {
    let guards = Guards {
        networks: patterns(&["acme-*"]),
        bridges: patterns(&["br-acme", "eth7"]),
        ..Guards::default()
    };
    let network = |inner: &str| {
        let xml = format!("<network><name>acme-1</name>{inner}</network>");
        let defined = against(&guards, r::NETWORK_DEFINE_XML, "xml", &xml);
        assert_eq!(
            defined,
            against(&guards, r::NETWORK_CREATE_XML_FLAGS, "xml", &xml)
        );
        defined
    };
    for inner in [
        "",
        "<forward mode='nat'/><bridge stp='on'/>",
        "<bridge name='br-acme'/>",
        "<forward mode='bridge'><interface dev='eth7'/></forward>",
        "<metadata><x:x xmlns:x='urn:x'/></metadata>",
    ] {
        assert_eq!(network(inner), "", "{inner}");
    }
    for inner in [
        "<bridge name='br0'/>",
        "<forward dev='eth0'/>",
        "<forward mode='bridge'><interface dev='eth0'/></forward>",
        "<forward mode='hostdev'><pf dev='eth0'/></forward>",
    ] {
        assert!(network(inner).starts_with("bridges: "), "{inner}");
    }
    // Where no bridge is listed, none that is there may be used; a new one may.
    let alone = Guards {
        bridges: None,
        ..guards.clone()
    };
    for (inner, allowed) in [
        ("<forward mode='nat'/><bridge name='virbr7'/>", true),
        ("<bridge name='virbr7'/>", true),
        ("<forward mode='bridge'/><bridge name='br0'/>", false),
        ("<bridge name='br0'/><forward mode='bridge'/>", false),
        ("<forward mode='nat' dev='eth0'/>", false),
        (
            "<forward mode='passthrough'><interface dev='eth0'/></forward>",
            false,
        ),
    ] {
        let xml = format!("<network><name>acme-1</name>{inner}</network>");
        let said = against(&alone, r::NETWORK_DEFINE_XML, "xml", &xml);
        assert_eq!(said.is_empty(), allowed, "{inner}: {said:?}");
    }
    let other = "<network><name>globex</name></network>";
    assert!(against(&guards, r::NETWORK_DEFINE_XML, "xml", other).starts_with("networks: "));
    let options = "<network xmlns:d='http://libvirt.org/schemas/network/dnsmasq/1.0'><name>acme-1</name>\
                   <d:options><d:option value='dhcp-script=/bin/sh'/></d:options></network>";
    assert!(against(&guards, r::NETWORK_DEFINE_XML, "xml", options).contains("dnsmasq-namespace"));
    let word = forbidding(Forbid::DnsmasqNamespace);
    assert!(against(&word, r::NETWORK_DEFINE_XML, "xml", options).starts_with("forbid: "));
    let host = "<network><name>a</name><forward mode='hostdev'/></network>";
    assert!(
        against(
            &forbidding(Forbid::HostDev),
            r::NETWORK_DEFINE_XML,
            "xml",
            host
        )
        .starts_with("forbid: ")
    );
    assert!(
        against(&guards, r::NETWORK_UPDATE, "xml", "<interface dev='eth0'/>")
            .starts_with("bridges: ")
    );
    assert_eq!(
        against(
            &guards,
            r::NETWORK_UPDATE,
            "xml",
            "<host mac='52:54:00:00:00:01'/>"
        ),
        ""
    );

    let root = |path: &str| {
        let xml = format!(
            "<network><name>a</name><ip><tftp root='{path}'/><dhcp><bootp file='/pxe'/></dhcp></ip></network>"
        );
        against(&in_acme(), r::NETWORK_DEFINE_XML, "xml", &xml)
    };
    assert_eq!(root("/srv/acme"), "");
    assert!(root("/etc").starts_with("host_paths: "));

    let port = |plug: &str| {
        let xml = format!("<networkport>{plug}</networkport>");
        against(&guards, r::NETWORK_PORT_CREATE_XML, "xml", &xml)
    };
    assert_eq!(port("<plug type='bridge' bridge='br-acme'/>"), "");
    assert!(port("<plug type='bridge' bridge='br0'/>").starts_with("bridges: "));
    assert!(port("<plug type='direct' dev='eth0'/>").starts_with("bridges: "));

    let interface = "<interface type='bridge' name='br-acme'><bridge><interface name='eth0'/></bridge></interface>";
    assert!(against(&guards, r::INTERFACE_DEFINE_XML, "xml", interface).contains("eth0"));
}

#[test]
fn other_documents_have_no_paths_of_the_host() {
    for (procedure, argument, xml) in [
        (
            r::NWFILTER_DEFINE_XML,
            "xml",
            "<filter name='a'><rule><ip comment='a/b'/></rule></filter>",
        ),
        (
            r::NWFILTER_BINDING_CREATE_XML,
            "xml",
            "<filterbinding><portdev name='vnet0'/></filterbinding>",
        ),
        (
            r::CONNECT_COMPARE_CPU,
            "xml",
            "<cpu><model>x/y</model></cpu>",
        ),
        (
            r::CONNECT_BASELINE_CPU,
            "xmlCPUs",
            "<cpu><model>x/y</model></cpu>",
        ),
        (
            r::NODE_DEVICE_CREATE_XML,
            "xml_desc",
            "<device><path>/sys/devices/x</path><parent>scsi_host3</parent></device>",
        ),
    ] {
        assert_eq!(against(&in_acme(), procedure, argument, xml), "", "{xml}");
    }
    let secret = |path: &str| {
        let xml = format!("<secret><usage type='volume'><volume>{path}</volume></usage></secret>");
        against(&in_acme(), r::SECRET_DEFINE_XML, "xml", &xml)
    };
    assert_eq!(secret("/srv/acme/x"), "");
    assert!(secret("/srv/globex/x").starts_with("host_paths: "));
}
