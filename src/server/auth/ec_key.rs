//! Private keys of elliptic curves as GnuTLS writes them.
//!
//! RFC 5915 gives the private number a fixed length, that of the curve. `certtool` writes it as an
//! integer: a zero in front in one case of two, a byte fewer in one of 256. The TLS library takes
//! the fixed length only, so the number is brought to it.

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};

const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;
/// `[1] EXPLICIT`, the public key within a private one.
const PUBLIC_KEY: u8 = 0xa1;
/// `id-ecPublicKey` as an encoded object identifier.
const EC: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];

/// The key with its number at full length; any other key as it is.
pub(super) fn at_full_length(key: PrivateKeyDer<'static>) -> PrivateKeyDer<'static> {
    let changed = match &key {
        PrivateKeyDer::Sec1(sec1) => sec1_at_full_length(sec1.secret_sec1_der())
            .map(|der| PrivateSec1KeyDer::from(der).into()),
        PrivateKeyDer::Pkcs8(pkcs8) => pkcs8_at_full_length(pkcs8.secret_pkcs8_der())
            .map(|der| PrivatePkcs8KeyDer::from(der).into()),
        _ => None,
    };
    changed.unwrap_or(key)
}

/// `ECPrivateKey`: version, number, curve if it is said, public key.
fn sec1_at_full_length(der: &[u8]) -> Option<Vec<u8>> {
    let (SEQUENCE, body, []) = element(der)? else {
        return None;
    };
    let (INTEGER, version, rest) = element(body)? else {
        return None;
    };
    let (OCTET_STRING, number, optional) = element(rest)? else {
        return None;
    };
    let mut rest = optional;
    let point = loop {
        let (tag, content, after) = element(rest)?;
        if tag == PUBLIC_KEY {
            let (BIT_STRING, point, []) = element(content)? else {
                return None;
            };
            break point;
        }
        rest = after;
    };
    // Behind the count of unused bits and the form, two coordinates of the length that we want.
    let length = point.len().checked_sub(2)? / 2;
    let zeros = number.iter().take_while(|byte| **byte == 0).count();
    let significant = number.get(zeros..)?;
    let mut full = vec![0; length.checked_sub(significant.len())?];
    full.extend_from_slice(significant);
    let mut out = encoded(INTEGER, version);
    out.extend(encoded(OCTET_STRING, &full));
    out.extend_from_slice(optional);
    Some(encoded(SEQUENCE, &out))
}

/// `PrivateKeyInfo`: version, algorithm, the key in an octet string, attributes.
fn pkcs8_at_full_length(der: &[u8]) -> Option<Vec<u8>> {
    let (SEQUENCE, body, []) = element(der)? else {
        return None;
    };
    let (INTEGER, version, rest) = element(body)? else {
        return None;
    };
    let (SEQUENCE, algorithm, rest) = element(rest)? else {
        return None;
    };
    if !algorithm.starts_with(EC) {
        return None;
    }
    let (OCTET_STRING, key, attributes) = element(rest)? else {
        return None;
    };
    let mut out = encoded(INTEGER, version);
    out.extend(encoded(SEQUENCE, algorithm));
    out.extend(encoded(OCTET_STRING, &sec1_at_full_length(key)?));
    out.extend_from_slice(attributes);
    Some(encoded(SEQUENCE, &out))
}

/// Tag, content and what follows of the DER element that `der` begins with. Two bytes of length are
/// more than a key needs.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (length, rest) = match der {
        [_, short, rest @ ..] if *short < 0x80 => (usize::from(*short), rest),
        [_, 0x81, length, rest @ ..] => (usize::from(*length), rest),
        [_, 0x82, high, low, rest @ ..] => (usize::from(u16::from_be_bytes([*high, *low])), rest),
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    Some((*der.first()?, content, after))
}

/// The shortest encoding of an element of at most 64 KiB.
fn encoded(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let [.., high, low] = content.len().to_be_bytes();
    match (high, low) {
        (0, 0..0x80) => out.push(low),
        (0, _) => out.extend([0x81, low]),
        _ => out.extend([0x82, high, low]),
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failed unwrap is the failed test"
)]
mod tests {
    use super::*;
    use rcgen::KeyPair;
    use rustls::crypto::ring::sign::any_supported_type;

    /// A key and the same with its number written as an integer, or cut short, in both forms.
    fn variants() -> (Vec<u8>, Vec<PrivateKeyDer<'static>>) {
        let good = KeyPair::generate().unwrap().serialize_der();
        let (_, body, _) = element(&good).unwrap();
        let (_, version, rest) = element(body).unwrap();
        let (_, algorithm, rest) = element(rest).unwrap();
        let (_, sec1, _) = element(rest).unwrap();
        let (_, sec1_body, _) = element(sec1).unwrap();
        let (_, one, rest) = element(sec1_body).unwrap();
        let (_, number, optional) = element(rest).unwrap();
        let mut bad = Vec::new();
        for wrong in [[&[0], number].concat(), [&[0, 0], number].concat()] {
            let inner = [
                encoded(INTEGER, one),
                encoded(OCTET_STRING, &wrong),
                optional.to_vec(),
            ];
            let inner = encoded(SEQUENCE, &inner.concat());
            let outer = [
                encoded(INTEGER, version),
                encoded(SEQUENCE, algorithm),
                encoded(OCTET_STRING, &inner),
            ];
            bad.push(PrivateSec1KeyDer::from(inner).into());
            bad.push(PrivatePkcs8KeyDer::from(encoded(SEQUENCE, &outer.concat())).into());
        }
        (good, bad)
    }

    #[test]
    fn a_number_of_another_length_is_brought_to_its_own() {
        let (good, bad) = variants();
        let public = |key: &PrivateKeyDer<'_>| {
            let key = any_supported_type(key).unwrap();
            key.public_key().unwrap().into_owned()
        };
        let good: PrivateKeyDer<'static> = PrivatePkcs8KeyDer::from(good).into();
        for key in bad {
            assert!(any_supported_type(&key).is_err(), "it needs no help");
            assert_eq!(public(&at_full_length(key)), public(&good));
        }
        assert_eq!(public(&at_full_length(good.clone_key())), public(&good));
    }

    #[test]
    fn a_short_number_is_filled_up() {
        let point = [&[0, 4][..], &[7; 64]].concat();
        let key = |number: &[u8]| {
            let body = [
                encoded(INTEGER, &[1]),
                encoded(OCTET_STRING, number),
                encoded(PUBLIC_KEY, &encoded(BIT_STRING, &point)),
            ];
            encoded(SEQUENCE, &body.concat())
        };
        assert_eq!(
            sec1_at_full_length(&key(&[9; 31])),
            Some(key(&[&[0], &[9; 31][..]].concat()))
        );
        assert_eq!(sec1_at_full_length(&key(&[9; 33])), None, "too long");
    }

    #[test]
    fn other_bytes_are_left_alone() {
        let (good, _) = variants();
        for end in 0..good.len() {
            assert_eq!(pkcs8_at_full_length(&good[..end]), None);
        }
        for at in 0..good.len() {
            let mut other = good.clone();
            other[at] ^= 0x81;
            let _ = pkcs8_at_full_length(&other);
            let _ = sec1_at_full_length(&other);
        }
    }
}
