//! One pass over a document's text before it is parsed. It is lexical and linear, so that what
//! would make a parser work or remember much is refused at little cost.

use super::Unreadable;

/// Bytes of a document. The longest that are met have some 100 KiB: a snapshot with two domains of
/// hundreds of devices.
pub(in crate::policy) const MAX_BYTES: usize = 1024 * 1024;
/// Elements, texts and comments of a document; about one for every ten of its bytes.
pub(super) const MAX_NODES: u32 = 100_000;
/// Elements in each other; libxml2 has the same bound. Backing chains nest, one level a file.
const MAX_DEPTH: usize = 256;
/// Attributes of one element. libvirt's longest have some 20, and comparing each with each is
/// quadratic.
const MAX_ATTRIBUTES: usize = 64;
/// Namespaces declared in a document: each one costs in every element that declares another.
const MAX_NAMESPACES: usize = 64;

pub(super) fn check(text: &str) -> Result<(), Unreadable> {
    if text.len() > MAX_BYTES {
        return Err(Unreadable(format!(
            "the XML has {} bytes; at most {MAX_BYTES} are read",
            text.len()
        )));
    }
    // Parsers differ over one before a character reference. Line ends have none, or LF behind it.
    if text.split('\r').skip(1).any(|line| !line.starts_with('\n')) {
        return Err(Unreadable(
            "the XML has a carriage return within a line".into(),
        ));
    }
    let mut rest = after_declaration(text)?;
    let (mut depth, mut namespaces) = (0_usize, 0_usize);
    while let Some((_, markup)) = rest.split_once('<') {
        rest = if let Some(comment) = markup.strip_prefix("!--") {
            after(comment, "-->")
        } else if let Some(data) = markup.strip_prefix("![CDATA[") {
            after(data, "]]>")
        } else if markup.starts_with('!') {
            return Err(Unreadable(
                "document types and entities are not read".into(),
            ));
        } else if markup.starts_with('?') {
            return Err(Unreadable("processing instructions are not read".into()));
        } else if let Some(close) = markup.strip_prefix('/') {
            depth = depth.saturating_sub(1);
            after(close, ">")
        } else {
            let tag = Tag::scan(markup)?;
            namespaces += tag.namespaces;
            if !tag.is_empty {
                depth += 1;
            }
            tag.rest
        };
        if depth > MAX_DEPTH {
            return Err(Unreadable(format!(
                "elements are nested deeper than {MAX_DEPTH}"
            )));
        }
        if namespaces > MAX_NAMESPACES {
            return Err(Unreadable(format!(
                "more than {MAX_NAMESPACES} namespaces are declared"
            )));
        }
    }
    Ok(())
}

fn after<'a>(text: &'a str, end: &str) -> &'a str {
    text.split_once(end).map_or("", |(_, rest)| rest)
}

/// What follows the XML declaration, which must not say that the text is anything but XML 1.0 in
/// UTF-8: libxml2 would decode it anew, and see other characters.
fn after_declaration(text: &str) -> Result<&str, Unreadable> {
    if text.starts_with('\u{feff}') {
        return Err(Unreadable("the XML begins with a byte order mark".into()));
    }
    let Some(declaration) = text.strip_prefix("<?xml") else {
        return Ok(text);
    };
    let Some((declaration, rest)) = declaration.split_once("?>") else {
        return Err(Unreadable("the XML declaration does not end".into()));
    };
    let mut said = declaration;
    if !said.starts_with(' ') {
        return Err(Unreadable("processing instructions are not read".into()));
    }
    if pseudo_attribute(&mut said, "version") != Some("1.0") {
        return Err(Unreadable("only XML version 1.0 is read".into()));
    }
    if let Some(encoding) = pseudo_attribute(&mut said, "encoding") {
        let is = |known: &str| encoding.eq_ignore_ascii_case(known);
        let ascii = is("US-ASCII") && text.is_ascii();
        if !(is("UTF-8") || is("UTF8") || ascii) {
            return Err(Unreadable(format!(
                "the XML says that it is in {encoding:?}; only UTF-8 is read"
            )));
        }
    }
    pseudo_attribute(&mut said, "standalone");
    if said.trim_ascii().is_empty() {
        Ok(rest)
    } else {
        Err(Unreadable("the XML declaration cannot be read".into()))
    }
}

/// Takes ` name = "value"` from the front of `text`, if it is there.
fn pseudo_attribute<'a>(text: &mut &'a str, name: &str) -> Option<&'a str> {
    let rest = text.trim_ascii_start();
    if rest.len() == text.len() {
        return None;
    }
    let rest = rest.strip_prefix(name)?.trim_ascii_start();
    let rest = rest.strip_prefix('=')?.trim_ascii_start();
    let quote = rest
        .chars()
        .next()
        .filter(|one| matches!(one, '"' | '\''))?;
    let (value, rest) = rest.get(1..)?.split_once(quote)?;
    *text = rest;
    Some(value)
}

/// A start tag.
struct Tag<'a> {
    namespaces: usize,
    is_empty: bool,
    rest: &'a str,
}

impl<'a> Tag<'a> {
    /// Reads one from behind its `<`. Whether it is well-formed is for the parser to say.
    fn scan(text: &'a str) -> Result<Self, Unreadable> {
        let mut rest = text;
        let (mut attributes, mut namespaces) = (0, 0);
        loop {
            let Some(place) = rest.find(['>', '"', '\'']) else {
                return Ok(Self {
                    namespaces,
                    is_empty: false,
                    rest: "",
                });
            };
            let (plain, end) = rest.split_at(place);
            // The element's own name is before the first attribute's.
            let mut declares = false;
            for name in plain.split(|one: char| one.is_ascii_whitespace() || "=/".contains(one)) {
                check_name(name)?;
                declares |= name == "xmlns" || name.starts_with("xmlns:");
            }
            let mut after = end.chars();
            match after.next() {
                Some(quote @ ('"' | '\'')) => {
                    attributes += 1;
                    if attributes > MAX_ATTRIBUTES {
                        return Err(Unreadable(format!(
                            "an element has more than {MAX_ATTRIBUTES} attributes"
                        )));
                    }
                    let (value, next) = after.as_str().split_once(quote).unwrap_or_default();
                    if declares {
                        namespaces += 1;
                        // libxml2 does not resolve all of them there.
                        if value.contains('&') {
                            return Err(Unreadable("a namespace has a reference in it".into()));
                        }
                    }
                    rest = next;
                }
                _ => {
                    return Ok(Self {
                        namespaces,
                        is_empty: plain.ends_with('/'),
                        rest: after.as_str(),
                    });
                }
            }
        }
    }
}

/// Parsers differ over colons: to libxml2 `:a` is a name without namespace, and `p:xmlns` an
/// attribute like any other.
fn check_name(name: &str) -> Result<(), Unreadable> {
    let odd = match name.split_once(':') {
        None => false,
        Some((prefix, local)) => prefix.is_empty() || local == "xmlns" || local.contains(':'),
    };
    if odd {
        return Err(Unreadable(format!("{name:?} is no name")));
    }
    Ok(())
}
