//! Every place of a domain that has a path of the host.

use super::*;

/// Places in a domain, `@` for the path.
const FILES: &[&str] = &[
    "<devices><disk type='file'><source file='@'/></disk></devices>",
    "<devices><disk><source file='@'/></disk></devices>",
    "<devices><disk type='file' device='cdrom'><source file='@'/></disk></devices>",
    "<devices><disk type='file' device='floppy'><source file='@'/></disk></devices>",
    "<devices><disk type='block'><source dev='@'/></disk></devices>",
    "<devices><disk type='vhostuser'><source type='unix' path='@'/></disk></devices>",
    "<devices><disk type='file'><source file='/srv/acme/a'/><mirror file='@'/></disk></devices>",
    "<devices><disk type='file'><source file='/srv/acme/a'/><mirror type='file'>\
     <source file='@'/></mirror></disk></devices>",
    "<devices><disk type='file'><source file='/srv/acme/a'/><backingStore type='file'>\
     <source file='/srv/acme/b'/><backingStore type='block'><source dev='@'/></backingStore>\
     </backingStore></disk></devices>",
    "<devices><disk type='file'><source file='/srv/acme/a'><dataStore type='file'>\
     <source file='@'/></dataStore></source></disk></devices>",
    "<devices><disk type='block'><source dev='/srv/acme/a'><reservations managed='no'>\
     <source type='unix' path='@' mode='client'/></reservations></source></disk></devices>",
    "<devices><disk type='network'><source protocol='nbd' name='x'>\
     <host transport='unix' socket='@'/></source></disk></devices>",
    "<devices><disk type='network'><source protocol='rbd' name='p/i'><config file='@'/>\
     </source></disk></devices>",
    "<devices><disk type='network'><source protocol='ssh' name='x'><knownHosts path='@'/>\
     </source></disk></devices>",
    "<devices><disk type='network'><source protocol='ssh' name='x'>\
     <identity username='u' keyfile='@'/></source></disk></devices>",
    "<devices><disk type='network'><source protocol='ssh' name='x'>\
     <identity username='u' agentsock='@'/></source></disk></devices>",
    // The attributes of other kinds than the disk's own.
    "<devices><disk type='file'><source protocol='http' name='@'/></disk></devices>",
    "<devices><disk type='network'><source protocol='nbd' name='x' file='@'/></disk></devices>",
    "<devices><filesystem type='file'><source file='@'/><target dir='/'/></filesystem></devices>",
    "<devices><filesystem type='block'><source dev='@'/><target dir='/'/></filesystem></devices>",
    "<devices><filesystem><driver type='virtiofs'/><source socket='@'/></filesystem></devices>",
    "<devices><serial type='file'><source path='@'/></serial></devices>",
    "<devices><serial type='dev'><source path='@'/></serial></devices>",
    "<devices><parallel type='pipe'><source path='@'/></parallel></devices>",
    "<devices><console type='unix'><source mode='connect' path='@'/></console></devices>",
    "<devices><channel type='unix'><source mode='bind' path='@'/></channel></devices>",
    "<devices><serial type='nmdm'><source master='@' slave='/srv/acme/s'/></serial></devices>",
    "<devices><serial type='nmdm'><source master='/srv/acme/m' slave='@'/></serial></devices>",
    "<devices><serial type='pty'><log file='@' append='on'/></serial></devices>",
    "<devices><redirdev bus='usb' type='dev'><source path='@'/></redirdev></devices>",
    "<devices><rng model='virtio'><backend model='egd' type='unix'><source path='@'/>\
     </backend></rng></devices>",
    "<devices><rng model='virtio'><backend model='random'>@</backend></rng></devices>",
    "<devices><tpm><backend type='external'><source type='unix' path='@'/></backend></tpm></devices>",
    "<devices><memory model='nvdimm'><source><path>@</path></source></memory></devices>",
    "<devices><memory model='virtio-pmem'><source><path>@</path></source></memory></devices>",
    "<devices><shmem name='s'><server path='@'/></shmem></devices>",
    "<devices><lease><lockspace>l</lockspace><key>k</key><target path='@'/></lease></devices>",
    "<devices><interface type='vhostuser'><source type='unix' path='@'/></interface></devices>",
    "<devices><interface type='network'><source network='n'/><backend tap='@'/></interface></devices>",
    "<devices><interface type='network'><source network='n'/><backend vhost='@'/></interface></devices>",
    "<devices><interface type='user'><backend type='passt' logFile='@'/></interface></devices>",
    "<devices><interface type='network'><source network='n'/><rom file='@'/></interface></devices>",
    "<devices><graphics type='vnc' socket='@'/></devices>",
    "<devices><graphics type='vnc'><listen type='socket' socket='@'/></graphics></devices>",
    "<devices><graphics type='spice'><gl enable='yes' rendernode='@'/></graphics></devices>",
    "<devices><graphics type='egl-headless'><gl rendernode='@'/></graphics></devices>",
    "<devices><graphics type='sdl' xauth='@'/></devices>",
    "<devices><graphics type='vnc' keymap='@'/></devices>",
    "<devices><video><model type='virtio'><acceleration accel3d='yes' rendernode='@'/></model>\
     </video></devices>",
    "<devices><audio id='1' type='file' path='@'/></devices>",
    "<devices><audio id='1' type='oss'><input dev='@'/></audio></devices>",
    "<devices><input type='evdev'><source dev='@'/></input></devices>",
    "<devices><input type='passthrough'><source evdev='@'/></input></devices>",
    "<os><kernel>@</kernel></os>",
    "<os><initrd>@</initrd></os>",
    "<os><dtb>@</dtb></os>",
    "<os><shim>@</shim></os>",
    "<os><acpi><table type='slic'>@</table></acpi></os>",
    "<os><loader readonly='yes' type='pflash'>@</loader></os>",
    "<os><nvram>@</nvram></os>",
    "<os><nvram template='@'/></os>",
    "<os><nvram type='file'><source file='@'/></nvram></os>",
    "<sysinfo type='fwcfg'><entry name='opt/a' file='@'/></sysinfo>",
    "<devices><disk type='file'><source file='/srv/acme/a'><encryption format='luks'>\
     <secret type='passphrase' usage='@'/></encryption></source></disk></devices>",
    "<resource><partition>@</partition></resource>",
    "<clock offset='timezone' timezone='@'/>",
    "<launchSecurity type='tdx'><quoteGenerationService path='@'/></launchSecurity>",
    // What nobody knows yet.
    "<devices><new thing='@'/></devices>",
    "<new><thing>@</thing></new>",
    "<new><thing> @ </thing></new>",
    "<devices><disk new='@'/></devices>",
];

