//! The objects that a document refers to: what a domain is put on, filtered by, read from, unlocked
//! with. A name in a document reaches the object as well as a call on it does.

use super::content::{Carried, Content};
use super::document::{Document, Kind};
use super::named::Named;
use crate::policy::xml::{self, Node, Unreadable};
use crate::protocol::object::Class;

/// The objects of other classes that content refers to.
///
/// # Errors
/// A reference cannot be read.
pub fn references(content: &Content<'_>) -> Result<Vec<Named>, Unreadable> {
    let mut references = Vec::new();
    if let Content(Carried::Document(document)) = content {
        for node in xml::elements(document.root()) {
            if !xml::is_metadata(node) {
                refers(document, node, &mut references)?;
            }
        }
    }
    Ok(references)
}

fn refers(
    document: &Document<'_>,
    node: Node<'_, '_>,
    references: &mut Vec<Named>,
) -> Result<(), Unreadable> {
    let of_domain = document.kind.is_of_domain();
    match node.tag_name().name() {
        "source" | "listen" if of_domain => {
            let network = node.attribute("network").filter(|name| !name.is_empty());
            references.extend(network.map(|name| Named::called(Class::Network, name)));
        }
        "filterref" => {
            let filter = node.attribute("filter").unwrap_or_default();
            references.push(Named::called(Class::Nwfilter, filter));
        }
        // A secret's own document is about it.
        "secret" if document.kind != Kind::Secret => references.push(secret(node)?),
        _ => {}
    }
    if of_domain && let Some(pool) = node.attribute("pool") {
        references.push(Named::called(Class::StoragePool, pool));
        if let Some(volume) = node.attribute("volume") {
            references.push(Named {
                pool: Some(pool.to_owned()),
                ..Named::called(Class::StorageVol, volume)
            });
        }
    }
    Ok(())
}

/// `<secret type='ceph' uuid='…'/>` or with `usage`.
fn secret(node: Node<'_, '_>) -> Result<Named, Unreadable> {
    let mut named = Named::of(Class::Secret);
    if let Some(uuid) = node.attribute("uuid") {
        let uuid = uuid.parse();
        named.uuid = Some(uuid.map_err(|_| Unreadable::new("the UUID of a secret is none"))?);
    }
    named.usage = node.attribute("usage").map(ToOwned::to_owned);
    Ok(named)
}
