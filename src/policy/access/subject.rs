//! What is known of the object that a call is about.

use std::borrow::Cow;
use std::fmt;
use std::ops::BitOrAssign;

use crate::protocol::object::{Class, Object, Uuid};

/// What secrets are for; the places are libvirt's numbers.
pub(in crate::policy) const USAGE_TYPES: [&str; 6] =
    ["none", "volume", "ceph", "iscsi", "tls", "vtpm"];

/// What is known of an object. `None` is that it is not known, perhaps not yet; an empty text is
/// that the object has none.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// What it is.
    pub class: Class,
    /// Its name; of a filter binding, the port device.
    pub name: Option<&'a str>,
    /// Its UUID.
    pub uuid: Option<Uuid>,
    /// To whom a domain belongs.
    pub owner: Owner<'a>,
    /// Name of a volume's pool.
    pub pool: Option<&'a str>,
    /// A volume's key.
    pub key: Option<&'a str>,
    /// An interface's hardware address.
    pub mac: Option<&'a str>,
    /// Name of a port's network.
    pub network: Option<&'a str>,
    /// Name of a binding's filter.
    pub filter: Option<&'a str>,
    /// What a secret is for: libvirt's number of it.
    pub usage_type: Option<i32>,
    /// The one thing that a secret is for: a path, a name.
    pub usage: Option<&'a str>,
}

impl<'a> Subject<'a> {
    /// An object of which nothing is known.
    #[must_use]
    pub fn of(class: Class) -> Self {
        Self {
            class,
            name: None,
            uuid: None,
            owner: Owner::Unknown,
            pool: None,
            key: None,
            mac: None,
            network: None,
            filter: None,
            usage_type: None,
            usage: None,
        }
    }

    /// An object with what the wire says of it, which is true only if a daemon says it.
    #[must_use]
    pub fn on_wire(object: &Object<'a>) -> Self {
        let mut subject = Self::of(object.class());
        match *object {
            Object::Domain { name, uuid, .. }
            | Object::Network { name, uuid }
            | Object::StoragePool { name, uuid }
            | Object::Nwfilter { name, uuid } => {
                (subject.name, subject.uuid) = (Some(name), Some(uuid));
            }
            Object::NetworkPort { network, uuid, .. } => {
                (subject.network, subject.uuid) = (Some(network), Some(uuid));
            }
            Object::NwfilterBinding { port_dev, filter } => {
                (subject.name, subject.filter) = (Some(port_dev), Some(filter));
            }
            Object::Interface { name, mac } => {
                (subject.name, subject.mac) = (Some(name), Some(mac));
            }
            Object::StorageVol { pool, name, key } => {
                (subject.pool, subject.name, subject.key) = (Some(pool), Some(name), Some(key));
            }
            Object::NodeDevice { name } => subject.name = Some(name),
            Object::Secret {
                uuid,
                usage_type,
                usage,
            } => {
                subject.uuid = Some(uuid);
                (subject.usage_type, subject.usage) = (Some(usage_type), Some(usage));
            }
        }
        subject
    }

    /// An attribute that is text.
    pub(in crate::policy) fn text(&self, attribute: Attribute) -> Option<Cow<'a, str>> {
        match attribute {
            Attribute::Name => self.name.map(Cow::Borrowed),
            Attribute::Owner => match self.owner {
                Owner::Unknown => None,
                Owner::None => Some(Cow::Borrowed("")),
                Owner::Is(owner) => Some(Cow::Borrowed(owner)),
            },
            Attribute::Pool => self.pool.map(Cow::Borrowed),
            Attribute::Key => self.key.map(Cow::Borrowed),
            // In whatever case it is written, it is the same.
            Attribute::Mac => self.mac.map(|mac| Cow::Owned(mac.to_ascii_lowercase())),
            Attribute::Network => self.network.map(Cow::Borrowed),
            Attribute::Filter => self.filter.map(Cow::Borrowed),
            Attribute::Usage => self.usage.map(Cow::Borrowed),
            Attribute::Uuid | Attribute::UsageType => None,
        }
    }
}

/// `domain acme-web1 (owner acme)`: what is known of it.
impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.class.name())?;
        let parent = self.pool.or(self.network);
        match (parent, self.name.or(self.usage)) {
            (Some(parent), Some(name)) => write!(f, " {parent}/{name}")?,
            (Some(parent), None) => write!(f, " {parent}/")?,
            (None, Some(name)) => write!(f, " {name}")?,
            (None, None) => {}
        }
        if let Some(uuid) = self.uuid {
            write!(f, " {uuid}")?;
        }
        if let Owner::Is(owner) = self.owner {
            write!(f, " (owner {owner})")?;
        }
        Ok(())
    }
}

/// To whom an object belongs.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Owner<'a> {
    /// That is not known.
    Unknown,
    /// To nobody.
    None,
    /// To this one. Never empty.
    Is(&'a str),
}

/// Something that rules ask of an object.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Attribute {
    /// [`Subject::name`]
    Name,
    /// [`Subject::uuid`]
    Uuid,
    /// [`Subject::owner`]
    Owner,
    /// [`Subject::pool`]
    Pool,
    /// [`Subject::key`]
    Key,
    /// [`Subject::mac`]
    Mac,
    /// [`Subject::network`]
    Network,
    /// [`Subject::filter`]
    Filter,
    /// [`Subject::usage_type`]
    UsageType,
    /// [`Subject::usage`]
    Usage,
}

impl Attribute {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Name,
        Self::Uuid,
        Self::Owner,
        Self::Pool,
        Self::Key,
        Self::Mac,
        Self::Network,
        Self::Filter,
        Self::UsageType,
        Self::Usage,
    ];

    /// Its key in the policy.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Uuid => "uuid",
            Self::Owner => "owner",
            Self::Pool => "pool",
            Self::Key => "key",
            Self::Mac => "mac",
            Self::Network => "network",
            Self::Filter => "filter",
            Self::UsageType => "usage_type",
            Self::Usage => "usage",
        }
    }
}

/// A set of attributes.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
pub struct Attributes(u16);

impl Attributes {
    /// Whether `attribute` is one of them.
    #[must_use]
    pub fn contains(self, attribute: Attribute) -> bool {
        self.0 >> attribute as u16 & 1 == 1
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What is in it.
    pub fn iter(self) -> impl Iterator<Item = Attribute> {
        Attribute::ALL
            .into_iter()
            .filter(move |attribute| self.contains(*attribute))
    }

    pub(super) fn insert(&mut self, attribute: Attribute) {
        self.0 |= 1 << attribute as u16;
    }
}

impl BitOrAssign for Attributes {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}
