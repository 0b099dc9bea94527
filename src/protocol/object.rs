//! Objects as they travel: their classes and UUIDs.

use std::fmt;
use std::str::FromStr;

/// The sixteen bytes of a UUID.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Uuid(pub [u8; 16]);

/// Why a text is no UUID.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("a UUID is 32 hexadecimal digits, usually in groups of 8, 4, 4, 4 and 12")]
pub struct NoUuid;

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

/// In either case, with hyphens anywhere or nowhere, as libvirt reads it.
impl FromStr for Uuid {
    type Err = NoUuid;

    fn from_str(text: &str) -> Result<Self, NoUuid> {
        let mut bytes = [0; 16];
        let mut digits = text.bytes().filter(|byte| *byte != b'-');
        let mut digit = || {
            let digit = char::from(digits.next()?).to_digit(16)?;
            u8::try_from(digit).ok()
        };
        for byte in &mut bytes {
            let (high, low) = (digit().ok_or(NoUuid)?, digit().ok_or(NoUuid)?);
            *byte = high << 4 | low;
        }
        if digits.next().is_some() {
            return Err(NoUuid);
        }
        Ok(Self(bytes))
    }
}

/// A class of objects.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord)]
pub enum Class {
    /// The connection: the host as a whole.
    Connect,
    /// A virtual machine or container, with its snapshots and checkpoints.
    Domain,
    /// A network interface of the host.
    Interface,
    /// A virtual network.
    Network,
    /// A port of a virtual network.
    NetworkPort,
    /// A device of the host.
    NodeDevice,
    /// A network filter.
    Nwfilter,
    /// A network filter in use on a port.
    NwfilterBinding,
    /// A secret.
    Secret,
    /// A storage pool.
    StoragePool,
    /// A storage volume.
    StorageVol,
}

impl Class {
    /// All classes.
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

    /// Its name in permissions: `storage_vol`.
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

    /// The class of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|class| class.name() == name)
    }
}
