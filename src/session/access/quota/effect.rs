//! Which calls count, and what they make of domains and volumes.

use crate::policy::access::Quota;
use crate::policy::definition::{self, DomainSize, Unreadable};
use crate::protocol::args::ParamValue;
use crate::protocol::header::{Procedure, Program};
use crate::protocol::payload::Payload;
use crate::protocol::table::{qemu, remote as r};

/// `VIR_DOMAIN_START_FORCE_BOOT`: a managed save image is thrown away.
const FORCE_BOOT: u64 = 1 << 4;

/// `VIR_DOMAIN_SNAPSHOT_REVERT_RUNNING`, `_PAUSED`.
const REVERT_ACTIVE: u64 = 1 | 2;

/// `VIR_DOMAIN_BLOCK_RESIZE_BYTES`, `_CAPACITY` (as big as its device is, however big).
const RESIZE_BYTES: u64 = 1;
const RESIZE_CAPACITY: u64 = 2;

/// `VIR_STORAGE_VOL_RESIZE_DELTA`, `_SHRINK`.
const RESIZE_DELTA: u64 = 2;
const RESIZE_SHRINK: u64 = 4;

/// What a call that counts does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// The domains that its content names are there afterwards.
    Domains { runs: bool },
    /// The domain runs.
    Start {
        /// From its managed save image, if it has one.
        resumes: bool,
    },
    /// The domain is as it was, and runs if the snapshot or the call says so.
    Revert { starts: bool },
    /// The domain may use so much.
    Grow(DomainSize),
    /// The domain gets more memory.
    Module(u64),
    /// The domain has another name or owner.
    Rename,
    /// A volume is made.
    NewVolume,
    /// A volume is made from another one.
    Copy,
    /// The volume has so many bytes, or so many more.
    Resize(Resize),
    /// What a disk of the domain is on has so many bytes.
    DiskResize(u64),
    /// Data is written to the volume.
    Upload,
    /// Something that cannot be told becomes a domain.
    Unknown,
}

/// How a volume is resized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Resize {
    To(u64),
    By(u64),
}

impl Effect {
    /// What a call does; `None` if it does not count.
    pub(super) fn of(
        program: Program,
        procedure: Procedure,
        args: &Payload<'_>,
    ) -> Result<Option<Self>, Unreadable> {
        let word = |field| args.word(field).unwrap_or(0);
        let kib = |field| word(field).saturating_mul(1024);
        let flags = word("flags");
        if (program, procedure) == (Program::QEMU, qemu::DOMAIN_ATTACH) {
            return Ok(Some(Self::Unknown));
        }
        if program != Program::REMOTE {
            return Ok(None);
        }
        Ok(Some(match procedure {
            r::DOMAIN_DEFINE_XML | r::DOMAIN_DEFINE_XML_FLAGS => Self::Domains { runs: false },
            r::DOMAIN_CREATE_XML
            | r::DOMAIN_CREATE_XML_WITH_FILES
            | r::DOMAIN_RESTORE
            | r::DOMAIN_RESTORE_FLAGS
            | r::DOMAIN_RESTORE_PARAMS
            | r::DOMAIN_MIGRATE_PREPARE2
            | r::DOMAIN_MIGRATE_PREPARE3
            | r::DOMAIN_MIGRATE_PREPARE3_PARAMS
            | r::DOMAIN_MIGRATE_PREPARE_TUNNEL
            | r::DOMAIN_MIGRATE_PREPARE_TUNNEL3
            | r::DOMAIN_MIGRATE_PREPARE_TUNNEL3_PARAMS
            | r::DOMAIN_MIGRATE_FINISH
            | r::DOMAIN_MIGRATE_FINISH2
            | r::DOMAIN_MIGRATE_FINISH3
            | r::DOMAIN_MIGRATE_FINISH3_PARAMS => Self::Domains { runs: true },
            // It says nothing of the domain but its name.
            r::DOMAIN_MIGRATE_PREPARE => Self::Unknown,
            r::DOMAIN_CREATE => Self::Start { resumes: true },
            r::DOMAIN_CREATE_WITH_FLAGS | r::DOMAIN_CREATE_WITH_FILES => Self::Start {
                resumes: flags & FORCE_BOOT == 0,
            },
            r::DOMAIN_REVERT_TO_SNAPSHOT => Self::Revert {
                starts: flags & REVERT_ACTIVE != 0,
            },
            r::DOMAIN_SET_VCPUS | r::DOMAIN_SET_VCPUS_FLAGS => Self::Grow(DomainSize {
                vcpus: word("nvcpus"),
                memory: 0,
            }),
            r::DOMAIN_SET_MEMORY | r::DOMAIN_SET_MEMORY_FLAGS | r::DOMAIN_SET_MAX_MEMORY => {
                Self::Grow(DomainSize {
                    vcpus: 0,
                    memory: kib("memory"),
                })
            }
            r::DOMAIN_ATTACH_DEVICE | r::DOMAIN_ATTACH_DEVICE_FLAGS => {
                let module = definition::memory_module(args.text("xml").unwrap_or_default())?;
                return Ok(module.map(Self::Module));
            }
            r::DOMAIN_RENAME | r::DOMAIN_SET_METADATA => Self::Rename,
            r::STORAGE_VOL_CREATE_XML => Self::NewVolume,
            r::STORAGE_VOL_CREATE_XML_FROM => Self::Copy,
            r::STORAGE_VOL_RESIZE => match flags & (RESIZE_DELTA | RESIZE_SHRINK) {
                RESIZE_DELTA => Self::Resize(Resize::By(word("capacity"))),
                // By so much smaller.
                both if both & RESIZE_DELTA != 0 => return Ok(None),
                _ => Self::Resize(Resize::To(word("capacity"))),
            },
            r::DOMAIN_BLOCK_RESIZE if flags & RESIZE_CAPACITY != 0 => return Ok(None),
            r::DOMAIN_BLOCK_RESIZE if flags & RESIZE_BYTES != 0 => Self::DiskResize(word("size")),
            r::DOMAIN_BLOCK_RESIZE => Self::DiskResize(kib("size")),
            r::STORAGE_VOL_UPLOAD => Self::Upload,
            _ => return Ok(None),
        }))
    }

