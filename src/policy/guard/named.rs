//! The objects that a call makes, changes or starts by what it carries: XML, a new name.
//!
//! libvirt's procedures say a domain's name in one argument and another name in the XML beside it.
//! Rules are about objects, so every object that is named anywhere is told.

mod objects;

use objects::{domain, object};

use super::document;
use super::owner::owner_of_domain;
use crate::policy::access::{Owner, OwnerMark, Subject};
use crate::policy::xml::{self, Node, Unreadable};
use crate::protocol::args::ParamValue;
use crate::protocol::header::{Procedure, Program};
use crate::protocol::object::{Class, Uuid};
use crate::protocol::payload::Payload;
use crate::protocol::table::remote as r;

/// An object that the content of a call names. `None` is that the content does not say it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// What it is.
    pub class: Class,
    /// Its name; of a filter binding, the port device.
    pub name: Option<String>,
    /// Its UUID. A new object without one gets one by chance.
    pub uuid: Option<Uuid>,
    /// To whom a domain belongs, or will.
    pub owner: NamedOwner,
    /// Name of a volume's pool.
    pub pool: Option<String>,
    /// Name of a port's network.
    pub network: Option<String>,
    /// Name of a binding's filter.
    pub filter: Option<String>,
    /// An interface's hardware address.
    pub mac: Option<String>,
    /// What a secret is for: libvirt's number of it.
    pub usage_type: Option<i32>,
    /// The one thing that a secret is for: a path, a name.
    pub usage: Option<String>,
}

/// To whom a named object belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedOwner {
    /// The content does not say it.
    Unknown,
    /// The object is the one that the arguments name, as it will be after the call: its owner
    /// stays, and so does all else that is not said.
    AsBefore,
    /// To nobody.
    None,
    /// To this one. Never empty.
    Is(String),
}

impl Named {
    /// What rules are asked about it.
    #[must_use]
    pub fn subject(&self) -> Subject<'_> {
        Subject {
            name: self.name.as_deref(),
            uuid: self.uuid,
            owner: match &self.owner {
                NamedOwner::Unknown | NamedOwner::AsBefore => Owner::Unknown,
                NamedOwner::None => Owner::None,
                NamedOwner::Is(owner) => Owner::Is(owner),
            },
            pool: self.pool.as_deref(),
            mac: self.mac.as_deref(),
            network: self.network.as_deref(),
            filter: self.filter.as_deref(),
            usage_type: self.usage_type,
            usage: self.usage.as_deref(),
            ..Subject::of(self.class)
        }
    }

    pub(super) fn of(class: Class) -> Self {
        Self {
            class,
            name: None,
            uuid: None,
            owner: NamedOwner::Unknown,
            pool: None,
            network: None,
            filter: None,
            mac: None,
            usage_type: None,
            usage: None,
        }
    }

    pub(super) fn called(class: Class, name: &str) -> Self {
        Self {
            name: Some(name.to_owned()),
            ..Self::of(class)
        }
    }
}

/// Every object that the content of a call names. The objects in its arguments are not among them.
///
/// # Errors
/// The content cannot be read, or names in two ways.
pub fn named(
    program: Program,
    procedure: Procedure,
    args: &Payload<'_>,
    marks: &[OwnerMark],
) -> Result<Vec<Named>, Unreadable> {
    let mut found = Found {
        marks,
        named: Vec::new(),
    };
    match program {
        Program::REMOTE => found.remote(procedure, args)?,
        // The name is on the command line of a process.
        Program::QEMU if procedure == crate::protocol::table::qemu::DOMAIN_ATTACH => {
            found.named.push(Named::of(Class::Domain));
        }
        _ => {}
    }
    Ok(found.named)
}

/// The domain that an XML document defines.
///
/// # Errors
/// It cannot be read, or could be read in two ways.
pub fn domain_named(text: &str, marks: &[OwnerMark]) -> Result<Named, Unreadable> {
    let document = xml::parse(text)?;
    domain(xml::root(&document, &["domain"])?, marks)
}

struct Found<'a> {
    marks: &'a [OwnerMark],
    named: Vec<Named>,
}

