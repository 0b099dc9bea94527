//! What the proxy asks a daemon itself before it can decide, and what the answer is worth.
//!
//! A question is one call on the client's own upstream connection, under a serial of the proxy's.

use std::collections::HashMap;

use super::watches::{self, Watch};
use crate::policy::access::OwnerMark;
use crate::policy::guard;
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
    /// Numbers of all domains: state, vCPUs, memory.
    DomainStats,
    /// What one of the policy's owner marks, by its place, says of a domain.
    Owner(Uuid, usize),
    /// A domain's XML.
    DomainXml(Uuid),
    /// Which network has this UUID.
    Network(Uuid),
    /// Which network has this name.
    NetworkNamed(String),
    /// Which pool has this UUID.
    Pool(Uuid),
    /// Which pool has this name.
    PoolNamed(String),
    /// Volumes of the pool of this UUID.
    Volumes(Uuid),
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
    /// The volume's XML: its pool's name, its name.
    VolumeXml(String, String),
    /// The interface of this name.
    Interface(String),
    /// The binding of this port device.
    Binding(String),
    /// The XML in a file that a domain was saved to; with its passwords, if it is to be restored
    /// by it.
    SaveImage(String, bool),
    /// That the daemon ends a registration of the proxy's own.
    Release(Watch, i32),
    /// The XML of a domain's managed save image.
    ManagedSave(Uuid),
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
    /// The names of all domains.
    Domains(HashMap<Uuid, Box<str>>),
}

/// The answers that one decision rests on.
pub(super) type Answers = HashMap<Question, Answer>;

impl Question {
    /// The call that asks it.
    pub(super) fn procedure(&self) -> Procedure {
        match self {
            Self::Domain(_) => remote::DOMAIN_LOOKUP_BY_UUID,
            Self::DomainNamed(_) => remote::DOMAIN_LOOKUP_BY_NAME,
            Self::Domains => remote::CONNECT_LIST_ALL_DOMAINS,
            Self::DomainStats => remote::CONNECT_GET_ALL_DOMAIN_STATS,
            Self::Owner(..) => remote::DOMAIN_GET_METADATA,
            Self::DomainXml(_) => remote::DOMAIN_GET_XML_DESC,
            Self::Network(_) => remote::NETWORK_LOOKUP_BY_UUID,
            Self::NetworkNamed(_) => remote::NETWORK_LOOKUP_BY_NAME,
            Self::Pool(_) => remote::STORAGE_POOL_LOOKUP_BY_UUID,
            Self::PoolNamed(_) => remote::STORAGE_POOL_LOOKUP_BY_NAME,
            Self::Volumes(_) => remote::STORAGE_POOL_LIST_ALL_VOLUMES,
            Self::Nwfilter(_) => remote::NWFILTER_LOOKUP_BY_UUID,
            Self::NwfilterNamed(_) => remote::NWFILTER_LOOKUP_BY_NAME,
            Self::Secret(_) => remote::SECRET_LOOKUP_BY_UUID,
            Self::SecretUsed(..) => remote::SECRET_LOOKUP_BY_USAGE,
            Self::Volume(..) => remote::STORAGE_VOL_LOOKUP_BY_NAME,
            Self::VolumeXml(..) => remote::STORAGE_VOL_GET_XML_DESC,
            Self::Interface(_) => remote::INTERFACE_LOOKUP_BY_NAME,
            Self::Binding(_) => remote::NWFILTER_BINDING_LOOKUP_BY_PORT_DEV,
            Self::Release(..) => watches::release(),
            Self::SaveImage(..) => remote::DOMAIN_SAVE_IMAGE_GET_XML_DESC,
            Self::ManagedSave(_) => remote::DOMAIN_MANAGED_SAVE_GET_XML_DESC,
        }
    }

    /// Writes the call's arguments.
    pub(super) fn encode(&self, marks: &[OwnerMark], writer: &mut Writer<'_>) {
        match self {
            Self::Domain(uuid)
            | Self::Network(uuid)
            | Self::Pool(uuid)
            | Self::Nwfilter(uuid)
            | Self::Secret(uuid) => _ = writer.raw(&uuid.0),
            Self::DomainNamed(name)
            | Self::NetworkNamed(name)
            | Self::PoolNamed(name)
            | Self::NwfilterNamed(name)
            | Self::Interface(name)
            | Self::Binding(name) => _ = writer.string(name),
            // With results, every kind.
            Self::Domains => _ = writer.u32(1).u32(0),
            // All domains, every group of numbers that is cheap: state, balloon, vCPU.
            Self::DomainStats => _ = writer.u32(0).u32(STATE | BALLOON | VCPU).u32(0),
            Self::Owner(uuid, mark) => {
                let namespace = marks.get(*mark).map_or("", |mark| mark.namespace.as_str());
                domain(*uuid).encode(writer);
                writer.i32(METADATA_ELEMENT);
                writer.optional_string(Some(namespace)).u32(0);
            }
            Self::DomainXml(uuid) | Self::ManagedSave(uuid) => {
                domain(*uuid).encode(writer);
                writer.u32(0);
            }
            Self::Volumes(uuid) => {
                pool(*uuid).encode(writer);
                writer.u32(1).u32(0);
            }
            Self::SecretUsed(kind, usage) => _ = writer.i32(*kind).string(usage),
            Self::Volume(uuid, name) => {
                pool(*uuid).encode(writer);
                writer.string(name);
            }
            Self::VolumeXml(pool, name) => {
                let key = "";
                Object::StorageVol { pool, name, key }.encode(writer);
                writer.u32(0);
            }
            Self::Release(_, callback) => _ = writer.i32(*callback),
            // `VIR_DOMAIN_SAVE_IMAGE_XML_SECURE` is 1.
            Self::SaveImage(path, secure) => _ = writer.string(path).u32((*secure).into()),
        }
    }

    /// What a good reply's payload is worth.
    pub(super) fn good(&self, payload: &[u8], marks: &[OwnerMark]) -> Answer {
        let place = match self {
            Self::Owner(_, place) => place,
            Self::Domains => return self.read(payload).map_or(Answer::Failed, all_domains),
            _ => return Answer::Reply(payload.to_vec()),
        };
        let metadata = self.read(payload);
        let metadata = metadata.as_ref().and_then(|reply| reply.text("metadata"));
        let owner = metadata
            .zip(marks.get(*place))
            .and_then(|(xml, mark)| guard::owner_in_metadata(xml, mark).ok());
        owner.map_or(Answer::Failed, Answer::Owner)
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
        Object::Domain { name, uuid, .. } => Some((uuid, name.into())),
        _ => None,
    });
    Answer::Domains(domains.collect())
}

/// `VIR_DOMAIN_STATS_STATE`, `_BALLOON`, `_VCPU`.
const STATE: u32 = 1;
const BALLOON: u32 = 4;
const VCPU: u32 = 8;

/// Drivers find a domain by its UUID alone.
fn domain(uuid: Uuid) -> Object<'static> {
    let (name, id) = ("", -1);
    Object::Domain { name, uuid, id }
}

/// Drivers find a pool, where it is an argument of its own, by its UUID alone.
fn pool(uuid: Uuid) -> Object<'static> {
    Object::StoragePool { name: "", uuid }
}