/// Places of folders.
const FOLDERS: &[&str] = &[
    "<devices><filesystem type='mount'><source dir='@'/><target dir='/x'/></filesystem></devices>",
    "<devices><disk type='dir'><source dir='@'/></disk></devices>",
];

#[test]
fn every_place_is_held_to_the_folders() {
    let guards = Guards {
        forbid: ForbidSet::default(),
        ..in_acme()
    };
    for place in FILES.iter().chain(FOLDERS) {
        let of = |path: &str| against_domain(&guards, &place.replace('@', path));
        assert_eq!(of("/srv/acme/x"), "", "{place}");
        assert_eq!(of("/srv/acme//y/./../x"), "", "{place}");
        for path in [
            "/etc/shadow",
            "/srv/acme/../globex/x",
            "/srv/acme/../../etc/shadow",
            "//etc/shadow",
            "/srv/acmex/a",
            "/srv",
            "/",
            "../etc/shadow",
        ] {
            let said = of(path);
            assert!(said.starts_with("host_paths: "), "{place} {path}: {said:?}");
        }
        let itself = of("/srv/acme");
        assert_eq!(itself.is_empty(), FOLDERS.contains(place), "{place}");
    }
}

#[test]
fn an_empty_list_of_folders_allows_none() {
    let guards = Guards {
        host_paths: Some(Vec::new()),
        ..Guards::default()
    };
    for place in FILES.iter().chain(FOLDERS) {
        let said = against_domain(&guards, &place.replace('@', "/srv/acme/x"));
        assert!(said.contains("host_paths"), "{place}: {said:?}");
    }
}

