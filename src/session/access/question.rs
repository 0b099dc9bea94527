//! What the proxy asks a daemon itself before it can decide, and what the answer is worth.
//!
//! A question is one call on the client's own upstream connection, under a serial of the proxy's.

use std::collections::HashMap;

use super::watches::{self, Watch};
use crate::policy::access::OwnerMark;
use crate::policy::definition::{self, DiskSource, DomainSize, Reverted};
use crate::policy::guard;
use crate::protocol::driver::Driver;
use crate::protocol::fault::{self, code};
use crate::protocol::header::{Procedure, Program};
use crate::protocol::object::{Object, Uuid};
use crate::protocol::payload::Payload;
use crate::protocol::table::{self, remote};
use crate::protocol::xdr::Writer;

/// `VIR_DOMAIN_METADATA_ELEMENT`.
const METADATA_ELEMENT: i32 = 2;

/// Something that only the daemon knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Question {
    /// Which domain has this UUID.
    Domain(Uuid),
    /// Which domain has this name.
    DomainNamed(String),
    /// All domains: in place of very many of the first kind, and for quotas.
    Domains,
    /// What one of the policy's owner marks, by its place, says of a domain.
    Owner(Uuid, usize),
    /// A domain's XML.
    DomainXml(Uuid),
    /// What a domain takes as it runs.
    RunningSize(Uuid),
    /// What a domain takes by its definition.
    DefinedSize(Uuid),
    /// Whether a domain goes on from a managed save image when it is started.
    HasManagedSave(Uuid),
    /// What a domain takes that goes on from its managed save image.
    SavedSize(Uuid),
    /// What a domain is after it was reverted to this snapshot.
    Snapshot(Uuid, String),
    /// The hardware addresses of a domain's interfaces.
    Macs(Uuid),
    /// What the disk of this target is on.
    Disk(Uuid, String),
    /// Which network has this UUID.
    Network(Uuid),
    /// Which network has this name.
    NetworkNamed(String),
    /// Which pool has this UUID.
    Pool(Uuid),
    /// Which pool has this name.
    PoolNamed(String),
    /// All pools.
    Pools,
    /// Volumes of the pool of this UUID and name.
    Volumes(Uuid, String),
    /// Which filter has this UUID.
    Nwfilter(Uuid),
    /// Which filter has this name.
    NwfilterNamed(String),
    /// Which secret has this UUID.
    Secret(Uuid),
    /// Which secret has this usage.
    SecretUsed(i32, String),
    /// The volume of this name in the pool of this UUID.
    Volume(Uuid, String),
    /// Capacity and allocation of a volume, by its pool's name and its own.
    VolumeInfo(String, String),
    /// The volume of this path.
    VolumeAt(String),
    /// The interface of this name.
    Interface(String),
    /// The binding of this port device.
    Binding(String),
    /// The XML in a file that a domain was saved to; with its passwords, if it is to be restored
    /// by it.
    SaveImage(String, bool),
    /// That the daemon ends a registration of the proxy's own.
    Release(Watch, i32),
}

/// What a daemon said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    /// There is no such thing.
    Absent,
    /// It did not say; an error that is no "not found".
    Failed,
    /// The payload of a good reply, which can be read by the procedure's shape.
    Reply(Vec<u8>),
    /// What an owner mark says.
    Owner(Option<String>),
    /// All domains.
    Domains(HashMap<Uuid, Listed>),
    /// What a domain takes.
    Size(DomainSize),
    /// What a snapshot makes of its domain.
    Snapshot(Reverted),
    /// Hardware addresses.
    Macs(Vec<String>),
    /// What a disk is on; `None`: nothing, or there is no such disk.
    Disk(Option<DiskSource>),
}

/// A domain in the list of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) name: Box<str>,
    pub(super) runs: bool,
}

impl Listed {
    /// The domain.
    pub(super) fn object(&self, uuid: Uuid) -> Object<'_> {
        let (name, id) = (&*self.name, -1);
        Object::Domain { name, uuid, id }
    }
}

/// The answers that one decision rests on.
pub(super) type Answers = HashMap<Question, Answer>;

