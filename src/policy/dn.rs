//! Distinguished names in the text form of RFC 4514: `CN=ci,OU=Ops,O=Acme,C=DE`.

/// Attributes that have a name of their own, with what else people call them and their object
/// identifiers. What is not here is written with its object identifier.
const NAMES: &[(&str, &[&str], &str)] = &[
    ("CN", &["COMMONNAME"], "2.5.4.3"),
    ("surName", &["SN"], "2.5.4.4"),
    ("serialNumber", &[], "2.5.4.5"),
    ("C", &["COUNTRYNAME"], "2.5.4.6"),
    ("L", &["LOCALITYNAME"], "2.5.4.7"),
    ("ST", &["S", "STATEORPROVINCENAME"], "2.5.4.8"),
    ("street", &["STREETADDRESS"], "2.5.4.9"),
    ("O", &["ORGANIZATIONNAME"], "2.5.4.10"),
    ("OU", &["ORGANIZATIONALUNITNAME"], "2.5.4.11"),
    ("title", &[], "2.5.4.12"),
    ("description", &[], "2.5.4.13"),
    ("businessCategory", &[], "2.5.4.15"),
    ("postalCode", &[], "2.5.4.17"),
    ("name", &[], "2.5.4.41"),
    ("givenName", &["GN"], "2.5.4.42"),
    ("initials", &[], "2.5.4.43"),
    ("generationQualifier", &[], "2.5.4.44"),
    ("dnQualifier", &[], "2.5.4.46"),
    ("pseudonym", &[], "2.5.4.65"),
    ("UID", &["USERID"], "0.9.2342.19200300.100.1.1"),
    ("DC", &["DOMAINCOMPONENT"], "0.9.2342.19200300.100.1.25"),
    ("EMAIL", &["EMAILADDRESS", "E"], "1.2.840.113549.1.9.1"),
];

/// The name of an attribute, as GnuTLS prints it, by its object identifier in dotted form.
pub(crate) fn name_of(identifier: &str) -> Option<&'static str> {
    let found = NAMES.iter().find(|(_, _, known)| *known == identifier);
    found.map(|(name, _, _)| *name)
}

/// Appends `value` with what RFC 4514 wants escaped: the separators, a space at either end and a
/// `#` at the beginning.
pub(crate) fn escape(value: &str, out: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (index, c) in value.chars().enumerate() {
        let special = match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => true,
            ' ' => index == 0 || index == last,
            '#' => index == 0,
            _ => false,
        };
        if special {
            out.push('\\');
        }
        // Neither may end a line of a log or a C string.
        if c.is_control() {
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                out.push_str(&format!("\\{byte:02X}"));
            }
        } else {
            out.push(c);
        }
    }
}

/// The same name the other way round, as libvirt writes it (`tls_allowed_dn_list`, and what it tells
/// of a client): `C=DE,O=Acme,OU=Ops,CN=ci`.
pub(crate) fn reversed(name: &str) -> String {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (index, byte) in name.bytes().enumerate() {
        if byte == b',' && !escaped {
            parts.push(name.get(start..index).unwrap_or_default());
            start = index + 1;
        }
        escaped = byte == b'\\' && !escaped;
    }
    parts.push(name.get(start..).unwrap_or_default());
    parts.reverse();
    parts.join(",")
}

/// Reads a name into its attributes, each with the name that [`name_of`] gives it, or with its
/// object identifier. `None` if it is no such text.
pub(crate) fn parse(text: &str) -> Option<Vec<(String, String)>> {
    let mut attributes = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (kind, after) = rest.split_once('=')?;
        let (value, after) = value(after)?;
        attributes.push((canonical(kind.trim())?, value));
        rest = match after {
            Some("") => return None,
            Some(after) => after,
            None => "",
        };
    }
    Some(attributes)
}

fn canonical(kind: &str) -> Option<String> {
    let upper = kind.to_uppercase();
    let found = NAMES.iter().find(|(name, others, identifier)| {
        name.to_uppercase() == upper || others.contains(&&*upper) || *identifier == kind
    });
    let dotted = || {
        kind.bytes()
            .all(|byte| byte == b'.' || byte.is_ascii_digit())
    };
    match found {
        Some((name, _, _)) => Some((*name).to_owned()),
        None if !kind.is_empty() && dotted() => Some(kind.to_owned()),
        None => None,
    }
}

/// The value that `text` begins with, and what follows its separator if there is one.
fn value(text: &str) -> Option<(String, Option<&str>)> {
    let mut bytes = Vec::new();
    // Length without unescaped spaces at the end.
    let mut kept = 0;
    let mut chars = text.trim_start_matches(' ').chars();
    loop {
        match chars.next() {
            None => break,
            Some(',' | '+' | ';') => {
                bytes.truncate(kept);
                return Some((String::from_utf8(bytes).ok()?, Some(chars.as_str())));
            }
            Some('\\') => {
                let first = chars.next()?;
                let second = chars.clone().next().and_then(|c| c.to_digit(16));
                match first.to_digit(16).zip(second) {
                    Some((high, low)) => {
                        chars.next();
                        bytes.push(u8::try_from(high * 16 + low).ok()?);
                    }
                    None => bytes.extend(first.encode_utf8(&mut [0; 4]).bytes()),
                }
                kept = bytes.len();
            }
            Some(' ') => bytes.push(b' '),
            Some(c) => {
                bytes.extend(c.encode_utf8(&mut [0; 4]).bytes());
                kept = bytes.len();
            }
        }
    }
    bytes.truncate(kept);
    Some((String::from_utf8(bytes).ok()?, None))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;

    fn pairs(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap()
    }

    fn pair(kind: &str, value: &str) -> (String, String) {
        (kind.to_owned(), value.to_owned())
    }

    #[test]
    fn names_are_read_into_their_parts() {
        assert_eq!(
            pairs("CN=ci,ou=Ops+O=Acme, emailAddress=a@b ,1.2.3=x"),
            [
                pair("CN", "ci"),
                pair("OU", "Ops"),
                pair("O", "Acme"),
                pair("EMAIL", "a@b"),
                pair("1.2.3", "x"),
            ]
        );
        assert_eq!(pairs(""), []);
        assert_eq!(pairs("CN="), [pair("CN", "")]);
        assert_eq!(pairs(r"CN=a\,b\+\C3\A4\ "), [pair("CN", "a,b+ä ")]);
    }

    #[test]
    fn a_name_is_turned_round_by_its_parts() {
        for (name, expected) in [
            ("", ""),
            ("CN=ci", "CN=ci"),
            ("CN=ci,OU=Ops+O=Acme,C=DE", "C=DE,OU=Ops+O=Acme,CN=ci"),
            (r"CN=a\,b\\,O=\\\,c", r"O=\\\,c,CN=a\,b\\"),
        ] {
            assert_eq!(reversed(name), expected);
            assert_eq!(reversed(expected), name);
        }
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for text in [
            "ci",
            "CN=ci,",
            "CN=ci,Acme",
            "=ci",
            "what=ci",
            r"CN=a\",
            r"CN=\FF",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn escaping_is_undone_by_reading() {
        for value in [
            "",
            " ",
            "  a  ",
            "#a#",
            r#"a"b+c,d;e<f>g\h"#,
            "a\nb\0",
            "ä=ö",
        ] {
            let mut text = "CN=".to_owned();
            escape(value, &mut text);
            text.push_str(",O=Acme");
            assert_eq!(
                pairs(&text),
                [pair("CN", value), pair("O", "Acme")],
                "{text}"
            );
            assert!(!text.contains(char::is_control), "{text}");
        }
    }
}
