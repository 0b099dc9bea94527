//! The old forms of the list calls, which carry names, ids or a count alone. Where objects are to
//! be left out, they are answered from the new form of the same list, which says what is listed.

use crate::protocol::header::Procedure;
use crate::protocol::object::Object;
use crate::protocol::payload::Payload;
use crate::protocol::table::remote;
use crate::protocol::xdr::Writer;

/// What the old form of a reply carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Carries {
    /// How many there are.
    Count,
    /// So many names at the most; of secrets, UUIDs.
    Names(usize),
    /// So many ids of domains at the most.
    Ids(usize),
}

/// An old list call, and the new one that answers it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct OldList {
    /// The new form.
    pub(super) procedure: Procedure,
    /// Its arguments.
    pub(super) arguments: Vec<u8>,
    /// What the old reply carries.
    pub(super) carries: Carries,
}

/// Names of devices that a list may have (`REMOTE_NODE_DEVICE_LIST_MAX`).
const DEVICES: i32 = 65_536;

impl OldList {
    /// The new form of an old list call; `None` for every other call. `pool` is the pool whose
    /// volumes are listed.
    pub(super) fn of(
        procedure: Procedure,
        arguments: &Payload<'_>,
        pool: Option<Object<'_>>,
    ) -> Option<Self> {
        // `VIR_CONNECT_LIST_DOMAINS_ACTIVE` is 1; of every other class it is 2, and INACTIVE the
        // other one.
        let (new, flags) = match procedure {
            remote::CONNECT_NUM_OF_DOMAINS | remote::CONNECT_LIST_DOMAINS => {
                (remote::CONNECT_LIST_ALL_DOMAINS, 1)
            }
            remote::CONNECT_NUM_OF_DEFINED_DOMAINS | remote::CONNECT_LIST_DEFINED_DOMAINS => {
                (remote::CONNECT_LIST_ALL_DOMAINS, 2)
            }
            remote::CONNECT_NUM_OF_NETWORKS | remote::CONNECT_LIST_NETWORKS => {
                (remote::CONNECT_LIST_ALL_NETWORKS, 2)
            }
            remote::CONNECT_NUM_OF_DEFINED_NETWORKS | remote::CONNECT_LIST_DEFINED_NETWORKS => {
                (remote::CONNECT_LIST_ALL_NETWORKS, 1)
            }
            remote::CONNECT_NUM_OF_STORAGE_POOLS | remote::CONNECT_LIST_STORAGE_POOLS => {
                (remote::CONNECT_LIST_ALL_STORAGE_POOLS, 2)
            }
            remote::CONNECT_NUM_OF_DEFINED_STORAGE_POOLS
            | remote::CONNECT_LIST_DEFINED_STORAGE_POOLS => {
                (remote::CONNECT_LIST_ALL_STORAGE_POOLS, 1)
            }
            remote::CONNECT_NUM_OF_INTERFACES | remote::CONNECT_LIST_INTERFACES => {
                (remote::CONNECT_LIST_ALL_INTERFACES, 2)
            }
            remote::CONNECT_NUM_OF_DEFINED_INTERFACES | remote::CONNECT_LIST_DEFINED_INTERFACES => {
                (remote::CONNECT_LIST_ALL_INTERFACES, 1)
            }
            remote::CONNECT_NUM_OF_NWFILTERS | remote::CONNECT_LIST_NWFILTERS => {
                (remote::CONNECT_LIST_ALL_NWFILTERS, 0)
            }
            remote::CONNECT_NUM_OF_SECRETS | remote::CONNECT_LIST_SECRETS => {
                (remote::CONNECT_LIST_ALL_SECRETS, 0)
            }
            remote::STORAGE_POOL_NUM_OF_VOLUMES | remote::STORAGE_POOL_LIST_VOLUMES => {
                (remote::STORAGE_POOL_LIST_ALL_VOLUMES, 0)
            }
            // Names are all that a device has, and the old list takes any kind of device as text.
            remote::NODE_NUM_OF_DEVICES | remote::NODE_LIST_DEVICES => {
                (remote::NODE_LIST_DEVICES, 0)
            }
            _ => return None,
        };
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes);
        if new == remote::NODE_LIST_DEVICES {
            writer.optional_string(arguments.text("cap"));
            writer.i32(DEVICES);
            writer.u32(u32::try_from(arguments.word("flags")?).ok()?);
        } else {
            if let Some(pool) = pool {
                pool.encode(&mut writer);
            }
            writer.u32(1).u32(flags);
        }
        Some(Self {
            procedure: new,
            arguments: bytes,
            carries: carries(procedure, arguments),
        })
    }
}

fn carries(procedure: Procedure, arguments: &Payload<'_>) -> Carries {
    let most = |field| {
        let word = arguments.word(field).unwrap_or(0);
        usize::try_from(word.cast_signed()).unwrap_or(0)
    };
    match procedure {
        remote::CONNECT_LIST_DOMAINS => Carries::Ids(most("maxids")),
        remote::CONNECT_LIST_SECRETS => Carries::Names(most("maxuuids")),
        _ if arguments.word("maxnames").is_some() => Carries::Names(most("maxnames")),
        _ => Carries::Count,
    }
}

impl Carries {
    /// Writes the old reply that lists these.
    pub(super) fn encode(self, objects: &[Object<'_>], writer: &mut Writer<'_>) {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        match self {
            Self::Count => _ = writer.u32(count(objects.len())),
            Self::Names(most) => {
                let listed = objects.get(..most).unwrap_or(objects);
                writer.u32(count(listed.len()));
                for object in listed {
                    writer.string(&name(object));
                }
            }
            Self::Ids(most) => {
                let listed = objects.get(..most).unwrap_or(objects);
                writer.u32(count(listed.len()));
                for object in listed {
                    let Object::Domain { id, .. } = object else {
                        continue;
                    };
                    writer.i32(*id);
                }
            }
        }
    }
}

/// What the old form lists of an object.
fn name(object: &Object<'_>) -> String {
    match object {
        Object::Secret { uuid, .. } => uuid.to_string(),
        Object::Domain { name, .. }
        | Object::Network { name, .. }
        | Object::Nwfilter { name, .. }
        | Object::Interface { name, .. }
        | Object::StoragePool { name, .. }
        | Object::StorageVol { name, .. }
        | Object::NodeDevice { name } => (*name).to_owned(),
        Object::NetworkPort { uuid, .. } => uuid.to_string(),
        Object::NwfilterBinding { port_dev, .. } => (*port_dev).to_owned(),
    }
}