impl Question {
    /// Whose daemon answers.
    pub(super) fn driver(&self) -> Option<Driver> {
        table::lookup(Program::REMOTE, self.procedure()).and_then(|row| row.driver)
    }

    /// The call that asks it.
    pub(super) fn procedure(&self) -> Procedure {
        match self {
            Self::Domain(_) => remote::DOMAIN_LOOKUP_BY_UUID,
            Self::DomainNamed(_) => remote::DOMAIN_LOOKUP_BY_NAME,
            Self::Domains => remote::CONNECT_LIST_ALL_DOMAINS,
            Self::Owner(..) => remote::DOMAIN_GET_METADATA,
            Self::DomainXml(_)
            | Self::RunningSize(_)
            | Self::DefinedSize(_)
            | Self::Macs(_)
            | Self::Disk(..) => remote::DOMAIN_GET_XML_DESC,
            Self::HasManagedSave(_) => remote::DOMAIN_HAS_MANAGED_SAVE_IMAGE,
            Self::SavedSize(_) => remote::DOMAIN_MANAGED_SAVE_GET_XML_DESC,
            Self::Snapshot(..) => remote::DOMAIN_SNAPSHOT_GET_XML_DESC,
            Self::Network(_) => remote::NETWORK_LOOKUP_BY_UUID,
            Self::NetworkNamed(_) => remote::NETWORK_LOOKUP_BY_NAME,
            Self::Pool(_) => remote::STORAGE_POOL_LOOKUP_BY_UUID,
            Self::PoolNamed(_) => remote::STORAGE_POOL_LOOKUP_BY_NAME,
            Self::Pools => remote::CONNECT_LIST_ALL_STORAGE_POOLS,
            Self::Volumes(..) => remote::STORAGE_POOL_LIST_ALL_VOLUMES,
            Self::Nwfilter(_) => remote::NWFILTER_LOOKUP_BY_UUID,
            Self::NwfilterNamed(_) => remote::NWFILTER_LOOKUP_BY_NAME,
            Self::Secret(_) => remote::SECRET_LOOKUP_BY_UUID,
            Self::SecretUsed(..) => remote::SECRET_LOOKUP_BY_USAGE,
            Self::Volume(..) => remote::STORAGE_VOL_LOOKUP_BY_NAME,
            Self::VolumeInfo(..) => remote::STORAGE_VOL_GET_INFO,
            Self::VolumeAt(_) => remote::STORAGE_VOL_LOOKUP_BY_PATH,
            Self::Interface(_) => remote::INTERFACE_LOOKUP_BY_NAME,
            Self::Binding(_) => remote::NWFILTER_BINDING_LOOKUP_BY_PORT_DEV,
            Self::Release(..) => watches::release(),
            Self::SaveImage(..) => remote::DOMAIN_SAVE_IMAGE_GET_XML_DESC,
        }
    }

    /// Writes the call's arguments.
    pub(super) fn encode(&self, marks: &[OwnerMark], writer: &mut Writer<'_>) {
        match self {
            Self::Domain(uuid)
            | Self::Network(uuid)
            | Self::Pool(uuid)
            | Self::Nwfilter(uuid)
            | Self::Secret(uuid) => writer.raw(&uuid.0),
            Self::DomainNamed(name)
            | Self::NetworkNamed(name)
            | Self::PoolNamed(name)
            | Self::NwfilterNamed(name)
            | Self::Interface(name)
            | Self::Binding(name)
            | Self::VolumeAt(name) => _ = writer.string(name),
            // With results, every kind.
            Self::Domains | Self::Pools => _ = writer.u32(1).u32(0),
            Self::Owner(uuid, mark) => {
                let namespace = marks.get(*mark).map_or("", |mark| mark.namespace.as_str());
                domain(*uuid).encode(writer);
                writer.i32(METADATA_ELEMENT);
                writer.optional_string(Some(namespace)).u32(0);
            }
            Self::DomainXml(uuid)
            | Self::RunningSize(uuid)
            | Self::HasManagedSave(uuid)
            | Self::SavedSize(uuid)
            | Self::Macs(uuid)
            | Self::Disk(uuid, _) => {
                domain(*uuid).encode(writer);
                writer.u32(0);
            }
            Self::DefinedSize(uuid) => {
                domain(*uuid).encode(writer);
                writer.u32(XML_INACTIVE);
            }
            Self::Snapshot(uuid, name) => {
                writer.string(name);
                domain(*uuid).encode(writer);
                writer.u32(0);
            }
            Self::Volumes(uuid, name) => {
                Object::StoragePool { name, uuid: *uuid }.encode(writer);
                writer.u32(1).u32(0);
            }
            Self::SecretUsed(kind, usage) => _ = writer.i32(*kind).string(usage),
            Self::Volume(uuid, name) => {
                pool(*uuid).encode(writer);
                writer.string(name);
            }
            Self::VolumeInfo(pool, name) => {
                let key = "";
                Object::StorageVol { pool, name, key }.encode(writer);
            }
            Self::Release(_, callback) => _ = writer.i32(*callback),
            // `VIR_DOMAIN_SAVE_IMAGE_XML_SECURE` is 1.
            Self::SaveImage(path, secure) => _ = writer.string(path).u32((*secure).into()),
        }
    }

