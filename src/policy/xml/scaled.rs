//! Numbers with units, as libvirt reads them (`virScaleInteger`).

use super::{Node, Unreadable, child, text};

/// Bytes in the child element of this name; `None` if it is not there. `scale` is what one is
/// where the element names no unit. More than can be counted is the most that can.
pub(in crate::policy) fn child_bytes(
    node: Node<'_, '_>,
    name: &str,
    scale: u64,
) -> Result<Option<u64>, Unreadable> {
    let Some(child) = child(node, name)? else {
        return Ok(None);
    };
    bytes(&text(child)?, child.attribute("unit"), scale).map(Some)
}

/// Bytes in a text of digits and a unit: `k`, `KiB` are 1024, `KB` is 1000, and so on up to `E`.
pub(in crate::policy) fn bytes(
    text: &str,
    unit: Option<&str>,
    scale: u64,
) -> Result<u64, Unreadable> {
    let unit = unit.unwrap_or_default().to_ascii_lowercase();
    let wrong = || Unreadable::new(format!("{unit:?} is no unit of bytes"));
    let scale = match &*unit {
        "" => scale,
        "b" | "byte" | "bytes" => 1,
        _ => {
            let (prefix, rest) = unit.split_at_checked(1).ok_or_else(wrong)?;
            let base: u64 = match rest {
                "" | "ib" => 1024,
                "b" => 1000,
                _ => return Err(wrong()),
            };
            let place = "kmgtpe"
                .find(prefix)
                .and_then(|place| u32::try_from(place).ok());
            base.saturating_pow(place.ok_or_else(wrong)? + 1)
        }
    };
    Ok(number(text)?.saturating_mul(scale))
}

/// A number in decimal digits, with spaces around it.
pub(in crate::policy) fn number(text: &str) -> Result<u64, Unreadable> {
    let digits = text.trim_ascii();
    let plain = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
    let number = plain.then(|| digits.parse().ok()).flatten();
    number.ok_or_else(|| Unreadable::new(format!("{text:?} is no number")))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is the failed test")]
mod tests {
    use super::*;

    #[test]
    fn units_are_those_of_libvirt() {
        for (text, unit, expected) in [
            ("1", None, 1024),
            ("1", Some(""), 1024),
            (" 2\n", Some("KiB"), 2048),
            ("2", Some("k"), 2048),
            ("2", Some("KB"), 2000),
            ("1", Some("MiB"), 1 << 20),
            ("1", Some("g"), 1 << 30),
            ("1", Some("GB"), 1_000_000_000),
            ("7", Some("bytes"), 7),
            ("010", Some("b"), 10),
            ("99999999", Some("EiB"), u64::MAX),
        ] {
            assert_eq!(
                bytes(text, unit, 1024).unwrap(),
                expected,
                "{text} {unit:?}"
            );
        }
        for (text, unit) in [
            ("-1", None),
            ("+1", None),
            ("1x", None),
            ("0x10", None),
            ("1e3", None),
            ("", None),
            ("99999999999999999999", None),
            ("1", Some("X")),
            ("1", Some("kbit")),
            ("1", Some(" KiB")),
            ("1", Some("\u{e4}B")),
        ] {
            assert!(bytes(text, unit, 1024).is_err(), "{text} {unit:?}");
        }
    }
}
