//! What a certificate says, as facts.

use core::net::IpAddr;
use std::fmt::Write as _;

use ring::digest;
use x509_parser::asn1_rs::{Any, Tag};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::policy::dn;
use crate::policy::facts::{X509Facts, serial};

/// A certificate that the TLS library took but that cannot be read here: nothing may be concluded
/// from it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the certificate cannot be read: {0}")]
pub(crate) struct Unreadable(String);

/// Reads the facts of a certificate (DER). Whether it is to be trusted is decided before.
///
/// # Errors
/// It is not a certificate, or has a name that is not clear.
pub(crate) fn facts(der: &[u8]) -> Result<X509Facts, Unreadable> {
    let (rest, certificate) =
        X509Certificate::from_der(der).map_err(|error| Unreadable(error.to_string()))?;
    if !rest.is_empty() {
        return Err(Unreadable("bytes follow it".to_owned()));
    }
    let mut facts = X509Facts {
        dn: name(certificate.subject()),
        fingerprint: hex(digest::digest(&digest::SHA256, der).as_ref()),
        issuer: name(certificate.issuer()),
        serial: serial(&hex(certificate.raw_serial())),
        not_after: certificate.validity().not_after.timestamp(),
        ..X509Facts::default()
    };
    for attribute in certificate.subject().iter_attributes() {
        if let (Some(kind), Some(value)) = (known_name(attribute), text(attribute.attr_value())) {
            facts.add_attribute(kind, value);
        }
    }
    let names = certificate
        .subject_alternative_name()
        .map_err(|error| Unreadable(error.to_string()))?;
    for name in names
        .into_iter()
        .flat_map(|names| &names.value.general_names)
    {
        match name {
            GeneralName::DNSName(name) => facts.dns.push(name.to_lowercase()),
            GeneralName::IPAddress(bytes) => facts.ip.extend(address(bytes)),
            GeneralName::URI(uri) => facts.uri.push((*uri).to_owned()),
            GeneralName::RFC822Name(address) => facts.san_email.push((*address).to_owned()),
            _ => {}
        }
    }
    Ok(facts)
}

/// A name in the form of RFC 4514, which turns the order of the certificate round.
pub(crate) fn name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+"))
        .collect();
    parts.reverse();
    parts.join(",")
}

/// `name=value`, or the object identifier and the encoded value in hexadecimal digits where there
/// is no name for it or its value is no text.
fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let mut out = match known_name(attribute) {
        Some(name) => format!("{name}="),
        None => format!("{}=", attribute.attr_type().to_id_string()),
    };
    match text(attribute.attr_value()).filter(|_| known_name(attribute).is_some()) {
        Some(value) => dn::escape(&value, &mut out),
        None => {
            out.push('#');
            out.push_str(&hex(&encoded(attribute.attr_value())));
        }
    }
    out
}

fn known_name(attribute: &AttributeTypeAndValue<'_>) -> Option<&'static str> {
    dn::name_of(&attribute.attr_type().to_id_string())
}

/// The text of a string of any of the kinds that names are made of.
fn text(value: &Any<'_>) -> Option<String> {
    let data = value.data;
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::NumericString | Tag::Ia5String => {
            String::from_utf8(data.to_vec()).ok()
        }
        // In truth a maze of character sets; everybody writes and reads Latin 1.
        Tag::TeletexString => Some(data.iter().map(|byte| char::from(*byte)).collect()),
        Tag::BmpString => {
            let (units, rest) = data.as_chunks::<2>();
            let units: Vec<u16> = units.iter().map(|unit| u16::from_be_bytes(*unit)).collect();
            String::from_utf16(&units).ok().filter(|_| rest.is_empty())
        }
        Tag::UniversalString => {
            let (units, rest) = data.as_chunks::<4>();
            let units = units
                .iter()
                .map(|unit| char::from_u32(u32::from_be_bytes(*unit)));
            units
                .collect::<Option<String>>()
                .filter(|_| rest.is_empty())
        }
        _ => None,
    }
}

/// Tag, length and value in DER, for values that name attributes: short, with low tags.
fn encoded(value: &Any<'_>) -> Vec<u8> {
    let class = (value.class() as u8) << 6;
    let constructed = u8::from(value.header.is_constructed()) << 5;
    let tag = u8::try_from(value.tag().0 & 0x1f).unwrap_or_default();
    let mut out = vec![class | constructed | tag];
    match u8::try_from(value.data.len()) {
        Ok(length) if length < 0x80 => out.push(length),
        _ => {
            let bytes = value.data.len().to_be_bytes();
            let skip = bytes.iter().take_while(|byte| **byte == 0).count();
            out.push(0x80 | u8::try_from(bytes.len() - skip).unwrap_or_default());
            out.extend(bytes.iter().skip(skip));
        }
    }
    out.extend_from_slice(value.data);
    out
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    <[u8; 4]>::try_from(bytes)
        .map(IpAddr::from)
        .or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from))
        .ok()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}
