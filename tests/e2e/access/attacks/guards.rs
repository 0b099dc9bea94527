//! Paths of the host, and commands to QEMU's monitor and the guest's agent.

use std::path::Path;

use super::super::host::{Host, SMALL, WAYS, denied, tenant_rule};
use crate::support::tenants::{ACME, Driver, NOBODY, uuid_text};
use crate::support::value::Value;

/// Acme keeps to its own directory, network and pool, and may ask QEMU but not tell it.
fn guarded(dir: &Path) -> String {
    let guards = format!(
        "  guards:
    host_paths: [\"{}\"]
    networks: [\"acme-*\"]
    bridges: [\"acme-*\"]
    pools: [acme]
    forbid: [hostdev, qemu-namespace, filesystem]
    max: {{ vcpus: 2, memory: 64MiB, disks: 2 }}
    monitor_commands: [\"query-*\"]
    agent_commands: [guest-ping]
",
        ACME.pool_path(dir).display()
    );
    format!("access:\n{}", tenant_rule(ACME, &guards))
}

/// Where a disk may not be, and where it may, however it is written.
fn paths(dir: &Path) -> [(bool, String); 12] {
    let (pools, own) = (dir.join("pools"), ACME.pool_path(dir));
    let (pools, own) = (pools.display(), own.display());
    [
        (true, format!("{own}/acme-vol-1")),
        (true, format!("{own}//acme-vol-1")),
        (true, format!("{own}/./acme-vol-1")),
        (true, format!("{own}/x/../acme-vol-1")),
        (true, format!("{pools}/globex/../acme/acme-vol-1")),
        (false, format!("{own}/../globex/globex-vol-1")),
        (false, format!("{own}/x/../../globex/globex-vol-1")),
        (false, format!("{pools}/acme-evil/x")),
        (false, format!("{pools}//globex/globex-vol-1")),
        (false, "/etc/shadow".to_owned()),
        (false, "acme-vol-1".to_owned()),
        (false, format!("{own}/../../../etc/shadow")),
    ]
}

#[test]
fn paths_stay_in_the_folders_of_the_rule() {
    let host = Host::with_access(Driver::Qemu, SMALL, guarded);
    let dir = host.dir();
    let xml = host.xml(ACME);
    let disk = ACME.volume_path(5, dir).display().to_string();
    let dom = || ("dom", ACME.object("domain", 5, dir));
    let config = || ("flags", Value::Int(2));
    for way in WAYS {
        let mut client = host.caller("acme", way);
        for (good, path) in paths(dir) {
            let domain = xml.domain(5).replace(&disk, &path);
            assert!(domain.contains(&path), "{domain}");
            let device = format!(
                "<disk type='file'><source file='{path}'/><target dev='vdb' bus='virtio'/></disk>"
            );
            let snapshot = format!(
                "<domainsnapshot><name>acme-s</name><disks><disk name='vda' snapshot='external'>\
                 <source file='{path}'/></disk></disks></domainsnapshot>"
            );
            let define = || Value::from(domain.as_str());
            let attach = [dom(), ("xml", device.as_str().into()), config()];
            let detach = [dom(), ("xml", device.as_str().into()), config()];
            if good {
                client
                    .call("DOMAIN_DEFINE_XML", &[("xml", define())])
                    .unwrap();
                client.call("DOMAIN_ATTACH_DEVICE_FLAGS", &attach).unwrap();
                client.call("DOMAIN_DETACH_DEVICE_FLAGS", &detach).unwrap();
                continue;
            }
            denied(&mut client, "DOMAIN_DEFINE_XML", &[("xml", define())]);
            denied(&mut client, "DOMAIN_DEFINE_XML_FLAGS", &[("xml", define())]);
            denied(&mut client, "DOMAIN_CREATE_XML", &[("xml_desc", define())]);
            denied(&mut client, "DOMAIN_ATTACH_DEVICE_FLAGS", &attach);
            denied(&mut client, "DOMAIN_ATTACH_DEVICE", &attach[..2]);
            denied(&mut client, "DOMAIN_UPDATE_DEVICE_FLAGS", &attach);
            let snapshot = [
                dom(),
                ("xml_desc", snapshot.into()),
                ("flags", Value::Int(16)),
            ];
            denied(&mut client, "DOMAIN_SNAPSHOT_CREATE_XML", &snapshot);
            let to = ("to", Value::from(path.as_str()));
            denied(&mut client, "DOMAIN_SAVE", &[dom(), to.clone()]);
            denied(&mut client, "DOMAIN_SAVE_FLAGS", &[dom(), to.clone()]);
            denied(&mut client, "DOMAIN_CORE_DUMP", &[dom(), to.clone()]);
            denied(
                &mut client,
                "DOMAIN_CORE_DUMP_WITH_FORMAT",
                &[dom(), to.clone()],
            );
            denied(&mut client, "DOMAIN_RESTORE", &[("from", to.1)]);
            let copy = [
                dom(),
                ("path", "vda".into()),
                ("destxml", device.as_str().into()),
            ];
            denied(&mut client, "DOMAIN_BLOCK_COPY", &copy);
            let rebase = [
                dom(),
                ("path", "vda".into()),
                ("base", path.as_str().into()),
                ("flags", Value::Int(8)),
            ];
            denied(&mut client, "DOMAIN_BLOCK_REBASE", &rebase);
            let pool = xml
                .pool()
                .replace(&ACME.pool_path(dir).display().to_string(), &path)
                .replace(
                    &uuid_text(ACME.uuid("storage_pool", 0)),
                    &uuid_text(NOBODY.uuid("storage_pool", 0)),
                );
            for make in ["STORAGE_POOL_DEFINE_XML", "STORAGE_POOL_CREATE_XML"] {
                denied(&mut client, make, &[("xml", pool.as_str().into())]);
            }
        }
    }
}

#[test]
fn domains_keep_to_what_the_rule_lets_them_have() {
    let host = Host::with_access(Driver::Qemu, SMALL, guarded);
    let dir = host.dir();
    let xml = host.xml(ACME);
    let with = |devices: &str| {
        xml.domain(5)
            .replace("<devices>", &format!("<devices>{devices}"))
    };
    let pci = "<hostdev mode='subsystem' type='pci'><source><address domain='0' bus='0' slot='1' \
               function='0'/></source></hostdev>";
    let bad = [
        with(pci),
        with("<filesystem type='mount'><source dir='/'/><target dir='x'/></filesystem>"),
        with("<interface type='network'><source network='globex-net-0'/></interface>"),
        with("<interface type='bridge'><source bridge='globex-br-0'/></interface>"),
        with(
            "<disk type='volume'><source pool='globex' volume='globex-vol-1'/>\
             <target dev='vdb' bus='virtio'/></disk>",
        ),
        xml.domain(5).replace(
            "<domain type='qemu'>",
            "<domain type='qemu' xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'>\
             <q:commandline><q:arg value='-version'/></q:commandline>",
        ),
        xml.domain(5).replace("<vcpu>1<", "<vcpu>3<"),
        xml.domain(5)
            .replace("<memory unit='MiB'>16<", "<memory unit='GiB'>1<"),
    ];
    for way in WAYS {
        let mut client = host.caller("acme", way);
        for domain in &bad {
            assert_ne!(*domain, xml.domain(5));
            let domain = Value::from(domain.as_str());
            denied(&mut client, "DOMAIN_DEFINE_XML", &[("xml", domain.clone())]);
            denied(&mut client, "DOMAIN_CREATE_XML", &[("xml_desc", domain)]);
        }
        for device in [
            pci,
            "<interface type='network'><source network='globex-net-0'/></interface>",
        ] {
            let dom = ("dom", ACME.object("domain", 5, dir));
            let args = [dom, ("xml", device.into()), ("flags", Value::Int(2))];
            denied(&mut client, "DOMAIN_ATTACH_DEVICE_FLAGS", &args);
        }
        let dom = || ("dom", ACME.object("domain", 5, dir));
        let config = || ("flags", Value::Int(2));
        denied(
            &mut client,
            "DOMAIN_SET_VCPUS_FLAGS",
            &[dom(), ("nvcpus", Value::Int(3)), config()],
        );
        denied(
            &mut client,
            "DOMAIN_SET_MEMORY_FLAGS",
            &[dom(), ("memory", Value::Int(1 << 20)), config()],
        );
        let define = [("xml", Value::from(xml.domain(5)))];
        client.call("DOMAIN_DEFINE_XML", &define).unwrap();
    }
}

#[test]
fn qemu_and_the_guest_are_given_only_the_commands_of_the_rule() {
    let host = Host::with_access(Driver::Qemu, SMALL, guarded);
    let dom = || ("dom", ACME.object("domain", 0, host.dir()));
    let bad = [
        "{\"execute\":\"quit\"}",
        "{\"execute\":\"query-status\",\"execute\":\"quit\"}",
        "{\"execute\":\"quit\",\"execute\":\"query-status\"}",
        "{\"execute\":\"query-status\"}{\"execute\":\"quit\"}",
        "{\"execute\":\"query-status\"} quit",
        "{\"exec\\u0075te\":\"quit\"}",
        "{\"execute\":\"query-status\",\"exec-oob\":\"quit\"}",
        "{\"exec-oob\":\"quit\"}",
        "{\"execute\":[\"query-status\"]}",
        "{\"execute\":\"human-monitor-command\",\"arguments\":{\"command-line\":\"quit\"}}",
        "{\"execute\":\"QUERY-STATUS\"}",
        "['query-status']",
        "query-status",
        "",
    ];
    for way in WAYS {
        let mut client = host.caller("acme", way);
        let good = [dom(), ("cmd", "{\"execute\":\"query-status\"}".into())];
        let reply = client.call("DOMAIN_MONITOR_COMMAND", &good).unwrap();
        assert!(reply[0].text().contains("\"running\":false"), "{reply:?}");
        for command in bad {
            let command = || ("cmd", Value::from(command));
            denied(&mut client, "DOMAIN_MONITOR_COMMAND", &[dom(), command()]);
            denied(
                &mut client,
                "DOMAIN_MONITOR_COMMAND_WITH_FILES",
                &[dom(), command()],
            );
            denied(&mut client, "DOMAIN_AGENT_COMMAND", &[dom(), command()]);
        }
        // The monitor for people.
        for command in ["quit", "info status"] {
            let human = [dom(), ("cmd", command.into()), ("flags", Value::Int(1))];
            denied(&mut client, "DOMAIN_MONITOR_COMMAND", &human);
        }
        let ping = [dom(), ("cmd", "{\"execute\":\"guest-ping\"}".into())];
        // It comes through; there is no agent.
        let error = client.call("DOMAIN_AGENT_COMMAND", &ping).unwrap_err();
        assert_ne!(error.code, 88, "{error:?}");
        let shell = [dom(), ("cmd", "{\"execute\":\"guest-exec\"}".into())];
        denied(&mut client, "DOMAIN_AGENT_COMMAND", &shell);
        client.call("DOMAIN_GET_STATE", &[dom()]).unwrap();
    }
}
