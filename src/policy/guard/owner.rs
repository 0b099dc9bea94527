//! The owner of a domain: read from its metadata, and written into it.
//!
//! libvirt keeps of `<metadata>` only elements in namespaces, one of each namespace: the first. Two
//! in a mark's namespace are refused, so that which one is first never matters.

use super::Named;
use super::named::NamedOwner;
use crate::policy::access::OwnerMark;
use crate::policy::xml::{self, Node, Unreadable};

impl OwnerMark {
    /// What the mark says that begins with this element; `None` if it does not begin there.
    ///
    /// libvirt takes elements without a namespace for ones in that of the mark: it writes the
    /// namespace into what is set, and leaves it out of what is asked for. So both count here.
    pub(super) fn read(&self, top: Node<'_, '_>) -> Result<Option<String>, Unreadable> {
        if !self.is_ours(top) {
            return Ok(None);
        }
        let mut node = top;
        for step in &self.path {
            let is_step = |child: &Node<'_, '_>| {
                let name = child.tag_name();
                name.name() == step && self.is_ours(*child)
            };
            let mut steps = node
                .children()
                .filter(|child| child.is_element())
                .filter(is_step);
            match (steps.next(), steps.next()) {
                (None, _) => return Ok(None),
                (Some(only), None) => node = only,
                _ => return Err(ambiguous(step)),
            }
        }
        let owner = match &self.attribute {
            Some(attribute) => match node.attribute(attribute.as_str()) {
                Some(value) => value.into(),
                None => return Ok(None),
            },
            None => xml::text(node)?,
        };
        let owner = owner.trim_ascii();
        if owner.is_empty() || owner.chars().any(char::is_control) {
            return Err(Unreadable::new(
                "the owner in the metadata is empty or no line of text",
            ));
        }
        Ok(Some(owner.to_owned()))
    }

    fn is_ours(&self, node: Node<'_, '_>) -> bool {
        let namespace = node.tag_name().namespace();
        namespace.is_none_or(|namespace| namespace == self.namespace)
    }
}

fn ambiguous(what: &str) -> Unreadable {
    Unreadable::new(format!("the metadata has more than one owner mark: {what}"))
}

/// The owner in a metadata element as the daemon gives it for a mark's namespace.
///
/// # Errors
/// It cannot be read, or says more than one owner. Nobody may then be taken for the owner.
pub fn owner_in_metadata(text: &str, mark: &OwnerMark) -> Result<Option<String>, Unreadable> {
    mark.read(xml::parse_metadata(text)?.root_element())
}

/// The owner that a domain's XML says; all marks that are there must agree.
pub(super) fn owner_of_domain(
    domain: Node<'_, '_>,
    marks: &[OwnerMark],
) -> Result<NamedOwner, Unreadable> {
    let Some(metadata) = xml::child(domain, "metadata")? else {
        return Ok(NamedOwner::None);
    };
    let mut owner = NamedOwner::None;
    for mark in marks {
        let mut tops = in_namespace(metadata, &mark.namespace);
        let said = match (tops.next(), tops.next()) {
            (None, _) => None,
            (Some(only), None) => mark.read(only)?,
            _ => return Err(ambiguous(&mark.namespace)),
        };
        owner = match (owner, said) {
            (owner, None) => owner,
            (NamedOwner::Is(one), Some(other)) if one != other => {
                return Err(Unreadable::new(format!(
                    "the metadata says that the owner is {one:?} and {other:?}"
                )));
            }
            (_, Some(said)) => NamedOwner::Is(said),
        };
    }
    Ok(owner)
}

fn in_namespace<'a, 'i>(
    metadata: Node<'a, 'i>,
    namespace: &str,
) -> impl Iterator<Item = Node<'a, 'i>> {
    metadata
        .children()
        .filter(move |child| child.is_element() && child.tag_name().namespace() == Some(namespace))
}

/// Writes the owner into a domain's XML, by our own mark. All else stays byte for byte. `None` if
/// the XML says an owner already, by any mark.
///
/// # Errors
/// The XML is no domain that can be read.
pub fn stamp(text: &str, owner: &str, marks: &[OwnerMark]) -> Result<Option<String>, Unreadable> {
    let document = xml::parse(text)?;
    let domain = xml::root(&document, &["domain"])?;
    if owner_of_domain(domain, marks)? != NamedOwner::None {
        return Ok(None);
    }
    let mark = format!(
        "<virtproxyd:owner xmlns:virtproxyd=\"{}\">{}</virtproxyd:owner>",
        OwnerMark::OURS,
        escaped(owner)
    );
    let (within, mark) = match xml::child(domain, "metadata")? {
        // libvirt would keep one of the two only.
        Some(metadata) if in_namespace(metadata, OwnerMark::OURS).next().is_some() => {
            return Err(ambiguous(OwnerMark::OURS));
        }
        Some(metadata) => (metadata, mark),
        None => (domain, format!("<metadata>{mark}</metadata>")),
    };
    let range = within.range();
    let cut = |what| Unreadable::new(format!("the domain's XML has no {what}"));
    let element = text.get(range.clone()).ok_or_else(|| cut("element"))?;
    let tag = start_tag(element).ok_or_else(|| cut("start tag"))?;
    let (before, after) = text
        .split_at_checked(range.start + tag.len())
        .ok_or_else(|| cut("start tag"))?;
    let stamped = match before.strip_suffix("/>") {
        Some(before) => {
            let name = within.tag_name().name();
            format!("{before}>{mark}</{name}>{after}")
        }
        None => format!("{before}{mark}{after}"),
    };
    // What goes to the daemon is what a later reader will see.
    match super::domain_named(&stamped, &[OwnerMark::ours()]) {
        Ok(Named {
            owner: NamedOwner::Is(said),
            ..
        }) if said == owner => Ok(Some(stamped)),
        _ => Err(Unreadable::new(
            "the owner cannot be written into the domain's XML",
        )),
    }
}

/// The start tag of an element, to its `>`, which may also be in the value of an attribute.
fn start_tag(element: &str) -> Option<&str> {
    let mut quote = None;
    let end = element.find(|one| match (quote, one) {
        (None, '>') => true,
        (None, '"' | '\'') => {
            quote = Some(one);
            false
        }
        (Some(open), one) => {
            if open == one {
                quote = None;
            }
            false
        }
        _ => false,
    })?;
    element.get(..=end)
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for one in text.chars() {
        match one {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            one => escaped.push(one),
        }
    }
    escaped
}