    /// Whether a quota has limits on what the call does.
    pub(super) fn is_limited_by(self, quota: &Quota) -> bool {
        match self {
            Self::NewVolume | Self::Copy | Self::Resize(_) | Self::DiskResize(_) | Self::Upload => {
                !quota.volumes.is_empty()
            }
            Self::Grow(size) => {
                (size.vcpus > 0 && quota.vcpus.is_some())
                    || (size.memory > 0 && quota.memory.is_some())
            }
            Self::Module(_) => quota.memory.is_some(),
            Self::Start { .. } => {
                quota.running.is_some() || quota.vcpus.is_some() || quota.memory.is_some()
            }
            Self::Domains { .. } | Self::Revert { .. } | Self::Rename | Self::Unknown => {
                quota.limits_domains()
            }
        }
    }
}

/// The most that the documents of a call say of the domains in them; `None` if there is none.
pub(super) fn size_in_documents(args: &Payload<'_>) -> Result<Option<DomainSize>, Unreadable> {
    let mut size: Option<DomainSize> = None;
    let mut add = |its: DomainSize| size = Some(size.unwrap_or_default().max(its));
    for field in ["xml", "xml_desc", "dxml", "dom_xml"] {
        if let Some(text) = args.text(field) {
            add(definition::domain_size(text)?);
        }
    }
    for (name, value) in args.params("params") {
        if let ("dxml" | "destination_xml" | "persistent_xml", ParamValue::Text(text)) =
            (name, value)
        {
            add(definition::domain_size(&text)?);
        }
    }
    for field in ["cookie", "cookie_in"] {
        if let Some(cookie) = args.opaque(field).filter(|cookie| !cookie.is_empty())
            && let Some(its) = definition::cookie_size(cookie)?
        {
            add(its);
        }
    }
    Ok(size)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;
    use crate::protocol::object::{Object, Uuid};
    use crate::protocol::table;
    use crate::protocol::xdr::Writer;

    const DOMAIN: Object<'static> = Object::Domain {
        name: "a",
        uuid: Uuid([1; 16]),
        id: -1,
    };
    const VOLUME: Object<'static> = Object::StorageVol {
        pool: "p",
        name: "v",
        key: "k",
    };

    fn effect(
        procedure: Procedure,
        object: Object<'_>,
        more: impl FnOnce(&mut Writer<'_>),
    ) -> Option<Effect> {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        object.encode(&mut writer);
        more(&mut writer);
        let row = table::lookup(Program::REMOTE, procedure).unwrap();
        let args = Payload::read(row.args, &bytes).unwrap();
        Effect::of(Program::REMOTE, procedure, &args).unwrap()
    }

    #[test]
    fn volumes_shrink_only_by_both_flags() {
        let resize = |flags: u32| {
            effect(r::STORAGE_VOL_RESIZE, VOLUME, |writer| {
                _ = writer.u64(9).u32(flags)
            })
        };
        for (flags, expected) in [
            (0, Some(Resize::To(9))),
            (1, Some(Resize::To(9))),
            (4, Some(Resize::To(9))),
            (2, Some(Resize::By(9))),
            (3, Some(Resize::By(9))),
            (6, None),
            (7, None),
        ] {
            assert_eq!(resize(flags), expected.map(Effect::Resize), "{flags}");
        }
    }

    #[test]
    fn disks_are_resized_to_kibibytes_unless_to_bytes() {
        let resize = |flags: u32| {
            effect(r::DOMAIN_BLOCK_RESIZE, DOMAIN, |writer| {
                writer.string("vda").u64(3).u32(flags);
            })
        };
        assert_eq!(resize(0), Some(Effect::DiskResize(3072)));
        assert_eq!(resize(1), Some(Effect::DiskResize(3)));
        assert_eq!(resize(2), None);
    }

    #[test]
    fn a_forced_boot_resumes_nothing() {
        let start = |flags: u32| {
            effect(r::DOMAIN_CREATE_WITH_FLAGS, DOMAIN, |writer| {
                _ = writer.u32(flags)
            })
        };
        assert_eq!(start(0), Some(Effect::Start { resumes: true }));
        assert_eq!(start(16), Some(Effect::Start { resumes: false }));
    }

    #[test]
    fn memory_beyond_counting_stays_beyond() {
        let effect = effect(r::DOMAIN_SET_MEMORY, DOMAIN, |writer| {
            _ = writer.u64(u64::MAX)
        });
        let size = DomainSize {
            vcpus: 0,
            memory: u64::MAX,
        };
        assert_eq!(effect, Some(Effect::Grow(size)));
    }

    #[test]
    fn only_modules_of_memory_count_among_devices() {
        let attach = |xml: &str| {
            effect(r::DOMAIN_ATTACH_DEVICE, DOMAIN, |writer| {
                _ = writer.string(xml)
            })
        };
        assert_eq!(attach("<disk/>"), None);
        let module = "<memory><target><size unit='b'>5</size></target></memory>";
        assert_eq!(attach(module), Some(Effect::Module(5)));
    }
}