#[test]
fn without_folders_paths_are_not_looked_at() {
    for place in FILES.iter().chain(FOLDERS) {
        let said = against_domain(&Guards::default(), &place.replace('@', "/etc/shadow"));
        assert_eq!(said, "", "{place}");
    }
}

#[test]
fn known_places_take_no_relative_path() {
    for place in FILES.iter().chain(FOLDERS) {
        let said = against_domain(&in_acme(), &place.replace('@', "shadow"));
        let unknown = [
            "<new",
            "new=",
            "keymap",
            "xauth",
            "usage=",
            "timezone",
            "<input dev",
            "name='@'",
            "quoteGen",
        ];
        if unknown.iter().any(|known| place.contains(known)) {
            assert_eq!(said, "", "{place}");
        } else {
            assert!(said.starts_with("host_paths: "), "{place}: {said:?}");
        }
    }
}

#[test]
fn what_libvirt_writes_itself_is_let_through() {
    let allowed = "<title>a/b</title><description>/etc/shadow</description>\
        <metadata><x:x xmlns:x='http://x/y'>/etc/shadow</x:x></metadata>\
        <resource><partition>/machine</partition></resource>\
        <sysinfo type='smbios'><system><entry name='vendor'>a/b</entry></system></sysinfo>\
        <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type>\
        <loader readonly='yes' type='pflash'>/usr/share/OVMF/OVMF_CODE_4M.fd</loader>\
        <nvram template='/usr/share/OVMF/OVMF_VARS_4M.fd'>/var/lib/libvirt/qemu/nvram/acme-1_VARS.fd</nvram>\
        <cmdline>root=/dev/vda console=ttyS0</cmdline></os>\
        <clock offset='timezone' timezone='Europe/Prague'/>\
        <launchSecurity type='sev'><dhCert>a/b+c=</dhCert><session>/x</session></launchSecurity>\
        <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>\
        <disk type='network'><driver name='qemu' type='raw'/><source protocol='rbd' name='pool/image'/>\
        <target dev='vda' bus='virtio'/><serial>a/b</serial><vendor>a/b</vendor></disk>\
        <disk type='file' device='cdrom'><target dev='sda'/></disk>\
        <disk type='file' device='cdrom'><source file=''/></disk>\
        <serial type='pty'><source path='/dev/pts/4'/><target port='0'/></serial>\
        <console type='pty' tty='/dev/pts/4'><source path='/dev/pts/4'/></console>\
        <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>\
        <graphics type='vnc' passwd='a/b'/>\
        <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>\
        </devices>\
        <seclabel type='dynamic' model='dac' relabel='yes'><label>+64055:+64055</label></seclabel>";
    assert_eq!(against_domain(&in_acme(), allowed), "");
}

#[test]
fn only_the_domains_own_variables_are_let_through() {
    let nvram =
        |name: &str| format!("<os><nvram>/var/lib/libvirt/qemu/nvram/{name}_VARS.fd</nvram></os>");
    assert_eq!(against_domain(&in_acme(), &nvram("acme-1")), "");
    assert!(against_domain(&in_acme(), &nvram("globex-1")).contains("host_paths"));
    let xml = format!(
        "<domain><name>acme<!-- -->-2</name>{}</domain>",
        nvram("acme")
    );
    let define = crate::protocol::table::remote::DOMAIN_DEFINE_XML;
    let values = [("xml", xml.as_str().into())];
    assert!(said(&in_acme(), Program::REMOTE, define, &values).contains("host_paths"));
    // Under a new name, the name in the XML is another's.
    let xml = domain(&nvram("acme-1"));
    let values = [("dname", "acme-2".into()), ("dom_xml", xml.as_str().into())];
    let procedure = crate::protocol::table::remote::DOMAIN_MIGRATE_PREPARE3;
    assert!(said(&in_acme(), Program::REMOTE, procedure, &values).contains("host_paths"));
}

