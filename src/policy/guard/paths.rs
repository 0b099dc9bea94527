//! Paths of the host, held against the folders that a policy lists. By their text alone: what a
//! symbolic link in a folder points to is not seen.

/// A path without `.`, `..` and doubled slashes, and without one at the end; the root is empty.
/// `None` if it does not begin at the root or is no line of text.
pub(super) fn normalised(path: &str) -> Option<String> {
    let rest = path.strip_prefix('/')?;
    if path.chars().any(char::is_control) {
        return None;
    }
    let mut parts = Vec::new();
    for part in rest.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    Some(parts.iter().flat_map(|part| ["/", part]).collect())
}

/// Whether a normalised path is below a folder, which is not below itself.
pub(super) fn is_below(path: &str, folder: &str) -> bool {
    let folder = folder.strip_suffix('/').unwrap_or(folder);
    path.strip_prefix(folder)
        .and_then(|rest| rest.strip_prefix('/'))
        .is_some_and(|rest| !rest.is_empty())
}

/// Whether it is the folder itself.
pub(super) fn is_folder(path: &str, folder: &str) -> bool {
    path == folder.strip_suffix('/').unwrap_or(folder)
}

/// Where packages put the programs of hypervisors: folders, and how the names begin there. What
/// is there cannot be a tenant's, and a domain's XML names it whenever it comes from `dumpxml`.
const PROGRAMS: [(&str, &str); 14] = [
    ("/usr/bin", "qemu-system-"),
    ("/usr/bin", "qemu-kvm"),
    ("/usr/bin", "kvm"),
    ("/usr/bin", "cloud-hypervisor"),
    ("/usr/bin", "pygrub"),
    ("/usr/libexec", "qemu-kvm"),
    ("/usr/libexec", "libvirt_lxc"),
    ("/usr/libexec", "virtiofsd"),
    ("/usr/lib/libvirt", "libvirt_lxc"),
    ("/usr/lib/qemu", "virtiofsd"),
    ("/usr/lib/xen/bin", "qemu-"),
    ("/usr/lib/xen/bin", "pygrub"),
    ("/usr/libexec/xen/bin", "qemu-"),
    ("/usr/local/sbin", "bhyve"),
];

/// Where packages put the firmware of guests.
const FIRMWARE: [&str; 10] = [
    "/usr/share/AAVMF",
    "/usr/share/OVMF",
    "/usr/share/edk2",
    "/usr/share/edk2-ovmf",
    "/usr/share/edk2.git",
    "/usr/share/ovmf",
    "/usr/share/qemu",
    "/usr/share/qemu-efi-aarch64",
    "/usr/share/seabios",
    "/usr/lib/xen/boot",
];

/// A hypervisor, or one of its helpers, as packages install it.
pub(super) fn is_program(path: &str) -> bool {
    path.rsplit_once('/').is_some_and(|(folder, name)| {
        let mut known = PROGRAMS.iter();
        known.any(|(known, begin)| *known == folder && name.starts_with(begin))
    })
}

/// Firmware as packages install it.
pub(super) fn is_firmware(path: &str) -> bool {
    FIRMWARE.iter().any(|folder| is_below(path, folder))
}

/// The store of a domain's EFI variables, where libvirt itself puts it.
pub(super) fn is_own_nvram(path: &str, domain: &str) -> bool {
    path.strip_prefix("/var/lib/libvirt/qemu/nvram/")
        .and_then(|file| file.strip_prefix(domain))
        .and_then(|rest| rest.strip_prefix("_VARS."))
        .is_some_and(|rest| !rest.contains('/'))
}

/// A pseudoterminal. libvirt writes into the XML of a running domain which one it got, and takes it
/// from no XML.
pub(super) fn is_terminal(path: &str) -> bool {
    let number = path.strip_prefix("/dev/pts/");
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|c| c.is_ascii_digit()))
}

/// A source of random numbers that everybody on the host has.
pub(super) fn is_random(path: &str) -> bool {
    matches!(path, "/dev/urandom" | "/dev/random")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_by_their_text() {
        for (path, expected) in [
            ("/srv/acme/a", Some("/srv/acme/a")),
            ("//srv///acme/./a/", Some("/srv/acme/a")),
            ("/srv/acme/../globex/a", Some("/srv/globex/a")),
            ("/../../etc", Some("/etc")),
            ("/", Some("")),
            ("/a/..", Some("")),
            ("/srv/acme/...", Some("/srv/acme/...")),
            ("srv/acme/a", None),
            ("", None),
            ("./a", None),
            (" /srv/acme/a", None),
            ("/srv/acme/a\n", None),
            ("json:{}", None),
        ] {
            assert_eq!(normalised(path).as_deref(), expected, "{path:?}");
        }
    }

    #[test]
    fn below_a_folder_is_neither_beside_it_nor_itself() {
        for (path, folder, expected) in [
            ("/srv/acme/a", "/srv/acme", true),
            ("/srv/acme/a/b", "/srv/acme", true),
            ("/srv/acme/a", "/srv/acme/", true),
            ("/srv/acme", "/srv/acme", false),
            ("/srv/acmex/a", "/srv/acme", false),
            ("/srv", "/srv/acme", false),
            ("/etc/passwd", "/", true),
            ("", "/", false),
        ] {
            assert_eq!(is_below(path, folder), expected, "{path} {folder}");
        }
        assert!(is_folder("/srv/acme", "/srv/acme"));
        assert!(is_folder("", "/"));
        assert!(!is_folder("/srv/acme/a", "/srv/acme"));
    }

    #[test]
    fn what_packages_install_is_known() {
        assert!(is_program("/usr/bin/qemu-system-x86_64"));
        assert!(!is_program("/usr/bin/qemu-nbd"));
        assert!(!is_program("/usr/bin/qemu-system-x86_64/a"));
        assert!(is_firmware("/usr/share/OVMF/OVMF_CODE_4M.fd"));
        assert!(!is_firmware("/usr/share/OVMF"));
        assert!(is_own_nvram("/var/lib/libvirt/qemu/nvram/a_VARS.fd", "a"));
        assert!(!is_own_nvram("/var/lib/libvirt/qemu/nvram/b_VARS.fd", "a"));
        assert!(!is_own_nvram(
            "/var/lib/libvirt/qemu/nvram/a_VARS./../b",
            "a"
        ));
        assert!(is_terminal("/dev/pts/12"));
        assert!(!is_terminal("/dev/pts/ptmx"));
        assert!(!is_terminal("/dev/pts/"));
    }
}
