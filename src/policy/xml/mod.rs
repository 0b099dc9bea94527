//! XML that libvirt reads too.
//!
//! A decision about a document is only worth something if libvirt sees the same document. libvirt
//! reads with libxml2, by XPath expressions in some places and by local names in others, and takes
//! the first of what should be there once. So what two readers could see differently is refused
//! here: document types and entities, processing instructions, other encodings than UTF-8, other
//! versions than 1.0, names in foreign namespaces, and (see [`child`]) anything twice that libvirt
//! takes once.
//!
//! - `bounds`: one pass over the text before it is parsed: size, depth, counts, and the prolog.
//! - `scaled`: numbers with units.

mod bounds;
pub(super) mod scaled;

use std::borrow::Cow;
use std::fmt;

use roxmltree::{NodeType, ParsingOptions};

pub(super) use roxmltree::{Document, Node};

/// Content that cannot be read, or that could be read in two ways.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreadable(String);

impl Unreadable {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self(why.into())
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unreadable {}

/// What `virDomainDef` and its like keep under a namespace of their own, beside the document
/// proper: settings that go to the hypervisor, or to a helper program, as they are.
pub(super) const PASSTHROUGHS: [(&str, &str); 9] = [
    ("http://libvirt.org/schemas/domain/qemu/1.0", "qemu"),
    ("http://libvirt.org/schemas/domain/lxc/1.0", "lxc"),
    ("http://libvirt.org/schemas/domain/xen/1.0", "xen"),
    ("http://libvirt.org/schemas/domain/bhyve/1.0", "bhyve"),
    ("http://libvirt.org/schemas/domain/vmware/1.0", "vmware"),
    ("http://libvirt.org/schemas/domain/test/1.0", "test"),
    ("http://libvirt.org/schemas/network/dnsmasq/1.0", "dnsmasq"),
    ("http://libvirt.org/schemas/storagepool/fs/1.0", "fs"),
    ("http://libvirt.org/schemas/storagepool/rbd/1.0", "rbd"),
];

/// Reads a document.
///
/// # Errors
/// It is not well-formed, beyond a bound, or readable in two ways.
pub(super) fn parse(text: &str) -> Result<Document<'_>, Unreadable> {
    let document = parse_bounded(text)?;
    check_names(&document)?;
    Ok(document)
}

fn parse_bounded(text: &str) -> Result<Document<'_>, Unreadable> {
    bounds::check(text)?;
    let options = ParsingOptions {
        allow_dtd: false,
        nodes_limit: bounds::MAX_NODES,
        ..ParsingOptions::default()
    };
    Document::parse_with_options(text, options)
        .map_err(|error| Unreadable(format!("the XML cannot be read: {error}")))
}

/// Reads an element of metadata, as it is set and asked for by itself. Names in it may be in any
/// namespace.
///
/// # Errors
/// As [`parse`]; or something is before the element: libvirt would take that for it.
pub(super) fn parse_metadata(text: &str) -> Result<Document<'_>, Unreadable> {
    let document = parse_bounded(text)?;
    let first = document.root().first_child();
    if first.is_some_and(|first| first.is_element()) {
        Ok(document)
    } else {
        Err(Unreadable(
            "a comment is before the element of metadata".into(),
        ))
    }
}

/// The root element, if it has one of these names.
pub(super) fn root<'a, 'i>(
    document: &'a Document<'i>,
    names: &[&str],
) -> Result<Node<'a, 'i>, Unreadable> {
    let root = document.root_element();
    if !names.is_empty() && !names.contains(&root.tag_name().name()) {
        return Err(Unreadable(format!(
            "the document is a <{}>, not a <{}>",
            root.tag_name().name(),
            names.join("> or <")
        )));
    }
    Ok(root)
}

/// The child element of this name. More than one is an error: libvirt takes the first of them, and
/// says nothing of the others.
pub(super) fn child<'a, 'i>(
    node: Node<'a, 'i>,
    name: &str,
) -> Result<Option<Node<'a, 'i>>, Unreadable> {
    let mut found = node
        .children()
        .filter(|child| child.is_element() && child.tag_name().name() == name);
    match (found.next(), found.next()) {
        (Some(only), None) if only.tag_name().namespace().is_some() => Err(Unreadable(format!(
            "the <{name}> of <{}> is in a namespace",
            node.tag_name().name()
        ))),
        (first, None) => Ok(first),
        _ => Err(Unreadable(format!(
            "<{}> has more than one <{name}>",
            node.tag_name().name()
        ))),
    }
}

