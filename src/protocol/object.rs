//! The objects that libvirt's permissions speak of, as they travel in payloads.

use std::fmt;
use std::str::FromStr;

use super::limits::STRING;
use super::xdr::{Reader, Writer, XdrError};

/// A UUID. Printed in the canonical form.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, byte) in self.0.iter().enumerate() {
            if matches!(place, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotUuid;

impl fmt::Display for NotUuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a UUID: 32 hexadecimal digits")
    }
}

impl std::error::Error for NotUuid {}

impl FromStr for Uuid {
    type Err = NotUuid;

    /// Reads what libvirt reads (`virUUIDParse`), for both have to see the same UUID in a
    /// document: 16 pairs of digits, dashes and spaces between pairs, white space around.
    fn from_str(text: &str) -> Result<Self, NotUuid> {
        let mut rest = text.bytes().skip_while(u8::is_ascii_whitespace);
        let mut uuid = [0; 16];
        for byte in &mut uuid {
            let mut pairs = rest.by_ref().skip_while(|byte| matches!(byte, b'-' | b' '));
            let (high, low) = (digit(pairs.next())?, digit(pairs.next())?);
            *byte = high << 4 | low;
        }
        if rest.all(|byte| byte.is_ascii_whitespace()) {
            Ok(Self(uuid))
        } else {
            Err(NotUuid)
        }
    }
}

fn digit(byte: Option<u8>) -> Result<u8, NotUuid> {
    let digit = byte.and_then(|byte| char::from(byte).to_digit(16));
    digit
        .and_then(|digit| u8::try_from(digit).ok())
        .ok_or(NotUuid)
}

/// A class of objects that permissions speak of.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Class {
    /// The connection itself, and the host.
    Connect,
    /// Virtual machine or container.
    Domain,
    /// Host network interface.
    Interface,
    /// Virtual network.
    Network,
    /// Port of a virtual network.
    NetworkPort,
    /// Host device.
    NodeDevice,
    /// Network filter.
    Nwfilter,
    /// A filter's use on a port.
    NwfilterBinding,
    /// Secret.
    Secret,
    /// Storage pool.
    StoragePool,
    /// Storage volume.
    StorageVol,
}

impl Class {
    /// Every class.
    pub const ALL: [Self; 11] = [
        Self::Connect,
        Self::Domain,
        Self::Interface,
        Self::Network,
        Self::NetworkPort,
        Self::NodeDevice,
        Self::Nwfilter,
        Self::NwfilterBinding,
        Self::Secret,
        Self::StoragePool,
        Self::StorageVol,
    ];

    /// libvirt's name of it, as in `storage_vol:getattr`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Domain => "domain",
            Self::Interface => "interface",
            Self::Network => "network",
            Self::NetworkPort => "network_port",
            Self::NodeDevice => "node_device",
            Self::Nwfilter => "nwfilter",
            Self::NwfilterBinding => "nwfilter_binding",
            Self::Secret => "secret",
            Self::StoragePool => "storage_pool",
            Self::StorageVol => "storage_vol",
        }
    }

    /// The class with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }
}

/// An object as a payload names it. Its text is UTF-8 without NUL. Whether the parts belong
/// together is not known: a client writes them all itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields have libvirt's names")]
pub enum Object<'a> {
    Domain {
        name: &'a str,
        uuid: Uuid,
        /// Number of a running domain; -1 otherwise.
        id: i32,
    },
    Network {
        name: &'a str,
        uuid: Uuid,
    },
    NetworkPort {
        network: &'a str,
        network_uuid: Uuid,
        uuid: Uuid,
    },
    Nwfilter {
        name: &'a str,
        uuid: Uuid,
    },
    NwfilterBinding {
        port_dev: &'a str,
        filter: &'a str,
    },
    Interface {
        name: &'a str,
        mac: &'a str,
    },
    StoragePool {
        name: &'a str,
        uuid: Uuid,
    },
    StorageVol {
        pool: &'a str,
        name: &'a str,
        key: &'a str,
    },
    NodeDevice {
        name: &'a str,
    },
    Secret {
        uuid: Uuid,
        usage_type: i32,
        usage: &'a str,
    },
}

