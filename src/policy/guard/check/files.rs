//! The folders of `host_paths`.

use super::{Violation, against, tag};
use crate::policy::guard::document::Kind;
use crate::policy::guard::forbid::Forbid;
use crate::policy::guard::places::{self, Place, Use};
use crate::policy::guard::{Guards, paths, uri};
use crate::policy::xml::{self, Node};

impl Guards {
    /// The paths in an element. `domain` is the name of the domain that it is of.
    pub(super) fn paths_of(
        &self,
        kind: Kind,
        domain: Option<&str>,
        node: Node<'_, '_>,
    ) -> Result<(), Violation> {
        if self.host_paths.is_none() || xml::is_metadata(node) {
            return Ok(());
        }
        for attribute in node.attributes() {
            let place = places::attribute(kind, node, attribute.name());
            let what = || format!("<{} {}>", node.tag_name().name(), attribute.name());
            self.value(domain, place, what, attribute.value())?;
        }
        let text = xml::own_text(node);
        let place = places::text(kind, node);
        let parent = node.children().any(|child| child.is_element());
        let blank = text.trim().is_empty();
        if parent && !blank && place != Place::NoPath {
            return against(
                "host_paths",
                format!("{} has both text and elements in it", tag(node)),
            );
        }
        if parent {
            // Some readers would put the texts of all elements in it together.
            let whole = matches!(place, Place::Path(Use::File | Use::Program | Use::Firmware));
            if whole && node.tag_name().name() != "loader" {
                return against("host_paths", format!("{} has elements in it", tag(node)));
            }
        } else if !(blank && place == Place::Unknown) {
            self.value(domain, place, || tag(node), &text)?;
        }
        self.other_paths(kind, node)
    }

    /// What reaches files of the host without a path.
    fn other_paths(&self, kind: Kind, node: Node<'_, '_>) -> Result<(), Violation> {
        let name = node.tag_name().name();
        let attribute = |name: &str| node.attribute(name).unwrap_or_default();
        let child = |name: &str| {
            let mut children = node.children();
            children.find(|child| child.tag_name().name() == name)
        };
        match (kind, name) {
            (kind, "shmem") if kind.is_of_domain() => {
                let name = attribute("name");
                match child("server") {
                    None => self.implied(node, &format!("/dev/shm/{name}")),
                    Some(server) if server.attribute("path").is_none_or(str::is_empty) => {
                        self.implied(node, &format!("/var/lib/libvirt/shmem-{name}-sock"))
                    }
                    Some(_) => Ok(()),
                }
            }
            // What libvirt takes where nothing is said.
            (kind, "backend")
                if kind.is_of_domain()
                    && attribute("type") == "passthrough"
                    && child("device").is_none() =>
            {
                self.implied(node, "/dev/tpm0")
            }
            (kind, "gl")
                if kind.is_of_domain()
                    && attribute("enable") != "no"
                    && attribute("rendernode").is_empty() =>
            {
                self.implied(node, "/dev/dri/renderD128")
            }
            (kind, "graphics")
                if kind.is_of_domain()
                    && attribute("type") == "egl-headless"
                    && child("gl").is_none() =>
            {
                self.implied(node, "/dev/dri/renderD128")
            }
            (Kind::Pool, "pool") => {
                let kind = attribute("type");
                if matches!(kind, "logical" | "scsi" | "mpath" | "zfs") {
                    return against(
                        "host_paths",
                        format!("a pool of type {kind:?} is of devices of the host, not of files"),
                    );
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn implied(&self, node: Node<'_, '_>, path: &str) -> Result<(), Violation> {
        self.path(Use::File, None, &format!("{}, which uses", tag(node)), path)
    }

    fn value(
        &self,
        domain: Option<&str>,
        place: Place,
        what: impl Fn() -> String,
        value: &str,
    ) -> Result<(), Violation> {
        match place {
            Place::NoPath => Ok(()),
            Place::Path(_) if value.is_empty() => Ok(()),
            Place::Path(Use::Program) => self.program(&what(), value),
            Place::Path(used) => self.path(used, domain, &what(), value),
            Place::TimeZone => {
                if value.starts_with(['/', ':']) || value.split('/').any(|part| part == "..") {
                    return self.path(Use::File, None, &what(), value);
                }
                Ok(())
            }
            Place::Unknown if value.contains('/') => {
                // The value may be anything: it is not repeated.
                self.path(Use::File, None, "", value.trim()).or_else(|_| {
                    let within = within(self.host_paths.as_deref().unwrap_or_default());
                    against(
                        "host_paths",
                        format!("{} may be a path, and is not {within}", what()),
                    )
                })
            }
            Place::Unknown => Ok(()),
        }
    }

    pub(super) fn path(
        &self,
        used: Use,
        domain: Option<&str>,
        what: &str,
        path: &str,
    ) -> Result<(), Violation> {
        let Some(folders) = &self.host_paths else {
            return Ok(());
        };
        let Some(path) = paths::normalised(path) else {
            return against("host_paths", format!("{what} is not a path from the root"));
        };
        let mut listed = folders.iter();
        let allowed = listed.any(|folder| {
            paths::is_below(&path, folder)
                || (used == Use::Folder && paths::is_folder(&path, folder))
        });
        let usual = match used {
            Use::Firmware => paths::is_firmware(&path),
            Use::Nvram => domain.is_some_and(|domain| paths::is_own_nvram(&path, domain)),
            Use::Terminal => paths::is_terminal(&path),
            Use::Random => paths::is_random(&path),
            Use::Partition => path == "/machine",
            Use::File | Use::Folder | Use::Program => false,
        };
        if allowed || usual {
            return Ok(());
        }
        against(
            "host_paths",
            format!("{what}: {path:?} is not {}", within(folders)),
        )
    }

    /// What is run has to come from a package or to be listed itself: in a folder of a tenant, it
    /// would be a program of the tenant's.
    pub(super) fn program(&self, what: &str, path: &str) -> Result<(), Violation> {
        if self.forbid.contains(Forbid::Emulator) {
            return against(
                "forbid",
                format!("emulator: {what} {path:?} is not allowed"),
            );
        }
        let Some(listed) = &self.host_paths else {
            return Ok(());
        };
        let known = paths::normalised(path).is_some_and(|path| {
            paths::is_program(&path) || listed.iter().any(|listed| paths::is_folder(&path, listed))
        });
        if known {
            return Ok(());
        }
        against(
            "host_paths",
            format!(
                "{what}: {path:?} is no program of a hypervisor's package; leave it out, or list \
                 the program itself"
            ),
        )
    }

    pub(super) fn uri(&self, what: &str, text: &str) -> Result<(), Violation> {
        if self.host_paths.is_none() {
            return Ok(());
        }
        match uri::migration(text) {
            uri::Target::Host => Ok(()),
            uri::Target::Socket(path) => self.path(Use::File, None, what, path),
            uri::Target::Other => against(
                "host_paths",
                format!(
                    "{what} may reach files or programs of the host; use a plain tcp://host, \
                     unix:///path, or driver+tls://host/system"
                ),
            ),
        }
    }
}

/// The folders, as far as a message has room for them.
fn within(folders: &[String]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<_> = folders.iter().take(SHOWN).map(String::as_str).collect();
    match folders.len() {
        0 => "in a folder: none is listed".into(),
        count if count > SHOWN => format!("below {} or others of the rule", shown.join(", ")),
        _ => format!("below {}", shown.join(", ")),
    }
}
