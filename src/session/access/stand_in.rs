//! Objects that cannot exist, put in place of those that a client may not see.
//!
//! The daemon itself then says what it says of an absent object: the same code, domain and text
//! for each procedure of each driver and version. Names, paths and keys get a random suffix and
//! UUIDs are replaced; in the error both are turned back into what the client wrote.

use std::fmt::Write as _;

use crate::protocol::object::{Object, Uuid};
use crate::protocol::xdr;

/// The stand-ins of one connection: nobody can guess them, so that nothing is called so.
#[derive(Debug)]
pub(super) struct StandIn {
    uuid: Uuid,
    suffix: String,
    id: i32,
    mac: String,
}

/// What is to be turned back in an error: found, and put there.
pub(super) type Texts = Vec<(String, String)>;

impl StandIn {
    /// From random bytes.
    pub(super) fn new(seed: [u8; 16]) -> Self {
        let mut uuid = seed;
        // A random UUID says so in its version and variant.
        uuid[6] = uuid[6] & 0x0f | 0x40;
        uuid[8] = uuid[8] & 0x3f | 0x80;
        let [.., a, b, c, d] = seed;
        let mut suffix = String::from("-");
        for byte in seed {
            _ = write!(suffix, "{:02x}", byte ^ 0x5a);
        }
        Self {
            uuid: Uuid(uuid),
            suffix,
            // Positive and far beyond the ids that daemons count up from 1.
            id: i32::from_be_bytes([a & 0x3f | 0x40, b, c, d]),
            // Locally administered, and not the 52:54:00 that libvirt gives.
            mac: format!("f2:{a:02x}:{b:02x}:{c:02x}:{d:02x}:5a"),
        }
    }

    /// A name, path or key that does not exist.
    pub(super) fn text(&self, text: &str, texts: &mut Texts) -> String {
        let back = (self.suffix.clone(), String::new());
        if !texts.contains(&back) {
            texts.push(back);
        }
        format!("{text}{}", self.suffix)
    }

    /// A path that does not exist. Slashes at its end stay there: daemons clean them away, and say
    /// so.
    pub(super) fn path(&self, path: &str, texts: &mut Texts) -> String {
        let trimmed = path.trim_end_matches('/');
        if trimmed.is_empty() {
            return self.text(path, texts);
        }
        let slashes = path.strip_prefix(trimmed).unwrap_or_default();
        self.text(trimmed, texts) + slashes
    }

    /// A UUID that does not exist.
    pub(super) fn uuid(&self, uuid: Uuid, texts: &mut Texts) -> Uuid {
        texts.push((self.uuid.to_string(), uuid.to_string()));
        self.uuid
    }

    /// An id that does not exist.
    pub(super) fn id(&self, id: i32, texts: &mut Texts) -> i32 {
        texts.push((self.id.to_string(), id.to_string()));
        self.id
    }

    /// A MAC address that does not exist.
    pub(super) fn mac(&self, mac: &str, texts: &mut Texts) -> String {
        texts.push((self.mac.clone(), mac.to_owned()));
        self.mac.clone()
    }

    /// Writes an object that does not exist in place of this one. All that a driver may find it by
    /// is replaced. Of a port or a volume, `parent` says that its network or pool is to be absent.
    pub(super) fn object(&self, object: &Object<'_>, parent: bool, texts: &mut Texts) -> Vec<u8> {
        let mut text = |text: &str| self.text(text, texts);
        let (owned, other): ((String, String), String);
        let stand_in = match *object {
            Object::Domain { name, uuid, id } => {
                owned = (text(name), String::new());
                let uuid = self.uuid(uuid, texts);
                let name = &*owned.0;
                Object::Domain { name, uuid, id }
            }
            Object::Network { name, uuid } => {
                owned = (text(name), String::new());
                let uuid = self.uuid(uuid, texts);
                let name = &*owned.0;
                Object::Network { name, uuid }
            }
            Object::NetworkPort {
                network,
                network_uuid,
                uuid,
            } => {
                owned = if parent {
                    (text(network), String::new())
                } else {
                    (network.to_owned(), String::new())
                };
                let network = &*owned.0;
                let (network_uuid, uuid) = if parent {
                    (self.uuid(network_uuid, texts), uuid)
                } else {
                    (network_uuid, self.uuid(uuid, texts))
                };
                Object::NetworkPort {
                    network,
                    network_uuid,
                    uuid,
                }
            }
            Object::Nwfilter { name, uuid } => {
                owned = (text(name), String::new());
                let uuid = self.uuid(uuid, texts);
                let name = &*owned.0;
                Object::Nwfilter { name, uuid }
            }
            Object::NwfilterBinding { port_dev, filter } => {
                owned = (text(port_dev), String::new());
                let port_dev = &*owned.0;
                Object::NwfilterBinding { port_dev, filter }
            }
            Object::Interface { name, mac } => {
                owned = (text(name), String::new());
                let name = &*owned.0;
                Object::Interface { name, mac }
            }
            Object::StoragePool { name, uuid } => {
                owned = (text(name), String::new());
                let uuid = self.uuid(uuid, texts);
                let name = &*owned.0;
                Object::StoragePool { name, uuid }
            }
            Object::StorageVol { pool, name, key } => {
                other = text(key);
                owned = if parent {
                    (text(pool), name.to_owned())
                } else {
                    (pool.to_owned(), text(name))
                };
                let (pool, name, key) = (&*owned.0, &*owned.1, &*other);
                Object::StorageVol { pool, name, key }
            }
            Object::NodeDevice { name } => {
                owned = (text(name), String::new());
                let name = &*owned.0;
                Object::NodeDevice { name }
            }
            Object::Secret {
                uuid,
                usage_type,
                usage,
            } => {
                owned = (String::new(), text(usage));
                let uuid = self.uuid(uuid, texts);
                let usage = &*owned.1;
                Object::Secret {
                    uuid,
                    usage_type,
                    usage,
                }
            }
        };
        xdr::write(|writer| stand_in.encode(writer))
    }
}