impl Found<'_> {
    fn remote(&mut self, procedure: Procedure, args: &Payload<'_>) -> Result<(), Unreadable> {
        match procedure {
            r::DOMAIN_CREATE_XML | r::DOMAIN_CREATE_XML_WITH_FILES => {
                self.domain(args.text("xml_desc"))
            }
            r::DOMAIN_DEFINE_XML | r::DOMAIN_DEFINE_XML_FLAGS => self.domain(args.text("xml")),
            r::DOMAIN_SAVE_FLAGS
            | r::DOMAIN_RESTORE_FLAGS
            | r::DOMAIN_SAVE_IMAGE_DEFINE_XML
            | r::DOMAIN_MANAGED_SAVE_DEFINE_XML => self.domain(args.text("dxml")),
            r::DOMAIN_SAVE_PARAMS | r::DOMAIN_RESTORE_PARAMS => {
                texts(args, "dxml").try_for_each(|xml| self.domain(Some(&xml)))
            }
            r::DOMAIN_RENAME => {
                self.named.push(Named {
                    owner: NamedOwner::AsBefore,
                    ..Named::called(Class::Domain, args.text("new_name").unwrap_or_default())
                });
                Ok(())
            }
            r::DOMAIN_SET_METADATA => self.set_metadata(args),
            r::DOMAIN_SNAPSHOT_CREATE_XML | r::DOMAIN_CHECKPOINT_CREATE_XML => {
                self.moment(args.text("xml_desc"))
            }
            r::DOMAIN_BACKUP_BEGIN => self.moment(args.text("checkpoint_xml")),
            r::DOMAIN_MIGRATE_PREPARE
            | r::DOMAIN_MIGRATE_PREPARE2
            | r::DOMAIN_MIGRATE_PREPARE3
            | r::DOMAIN_MIGRATE_PREPARE_TUNNEL
            | r::DOMAIN_MIGRATE_PREPARE_TUNNEL3
            | r::DOMAIN_MIGRATE_BEGIN3
            | r::DOMAIN_MIGRATE_PERFORM
            | r::DOMAIN_MIGRATE_PERFORM3
            | r::DOMAIN_MIGRATE_FINISH
            | r::DOMAIN_MIGRATE_FINISH2
            | r::DOMAIN_MIGRATE_FINISH3
            | r::DOMAIN_MIGRATE_CONFIRM3 => {
                let xml = [args.text("dom_xml"), args.text("xmlin")];
                self.migration(args, args.text("dname"), xml.into_iter().flatten())
            }
            r::DOMAIN_MIGRATE_BEGIN3_PARAMS
            | r::DOMAIN_MIGRATE_PREPARE3_PARAMS
            | r::DOMAIN_MIGRATE_PREPARE_TUNNEL3_PARAMS
            | r::DOMAIN_MIGRATE_PERFORM3_PARAMS
            | r::DOMAIN_MIGRATE_FINISH3_PARAMS
            | r::DOMAIN_MIGRATE_CONFIRM3_PARAMS => {
                let names: Vec<_> = texts(args, "destination_name").collect();
                let mut xml: Vec<_> = texts(args, "destination_xml").collect();
                xml.extend(texts(args, "persistent_xml"));
                let ([] | [_]) = names[..] else {
                    return Err(Unreadable::new("more than one destination_name"));
                };
                let name = names.first().map(String::as_str);
                self.migration(args, name, xml.iter().map(String::as_str))
            }
            r::NETWORK_CREATE_XML
            | r::NETWORK_CREATE_XML_FLAGS
            | r::NETWORK_DEFINE_XML
            | r::NETWORK_DEFINE_XML_FLAGS => self.one(Class::Network, "network", args.text("xml")),
            r::NETWORK_PORT_CREATE_XML => {
                self.one(Class::NetworkPort, "networkport", args.text("xml"))
            }
            r::STORAGE_POOL_CREATE_XML | r::STORAGE_POOL_DEFINE_XML => {
                self.one(Class::StoragePool, "pool", args.text("xml"))
            }
            r::STORAGE_VOL_CREATE_XML | r::STORAGE_VOL_CREATE_XML_FROM => {
                self.one(Class::StorageVol, "volume", args.text("xml"))
            }
            r::INTERFACE_DEFINE_XML => self.interfaces(args.text("xml")),
            r::NODE_DEVICE_CREATE_XML | r::NODE_DEVICE_DEFINE_XML => {
                self.node_device(args.text("xml_desc"))
            }
            r::NWFILTER_DEFINE_XML | r::NWFILTER_DEFINE_XML_FLAGS => {
                self.one(Class::Nwfilter, "filter", args.text("xml"))
            }
            r::NWFILTER_BINDING_CREATE_XML => {
                self.one(Class::NwfilterBinding, "filterbinding", args.text("xml"))
            }
            r::SECRET_DEFINE_XML => self.one(Class::Secret, "secret", args.text("xml")),
            _ => Ok(()),
        }
    }

    fn domain(&mut self, text: Option<&str>) -> Result<(), Unreadable> {
        if let Some(text) = text {
            self.named.push(domain_named(text, self.marks)?);
        }
        Ok(())
    }

    /// The domains in a snapshot or checkpoint: when it is defined again they come with it, and
    /// one day the domain is reverted to them.
    fn moment(&mut self, text: Option<&str>) -> Result<(), Unreadable> {
        let Some(text) = text else {
            return Ok(());
        };
        let document = xml::parse(text)?;
        let root = xml::root(&document, &["domainsnapshot", "domaincheckpoint"])?;
        self.inner_domains(root)
    }

    fn inner_domains(&mut self, root: Node<'_, '_>) -> Result<(), Unreadable> {
        for name in ["domain", "inactiveDomain"] {
            if let Some(inner) = xml::child(root, name)? {
                self.named.push(domain(inner, self.marks)?);
            }
        }
        Ok(())
    }

    /// What a migration brings or takes away: a new name counts for more than the XML's.
    fn migration<'x>(
        &mut self,
        args: &Payload<'_>,
        name: Option<&str>,
        xml: impl Iterator<Item = &'x str>,
    ) -> Result<(), Unreadable> {
        let first = self.named.len();
        for text in xml {
            self.domain(Some(text))?;
        }
        for cookie in ["cookie", "cookie_in"] {
            if let Some(text) = document::cookie_text(args, cookie)? {
                let document = xml::parse(text)?;
                self.inner_domains(document.root_element())?;
            }
        }
        let Some(name) = name else {
            return Ok(());
        };
        if name.is_empty() {
            return Err(Unreadable::new("the new name is empty"));
        }
        for named in self.named.iter_mut().skip(first) {
            named.name = Some(name.to_owned());
        }
        if self.named.len() == first {
            self.named.push(Named::called(Class::Domain, name));
        }
        Ok(())
    }

    /// Metadata that is set: it may be what says the owner.
    fn set_metadata(&mut self, args: &Payload<'_>) -> Result<(), Unreadable> {
        /// `VIR_DOMAIN_METADATA_ELEMENT`; titles and descriptions are others.
        const ELEMENT: u64 = 2;
        if args.word("type") != Some(ELEMENT) {
            return Ok(());
        }
        let uri = args.text("uri").unwrap_or_default();
        let mark = self.marks.iter().find(|mark| mark.namespace == uri);
        let mut owner = None;
        if let Some(text) = args.text("metadata") {
            let document = xml::parse_metadata(text)?;
            let top = document.root_element();
            let namespace = top.tag_name().namespace();
            // libvirt leaves the element in its own namespace, and removes what is in the other.
            if namespace.is_some_and(|namespace| namespace != uri) {
                return Err(Unreadable::new(
                    "the element of metadata is in another namespace than the call's",
                ));
            }
            if let Some(mark) = mark {
                owner = mark.read(top)?;
            }
        }
        if mark.is_some() {
            self.named.push(Named {
                owner: owner.map_or(NamedOwner::None, NamedOwner::Is),
                ..Named::of(Class::Domain)
            });
        }
        Ok(())
    }

    fn one(&mut self, class: Class, root: &str, text: Option<&str>) -> Result<(), Unreadable> {
        let document = xml::parse(text.unwrap_or_default())?;
        self.named
            .push(object(class, xml::root(&document, &[root])?)?);
        Ok(())
    }

    /// An interface, and those that it is made of: they are defined with it.
    fn interfaces(&mut self, text: Option<&str>) -> Result<(), Unreadable> {
        let document = xml::parse(text.unwrap_or_default())?;
        let root = xml::root(&document, &["interface"])?;
        for node in xml::elements(root) {
            if node.tag_name().name() == "interface" {
                self.named.push(object(Class::Interface, node)?);
            }
        }
        Ok(())
    }

    /// A device that is made gets its name from the host, whatever the XML says; the device that it
    /// is made on is named.
    fn node_device(&mut self, text: Option<&str>) -> Result<(), Unreadable> {
        let document = xml::parse(text.unwrap_or_default())?;
        let root = xml::root(&document, &["device"])?;
        self.named.push(Named::of(Class::NodeDevice));
        if let Some(parent) = xml::child_text(root, "parent")? {
            self.named.push(Named::called(Class::NodeDevice, &parent));
        }
        Ok(())
    }
}

fn texts<'a>(args: &Payload<'a>, field: &'static str) -> impl Iterator<Item = String> + use<'a> {
    args.params("params")
        .filter(move |(name, _)| *name == field)
        .filter_map(|(_, value)| match value {
            ParamValue::Text(text) => Some(text.into_owned()),
            _ => None,
        })
}
