//! Words, networks and pools, device by device.

use super::*;
use crate::protocol::table::remote as r;

/// Every word, what it forbids, and what is like that and allowed.
const WORDS: &[(Forbid, &[&str], &[&str])] = &[
    (
        Forbid::HostDev,
        &[
            "<devices><hostdev mode='subsystem' type='usb'/></devices>",
            "<devices><interface type='hostdev'/></devices>",
            "<devices><interface type='vdpa'/></devices>",
            "<devices><disk type='nvme'/></devices>",
            "<devices><disk device='lun'/></devices>",
            "<devices><disk rawio='yes'/></devices>",
            "<devices><disk sgio='unfiltered'/></devices>",
            "<devices><smartcard mode='host'/></devices>",
            "<devices><smartcard mode='host-certificates'/></devices>",
            "<devices><disk><backingStore type='nvme'/></disk></devices>",
        ],
        &[
            "<devices><disk type='file' device='disk'/><smartcard mode='passthrough' type='spicevmc'/></devices>",
        ],
    ),
    (
        Forbid::QemuNamespace,
        &[
            "<qemu:commandline><qemu:arg value='-x'/></qemu:commandline>",
            "<qemu:capabilities/>",
            "<qemu:deprecation behavior='crash'/>",
            "<qemu:override/>",
        ],
        &["<xen:commandline/>"],
    ),
    (
        Forbid::LxcNamespace,
        &["<lxc:namespace/>"],
        &["<qemu:commandline/>"],
    ),
    (
        Forbid::XenNamespace,
        &["<xen:commandline/>"],
        &["<qemu:commandline/>"],
    ),
    (
        Forbid::BhyveNamespace,
        &["<bhyve:commandline/>"],
        &["<qemu:commandline/>"],
    ),
    (
        Forbid::SeclabelOverride,
        &[
            "<seclabel type='none'/>",
            "<seclabel type='static' model='dac'><label>0:0</label></seclabel>",
            "<seclabel model='dac'/>",
            "<seclabel type='dynamic' relabel='no'/>",
            "<seclabel type='dynamic'><baselabel>x</baselabel></seclabel>",
            "<devices><disk><source file='x'><seclabel type='dynamic'/></source></disk></devices>",
        ],
        &[
            "<seclabel type='dynamic' model='dac' relabel='yes'><label>x</label><imagelabel>x</imagelabel></seclabel>",
        ],
    ),
    (
        Forbid::Filesystem,
        &["<devices><filesystem type='ram'/></devices>"],
        &[],
    ),
    (
        Forbid::CharDevicePath,
        &[
            "<devices><serial type='file'><source path='x'/></serial></devices>",
            "<devices><serial type='dev'><source path='x'/></serial></devices>",
            "<devices><console type='pipe'><source path='x'/></console></devices>",
            "<devices><channel type='unix'><source mode='bind' path='x'/></channel></devices>",
            "<devices><serial type='nmdm'><source master='x'/></serial></devices>",
            "<devices><serial type='pty'><log file='x'/></serial></devices>",
            "<devices><interface type='vhostuser'><source type='unix' path='x'/></interface></devices>",
            "<devices><rng><backend model='egd' type='unix'><source path='x'/></backend></rng></devices>",
        ],
        &[
            "<devices><serial type='pty'><source path='/dev/pts/1'/></serial></devices>",
            "<devices><channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel></devices>",
            "<devices><channel type='spicevmc'/><serial type='tcp'><source host='h'/></serial></devices>",
        ],
    ),
    (
        Forbid::CharDeviceNetwork,
        &[
            "<devices><serial type='tcp'/></devices>",
            "<devices><console type='udp'/></devices>",
            "<devices><redirdev bus='usb' type='tcp'/></devices>",
            "<devices><rng><backend model='egd' type='tcp'/></rng></devices>",
        ],
        &["<devices><serial type='unix'/></devices>"],
    ),
    (
        Forbid::Emulator,
        &[
            "<devices><emulator>/usr/bin/qemu-system-x86_64</emulator></devices>",
            "<bootloader>/usr/bin/pygrub</bootloader>",
            "<devices><filesystem><binary path='x'/></filesystem></devices>",
            "<devices><interface><script path='x'/></interface></devices>",
        ],
        &[],
    ),
    (
        Forbid::Loader,
        &[
            "<os><loader>x</loader></os>",
            "<os><nvram>x</nvram></os>",
            "<os><nvram template='x'/></os>",
            "<os><nvram><source file='x'/></nvram></os>",
        ],
        &["<os firmware='efi'><loader secure='yes'/><nvram/></os>"],
    ),
    (
        Forbid::KernelPath,
        &[
            "<os><kernel>x</kernel></os>",
            "<os><initrd>x</initrd></os>",
            "<os><dtb>x</dtb></os>",
            "<os><shim>x</shim></os>",
            "<os><acpi><table type='slic'>x</table></acpi></os>",
        ],
        &["<os><boot dev='hd'/></os>"],
    ),
    (
        Forbid::NetworkDisk,
        &[
            "<devices><disk type='network'/></devices>",
            "<devices><disk type='file'><source protocol='nbd'/></disk></devices>",
            "<devices><disk><backingStore type='network'/></disk></devices>",
            "<devices><disk><mirror type='network'/></disk></devices>",
        ],
        &["<devices><disk type='file'/><interface type='network'/></devices>"],
    ),
    (
        Forbid::MemoryBackingPath,
        &[
            "<memoryBacking><source type='file'/></memoryBacking>",
            "<devices><memory model='nvdimm'><source><path>x</path></source></memory></devices>",
        ],
        &["<memoryBacking><source type='memfd'/></memoryBacking>"],
    ),
    (
        Forbid::BlockDevice,
        &[
            "<devices><disk type='block'/></devices>",
            "<devices><disk><source dev='x'/></disk></devices>",
            "<devices><disk type='file'><source file='/dev/sda'/></disk></devices>",
            "<devices><disk><backingStore type='block'/></disk></devices>",
        ],
        &["<devices><disk type='file'><source file='/a'/><target dev='vda'/></disk></devices>"],
    ),
    (
        Forbid::TpmPassthrough,
        &["<devices><tpm><backend type='passthrough'/></tpm></devices>"],
        &["<devices><tpm><backend type='emulator'/></tpm></devices>"],
    ),
    (
        Forbid::RngDevicePath,
        &[
            "<devices><rng><backend model='random'>/dev/hwrng</backend></rng></devices>",
            "<devices><rng><backend model='random'><!-- -->/dev/hwrng</backend></rng></devices>",
            "<devices><rng><backend model='egd' type='udp'/></rng></devices>",
        ],
        &[
            "<devices><rng><backend model='random'>/dev/urandom</backend></rng></devices>",
            "<devices><rng><backend model='builtin'/></rng></devices>",
        ],
    ),
    (
        Forbid::InputPassthrough,
        &[
            "<devices><input type='passthrough'/></devices>",
            "<devices><input type='evdev'/></devices>",
        ],
        &["<devices><input type='tablet'/></devices>"],
    ),
    (
        Forbid::Shmem,
        &["<devices><shmem name='x'/></devices>"],
        &[],
    ),
    (Forbid::Vsock, &["<devices><vsock/></devices>"], &[]),
    (
        Forbid::Secret,
        &[
            "<devices><disk><auth username='x'><secret type='ceph' uuid='x'/></auth></disk></devices>",
            "<devices><tpm><backend type='emulator'><encryption secret='x'><secret/></encryption></backend></tpm></devices>",
        ],
        &[],
    ),
    (
        Forbid::DriverDomain,
        &["<devices><interface><backenddomain name='x'/></interface></devices>"],
        &[],
    ),
    (
        Forbid::ImageChain,
        &[
            "<devices><disk><driver type='qcow2'/><source file='x'/></disk></devices>",
            "<devices><disk><driver type='qcow2'/><source file='x'/><backingStore type='file'>\
             <format type='qcow2'/><source file='y'/></backingStore></disk></devices>",
        ],
        &[
            "<devices><disk><driver type='raw'/><source file='x'/></disk></devices>",
            "<devices><disk><source file='x'/></disk></devices>",
            "<devices><disk><driver type='qcow2'/><source file='x'/><backingStore/></disk></devices>",
            "<devices><disk><driver type='qcow2'/><source file='x'/><backingStore type='file'>\
             <format type='raw'/><source file='y'/></backingStore></disk></devices>",
            "<devices><disk><driver type='qcow2'/><source file='x'/><backingStore type='file'>\
             <format type='qcow2'/><source file='y'/><backingStore/></backingStore></disk></devices>",
        ],
    ),
];