impl<'a> Object<'a> {
    /// Its class.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Domain { .. } => Class::Domain,
            Self::Network { .. } => Class::Network,
            Self::NetworkPort { .. } => Class::NetworkPort,
            Self::Nwfilter { .. } => Class::Nwfilter,
            Self::NwfilterBinding { .. } => Class::NwfilterBinding,
            Self::Interface { .. } => Class::Interface,
            Self::StoragePool { .. } => Class::StoragePool,
            Self::StorageVol { .. } => Class::StorageVol,
            Self::NodeDevice { .. } => Class::NodeDevice,
            Self::Secret { .. } => Class::Secret,
        }
    }

    /// Reads one of this class; `None` for the connection, which never travels.
    pub fn decode(class: Class, reader: &mut Reader<'a>) -> Result<Option<Self>, XdrError> {
        Ok(Some(match class {
            Class::Connect => return Ok(None),
            Class::Domain => Self::Domain {
                name: reader.string(STRING)?,
                uuid: uuid(reader)?,
                id: reader.i32()?,
            },
            Class::Network => Self::Network {
                name: reader.string(STRING)?,
                uuid: uuid(reader)?,
            },
            Class::NetworkPort => Self::NetworkPort {
                network: reader.string(STRING)?,
                network_uuid: uuid(reader)?,
                uuid: uuid(reader)?,
            },
            Class::Nwfilter => Self::Nwfilter {
                name: reader.string(STRING)?,
                uuid: uuid(reader)?,
            },
            Class::NwfilterBinding => Self::NwfilterBinding {
                port_dev: reader.string(STRING)?,
                filter: reader.string(STRING)?,
            },
            Class::Interface => Self::Interface {
                name: reader.string(STRING)?,
                mac: reader.string(STRING)?,
            },
            Class::StoragePool => Self::StoragePool {
                name: reader.string(STRING)?,
                uuid: uuid(reader)?,
            },
            Class::StorageVol => Self::StorageVol {
                pool: reader.string(STRING)?,
                name: reader.string(STRING)?,
                key: reader.string(STRING)?,
            },
            Class::NodeDevice => Self::NodeDevice {
                name: reader.string(STRING)?,
            },
            Class::Secret => Self::Secret {
                uuid: uuid(reader)?,
                usage_type: reader.i32()?,
                usage: reader.string(STRING)?,
            },
        }))
    }

    /// Writes it.
    pub fn encode(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Domain { name, uuid, id } => {
                writer.string(name).raw(&uuid.0);
                writer.i32(*id);
            }
            Self::Network { name, uuid }
            | Self::Nwfilter { name, uuid }
            | Self::StoragePool { name, uuid } => writer.string(name).raw(&uuid.0),
            Self::NetworkPort {
                network,
                network_uuid,
                uuid,
            } => {
                writer.string(network).raw(&network_uuid.0);
                writer.raw(&uuid.0);
            }
            Self::NwfilterBinding { port_dev, filter } => {
                writer.string(port_dev).string(filter);
            }
            Self::Interface { name, mac } => {
                writer.string(name).string(mac);
            }
            Self::StorageVol { pool, name, key } => {
                writer.string(pool).string(name).string(key);
            }
            Self::NodeDevice { name } => {
                writer.string(name);
            }
            Self::Secret {
                uuid,
                usage_type,
                usage,
            } => {
                writer.raw(&uuid.0);
                writer.i32(*usage_type).string(usage);
            }
        }
    }
}

fn uuid(reader: &mut Reader<'_>) -> Result<Uuid, XdrError> {
    reader.fixed().map(Uuid)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    reason = "a test that meets the unexpected must fail"
)]
mod tests {
    use super::super::header::Program;
    use super::super::table;
    use super::*;

    const CANONICAL: &str = "0badc0de-0001-0203-0405-060708090a0b";

    fn uuid() -> Uuid {
        Uuid([0x0b, 0xad, 0xc0, 0xde, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11])
    }

    #[test]
    fn a_uuid_is_written_in_the_canonical_form() {
        assert_eq!(uuid().to_string(), CANONICAL);
        assert_eq!(CANONICAL.parse(), Ok(uuid()));
    }

    #[test]
    fn a_uuid_is_read_as_libvirt_reads_it() {
        // Each of these was looked up with libvirt 9.0.0, which found the domain CANONICAL.
        let taken = [
            "0BADC0DE-0001-0203-0405-060708090A0B",
            "0badc0de000102030405060708090a0b",
            "0badc0de 0001 0203 0405 060708090a0b",
            "-- 0b-ad-c0-de-00-01-02-03-04-05-06-07-08-09-0a--0b",
            "\n\t\u{c} 0badc0de-0001-0203-0405-060708090a0b \r\n\u{c}",
        ];
        for text in taken {
            assert_eq!(text.parse(), Ok(uuid()), "{text:?}");
        }
        // And these were refused.
        let refused = [
            "",
            " ",
            "0badc0de-0001-0203-0405-060708090a0",
            "0badc0de-0001-0203-0405-060708090a0b0",
            "0badc0de-0001-0203-0405-060708090a0b-",
            "0-badc0de000102030405060708090a0b",
            "0badc0de\n0001-0203-0405-060708090a0b",
            "{0badc0de-0001-0203-0405-060708090a0b}",
            "0xadc0de-0001-0203-0405-060708090a0b",
            "\u{b}0badc0de-0001-0203-0405-060708090a0b",
            "0badc0de-0001-0203-0405-060708090a0b\u{b}",
            "０badc0de-0001-0203-0405-060708090a0b",
        ];
        for text in refused {
            assert_eq!(text.parse::<Uuid>(), Err(NotUuid), "{text:?}");
        }
    }

    #[test]
    fn classes_are_those_of_the_permissions() {
        let mut named: Vec<_> = table::rows(Program::REMOTE)
            .iter()
            .flat_map(|row| row.acl.iter().chain(&row.filter))
            .map(|rule| Class::from_name(rule.object).unwrap())
            .collect();
        named.sort_unstable();
        named.dedup();
        assert_eq!(named, Class::ALL);
        assert_eq!(Class::from_name("domains"), None);
    }

    #[test]
    fn objects_are_read_as_they_were_written() {
        let (name, uuid) = ("ä", uuid());
        let objects = [
            Object::Domain { name, uuid, id: -1 },
            Object::Network { name, uuid },
            Object::NetworkPort {
                network: name,
                network_uuid: Uuid([1; 16]),
                uuid,
            },
            Object::Nwfilter { name, uuid },
            Object::NwfilterBinding {
                port_dev: name,
                filter: "",
            },
            Object::Interface { name, mac: "m" },
            Object::StoragePool { name, uuid },
            Object::StorageVol {
                pool: "p",
                name,
                key: "/k",
            },
            Object::NodeDevice { name },
            Object::Secret {
                uuid,
                usage_type: i32::MIN,
                usage: "u",
            },
        ];
        for object in objects {
            let mut bytes = Vec::new();
            object.encode(&mut Writer::new(&mut bytes));
            let mut reader = Reader::new(&bytes);
            let read = Object::decode(object.class(), &mut reader);
            assert_eq!((read, reader.finish()), (Ok(Some(object)), Ok(())));
        }
        let connect = Object::decode(Class::Connect, &mut Reader::new(&[0; 32]));
        assert_eq!(connect, Ok(None));
    }
}
