//! An object by the root element of its XML.

use std::borrow::Cow;

use super::{Named, owner_of_domain};
use crate::policy::access::OwnerMark;
use crate::policy::xml::{self, Node, Unreadable};
use crate::protocol::object::Class;

/// A domain, by its element.
pub(super) fn domain(node: Node<'_, '_>, marks: &[OwnerMark]) -> Result<Named, Unreadable> {
    Ok(Named {
        owner: owner_of_domain(node, marks)?,
        ..object(Class::Domain, node)?
    })
}

/// An object of this class, by the root element of its XML.
pub(super) fn object(class: Class, node: Node<'_, '_>) -> Result<Named, Unreadable> {
    let mut named = Named::of(class);
    let name = match class {
        Class::Nwfilter | Class::Interface => attribute(node, "name"),
        Class::NwfilterBinding => child_attribute(node, "portdev", "name")?,
        // They have none.
        Class::NetworkPort | Class::Secret => None,
        _ => Some(required(xml::child_text(node, "name")?, node, "name")?),
    };
    named.name = name.map(|name| line(name, "name")).transpose()?;
    if let Some(uuid) = xml::child_text(node, "uuid")? {
        let uuid = uuid
            .parse()
            .map_err(|_| Unreadable::new(format!("{uuid:?} is no UUID")))?;
        named.uuid = Some(uuid);
    }
    match class {
        Class::NwfilterBinding => {
            named.filter = child_attribute(node, "filterref", "filter")?;
        }
        Class::Interface => named.mac = child_attribute(node, "mac", "address")?,
        Class::Secret => (named.usage_type, named.usage) = usage(node)?,
        _ => {}
    }
    match class {
        // These are found by it alone.
        Class::Nwfilter | Class::Interface | Class::NwfilterBinding => {
            required(named.name.as_deref().map(Into::into), node, "name")?;
        }
        _ => {}
    }
    Ok(named)
}

fn attribute(node: Node<'_, '_>, name: &str) -> Option<String> {
    node.attribute(name).map(ToOwned::to_owned)
}

fn child_attribute(
    node: Node<'_, '_>,
    name: &str,
    key: &str,
) -> Result<Option<String>, Unreadable> {
    Ok(xml::child(node, name)?.and_then(|child| attribute(child, key)))
}

fn required(
    text: Option<Cow<'_, str>>,
    node: Node<'_, '_>,
    what: &str,
) -> Result<String, Unreadable> {
    let text = text.filter(|text| !text.is_empty()).ok_or_else(|| {
        Unreadable::new(format!("the <{}> has no {what}", node.tag_name().name()))
    })?;
    Ok(text.into_owned())
}

/// A name is one line: parsers differ over how other control characters come through.
fn line(text: String, what: &str) -> Result<String, Unreadable> {
    if text.chars().any(char::is_control) {
        return Err(Unreadable::new(format!(
            "the {what} {text:?} is no line of text"
        )));
    }
    Ok(text)
}

/// What a secret is for: the kind's number, and the element that names the one thing.
fn usage(secret: Node<'_, '_>) -> Result<(Option<i32>, Option<String>), Unreadable> {
    const KINDS: [(&str, i32, &str); 5] = [
        ("volume", 1, "volume"),
        ("ceph", 2, "name"),
        ("iscsi", 3, "target"),
        ("tls", 4, "name"),
        ("vtpm", 5, "name"),
    ];
    let Some(usage) = xml::child(secret, "usage")? else {
        return Ok((Some(0), Some(String::new())));
    };
    let kind = usage.attribute("type").unwrap_or_default();
    if kind == "none" {
        return Ok((Some(0), Some(String::new())));
    }
    let Some((_, number, element)) = KINDS.iter().find(|(known, ..)| *known == kind) else {
        return Err(Unreadable::new(format!(
            "secrets for {kind:?} are not known"
        )));
    };
    let thing = xml::child_text(usage, element)?;
    Ok((Some(*number), Some(required(thing, usage, element)?)))
}