#[test]
fn every_word_forbids_what_it_says() {
    for (word, forbidden, allowed) in WORDS {
        let guards = forbidding(*word);
        for inner in *forbidden {
            let said = against_domain(&guards, inner);
            assert!(said.starts_with("forbid: "), "{inner}: {said:?}");
            assert!(said.contains(word.word()), "{inner}: {said:?}");
            assert_eq!(against_domain(&Guards::default(), inner), "", "{inner}");
        }
        for inner in *allowed {
            assert_eq!(against_domain(&guards, inner), "", "{inner}");
        }
    }
}

#[test]
fn every_word_is_tried() {
    let elsewhere = [
        // In `commands` and `documents`.
        Forbid::MonitorCommand,
        Forbid::AgentCommand,
        Forbid::DnsmasqNamespace,
        Forbid::MountOptions,
    ];
    for word in Forbid::ALL {
        let here = WORDS.iter().any(|(known, ..)| known == word);
        assert!(here || elsewhere.contains(word), "{word:?}");
    }
}

#[test]
fn interfaces_are_on_the_networks_of_the_rule() {
    let guards = Guards {
        networks: patterns(&["acme-*"]),
        bridges: patterns(&["br-acme", "eth7"]),
        ..Guards::default()
    };
    let only_networks = Guards {
        networks: patterns(&["acme-*"]),
        ..Guards::default()
    };
    let device = |of: &Guards, xml: &str| {
        let attached = said(
            of,
            Program::REMOTE,
            r::DOMAIN_ATTACH_DEVICE,
            &[("xml", xml.into())],
        );
        let updated = said(
            of,
            Program::REMOTE,
            r::DOMAIN_UPDATE_DEVICE_FLAGS,
            &[("xml", xml.into())],
        );
        let defined = against_domain(of, &format!("<devices>{xml}</devices>"));
        assert_eq!(attached, updated);
        assert_eq!(attached, defined);
        attached
    };
    for (xml, both, networks) in [
        (
            "<interface type='network'><source network='acme-net'/></interface>",
            true,
            true,
        ),
        (
            "<interface type='network'><source network='acme-net' bridge='virbr0'/></interface>",
            true,
            true,
        ),
        (
            "<interface type='network'><source network='globex'/></interface>",
            false,
            false,
        ),
        ("<interface type='network'/>", false, false),
        (
            "<interface type='network'><source network='acme-1'/><source network='globex'/></interface>",
            false,
            false,
        ),
        (
            "<interface type='bridge'><source bridge='br-acme'/></interface>",
            true,
            false,
        ),
        (
            "<interface type='bridge'><source bridge='br0'/></interface>",
            false,
            false,
        ),
        ("<interface type='bridge'/>", false, false),
        (
            "<interface type='direct'><source dev='eth7' mode='bridge'/></interface>",
            true,
            false,
        ),
        (
            "<interface type='direct'><source dev='eth0'/></interface>",
            false,
            false,
        ),
        ("<interface type='null'/>", true, true),
        ("<interface type='user'/>", false, false),
        ("<interface/>", false, false),
        ("<interface type='ethernet'/>", false, false),
        ("<interface type='vhostuser'/>", false, false),
        ("<interface type='hostdev'/>", false, false),
        ("<interface type='mcast'/>", false, false),
        (
            "<interface type='network'><source network='acme-net'/><vlan><tag id='7'/></vlan></interface>",
            false,
            false,
        ),
        (
            "<interface type='new'><source network='acme-net'/></interface>",
            false,
            false,
        ),
    ] {
        assert_eq!(device(&guards, xml).is_empty(), both, "{xml}");
        assert_eq!(device(&only_networks, xml).is_empty(), networks, "{xml}");
        assert_eq!(device(&Guards::default(), xml), "", "{xml}");
    }
    let listen = |network: &str| {
        let xml =
            format!("<graphics type='vnc'><listen type='network' network='{network}'/></graphics>");
        device(&only_networks, &xml)
    };
    assert_eq!(listen("acme-1"), "");
    assert!(listen("globex").starts_with("networks: "));
    // What would go round it.
    assert!(against_domain(&only_networks, "<qemu:commandline/>").starts_with("networks: "));
}