/// The name of the element that this one is right in; empty if there is none.
pub(super) fn parent_name<'a>(node: Node<'a, '_>) -> &'a str {
    let parent = node.parent_element();
    parent.map_or("", |parent| parent.tag_name().name())
}

/// The text of an element, in one piece whatever comments and CDATA sections it is made of.
///
/// # Errors
/// There are elements in it: XPath would count their text, other readers would not.
pub(super) fn text<'a>(node: Node<'a, '_>) -> Result<Cow<'a, str>, Unreadable> {
    let mut pieces = Vec::new();
    for child in node.children() {
        match child.node_type() {
            NodeType::Text => pieces.extend(child.text()),
            NodeType::Comment => {}
            _ => {
                return Err(Unreadable(format!(
                    "<{}> has elements in its text",
                    node.tag_name().name()
                )));
            }
        }
    }
    Ok(match pieces[..] {
        [] => Cow::Borrowed(""),
        [piece] => Cow::Borrowed(piece),
        _ => Cow::Owned(pieces.concat()),
    })
}

/// The text of an element that is not within elements in it.
pub(super) fn own_text(node: Node<'_, '_>) -> String {
    let texts = node.children().filter(|child| child.is_text());
    texts.filter_map(|text| text.text()).collect()
}

/// The text of the child element of this name; `None` if it is not there or empty, which are the
/// same to libvirt.
pub(super) fn child_text<'a>(
    node: Node<'a, '_>,
    name: &str,
) -> Result<Option<Cow<'a, str>>, Unreadable> {
    let Some(child) = child(node, name)? else {
        return Ok(None);
    };
    Ok(Some(text(child)?).filter(|text| !text.is_empty()))
}

/// Whether this is an element `<metadata>` that libvirt keeps as it is and reads nothing from.
pub(super) fn is_metadata(node: Node<'_, '_>) -> bool {
    let name = node.tag_name();
    name.name() == "metadata"
        && name.namespace().is_none()
        && node.parent_element().is_some_and(|parent| {
            let kept_in = ["domain", "inactiveDomain", "network"];
            is_definition(parent) && kept_in.contains(&parent.tag_name().name())
        })
}

/// Whether this is a whole definition: the document itself, or a domain right in it, as a snapshot
/// has one.
fn is_definition(node: Node<'_, '_>) -> bool {
    match node.parent_element() {
        None => true,
        Some(parent) => {
            let name = node.tag_name();
            parent.parent_element().is_none()
                && name.namespace().is_none()
                && matches!(name.name(), "domain" | "inactiveDomain")
        }
    }
}

/// All elements but those within `<metadata>`, in order.
pub(super) fn elements<'a, 'i>(top: Node<'a, 'i>) -> impl Iterator<Item = Node<'a, 'i>> {
    let mut skipped = 0;
    top.descendants().filter(move |node| {
        if !node.is_element() || node.id().get() < skipped {
            return false;
        }
        if is_metadata(*node) {
            // Nodes are numbered in document order: what is within comes before what follows.
            let last = node.descendants().next_back();
            skipped = last.map_or(0, |last| last.id().get() + 1);
        }
        true
    })
}

/// The passthrough whose namespace this element is in.
pub(super) fn passthrough(node: Node<'_, '_>) -> Option<&'static str> {
    let namespace = node.tag_name().namespace()?;
    let known = PASSTHROUGHS.iter().find(|(uri, _)| *uri == namespace);
    known.map(|(_, prefix)| *prefix)
}

/// Names in foreign namespaces are refused: some of libvirt's readers go by local names, so that
/// `<x:source>` is a source to them.
fn check_names(document: &Document<'_>) -> Result<(), Unreadable> {
    for node in elements(document.root()) {
        let name = node.tag_name();
        if let Some(namespace) = name.namespace() {
            // A `<qemu:source>` in a disk would be a source to some.
            let placed = node
                .parent_element()
                .is_some_and(|parent| is_definition(parent) || passthrough(parent).is_some());
            if passthrough(node).is_none() || !placed {
                return Err(Unreadable(format!(
                    "<{}> is in the namespace {namespace:?}, which is not for this place",
                    name.name()
                )));
            }
        }
        if let Some(attribute) = node.attributes().find(|one| one.namespace().is_some()) {
            return Err(Unreadable(format!(
                "<{}> has an attribute {:?} in a namespace",
                name.name(),
                attribute.name()
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