    /// What a good reply's payload is worth.
    pub(super) fn good(&self, payload: &[u8], marks: &[OwnerMark]) -> Answer {
        let text = |field| self.read(payload).and_then(|reply| reply.text(field));
        let told = match self {
            Self::Owner(_, place) => text("metadata")
                .zip(marks.get(*place))
                .and_then(|(xml, mark)| guard::owner_in_metadata(xml, mark).ok())
                .map(Answer::Owner),
            Self::Domains => self.read(payload).map(all_domains),
            Self::RunningSize(_) | Self::DefinedSize(_) | Self::SavedSize(_) => text("xml")
                .and_then(|xml| definition::domain_size(xml).ok())
                .map(Answer::Size),
            Self::Snapshot(..) => text("xml")
                .and_then(|xml| definition::reverted(xml).ok())
                .map(Answer::Snapshot),
            Self::Macs(_) => text("xml")
                .and_then(|xml| definition::macs(xml).ok())
                .map(Answer::Macs),
            Self::Disk(_, target) => text("xml")
                .and_then(|xml| definition::disk_source(xml, target).ok())
                .map(Answer::Disk),
            _ => Some(Answer::Reply(payload.to_vec())),
        };
        told.unwrap_or(Answer::Failed)
    }

    /// What an error reply's payload is worth.
    pub(super) fn bad(&self, payload: &[u8]) -> Answer {
        match fault::code_of(payload) {
            Some(code::NO_DOMAIN_METADATA) => match self {
                Self::Owner(..) => Answer::Owner(None),
                _ => Answer::Failed,
            },
            Some(
                code::NO_DOMAIN
                | code::NO_NETWORK
                | code::NO_STORAGE_POOL
                | code::NO_STORAGE_VOL
                | code::NO_NODE_DEVICE
                | code::NO_INTERFACE
                | code::NO_NWFILTER
                | code::NO_SECRET
                | code::NO_NWFILTER_BINDING,
            ) => Answer::Absent,
            _ => Answer::Failed,
        }
    }

    /// A reply to it, read by its shape; `None` if it is not as it should be.
    pub(super) fn read<'a>(&self, reply: &'a [u8]) -> Option<Payload<'a>> {
        let row = table::lookup(Program::REMOTE, self.procedure())?;
        Payload::read(row.ret, reply).ok()
    }
}

fn all_domains(list: Payload<'_>) -> Answer {
    let domains = list.objects().filter_map(|found| match found.object {
        Object::Domain { name, uuid, id } => {
            let (name, runs) = (name.into(), id >= 0);
            Some((uuid, Listed { name, runs }))
        }
        _ => None,
    });
    Answer::Domains(domains.collect())
}

/// `VIR_DOMAIN_XML_INACTIVE`: as it is defined, not as it runs.
const XML_INACTIVE: u32 = 2;

/// Drivers find a domain by its UUID alone.
fn domain(uuid: Uuid) -> Object<'static> {
    let (name, id) = ("", -1);
    Object::Domain { name, uuid, id }
}

/// Drivers find a pool, where it is an argument of its own, by its UUID alone.
fn pool(uuid: Uuid) -> Object<'static> {
    Object::StoragePool { name: "", uuid }
}