#[test]
fn volumes_are_of_the_pools_of_the_rule() {
    let disk = |pool: &str| {
        format!("<devices><disk type='volume'><source pool='{pool}' volume='x'/></disk></devices>")
    };
    let nested = "<devices><disk><source file='/srv/acme/x'/><backingStore type='volume'>\
                  <source pool='globex' volume='x'/></backingStore></disk></devices>";
    let shared = "<devices><filesystem type='volume'><source pool='globex' volume='x'/></filesystem></devices>";
    assert_eq!(against_domain(&in_acme(), &disk("acme")), "");
    for inner in [&disk("globex"), nested, shared] {
        assert!(
            against_domain(&in_acme(), inner).starts_with("pools: "),
            "{inner}"
        );
    }
    // Without a list of pools, folders alone cannot be kept.
    let folders = Guards {
        pools: None,
        ..in_acme()
    };
    assert!(against_domain(&folders, &disk("acme")).starts_with("pools: "));
    assert_eq!(against_domain(&Guards::default(), &disk("acme")), "");
}

#[test]
fn only_devices_are_attached() {
    for xml in [
        "<domain><devices/></domain>",
        "<metadata/>",
        "<os><kernel>/x</kernel></os>",
    ] {
        for procedure in [
            r::DOMAIN_ATTACH_DEVICE,
            r::DOMAIN_ATTACH_DEVICE_FLAGS,
            r::DOMAIN_UPDATE_DEVICE_FLAGS,
        ] {
            let said = said(
                &in_acme(),
                Program::REMOTE,
                procedure,
                &[("xml", xml.into())],
            );
            assert!(said.starts_with("unreadable: "), "{xml}: {said:?}");
        }
    }
    // To take one away opens nothing.
    let values = [("xml", "<disk><source file='/etc/x'/></disk>".into())];
    assert_eq!(
        said(
            &in_acme(),
            Program::REMOTE,
            r::DOMAIN_DETACH_DEVICE,
            &values
        ),
        ""
    );
    for (procedure, argument) in [
        (r::DOMAIN_ATTACH_DEVICE, "xml"),
        (r::DOMAIN_ATTACH_DEVICE_FLAGS, "xml"),
        (r::DOMAIN_UPDATE_DEVICE_FLAGS, "xml"),
        (r::DOMAIN_BLOCK_COPY, "destxml"),
    ] {
        let values = [(argument, "<disk><source file='/etc/x'/></disk>".into())];
        let said = said(&in_acme(), Program::REMOTE, procedure, &values);
        assert!(said.starts_with("host_paths: "), "{said:?}");
    }
}