#[test]
fn programs_come_from_packages_or_are_listed() {
    let guards = Guards {
        host_paths: Some(vec!["/srv/acme".into(), "/opt/qemu/bin/qemu".into()]),
        ..Guards::default()
    };
    for place in [
        "<devices><emulator>@</emulator></devices>",
        "<bootloader>@</bootloader>",
        "<devices><filesystem><binary path='@'/></filesystem></devices>",
        "<devices><interface type='ethernet'><script path='@'/></interface></devices>",
        "<devices><interface type='ethernet'><downscript path='@'/></interface></devices>",
    ] {
        let of = |path: &str| against_domain(&guards, &place.replace('@', path));
        assert_eq!(of("/usr/bin/qemu-system-x86_64"), "");
        assert_eq!(of("/opt/qemu/bin/qemu"), "");
        assert_eq!(of("/opt/qemu/../qemu/bin/qemu"), "");
        for path in ["/srv/acme/evil", "/bin/sh", "/opt/qemu/bin/qemu/x", "sh"] {
            assert!(of(path).starts_with("host_paths: "), "{place} {path}");
        }
    }
}

#[test]
fn text_that_could_be_put_together_otherwise_is_refused() {
    for inner in [
        "<os><kernel>/srv/acme/x<a>/../../../etc/shadow</a></kernel></os>",
        "<os><kernel><a>/srv/acme/</a></kernel></os>",
        "<os><kernel>/srv/acme/x&#10;</kernel></os>",
        "<new>/srv/acme/x<a/></new>",
        "<devices><disk><source file='/srv/acme/a&#10;b'/></disk></devices>",
        "<name>../x</name>",
    ] {
        let said = against_domain(&in_acme(), inner);
        assert!(said.contains("host_paths"), "{inner}: {said:?}");
    }
    assert_eq!(
        against_domain(
            &in_acme(),
            "<os><kernel>/srv/acme/<!-- /etc -->x<![CDATA[y]]></kernel></os>"
        ),
        ""
    );
    assert!(
        against_domain(
            &in_acme(),
            "<os><kernel>/srv/acme/<!-- -->../../etc/x</kernel></os>"
        )
        .contains("/etc/x")
    );
    assert!(
        against_domain(
            &in_acme(),
            "<devices><disk><source file='&#47;etc/shadow'/></disk></devices>"
        )
        .contains("/etc/shadow")
    );
}

#[test]
fn what_goes_round_the_folders_is_refused_with_them() {
    for inner in [
        "<devices><hostdev mode='subsystem' type='pci'/></devices>",
        "<devices><hostdev mode='subsystem' type='scsi'><source><adapter name='scsi_host0'/></source></hostdev></devices>",
        "<devices><interface type='hostdev'/></devices>",
        "<devices><disk type='nvme'><source type='pci' namespace='1'/></disk></devices>",
        "<devices><disk type='file' device='lun'><source file='/srv/acme/x'/></disk></devices>",
        "<devices><disk type='volume'><source pool='default' volume='x'/></disk></devices>",
        "<devices><shmem name='globex'/></devices>",
        "<devices><shmem name='globex'><server/></shmem></devices>",
        "<devices><tpm><backend type='passthrough'/></tpm></devices>",
        "<devices><graphics type='spice'><gl enable='yes'/></graphics></devices>",
        "<devices><graphics type='egl-headless'/></devices>",
        "<devices><disk><backenddomain name='globex'/></disk></devices>",
        "<qemu:commandline><qemu:arg value='-hda'/></qemu:commandline>",
        "<qemu:override><qemu:device alias='x'/></qemu:override>",
        "<lxc:namespace><lxc:sharenet type='pid' value='1'/></lxc:namespace>",
        "<xen:commandline><xen:arg value='x'/></xen:commandline>",
        "<bhyve:commandline><bhyve:arg value='x'/></bhyve:commandline>",
    ] {
        let said = against_domain(&in_acme(), inner);
        assert!(!said.is_empty(), "{inner}");
    }
}
